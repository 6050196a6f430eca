"""A shard closes by size or by age, and its name does not depend on the order of its tracks."""

import time

from raymtr.shards import ShardLimit, shard_name


def test_the_first_shard_closes_at_once_and_the_next_by_size() -> None:
    limit = ShardLimit(tracks=3, seconds=3600)
    assert limit.add(1)
    limit.close()
    assert [limit.add(1) for _ in range(3)] == [False, False, True]


def test_a_shard_closes_by_age() -> None:
    limit = ShardLimit(tracks=1_000, seconds=0.01)
    limit.close()
    time.sleep(0.02)
    assert limit.add(1)


def test_a_name_is_of_the_tracks() -> None:
    assert shard_name(["b", "a"]) == shard_name(["a", "b"]) != shard_name(["a", "c"])
