"""Probes against features that hold a task, and tasks that cannot be asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raymtr.catalog.sources import midi_tracks
from raymtr.errors import InputError
from raymtr.evaluation.probe_tasks import Task, read_task
from raymtr.evaluation.probes import (
    PROBES,
    balanced_accuracy,
    choose_labelled,
    probe,
    r_squared,
    tag_areas,
)


def rows_of(tunes: int = 10, cuts: int = 2) -> list[dict[str, Any]]:
    """`cuts` of each of `tunes`: half on the flute and in G, half on the harp in E minor."""
    return [
        {
            "track_id": f"t{tune}_{cut}",
            "uri": "x.ogg",
            "recording": f"t{tune}",
            "instruments": ["flute"] if tune % 2 else ["harp"],
            "key": "G" if tune % 2 else "Em",
            "meter": "6/8",
            "year": 1900,
        }
        for tune in range(tunes)
        for cut in range(cuts)
    ]


def features_of(task: Task, signal: float) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    made = []
    for label in task.labels:
        rows = rng.normal(size=(3, 8)).astype(np.float32)
        rows[:, 0] += signal * (2 * label - 1)
        made.append(rows)
    return made


def test_balanced_accuracy_weighs_classes_and_not_tracks() -> None:
    right = np.array([0, 0, 0, 1])
    assert balanced_accuracy(np.zeros(4, int), right) == 0.5
    assert balanced_accuracy(np.array([0, 0, 1, 1]), right) == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_finds_what_features_hold_and_no_more(kind: str) -> None:
    task = read_task("instrument", rows_of(tunes=40))

    def accuracy(signal: float, count: int | None, seed: int) -> float:
        found = probe(task, features_of(task, signal), kind, count, seed=seed)
        return found["balanced_accuracy"]

    assert accuracy(4.0, 2, 0) > 0.9
    assert accuracy(0.0, None, 0) < 0.8
    assert accuracy(0.5, 2, 1) == accuracy(0.5, 2, 1), "a seed gives one figure"


@pytest.mark.slow
@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_of_tags_and_one_of_a_number(kind: str) -> None:
    rng = np.random.default_rng(0)
    rows = [{**row, "tags": [], "arousal": 5 + float(rng.normal())} for row in rows_of(tunes=60)]
    for row in rows:
        row["tags"] = [tag for tag in ("calm", "loud") if rng.random() < 0.4]
    tags, number = read_task("tags", rows), read_task("number:arousal", rows)
    assert tags.classes == ("calm", "loud") or tags.classes == ("loud", "calm")
    noise = [rng.normal(size=(3, 6)).astype(np.float32) for _ in rows]
    heard = [np.pad(2.0 * mark, (0, 4)) + own for mark, own in zip(tags.labels, noise, strict=True)]
    found = probe(tags, [rows.astype(np.float32) for rows in heard], kind, None, seed=0)
    assert found["roc_auc"] > 0.9 and found["pr_auc"] > 0.8
    assert probe(tags, noise, kind, 3, seed=0)["roc_auc"] < 0.75
    chosen = choose_labelled(tags, 3, seed=0)
    assert tags.labels[chosen].sum(axis=0).min() >= 3 and tags.train[chosen].all()
    heard = [own + (value - 5) for value, own in zip(number.labels, noise, strict=True)]
    assert probe(number, heard, kind, None, seed=0)["r2"] > 0.5
    assert probe(number, noise, kind, None, seed=0)["r2"] < 0.3
    assert len(choose_labelled(number, 7, seed=0)) == 7


def test_areas_and_r2_are_scikit_learns() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    right, scores = rng.random((40, 3)) < 0.3, rng.random((40, 3))
    found = tag_areas(scores, right)
    assert found["roc_auc"] == pytest.approx(sklearn.roc_auc_score(right, scores))
    assert found["pr_auc"] == pytest.approx(sklearn.average_precision_score(right, scores))
    assert r_squared(scores[:, 0], scores[:, 1]) == pytest.approx(
        sklearn.r2_score(scores[:, 1], scores[:, 0])
    )


def test_the_split_a_dataset_was_published_with_is_kept() -> None:
    rows = rows_of(tunes=15)
    for row in rows:
        number = int(row["recording"][1:])
        row |= {"split": "test", "fold": ("train", "valid", "test")[number // 2 % 3]}
    task = read_task("key", rows)
    folds = {row["track_id"]: row["fold"] for row in rows}
    assert {folds[i] for i in task.track_ids} == {"train", "test"}
    sides = zip(task.track_ids, task.train.tolist(), strict=True)
    assert all((folds[i] == "train") == side for i, side in sides)


def test_no_tune_is_on_both_sides_and_labels_are_counted_by_class() -> None:
    rows = rows_of()
    task = read_task("mode", rows)
    assert task.classes == ("major", "minor")
    sides = {side: set() for side in (True, False)}  # type: ignore[var-annotated]
    for track_id, side in zip(task.track_ids, task.train.tolist(), strict=True):
        sides[side].add(track_id.split("_")[0])
    assert sides[True] and sides[False] and not sides[True] & sides[False]
    chosen = choose_labelled(task, 1, seed=0)
    assert sorted(task.labels[chosen].tolist()) == [0, 1] and task.train[chosen].all()
    assert read_task("key", rows).classes == ("E minor", "G major")


def test_a_melody_over_chords_has_one_instrument() -> None:
    """As Nottingham's tunes are listed: the assigned instrument and the guitar, in any order."""
    rows = rows_of()
    for row in rows:
        row["render_program"] = 73.0
        names = [*row["instruments"], "steel-string guitar"]
        row["instruments"] = names if row["track_id"] < "t5" else names[::-1]
    assert read_task("instrument", rows).classes == ("flute", "harp")
    for row in rows:
        row["render_program"] = None
    with pytest.raises(InputError, match="two classes"):
        read_task("instrument", rows)


