"""Search over table shards: the hits of one table, and partial answers while a shard is lost."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
import pytest
from builders import publish_catalog

from raymtr.errors import InputError, UnusableError
from raymtr.index import sharded_table
from raymtr.index.publish import kept_builds, live_build, put_live
from raymtr.index.sharded_table import Shard, ShardedTable, ShardLostError, open_table
from raymtr.index.track_table import TrackTable
from raymtr.model.pretrained import load_model
from raymtr.partitions import partition_of_track
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.vectors import unit
from raymtr.workspace import Workspace

pytestmark = pytest.mark.slow

T = TypeVar("T")
COUNT, SHARDS, LOST = 160, 4, 2
TEXTS = ["slow piano ballad", "techno beat", "heavy metal guitars", "folk fiddle dance"]


def catalog_row(number: int) -> dict:
    return {
        "track_id": f"t{number:03}",
        "uri": f"/{number}.wav",
        "title": f"Tune {number}",
        "artist": f"Ada {number % 8}",
        "album": f"Record {number // 8}",
        "year": 1950 + number % 70,
        "tags": [TEXTS[number % 4].split()[-1], f"mood {number % 3}"],
        "similar_artists": [f"Ada {(number + 1) % 8}"],
    }


class Breakable(Shard):
    """A shard asked as one in another process, which loses every question while it is `lost`."""

    def __init__(self, shard: Shard) -> None:
        self.shard, self.lost = shard, False

    def submit(
        self, look_up: Callable[[TrackTable], T], *, long_running: bool = False
    ) -> Future[T]:
        if not self.lost:
            return self.shard.submit(pickle.loads(pickle.dumps(look_up)), long_running=long_running)
        future: Future[T] = Future()
        future.set_exception(ShardLostError("no answer within 2 s"))
        return future


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable, commit_vectors: Callable, tiny_model: str) -> Workspace:
    rows = list(map(catalog_row, range(COUNT)))
    workspace: Workspace = make_workspace(rows)
    model = load_model(tiny_model)
    sounds = model.encode_text(TEXTS)
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.standard_normal((COUNT, 2, sounds.shape[1]))
    vectors = {row["track_id"]: unit(sounds[[n % 4] * 2] + noise[n]) for n, row in enumerate(rows)}
    commit_vectors(
        workspace,
        {i: v.astype(np.float32) for i, v in vectors.items()},
        fingerprint=model.fingerprint,
    )
    publish_catalog(workspace, model=tiny_model)
    return workspace


@pytest.fixture(scope="module")
def one(workspace: Workspace) -> Searcher:
    return Searcher(workspace)


@pytest.fixture(scope="module")
def sharded(workspace: Workspace, one: Searcher) -> Searcher:
    """The same tracks in shards, which can be lost; published after `one` was opened."""
    publish_catalog(workspace, search=SearchSpec(shards=SHARDS))
    assert len(kept_builds(workspace)) == 2

    table = open_table(workspace.db, live_build(workspace))
    assert isinstance(table, ShardedTable)
    shards = {number: Breakable(shard) for number, shard in table._shards.items()}
    return Searcher(workspace, ShardedTable(table.build, shards))


@pytest.fixture
def lose(sharded: Searcher, monkeypatch: pytest.MonkeyPatch):
    """A function that loses a shard; all are whole again after the test."""
    monkeypatch.setattr(sharded_table, "RETRY_S", 0.0)
    shards = sharded.table._shards

    def lose(*numbers: int) -> None:
        for number, shard in shards.items():
            shard.lost = number in numbers

    yield lose
    lose()


def ids(answer: dict) -> list[str]:
    return [hit["track_id"] for hit in answer["hits"]]


SEARCHES = {
    "a text": {"text": "slow piano ballad", "mode": "semantic"},
    "an example": {"like": ["t007", {"track_id": "t011", "weight": 2.0}], "unlike": ["t002"]},
    "a filter": {"text": "techno beat", "mode": "semantic", "where": "year > 1990"},
    "a filter alone": {"text": "before 1960"},
    "a misspelt title": {"text": "Tume 117 by Ada 5"},
    "an artist": {"text": "songs by Ada 3"},
    "an album": {"text": "album Record 4"},
    "a cap": {"text": "techno beat", "mode": "semantic", "per_artist": 2, "k": 12},
    "diversity": {"text": "slow piano ballad", "mode": "semantic", "diversity": 0.6},
    "similar artists": {"text": "similar to Ada 3", "k": 20},
    "the artist graph": {"similar_artist": "Ada 5", "per_artist": 1},
}


@pytest.mark.parametrize("terms", SEARCHES.values(), ids=list(SEARCHES))
def test_the_hits_are_those_of_one_table(one: Searcher, sharded: Searcher, terms: dict) -> None:
    expected, answer = one.search(**terms), sharded.search(**terms)
    assert ids(answer) == ids(expected) and ids(answer)
    assert answer["query"] == expected["query"]
    assert [h["segment"] for h in answer["hits"]] == [h["segment"] for h in expected["hits"]]
    assert answer["partial"] is expected["partial"] is False and answer["notes"] == []


def test_words_and_titles_find_the_same_tracks(one: Searcher, sharded: Searcher) -> None:
    """Words have scores of their shard, so their order may differ."""
    for text in ("ballad", "dance"):
        terms = {"text": text, "mode": "keyword", "k": 50}
        assert set(ids(sharded.search(**terms))) == set(ids(one.search(**terms)))
    for text in ("Tune 17", "tune 17 by ada 1"):
        answer = sharded.search(text)
        assert ids(answer)[0] == "t017" and answer["query"] == one.search(text)["query"]


def test_pages_of_shards_are_those_of_one_list(one: Searcher, sharded: Searcher) -> None:
    terms = {"text": "techno beat", "mode": "semantic", "k": 15}
    whole = ids(one.search(**terms | {"k": 45}))
    paged, cursor = [], None
    for _ in range(3):
        answer = sharded.search(**terms, cursor=cursor)
        paged += ids(answer)
        cursor = answer["next_cursor"]
    assert paged == whole


@pytest.mark.parametrize("terms", SEARCHES.values(), ids=list(SEARCHES))
def test_a_lost_shard_takes_its_own_tracks_alone(
    one: Searcher, sharded: Searcher, lose: Callable, terms: dict
) -> None:
    lose(LOST)
    if "like" in terms:
        terms = {"like": [i for i in ("t000", "t001", "t002", "t003") if not is_lost(i)][:1]}
    answer = sharded.search(**terms)
    assert answer["partial"] is True
    assert answer["notes"] == [
        f"1 of {SHARDS} table shards did not answer; their tracks are left out"
    ]
    assert not any(map(is_lost, ids(answer)))
    if terms.get("mode") == "semantic" and not {"per_artist", "diversity"} & terms.keys():
        whole = one.search(**terms | {"k": 100})
        left = [track_id for track_id in ids(whole) if not is_lost(track_id)]
        assert ids(answer) == left[: len(ids(answer))] and len(ids(answer)) == 10
    lose()
    assert sharded.search(**terms)["partial"] is False


def is_lost(track_id: str) -> bool:
    return partition_of_track(track_id, SHARDS) == LOST


def test_a_shard_lost_in_the_middle_begins_the_search_again(
    sharded: Searcher, lose: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer mixes look-ups with and without the shard."""
    windows = ShardedTable.windows

    def late(table: ShardedTable, tracks: list[str]):
        lose(LOST)
        return windows(table, tracks)

    terms = {"text": "techno beat", "mode": "semantic", "k": 20}
    assert any(map(is_lost, ids(sharded.search(**terms))))
    monkeypatch.setattr(ShardedTable, "windows", late)
    answer = sharded.search(**terms)
    assert answer["partial"] and len(ids(answer)) == 20 and not any(map(is_lost, ids(answer)))


