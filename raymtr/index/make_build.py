"""Writes and indexes the tables of a new build, in one piece or in table shards.

A table shard has the three tables of a build for its share of the tracks, with its own indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from raymtr.capacity import tracks_within
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.errors import InputError
from raymtr.index.build import Build, shard_name
from raymtr.index.build_tables import choose_index
from raymtr.index.fragments import (
    Partition,
    TracksSource,
    commit_tables,
    rows_of_shard,
    write_partition,
)
from raymtr.index.segments import Limits, create_indices
from raymtr.index.work import Mapper
from raymtr.partitions import count_rows
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace


def make_build(
    workspace: Workspace,
    name: str,
    tracks: Sequence[TracksSource],
    shards: EmbeddingStore | None,
    *,
    search: SearchSpec,
    mapper: Mapper,
) -> Build:
    """Write and index the tables of a new build, without making it live.

    `tracks` has one element per partition of the vectors in `shards`, in order. Raises InputError
    if no track has a vector, or a table shard has no track.
    """
    stores = shards.parts() if shards else [None] * len(tracks)
    partitions = [
        Partition(folder=workspace.db, build=name, number=number, tracks=source, shards=store)
        for number, (source, store) in enumerate(zip(tracks, stores, strict=True))
    ]
    count = search.shards
    if count > 1 and count > (most := count_rows(workspace.tracks)):
        raise InputError(
            f"search.shards={count} is more than the {most} tracks of the catalog; choose fewer "
            "shards"
        )
    parts = [_of_shard(partitions, n, count) for n in range(count)] if count > 1 else [partitions]
    rows = [
        commit_tables(workspace.db, part[0].build, mapper(write_partition, part)) for part in parts
    ]
    track_counts = [counts["tracks"] for counts in rows]
    if shards and not any(track_counts):
        raise InputError(
            f"none of the {count_rows(workspace.tracks)} tracks has a vector of model "
            f"{shards.made_by.fingerprint}; see {shards.folder}/dead_letter"
        )
    if count > 1 and not all(track_counts):
        raise InputError(
            f"search.shards={count} leaves shard {track_counts.index(0)} without any of the "
            f"{sum(track_counts)} tracks; choose fewer shards"
        )
    made_by = shards.made_by if shards else None
    built = [
        _index(part[0], counts, made_by, search=search, mapper=mapper)
        for part, counts in zip(parts, rows, strict=True)
    ]
    if count == 1:
        return built[0]
    return replace(built[0], name=name, versions={}, shards=tuple(built)).with_parts(built)


def _of_shard(partitions: Sequence[Partition], number: int, count: int) -> list[Partition]:
    """The partitions that have tracks of one table shard, limited to these tracks.

    A track's partition number is its hash modulo the number of partitions, and its shard number is
    the same hash modulo the number of shards. So both are congruent modulo every common divisor of
    the two counts, and other partitions need not be read.
    """
    divisor = math.gcd(len(partitions), count)
    return [
        replace(
            part,
            build=shard_name(part.build, number),
            tracks=partial(rows_of_shard, part.tracks, number, count),
        )
        for part in partitions
        if part.number % divisor == number % divisor
    ]


def _index(
    table: Partition,
    rows: dict[str, int],
    made_by: ModelRef | None,
    *,
    search: SearchSpec,
    mapper: Mapper,
) -> Build:
    """Index the tables that `table` is a partition of; `rows` are their row counts."""
    dim = made_by.dim if made_by else 1
    index = choose_index(rows["vectors"], dim, exact_below=search.exact_below)
    limits = Limits(
        rows=tracks_within(search.index_memory_gb, dim),
        memory_gb=search.index_memory_gb,
        workers=search.index_workers,
    )
    return Build(
        name=table.build,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        made_by=made_by,
        versions=create_indices(table.folder, table.build, index, limits=limits, mapper=mapper),
        rows=rows,
        index=index,
    )
