"""`tag` hears a catalog once, keeps apart what is the owner's, and names what it cannot hear."""

import csv
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs.build_index import build_index
from jobs.embed_catalog import embed_catalog
from jobs.tag_catalog import describe, tag_catalog
from raymtr import storage
from raymtr.recipes import tiny
from raymtr.search.searcher import Searcher
from raymtr.tagging.analysis import LABELS, VERSION, Analyzer
from raymtr.tagging.review import review_row

RATE = 8_000


def write(folder: Path, name: str, samples: np.ndarray) -> str:
    soundfile.write(file := folder / f"{name}.wav", samples, RATE)
    return str(file)


def test_a_catalog_is_heard_once_and_becomes_columns(
    ray_cluster: None,
    tmp_path: Path,
    make_workspace: Callable,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    t = np.arange(5 * RATE) / RATE
    tune = 0.3 * np.sin(2 * np.pi * 220 * t) * np.exp(-4 * (t % 0.5))
    rows = [
        {"track_id": "tune", "uri": write(tmp_path, "tune", tune), "tags": ["mine"]},
        {"track_id": "short", "uri": write(tmp_path, "short", tune[: RATE // 2])},
        {"track_id": "silent", "uri": write(tmp_path, "silent", np.zeros(RATE))},
        {"track_id": "words", "title": "No Sound"},
    ]
    workspace = make_workspace(rows)
    # Two replicas on two cores: they leave room for other tasks.
    monkeypatch.setattr("jobs.shard_rows.SECONDS_PER_ACTOR", 1.0)
    settings = dataclasses.replace(tiny(), embed=dataclasses.replace(tiny().embed, actors=2))
    answer = tag_catalog(workspace, settings)
    assert (answer["embedded"], answer["failed"], answer["skipped"]) == (2, 1, 1)
    assert answer["errors"] == {"silent": 1} and "2 tracks tagged" in describe(answer)
    heard = storage.read_tables(f"{workspace.heard}/tracks").to_pylist()
    by_id = {row["track_id"]: row for row in heard}
    assert by_id.keys() == {"tune", "short"} and by_id["tune"]["provenance"] == VERSION
    assert all(0 <= row[label] <= 1 for row in heard for label in LABELS)
    assert by_id["tune"]["bpm"] is not None and by_id["short"]["bpm"] is None
    windows = storage.read_tables(f"{workspace.heard}/windows")
    assert sorted(windows["track_id"].to_pylist()) == ["short", "tune", "tune"]
    with open(answer["review"], encoding="utf-8-sig") as file:
        assert "short" in {row["track_id"] for row in csv.DictReader(file)}
    assert tag_catalog(workspace, settings)["new"] == 0

    embed_catalog(workspace, settings, model=tiny_model)
    build_index(workspace, settings)
    bpm = by_id["tune"]["bpm"]
    found = Searcher(workspace.root).search(text="tune", where=f"bpm > {bpm - 1} and bpm < 999")
    assert [hit["track_id"] for hit in found["hits"]] == ["tune"]
    owners = storage.read_tables(workspace.tracks, ["track_id", "tags"]).to_pylist()
    assert [row["tags"] for row in owners if row["track_id"] == "tune"] == [["mine"]]


def test_the_review_suggests_and_doubts() -> None:
    heard = {"track_id": "a", **dict.fromkeys(LABELS, 0.01), "jazz": 0.6}
    owner = {"track_id": "a", "title": "T", "artist": None}
    suggested = review_row(heard, {"a": owner | {"tags": None}})
    assert suggested is not None and suggested["why"] == "no tags"
    assert suggested["heard"].startswith("jazz 0.60")
    doubted = review_row(heard, {"a": owner | {"tags": ["Metal", "live"]}})
    assert doubted is not None and (doubted["why"], doubted["owner"]) == ("not heard", "metal")
    assert review_row(heard, {"a": owner | {"tags": ["Jazz"]}}) is None


@pytest.mark.slow
def test_a_quieter_copy_is_heard_alike() -> None:
    t = np.arange(4 * 16_000) / 16_000
    tune = (0.4 * np.sin(2 * np.pi * 330 * t) * np.exp(-4 * (t % 0.5))).astype(np.float32)
    analyzer = Analyzer()
    loud, quiet = analyzer.analyze(tune), analyzer.analyze(tune * np.float32(0.25))
    np.testing.assert_allclose(loud.labels, quiet.labels, atol=2e-3)
    assert loud.vocal == pytest.approx(quiet.vocal, abs=2e-3)
