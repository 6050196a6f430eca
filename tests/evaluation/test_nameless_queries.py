"""Queries without names, by other writers than the lexicon's, over a catalog of 9,316 tracks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.evaluate_queries import evaluate_queries
from raymtr import storage
from raymtr.catalog.sources import mtg_jamendo_tracks
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.specs import SearchSpec

QUERIES = Path(__file__).parents[1] / "data/queries/nameless.jsonl"


@pytest.mark.slow
def test_queries_in_other_words_are_answered_right(
    large_data: Path, make_workspace: Callable
) -> None:
    tracks = mtg_jamendo_tracks(str(large_data / "data/mtg-jamendo")).drop_columns(["uri"])
    workspace = make_workspace(tracks.to_pylist())
    rows = tracks_table(storage.read_tables(workspace.tracks), None)
    publish(workspace, [rows], None, search=SearchSpec())
    answer = evaluate_queries(workspace, str(QUERIES))
    wrong = [(one["query"], one["failed"]) for one in answer["wrong"]]
    assert answer["classes"]["all"]["share"] >= 0.92, wrong
    assert min(figures["share"] for figures in answer["classes"].values()) >= 0.75, wrong
