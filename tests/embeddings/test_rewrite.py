"""Shards that are merged or partitioned: killed at every write, no track is lost or doubled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raymtr import storage
from raymtr.embeddings import rewrite
from raymtr.embeddings.rewrite import merge_small, partition_shards
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.errors import UnusableError
from raymtr.partitions import partition_names, partition_of

DIM, SHARDS, TRACKS = 4, 9, 5  # tracks of a shard


def rows(shard: int) -> pa.Table:
    """TRACKS tracks of two windows each; one failed."""
    vectors = np.eye(DIM, dtype=np.float32)[[0, 1]]
    made = [
        {
            "track_id": f"t{shard}-{number}",
            "uri": f"/t{shard}-{number}.wav",
            "starts_s": [0.0, 10.0],
            "ends_s": [10.0, 20.0],
            "vector": vectors[0],
            "windows": vectors.reshape(-1),
        }
        for number in range(TRACKS - 1)
    ]
    failed = {"track_id": f"t{shard}-x", "uri": "/x", "code": "missing", "reason": "it is absent"}
    return pa.Table.from_pylist([*made, failed], schema=EMBEDDED_SCHEMA)


@pytest.fixture
def store(tmp_path: Path) -> EmbeddingStore:
    made_by = ModelRef(fingerprint="f", precision="fp32", dim=DIM)
    store = EmbeddingStore(str(tmp_path / "f"), made_by)
    store.take()
    for shard in range(SHARDS):
        store.commit(rows(shard))
    return store


@contextmanager
def killed_after(count: int) -> Iterator[None]:
    """The writes and deletions after the next `count` of them do not happen."""
    left = [count]

    def limited(real: Callable[..., None]) -> Callable[..., None]:
        def act(*arguments: object) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt
            real(*arguments)

        return act

    with pytest.MonkeyPatch.context() as patched:
        for name in ("write_table", "write_json", "delete"):
            patched.setattr(storage, name, limited(getattr(storage, name)))
        yield


def assert_each_track_once(store: EmbeddingStore) -> None:
    expected = sorted(f"t{shard}-{n}" for shard in range(SHARDS) for n in [*range(4), "x"])
    assert sorted(store.done().to_pylist()) == expected
    windows = pa.concat_tables(store.window_tables())["track_id"].to_pylist()
    good = [track_id for track_id in expected if not track_id.endswith("x")]
    assert sorted(windows) == sorted(good * 2)
    assert sorted(store.read_dead_letters()["track_id"].to_pylist()) == [
        f"t{shard}-x" for shard in range(SHARDS)
    ]


def test_small_shards_are_merged_and_few_are_left_alone(store: EmbeddingStore) -> None:
    merge_small(store)
    assert len(store.names("tracks")) == len(store.names("sources")) == 1
    assert_each_track_once(store)
    before = store.names("tracks")
    merge_small(store)
    assert store.names("tracks") == before


def test_merged_shards_have_a_limited_size(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rewrite, "MERGED_BYTES", 20_000)  # a shard of the fixture has about 8,000
    merge_small(store)
    assert 1 < len(store.names("tracks")) < SHARDS
    assert_each_track_once(store)


@pytest.mark.slow
def test_shards_of_one_store_are_distributed_over_partitions(store: EmbeddingStore) -> None:
    partition_shards(store, 4)
    assert_each_track_once(store)
    for number, name in enumerate(partition_names(4)):
        part = store.part(name)
        assert set(partition_of(part.done(), 4)) == {number}
    partition_shards(store, 2)
    assert_each_track_once(store)
    assert all("-of-00002-" in name for name in store.names("tracks"))


@pytest.mark.slow
@pytest.mark.parametrize("change", ["merge", "partition"])
def test_a_change_that_is_killed_anywhere_loses_and_doubles_nothing(
    store: EmbeddingStore, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("raymtr.ownership.TAKEOVER_S", 0.0)
    kills, ended = 0, False
    while not ended:
        try:
            with killed_after(3 * kills + 1):
                merge_small(store) if change == "merge" else partition_shards(store, 3)
            ended = True
        except KeyboardInterrupt:
            kills += 1
        store.take()
        assert_each_track_once(store)
    assert kills >= 3


@pytest.mark.slow
def test_partitions_have_owners_of_their_own(store: EmbeddingStore) -> None:
    partition_shards(store, 2)
    first, second = (store.part(name) for name in partition_names(2))
    first.take()
    second.take()
    store.check_owner()
    rival = store.part(partition_names(2)[0])
    rival.take()
    with pytest.raises(UnusableError, match="another embed job has taken over"):
        first.commit(rows(100))
    second.commit(rows(101))  # it knows nothing of it


@pytest.mark.slow
def test_who_takes_all_shards_stops_the_drivers_of_partitions(store: EmbeddingStore) -> None:
    partition_shards(store, 2)
    part = store.part(partition_names(2)[1])
    part.take()
    store.take()
    with pytest.raises(UnusableError, match="another embed job has taken over"):
        part.commit(rows(100))
    store.take()  # removes what was not committed
    assert_each_track_once(store)


def test_a_partition_of_another_model_or_version_is_rejected(store: EmbeddingStore) -> None:
    part = store.part(partition_names(2)[0])
    other = EmbeddingStore(store.folder, ModelRef(fingerprint="g", precision="fp32", dim=DIM))
    other.part(part.partition).take()
    with pytest.raises(UnusableError, match=r"00000-of-00002.json was started by .*'g'"):
        part.take()
