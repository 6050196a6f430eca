"""Tasks of probes: a label for each track, and which tracks are one tune.

A task is a name below, a column of the catalog, or a CSV file with `track_id,label` and, if its
author fixed one, `split` (train or test). A column of numbers (bpm, energy) is cut into thirds.
Unless the file fixes the split, the catalog's split `test` is held out, because a model trained on
this catalog has read the words of the rest. If it is empty, a share of the tunes is held out.
The labels of `midi/` are exact; those of `real_music/` (genre, vocal) are weak.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raymtr import storage
from raymtr.catalog.sources import key_words
from raymtr.errors import InputError

Row = Mapping[str, Any]
HELD_OUT = 0.3  # share of the tunes, if neither the file nor the catalog holds any out
CHORDS = "steel-string guitar"  # plays the chords of a tune whose melody has one instrument
THIRDS = ("low", "middle", "high")
FEWEST_TUNES = 3  # of a class: with fewer, one side of the split may have none


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
    """Labelled tracks, and the tracks of each side of the split."""

    name: str
    track_ids: tuple[str, ...]
    labels: np.ndarray  # int64 [N], a number of `classes`
    classes: tuple[str, ...]
    train: np.ndarray  # bool [N]


def read_task(name: str, rows: Sequence[Row]) -> Task:
    """The task `name` over the catalog's rows; no tune is on both sides of its split.

    Raises InputError where fewer than two classes can be measured.
    """
    by_id = {row["track_id"]: row for row in rows if row.get("uri")}
    fixed: dict[str, str] = {}
    if name.endswith(".csv"):
        labels, fixed = _from_file(name, by_id)
    else:
        label_of = TASKS.get(name)
        labels = (
            {i: label for i, row in by_id.items() if (label := label_of(row))}
            if label_of
            else _from_column(name, by_id)
        )
    tunes = {i: _tune(by_id[i]) for i in labels}
    if not fixed:
        fixed = _catalog_split(labels, by_id, tunes)
    sizes = Counter(label for label, _ in {(labels[i], tunes[i]) for i in labels})
    usable = {label for label, count in sizes.items() if count >= FEWEST_TUNES}
    if fixed:
        usable &= {labels[i] for i in labels if fixed.get(i) == "train"}
        usable &= {labels[i] for i in labels if fixed.get(i) != "train"}
    classes = sorted(usable)
    if len(classes) < 2:
        seen = ", ".join(f"{label} ({count})" for label, count in sizes.most_common(5)) or "none"
        raise InputError(
            f"task {name} needs two classes of {FEWEST_TUNES} tunes each, on both sides of the "
            f"split; tunes by class: {seen}; "
            f"tasks: {', '.join(TASKS)}, a column of the catalog, or a CSV file"
        )
    ids = sorted(i for i in labels if labels[i] in classes)
    train = _train_of(ids, tunes, labels, fixed)
    numbers = np.array([classes.index(labels[i]) for i in ids])
    return Task(
        name=name, track_ids=tuple(ids), labels=numbers, classes=tuple(classes), train=train
    )


def _from_column(name: str, by_id: Mapping[str, Row]) -> dict[str, str]:
    """The value of a column of names, or the third of a column of numbers, by track id."""
    row = next(iter(by_id.values()), {})
    if row and name not in row:
        raise InputError(
            f"no task and no column {name!r}; tasks: {', '.join(TASKS)}; columns: {', '.join(row)}"
        )
    values = {i: row[name] for i, row in by_id.items() if row[name] not in (None, "")}
    kinds = {type(value) for value in values.values()}
    if kinds <= {int, float}:
        numbers = {i: float(value) for i, value in values.items() if np.isfinite(value)}
        cuts = np.quantile(list(numbers.values()) or [0.0], (1 / 3, 2 / 3))
        return {i: THIRDS[int(np.searchsorted(cuts, value))] for i, value in numbers.items()}
    if kinds != {str}:
        seen = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise InputError(f"column {name} has {seen}; a task needs names of classes, or numbers")
    return values


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
    labels = {line["track_id"]: line["label"] for line in lines if line["label"]}
    return labels, {line["track_id"]: line["split"] for line in lines if line.get("split")}


def _catalog_split(
    ids: Iterable[str], by_id: Mapping[str, Row], tunes: Mapping[str, str]
) -> dict[str, str]:
    """`test` for tunes that the catalog holds out as a whole, else `train`; {} without any."""
    seen: dict[str, set[str | None]] = {}
    for i in ids:
        seen.setdefault(tunes[i], set()).add(by_id[i].get("split"))
    if {"test"} not in seen.values():
        return {}
    return {i: "test" if seen[tunes[i]] == {"test"} else "train" for i in ids}


def _tune(row: Row) -> str:
    """The name that all clips of one recording share."""
    return str(row.get("recording") or row["track_id"])


def _train_of(
    ids: Sequence[str],
    tunes: Mapping[str, str],
    labels: Mapping[str, str],
    fixed: Mapping[str, str],
) -> np.ndarray:
    """Which tracks are for training: as fixed by the task, else a share of each class's tunes."""
    if fixed:
        sides = {tune: {fixed.get(i) for i in ids if tunes[i] == tune} for tune in tunes.values()}
        both = sorted(tune for tune, found in sides.items() if len(found) > 1)
        if both:
            raise InputError(
                f"{len(both)} tunes are on both sides of the split, among them {both[0]}: a probe "
                "would recognise them; give all tracks of a tune one split"
            )
        return np.array([fixed.get(i) == "train" for i in ids])
    kept_apart: set[str] = set()
    for label in sorted(set(labels[i] for i in ids)):
        class_tunes = sorted({tunes[i] for i in ids if labels[i] == label} - kept_apart)
        order = np.random.default_rng(0).permutation(len(class_tunes))
        kept_apart |= {class_tunes[n] for n in order[: max(1, round(HELD_OUT * len(class_tunes)))]}
    return np.array([tunes[i] not in kept_apart for i in ids])
