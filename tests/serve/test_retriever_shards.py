"""A build served in table shards: one deployment for each, and a retriever that fans out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import httpx
import pytest
from builders import publish_catalog
from ray import serve

from raymtr.errors import InputError, UnusableError
from raymtr.index.publish import live_build
from raymtr.index.track_table import TrackTable
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace
from serve.settings import ServeSettings
from serve.shards import NotRead, RetrieverShard, remote_table

SHARDS, COUNT = 2, 24


@pytest.fixture
def words(make_workspace: Callable) -> Workspace:
    rows = [{"track_id": f"t{n}", "title": f"Piano {n}", "tags": ["calm"]} for n in range(COUNT)]
    workspace: Workspace = make_workspace(rows)
    publish_catalog(workspace, search=SearchSpec(shards=SHARDS))
    return workspace


def test_a_shard_answers_of_the_version_it_is_asked_about(words: Workspace) -> None:
    first = live_build(words)
    settings = ServeSettings(workspace=words.root, shards=SHARDS, pointer_every_s=3_600)
    shard = RetrieverShard(settings, 1)
    count = partial(TrackTable.count, where=None)

    async def ask() -> list[object]:
        own = await shard.read(first.table_version, count)
        second = publish_catalog(words, search=SearchSpec(shards=SHARDS))
        both = await asyncio.gather(
            *(shard.read(b.table_version, count) for b in (first, second, second))
        )
        publish_catalog(words)  # in one piece
        piece = live_build(words)
        return [own, *both, *[await shard.read(v, count) for v in (piece.name, "000099")]]

    own, *both, piece, unknown = asyncio.run(ask())
    assert own == first.shards[1].rows["tracks"] and both == [own] * 3
    assert isinstance(unknown, NotRead) and unknown.reason == "build 000099 is no longer stored"
    assert isinstance(piece, NotRead) and piece.reason == (
        "build 000003 has 1 table shards and the endpoint was started with shards=2; start it with "
        "shards=1, or build with `raymtr index --set search.shards=2`"
    )


def test_shards_that_do_not_fit_are_said_at_the_start(words: Workspace) -> None:
    settings = ServeSettings(workspace=words.root, shards=3)
    with pytest.raises(UnusableError, match="has 2 table shards and the endpoint was started with"):
        RetrieverShard(settings, 0)
    with pytest.raises(UnusableError, match="start it with shards=2"):
        remote_table([], live_build(words), settings)
    for wrong, message in {
        ("shards", 0): "shards is above 0, got 0",
        ("layout", "fused"): "layout=composed where shards > 1",
        ("shard_timeout_s", 60.0): "shard_timeout_s < request_timeout_s",
    }.items():
        with pytest.raises(InputError, match=message):
            ServeSettings(**{"workspace": words.root, "shards": 2} | dict([wrong]))


@pytest.mark.ray
@pytest.mark.slow
def test_http_over_shards_gives_the_hits_of_one_process(
    client: httpx.Client, run_app: Callable[..., httpx.Client], words: Workspace
) -> None:
    served = run_app("shards", workspace=words.root, shards=SHARDS, open_to_anyone=True)
    here = Searcher(words)
    for asked in ({"text": "calm", "k": 20}, {"text": "Piano 7"}, {"text": "piano", "k": 5}):
        answer = served.post("/v1/search", json=asked).json()
        assert answer["hits"] == here.search(**asked)["hits"] and answer["partial"] is False
    assert served.get("/v1/tracks/t5").json()["title"] == "Piano 5"
    assert served.get("/v1/tracks/t99").status_code == 404
    assert served.get("/readyz").json()["rows"]["tracks"] == COUNT
    schema = served.get("/openapi.json").json()["components"]["schemas"]["SearchAnswer"]
    assert schema["properties"]["partial"]["type"] == "boolean"
    serve.delete("shards")  # later applications need its cores
