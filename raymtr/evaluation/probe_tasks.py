"""Tasks of probes: what is to be predicted of each track, and which tracks are one tune.

A task is a name below, a column of the catalog, or a CSV file with `track_id,label` and, if its
author fixed one, `split` (train or test). What is predicted depends on the column: one class of
names, several tags of a list, or a number (`number:COLUMN`); a column of numbers by its bare name
(bpm, energy) is cut into thirds. The split is that of the file, else the one its dataset was
published with (the column `fold`), else the catalog's split `test`, because a model trained on this
catalog has read the words of the rest. Without any, a share of the tunes is held out.
The labels of `midi/` are exact; those of `real_music/` (genre, vocal) are weak.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from raymtr import storage
from raymtr.catalog.sources import key_words
from raymtr.errors import InputError

Row = Mapping[str, Any]
Labels = Mapping[str, Any]  # track id -> a class, a list of tags, or a number
SIDES = ("train", "valid", "test")  # of a split; tracks of `valid` are not used
HELD_OUT = 0.3  # share of the tunes, if neither the file nor the catalog holds any out
CHORDS = "steel-string guitar"  # plays the chords of a tune whose melody has one instrument
THIRDS = ("low", "middle", "high")
FEWEST_TUNES = 3  # of a class or tag: with fewer, one side of the split may have none
MOST_TAGS = 50  # the most common ones, as published for MagnaTagATune and MTG-Jamendo
NUMBER = "number:"  # before a column whose numbers are predicted
KIND_OF_TASK = "a task needs names of classes, lists of tags, or numbers"


def _instrument(row: Row) -> str | None:
    """The one instrument of a tune, or of its melody; tunes for several have no label."""
    if row.get("instrument"):
        return str(row["instrument"])
    names: list[str] = list(row.get("instruments") or ())
    if len(names) == 2 and row.get("render_program") is not None:
        names = [name for name in names if name != CHORDS]
    return names[0] if len(names) == 1 else None


def _mode(row: Row) -> str | None:
    key = _key(row)
    return key and key.split()[-1]


def _key(row: Row) -> str | None:
    return key_words(row.get("key") or "") or None


def _metre(row: Row) -> str | None:
    return row.get("metre") or row.get("meter")


TASKS: dict[str, Callable[[Row], str | None]] = {
    "instrument": _instrument,
    "key": _key,
    "mode": _mode,
    "metre": _metre,
}


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is to be predicted of each track, and the tracks of each side of the split."""

    name: str
    kind: Literal["class", "tags", "number"]
    track_ids: tuple[str, ...]
    # class: int64 [N], a number of `classes`; tags: bool [N, classes]; number: float32 [N].
    labels: np.ndarray
    classes: tuple[str, ...]  # or tags; () for a number
    train: np.ndarray  # bool [N]


def read_task(name: str, rows: Sequence[Row]) -> Task:
    """The task `name` over the catalog's rows; no tune is on both sides of its split.

    Raises InputError where fewer than two classes, or no tag or number, can be measured.
    """
    by_id = {row["track_id"]: row for row in rows if row.get("uri")}
    fixed: dict[str, str] = {}
    labels: Labels
    if name.endswith(".csv"):
        labels, fixed = _from_file(name, by_id)
    elif name in TASKS and not _has_lists(name, by_id):
        labels = {i: label for i, row in by_id.items() if (label := TASKS[name](row))}
    else:
        labels = _from_column(name.removeprefix(NUMBER), by_id)
    tunes = {i: _tune(by_id[i]) for i in labels}
    if not fixed:
        fixed = _published_split(labels, by_id) or _catalog_split(labels, by_id, tunes)
    if name.startswith(NUMBER):
        return _of_numbers(name, labels, tunes, fixed)
    if any(isinstance(label, list) for label in labels.values()):
        return _of_tags(name, labels, tunes, fixed)
    return _of_classes(name, _in_thirds(labels), tunes, fixed)