def test_a_lost_shard_is_left_out_for_a_while_and_asked_again(
    sharded: Searcher, lose: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharded_table, "RETRY_S", 3600.0)
    lose(LOST)
    assert sharded.search("techno beat", mode="semantic")["partial"]
    lose()
    assert sharded.search("techno beat", mode="semantic")["partial"], "not asked yet"
    monkeypatch.setattr(sharded_table, "RETRY_S", 0.0)
    assert not sharded.search("techno beat", mode="semantic")["partial"]


def test_pages_go_on_while_a_shard_is_lost(sharded: Searcher, lose: Callable) -> None:
    terms = {"text": "techno beat", "mode": "semantic"}
    cursor = sharded.search(**terms)["next_cursor"]
    lose(LOST)
    first = sharded.search(**terms)
    second = sharded.search(**terms, cursor=cursor)
    assert first["partial"] and second["partial"] and not set(ids(first)) & set(ids(second))


def test_what_only_a_lost_shard_knows_is_said(sharded: Searcher, lose: Callable) -> None:
    example = next(i for i in map("t{:03}".format, range(COUNT)) if is_lost(i))
    lose(LOST)
    with pytest.raises(UnusableError, match=f"{example!r} is in shard {LOST} of {SHARDS}, which"):
        sharded.search(like=[example])
    with pytest.raises(InputError, match="unknown track_id 'nowhere"):
        sharded.search(like=[next(i for i in map("nowhere{}".format, range(99)) if not is_lost(i))])
    lose(*range(SHARDS))
    with pytest.raises(UnusableError, match=f"none of the {SHARDS} shards of build 000002 answers"):
        sharded.search("techno beat")


def test_a_searcher_opens_all_shards_here(workspace: Workspace, sharded: Searcher) -> None:
    put_live(workspace, sharded.build)
    answer = Searcher(workspace).search("techno beat", mode="semantic")
    assert len(ids(answer)) == 10 and not answer["partial"]
