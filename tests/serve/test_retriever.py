"""The retriever over a catalog of words, which needs no encoder: it never fails with its files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from raymtr import storage
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.index.track_table import KINDS, table_name
from raymtr.specs import SearchSpec
from serve.messages import Searched
from serve.retriever import Retriever
from serve.settings import ServeSettings


async def nothing_to_encode(*_: Any) -> Any:
    raise AssertionError("words are not encoded")


def test_requests_that_lose_their_tables_are_answered_by_those_that_serve(
    make_workspace: Callable,
) -> None:
    rows = [{"track_id": f"t{i}", "title": f"Piano {i}", "tags": ["calm"]} for i in range(3)]
    workspace = make_workspace(rows)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    first = publish(workspace, tracks, None, search=SearchSpec())
    settings = ServeSettings(workspace=workspace.root, pointer_every_s=3_600)
    retriever = Retriever(settings, encode_text=nothing_to_encode, encode_audio=nothing_to_encode)
    second = publish(workspace, tracks, None, search=SearchSpec())
    for kind in KINDS:
        storage.delete(f"{workspace.db}/{table_name(kind, first.name)}.lance")

    async def ask() -> list[Any]:
        asked = [{"text": f"calm {n}", "mode": "keyword", "k": 3} for n in range(8)]
        return await asyncio.gather(*map(retriever.search, asked))

    answers = asyncio.run(ask())
    assert all(isinstance(found, Searched) for found in answers)
    assert {found.answer["table_version"] for found in answers} == {second.name}
    assert all(len(found.answer["hits"]) == 3 for found in answers)
