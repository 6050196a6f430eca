"""Whole tracks out of drafts in any order, over two passes, with nothing but storage between."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raymtr import storage
from raymtr.captions.writing.assembler import CaptionAssembler
from raymtr.captions.writing.drafts import OK, plan_again, plan_drafts
from raymtr.captions.writing.store import CaptionStore
from raymtr.errors import UnusableError
from raymtr.progress import Progress
from raymtr.track import check_tracks

TRACKS = check_tracks(
    pa.Table.from_pylist(
        [{"track_id": f"t{i}", "uri": f"{i}.wav", "tags": ["slow", f"tag{i}"]} for i in range(6)]
    )
)
PER_TRACK, DRAWS = 3, 2


def judged(planned: pa.Table, accept) -> list[dict]:
    """Drafts as the judge leaves them, shuffled; `accept` says which are faithful."""
    rows = planned.to_pylist()
    for row in rows:
        ok = accept(row["track_id"], row["caption"], row["draw"])
        row["text"] = f"{row['track_id']} {row['caption']} {row['draw']}"
        row |= {"coverage": 0.5 + 0.1 * (row["draw"] == 1), "invention": 0.0}
        row["verdict"] = OK if ok else "unfaithful"
    np.random.default_rng(0).shuffle(rows)
    return rows


def settle_of(folder: Path) -> tuple[CaptionAssembler, CaptionStore]:
    written = CaptionStore(str(folder), {"seed": 0})
    written.take()
    progress = Progress("caption", len(TRACKS), unit="tracks")
    return CaptionAssembler(
        written, {}, per_track=PER_TRACK, draws=DRAWS, progress=progress
    ), written


def first_pass(settle: CaptionAssembler, accept) -> int:
    planned = plan_drafts(TRACKS, per_track=PER_TRACK, seed=0, draws=range(DRAWS))
    return settle.read(iter(judged(planned, accept)), len(TRACKS), attempt=0, last=False)


def second_pass(
    settle: CaptionAssembler, written: CaptionStore, pending: int, accept
) -> tuple[list[dict], int]:
    table = storage.read_tables(written.pending(0))
    planned = plan_again(table, seed=0, draws=range(DRAWS, 2 * DRAWS))
    rows = judged(planned, accept)
    return rows, settle.read(iter(rows), pending, attempt=1, last=True)


def test_what_is_rejected_is_drawn_again_and_nothing_else(tmp_path):
    def at_first(track_id: str, caption: int, draw: int) -> bool:
        return track_id in ("t0", "t1") or (track_id == "t2" and caption == 1 and draw == 1)

    settle, written = settle_of(tmp_path)
    pending = first_pass(settle, at_first)
    whole = storage.read_tables(written.folder)
    assert pending == 4 and set(whole["track_id"].to_pylist()) == {"t0", "t1"}

    rows, again = second_pass(settle, written, pending, lambda track, *_: track == "t3")
    asked = {(row["track_id"], row["caption"]) for row in rows}
    assert again == 0 and len(rows) == len(asked) * DRAWS
    assert asked == {(f"t{i}", c) for i in range(2, 6) for c in range(3)} - {("t2", 1)}
    assert {row["draw"] for row in rows} == {2, 3}

    written.finish()
    assert storage.list_folders(str(tmp_path)) == []
    captions: dict[str, list[dict]] = {}
    for row in storage.read_tables(str(tmp_path)).to_pylist():
        found = json.loads(row["provenance"]) | {"caption": row["caption"]}
        captions.setdefault(row["track_id"], []).append(found)
    assert sorted(captions) == [f"t{i}" for i in range(6)]
    assert [c["caption"] for c in captions["t0"]] == ["t0 0 1", "t0 1 1", "t0 2 1"]
    assert [c["caption"] for c in captions["t3"]] == ["t3 0 2", "t3 1 2", "t3 2 2"]
    by = [(c["source"], c.get("instead_of", c["caption"])) for c in captions["t2"]]
    # The best of what was refused is the first pass's second draw; the accepted one was kept.
    assert by == [("realised", "t2 0 1"), ("model", "t2 1 1"), ("realised", "t2 2 1")]
    assert all(c["tags"] == ["slow", "tag3"] for c in captions["t3"])


def test_a_track_whose_drafts_are_lost_is_no_success(tmp_path):
    settle, _ = settle_of(tmp_path)
    planned = plan_drafts(TRACKS, per_track=PER_TRACK, seed=0, draws=range(DRAWS))
    rows = [row for row in judged(planned, lambda *_: True) if row["track_id"] != "t4"]
    with pytest.raises(UnusableError, match="no drafts for 1 tracks"):
        settle.read(iter(rows), len(TRACKS), attempt=0, last=False)


def test_a_failure_stays_one_only_if_the_next_pass_fails_too(tmp_path):
    settle, written = settle_of(tmp_path)
    planned = plan_drafts(TRACKS, per_track=PER_TRACK, seed=0, draws=range(DRAWS))
    rows = judged(planned, lambda *_: True)
    for row in rows:
        if row["track_id"] in ("t1", "t5"):
            row |= {"verdict": None, "text": None, "error": "the engine wrote nothing"}
    pending = settle.read(iter(rows), len(TRACKS), attempt=0, last=False)
    assert (pending, settle.failed) == (2, 0)
    planned = plan_again(
        storage.read_tables(written.pending(0)), seed=0, draws=range(DRAWS, 2 * DRAWS)
    )
    rows = judged(planned, lambda *_: True)
    for row in rows:
        if row["track_id"] == "t5" and row["caption"] == 2:
            row |= {"verdict": None, "text": None, "error": "out of memory"}
    settle.read(iter(rows), pending, attempt=1, last=True)
    letters = storage.read_tables(f"{written.folder}/dead_letter").to_pylist()
    assert settle.failed == 1
    assert [(letter["track_id"], letter["uri"]) for letter in letters] == [("t5", "5.wav")]
    captions = storage.read_tables(written.folder)["track_id"].to_pylist()
    assert sorted(set(captions)) == ["t0", "t1", "t2", "t3", "t4"]


@pytest.mark.slow
def test_two_runs_do_not_mix_what_they_hold(tmp_path):
    settle, _ = settle_of(tmp_path)
    _, other = settle_of(tmp_path)
    with pytest.raises(UnusableError, match="another caption job"):
        first_pass(settle, lambda *_: False)
    assert not storage.exists(other.pending(0))
