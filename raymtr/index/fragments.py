"""Writes the tables of a build: partitions as Lance fragments, and one commit for each table.

Writing a partition is a unit of work for any process. A fragment is invisible until its table is
committed. So a killed worker leaves only files, which are deleted with the unfinished build.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from lance import LanceDataset, LanceOperation
from lance.fragment import FragmentMetadata, write_fragments

from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError
from raymtr.index.build import KINDS, table_name
from raymtr.index.build_tables import vectors_table, window_batches, window_schema
from raymtr.partitions import partition_of

TracksSource: TypeAlias = pa.Table | Callable[[], pa.Table]  # tracks_table, or a function for it
ROW_INDEX_STEP = 2**32  # rows between the first indices of two partitions; none has as many


@dataclass(frozen=True, kw_only=True)
class Partition:
    """One partition of a build: the source of its rows, and the tables to write them to."""

    folder: str  # the database
    build: str
    number: int
    tracks: TracksSource
    shards: EmbeddingStore | None  # the embeddings of this partition


@dataclass(frozen=True, kw_only=True)
class WrittenRows:
    """The fragments of one partition in one table, not committed yet."""

    schema: pa.Schema
    fragments: list[FragmentMetadata]
    rows: int


def table_uri(folder: str, kind: str, build: str) -> str:
    """The Lance dataset of a LanceDB table."""
    return f"{folder}/{table_name(kind, build)}.lance"


def write_partition(part: Partition) -> dict[str, WrittenRows]:
    """Write the tracks, vectors and windows of one partition as fragments."""
    tracks = part.tracks() if callable(part.tracks) else part.tracks
    shards = part.shards
    made_by = shards.made_by if shards else None
    dim = made_by.dim if made_by else 1  # a vector column needs a size, even without rows
    embedded = shards.read_tracks() if shards else _no_vectors(dim)
    fingerprint = made_by.fingerprint if made_by else ""
    first = part.number * ROW_INDEX_STEP
    vectors = vectors_table(tracks, embedded, fingerprint, first=first)
    known = pc.is_in(embedded["track_id"], value_set=vectors["track_id"])
    excluded = embedded["track_id"].filter(pc.invert(known)).combine_chunks()
    windows = window_batches(shards, excluded)
    return {
        "tracks": _write(part, "tracks", tracks.schema, tracks.to_batches()),
        "vectors": _write(part, "vectors", vectors.schema, vectors.to_batches()),
        "windows": _write(part, "windows", window_schema(dim), windows),
    }


def rows_of_shard(source: TracksSource, number: int, count: int) -> pa.Table:
    """The rows of `source` that belong to table shard `number` of `count`."""
    tracks = source() if callable(source) else source
    return tracks.filter(pa.array(partition_of(tracks["track_id"], count) == number))


def commit_tables(
    folder: str, build: str, parts: Sequence[dict[str, WrittenRows]]
) -> dict[str, int]:
    """Commit the fragments of all partitions, one version of each table. Returns its rows by kind.

    Raises InputError if two partitions have different columns.
    """
    for kind in KINDS:
        schema = parts[0][kind].schema
        for number, part in enumerate(parts):
            if part[kind].schema != schema:
                raise InputError(
                    f"partition {number} of {kind} has the columns "
                    f"{_columns(part[kind].schema)}, the first one {_columns(schema)}; run the "
                    "jobs that wrote them again, so that all partitions have the same columns"
                )
        fragments = [fragment for part in parts for fragment in part[kind].fragments]
        operation = LanceOperation.Overwrite(schema, fragments)
        LanceDataset.commit(table_uri(folder, kind, build), operation)
    return {kind: sum(part[kind].rows for part in parts) for kind in KINDS}


def _write(
    part: Partition, kind: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> WrittenRows:
    rows = 0

    def counted() -> Iterator[pa.RecordBatch]:
        nonlocal rows
        for batch in batches:
            rows += len(batch)
            yield batch

    reader = pa.RecordBatchReader.from_batches(schema, counted())
    uri = table_uri(part.folder, kind, part.build)
    fragments = write_fragments(reader, uri, schema, mode="create")
    return WrittenRows(schema=schema, fragments=fragments, rows=rows)


def _no_vectors(dim: int) -> pa.Table:
    """An empty table of `track_id, vector`."""
    fields = [pa.field("track_id", pa.string()), pa.field("vector", pa.list_(pa.float32(), dim))]
    return pa.schema(fields).empty_table()


def _columns(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