def _of_classes(
    name: str, labels: Mapping[str, str], tunes: Mapping[str, str], fixed: Mapping[str, str]
) -> Task:
    sizes = Counter(label for label, _ in {(labels[i], tunes[i]) for i in labels})
    usable = {label for label, count in sizes.items() if count >= FEWEST_TUNES}
    if fixed:
        usable &= {labels[i] for i in labels if fixed.get(i) == "train"}
        usable &= {labels[i] for i in labels if fixed.get(i) == "test"}
    classes = sorted(usable)
    if len(classes) < 2:
        seen = ", ".join(f"{label} ({count})" for label, count in sizes.most_common(5)) or "none"
        raise InputError(
            f"task {name} needs two classes of {FEWEST_TUNES} tunes each, on both sides of the "
            f"split; tunes by class: {seen}; "
            f"tasks: {', '.join(TASKS)}, a column of the catalog, or a CSV file"
        )
    ids = _on_a_side([i for i in labels if labels[i] in classes], fixed)
    return Task(
        name=name,
        kind="class",
        track_ids=tuple(ids),
        labels=np.array([classes.index(labels[i]) for i in ids]),
        classes=tuple(classes),
        train=_train_of(ids, tunes, fixed, groups=labels),
    )


def _of_tags(name: str, labels: Labels, tunes: Mapping[str, str], fixed: Mapping[str, str]) -> Task:
    """The most common tags that some tracks of each side have, and some have not."""
    ids = _on_a_side(labels, fixed)
    train = _train_of(ids, tunes, fixed)
    sizes = Counter(tag for tag, _ in {(tag, tunes[i]) for i in ids for tag in labels[i]})
    tags = [tag for tag, count in sizes.most_common() if count >= FEWEST_TUNES]
    marked = np.array([[tag in labels[i] for tag in tags] for i in ids], bool).reshape(len(ids), -1)
    usable = [
        number
        for number in range(len(tags))
        if all(len(np.unique(marked[side, number])) == 2 for side in (train, ~train))
    ][:MOST_TAGS]
    if not usable:
        raise InputError(
            f"task {name} needs a tag that some of the tracks on each side of the split have and "
            f"some have not, of {FEWEST_TUNES} tunes; tunes by tag: "
            f"{', '.join(f'{tag} ({count})' for tag, count in sizes.most_common(5)) or 'none'}"
        )
    return Task(
        name=name,
        kind="tags",
        track_ids=tuple(ids),
        labels=marked[:, usable],
        classes=tuple(tags[number] for number in usable),
        train=train,
    )


def _of_numbers(
    name: str, labels: Labels, tunes: Mapping[str, str], fixed: Mapping[str, str]
) -> Task:
    ids = _on_a_side([i for i, value in labels.items() if _is_number(value)], fixed)
    train = _train_of(ids, tunes, fixed)
    numbers = np.array([labels[i] for i in ids], np.float32)
    if any(len(np.unique(numbers[side])) < 2 for side in (train, ~train)):
        raise InputError(
            f"task {name} needs two different numbers on each side of the split, got "
            f"{len(ids)} tracks with a number"
        )
    return Task(
        name=name, kind="number", track_ids=tuple(ids), labels=numbers, classes=(), train=train
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and np.isfinite(value)


def _has_lists(column: str, by_id: Mapping[str, Row]) -> bool:
    return any(isinstance(row.get(column), list) for row in by_id.values())


def _from_column(name: str, by_id: Mapping[str, Row]) -> Labels:
    """The names, lists of tags or numbers of a column, by track id."""
    row = next(iter(by_id.values()), {})
    if row and name not in row:
        raise InputError(
            f"no task and no column {name!r}; tasks: {', '.join(TASKS)}; columns: {', '.join(row)}"
        )
    values = {i: row[name] for i, row in by_id.items() if row[name] not in (None, "")}
    kinds = {type(value) for value in values.values()}
    if not any(kinds <= allowed for allowed in ({int, float}, {str}, {list})):
        seen = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"column {name} has {seen}; {KIND_OF_TASK}")
    if kinds == {list} and any(
        not isinstance(tag, str) for tags in values.values() for tag in tags
    ):
        raise InputError(f"column {name} has lists of other things than names; {KIND_OF_TASK}")
    return values