def test_the_tunes_of_midi_have_a_dozen_instruments(large_data: Path) -> None:
    task = read_task("instrument", midi_tracks(f"{large_data}/data/midi").to_pylist())
    assert len(task.classes) == 12 and len(task.track_ids) > 150


def test_what_the_catalog_holds_out_is_held_out() -> None:
    """A model that trained on the catalog has read the words of its other tunes."""
    rows = rows_of()
    for row in rows:
        row["split"] = "test" if row["recording"] in ("t0", "t1") else "train"
    rows[4]["split"] = "test"  # one of two cuts: the other was trained on
    task = read_task("key", rows)
    held = {i for i, train in zip(task.track_ids, task.train.tolist(), strict=True) if not train}
    assert held == {"t0_0", "t0_1", "t1_0", "t1_1"}
    for row in rows:
        row["split"] = "test" if row["key"] == "G" else "train"
    with pytest.raises(InputError, match="on both sides of the split"):
        read_task("key", rows)
    for row in rows:
        row["split"] = "train"
    assert 0 < (~read_task("key", rows).train).sum() < len(rows), "else a share of the tunes"


def test_a_column_of_numbers_is_cut_into_thirds() -> None:
    rows = rows_of(tunes=30)
    for number, row in enumerate(rows):
        row["bpm"] = float("nan") if number == 0 else 60.5 + number
    task = read_task("bpm", rows)
    assert task.classes == ("high", "low", "middle") and rows[0]["track_id"] not in task.track_ids
    sizes = np.bincount(task.labels)
    assert sizes.max() - sizes.min() <= 1
    labels = dict(zip(task.track_ids, task.labels.tolist(), strict=True))
    ordered = [task.classes[labels[row["track_id"]]] for row in rows[1:]]
    assert ordered == sorted(ordered, key=("low", "middle", "high").index)


def test_columns_of_the_answer_are_tasks_too() -> None:
    """A catalog may name the instrument and the metre themselves, and not a MIDI file's fields."""
    rows = [
        {"track_id": f"t{n}", "uri": "x", "instrument": ("harp", "oboe")[n % 2]}
        | {"metre": ("6/8", "4/4")[n % 2], "key": ("G major", "E minor")[n % 2]}
        for n in range(12)
    ]
    assert read_task("instrument", rows).classes == ("harp", "oboe")
    assert read_task("metre", rows).classes == ("4/4", "6/8")
    assert read_task("key", rows).classes == ("E minor", "G major")
    assert read_task("mode", rows).classes == ("major", "minor")


def write(tmp_path: Path, text: str) -> str:
    file = tmp_path / "task.csv"
    file.write_text(text)
    return str(file)


def test_tasks_that_cannot_be_evaluated(tmp_path: Path) -> None:
    rows = rows_of()
    with pytest.raises(InputError, match=r"task metre needs two classes .* 6/8 \(10\)"):
        read_task("metre", rows)
    with pytest.raises(InputError, match="no task and no column 'mood'; tasks: instrument, key"):
        read_task("mood", rows)
    with pytest.raises(InputError, match=r"task year needs two classes .* low \(10\)"):
        read_task("year", rows)
    listed = [{**row, "genres": ["jazz"], "years": [1999], "on": True} for row in rows]
    with pytest.raises(InputError, match=r"task genres needs a tag .* tunes by tag: jazz \(10\)"):
        read_task("genres", listed)
    with pytest.raises(InputError, match="column years has lists of other things than names"):
        read_task("years", listed)
    with pytest.raises(InputError, match="column on has bool; a task needs names of classes"):
        read_task("on", listed)
    with pytest.raises(InputError, match="task number:year needs two different numbers"):
        read_task("number:year", rows)
    with pytest.raises(InputError, match="task number:key needs two different numbers"):
        read_task("number:key", rows)
    with pytest.raises(
        InputError, match=r"1 ids of .* are not tracks with audio here, among them q"
    ):
        read_task(write(tmp_path, "track_id,label\nq,a\nt0_0,b\n"), rows)
    with pytest.raises(InputError, match="has no rows with the columns"):
        read_task(write(tmp_path, "id,label\nq,a\n"), rows)
    lines = [
        f"t{n}_{cut},{'ab'[n % 2]},{('train', 'test')[cut]}" for n in range(10) for cut in (0, 1)
    ]
    file = write(tmp_path, "\n".join(["track_id,label,split", *lines]))
    with pytest.raises(InputError, match="10 tunes are on both sides of the split, among them t0"):
        read_task(file, rows)


def test_a_file_with_an_unknown_split_is_refused(tmp_path: Path) -> None:
    lines = [f"t{n}_0,{'ab'[n % 2]},{'train' if n < 6 else 'held'}" for n in range(10)]
    file = write(tmp_path, "\n".join(["track_id,label,split", *lines]))
    with pytest.raises(InputError, match="has split 'held'; expected train, valid, test"):
        read_task(file, rows_of())


def test_a_file_may_fix_the_split(tmp_path: Path) -> None:
    lines = [f"t{n}_0,{'ab'[n % 2]},{'train' if n < 6 else 'test'}" for n in range(10)]
    task = read_task(write(tmp_path, "\n".join(["track_id,label,split", *lines])), rows_of())
    assert task.train.tolist() == [int(i[1]) < 6 for i in task.track_ids]
