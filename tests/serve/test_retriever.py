"""The retriever over a catalog of words, which needs no encoder: it never fails with its files."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from raymtr import storage
from raymtr.embeddings.store import find_embeddings
from raymtr.index.build import KINDS, table_name
from raymtr.index.build_tables import tracks_table
from raymtr.index.deadlines import LostTableError
from raymtr.index.publish import publish
from raymtr.search.contract import SearchRequest
from raymtr.specs import SearchSpec
from serve.messages import Searched, plain
from serve.retriever import Retriever
from serve.settings import ServeSettings


class NoEncoder:
    """An encoder that nobody asks: the catalog has no vectors."""

    async def encode(self, *_: Any) -> Any:
        raise AssertionError("words are not encoded")


@pytest.mark.slow
def test_requests_that_lose_their_tables_are_answered_by_those_that_serve(
    make_workspace: Callable,
) -> None:
    rows = [{"track_id": f"t{i}", "title": f"Piano {i}", "tags": ["calm"]} for i in range(3)]
    workspace = make_workspace(rows)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    first = publish(workspace, [tracks], None, search=SearchSpec())
    settings = ServeSettings(workspace=workspace.root, pointer_every_s=3_600)
    retriever = Retriever(settings, NoEncoder(), NoEncoder())
    second = publish(workspace, [tracks], None, search=SearchSpec())
    for kind in KINDS:
        storage.delete(f"{workspace.db}/{table_name(kind, first.name)}.lance")

    async def ask() -> list[Any]:
        asked = [SearchRequest(text=f"calm {n}", mode="keyword", k=3) for n in range(8)]
        return await asyncio.gather(*map(retriever.search, asked))

    answers = asyncio.run(ask())
    assert all(isinstance(found, Searched) for found in answers)
    assert {found.answer["table_version"] for found in answers} == {second.name}
    assert all(len(found.answer["hits"]) == 3 for found in answers)


@pytest.mark.slow
def test_the_map_and_the_state_are_those_of_what_serves_when_their_tables_are_lost(
    make_workspace: Callable, commit_vectors: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"track_id": f"t{i}", "uri": f"/{i}.wav", "title": f"Piano {i}"} for i in range(5)]
    workspace = make_workspace(rows)
    sounds = np.eye(5, 8, dtype=np.float32)
    commit_vectors(workspace, {f"t{i}": sounds[i : i + 1] for i in range(5)})
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    first = publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec())
    settings = ServeSettings(workspace=workspace.root, pointer_every_s=3_600)
    retriever = Retriever(settings, NoEncoder(), NoEncoder())
    retriever._warm = True  # these vectors have no model that could encode its first search
    second = publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec())
    for kind in KINDS:
        storage.delete(f"{workspace.db}/{table_name(kind, first.name)}.lance")

    def lost() -> int:
        raise LostTableError("a file of these tables is gone")

    monkeypatch.setattr(retriever.searcher.table, "unindexed_rows", lost)
    state = asyncio.run(retriever.state())
    assert state["table_version"] == second.name and state["unindexed_rows"] == 0

    behind = Retriever(settings, NoEncoder(), NoEncoder())
    publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec())
    for kind in KINDS:
        storage.delete(f"{workspace.db}/{table_name(kind, second.name)}.lance")
    assert len(asyncio.run(behind.map())["points"]) == 5


def test_values_that_are_no_json_are_told_as_such() -> None:
    """Tables of before hold them; the other fields of the track are told all the same."""
    row = {"bpm": float("nan"), "gain": float("-inf"), "cover": b"1234", "tags": [b"1", "a", 2.5]}
    row |= {"added": datetime.date(2024, 5, 6), "more": {"a": float("inf"), "b": True}, "n": None}
    told = {name: plain(value) for name, value in row.items()}
    assert json.loads(json.dumps(told, allow_nan=False)) == {
        "bpm": None,
        "gain": None,
        "cover": "4 bytes",
        "tags": ["1 bytes", "a", 2.5],
        "added": "2024-05-06",
        "more": {"a": None, "b": True},
        "n": None,
    }