def _in_thirds(labels: Labels) -> Mapping[str, str]:
    """Numbers as THIRDS of them; names unchanged."""
    if not labels or not {type(value) for value in labels.values()} <= {int, float}:
        return labels
    numbers = {i: float(value) for i, value in labels.items() if np.isfinite(value)}
    cuts = np.quantile(list(numbers.values()) or [0.0], (1 / 3, 2 / 3))
    return {i: THIRDS[int(np.searchsorted(cuts, value))] for i, value in numbers.items()}


def _from_file(file: str, by_id: Mapping[str, Row]) -> tuple[dict[str, str], dict[str, str]]:
    """Labels and, where the file has them, sides of the split, by track id."""
    if not storage.exists(file):
        raise InputError(f"no {file}; a task's file has the columns track_id, label, maybe split")
    lines = list(csv.DictReader(io.StringIO(storage.read_bytes(file).decode("utf-8-sig"))))
    if not lines or not {"track_id", "label"} <= set(lines[0]):
        raise InputError(f"{file} has no rows with the columns track_id and label")
    unknown = [line["track_id"] for line in lines if line["track_id"] not in by_id]
    if unknown:
        raise InputError(
            f"{len(unknown)} ids of {file} are not tracks with audio here, among them "
            f"{', '.join(unknown[:3])}"
        )
    sides = sorted({line.get("split") or "" for line in lines} - {"", *SIDES})
    if sides:
        raise InputError(f"{file} has split {sides[0]!r}; expected {', '.join(SIDES)}, or none")
    labels = {line["track_id"]: line["label"] for line in lines if line["label"]}
    return labels, {line["track_id"]: line["split"] for line in lines if line.get("split")}


def _published_split(ids: Iterable[str], by_id: Mapping[str, Row]) -> dict[str, str]:
    """The `fold` that the dataset was published with, one of SIDES."""
    return {i: fold for i in ids if (fold := by_id[i].get("fold"))}


def _catalog_split(
    ids: Iterable[str], by_id: Mapping[str, Row], tunes: Mapping[str, str]
) -> dict[str, str]:
    """`test` for tunes that the catalog holds out as a whole, else `train`; {} without any."""
    seen: dict[str, set[str | None]] = {}
    for i in ids:
        seen.setdefault(tunes[i], set()).add(by_id[i].get("split"))
    if {"test"} not in seen.values() or all(sides == {"test"} for sides in seen.values()):
        return {}
    return {i: "test" if seen[tunes[i]] == {"test"} else "train" for i in ids}


def _tune(row: Row) -> str:
    """The name that all clips of one recording share."""
    return str(row.get("recording") or row["track_id"])


def _on_a_side(ids: Collection[str], fixed: Mapping[str, str]) -> list[str]:
    """The ids that the split, if one is fixed, puts on either side, sorted."""
    return sorted(i for i in ids if not fixed or fixed.get(i) in ("train", "test"))


def _train_of(
    ids: Sequence[str],
    tunes: Mapping[str, str],
    fixed: Mapping[str, str],
    groups: Mapping[str, str] | None = None,
) -> np.ndarray:
    """Which tracks are for training: as fixed by the task, else a share of each group's tunes."""
    if fixed:
        sides: dict[str, set[str]] = {}
        for i in ids:
            sides.setdefault(tunes[i], set()).add(fixed[i])
        both = sorted(tune for tune, found in sides.items() if len(found) > 1)
        if both:
            raise InputError(
                f"{len(both)} tunes are on both sides of the split, among them {both[0]}: a probe "
                "would recognise them; give all tracks of a tune one split"
            )
        return np.array([fixed[i] == "train" for i in ids], bool)
    kept_apart: set[str] = set()
    group_of = groups or dict.fromkeys(ids, "")
    for group in sorted({group_of[i] for i in ids}):
        group_tunes = sorted({tunes[i] for i in ids if group_of[i] == group} - kept_apart)
        order = np.random.default_rng(0).permutation(len(group_tunes))
        kept_apart |= {group_tunes[n] for n in order[: max(1, round(HELD_OUT * len(group_tunes)))]}
    return np.array([tunes[i] not in kept_apart for i in ids], bool)
