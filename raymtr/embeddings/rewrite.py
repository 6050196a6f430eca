"""Shards replaced by other shards of the same tracks: merged when a partition ends, or partitioned.

The record of the run names old and new shards before the first new file is written, and is marked
when the new ones are complete. If the run is killed before that, the next owner removes the new
shards; if it is killed later, the old ones. So no track is lost, and none is in two shards once
`take` has returned.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import pyarrow as pa

from raymtr import storage
from raymtr.partitions import partition_names, partition_of

if TYPE_CHECKING:
    from raymtr.embeddings.shard_folder import ShardFolder

LOG = logging.getLogger("raymtr")
COMMIT = "tracks"  # the kind of file that commits a shard
KINDS = ("windows", "sources", "dead_letter", COMMIT)  # in the order of their writing
MERGED_BYTES = 128 << 20  # on storage, of a merged shard
FEWEST_MERGED = 8  # small shards; fewer are not merged

Shard = dict[str, pa.Table]  # by kind of file


def replace_shards(store: ShardFolder, old: list[str], new: Mapping[str, Shard]) -> None:
    """Replace the shards `old` by `new`, which have the same tracks.

    Raises UnusableError if another run has become the owner.
    """
    store.check_owner()
    store.note(rewrite={"old": old, "new": list(new), "whole": False})
    for name, shard in new.items():
        for kind in KINDS:
            if kind in shard:
                storage.write_table(store.file(kind, name), shard[kind])
    store.check_owner()
    store.note(rewrite={"old": old, "new": list(new), "whole": True})
    finish_rewrite(store)


def finish_rewrite(store: ShardFolder) -> None:
    """Remove the shards that a rewrite has replaced, or those that it has not finished."""
    rewrite = store.run.get("rewrite")
    if not rewrite:
        return
    for name in rewrite["old" if rewrite["whole"] else "new"]:
        for kind in reversed(KINDS):
            storage.delete(store.file(kind, name))
    store.note(rewrite=None)


def merge_small(store: ShardFolder) -> None:
    """Merge small shards into shards of about MERGED_BYTES, so that there are few files to list."""
    sizes = dict.fromkeys(store.names(COMMIT), 0)
    for kind in KINDS:
        for file, (size, _) in storage.files_below(f"{store.folder}/{kind}").items():
            name = file.removesuffix(".parquet")
            if name in sizes:
                sizes[name] += size or 0
    small = [name for name in sorted(sizes) if sizes[name] < MERGED_BYTES / 2]
    for group in _groups(small, sizes) if len(small) >= FEWEST_MERGED else ():
        shards = [read_shard(store, name) for name in group]
        merged = {
            kind: pa.concat_tables(
                [shard[kind] for shard in shards if kind in shard], promote_options="default"
            )
            for kind in KINDS
            if any(kind in shard for shard in shards)
        }
        replace_shards(store, group, {store.shard_name(group): merged})


def _groups(names: Iterable[str], sizes: Mapping[str, int]) -> Iterator[list[str]]:
    """Names joined to groups of MERGED_BYTES or somewhat more, without groups of one."""
    group: list[str] = []
    for name in names:
        group.append(name)
        if sum(sizes[one] for one in group) >= MERGED_BYTES:
            yield group
            group = []
    if len(group) > 1:
        yield group


def partition_shards(store: ShardFolder, count: int) -> None:
    """Distribute the tracks of all shards over `count` partitions; `store` owns all shards."""
    ours = f"-of-{count:05}-"
    others = [name for name in sorted(store.names(COMMIT)) if ours not in name]
    if count == 1 or not others:
        return
    LOG.info("%d shards are distributed over %d partitions", len(others), count)
    for name in others:
        shard = read_shard(store, name)
        numbers = {kind: partition_of(table["track_id"], count) for kind, table in shard.items()}
        new = {}
        for number, partition in enumerate(partition_names(count)):
            if any(number in found for found in numbers.values()):
                mine = {kind: shard[kind].filter(numbers[kind] == number) for kind in shard}
                if not len(mine.get("dead_letter", ())):
                    mine.pop("dead_letter", None)
                new[store.part(partition).shard_name([name])] = mine
        replace_shards(store, [name], new)


def read_shard(store: ShardFolder, name: str) -> Shard:
    """The tables of one committed shard."""
    files = {kind: store.file(kind, name) for kind in KINDS}
    return {kind: storage.read_table(file) for kind, file in files.items() if storage.exists(file)}
