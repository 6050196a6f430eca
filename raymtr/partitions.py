"""Tables of tracks in partitions, by a hash of the track id, so that no process loads all ids.

A small catalog is one partition and is read in place. A larger one is split once into one Parquet
file per partition, in a cache below the workspace. Other tables with rows per track are split too.
`index.json`, written last, records the state of the table that was split, and a digest of each
file. A partition whose digest equals that of the last completed work has nothing new.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymtr import storage

PARTITION_TRACKS = 250_000  # most of a partition: some hundred MB with their URIs
ROWS_AT_ONCE = 1_000  # of each partition on average, or more, while a catalog is split
INDEX = "index.json"


@dataclass(frozen=True, kw_only=True)
class TablePart:
    """One partition of a table: its name, its rows, and what identifies them."""

    name: str
    file: str
    digest: str
    rows: int


def partition_names(count: int) -> list[str]:
    """`00000-of-00008`, ...: with the count, so that names of different counts are distinct."""
    return [f"{number:05}-of-{count:05}" for number in range(count)]


def partition_count(tracks: int) -> int:
    """A power of two, so that a growing catalog is seldom partitioned anew."""
    count = 1
    while count * PARTITION_TRACKS < tracks:
        count *= 2
    return count


def partition_of(ids: pa.ChunkedArray, count: int) -> np.ndarray:
    """The partition of each track id, int64 [N]; the same on every machine and in every version."""
    numbers = (partition_of_track(track_id, count) for track_id in ids.to_pylist())
    return np.fromiter(numbers, np.int64, len(ids))


def partition_of_track(track_id: str, count: int) -> int:
    """The partition of one track id, of `count`."""
    return zlib.crc32(track_id.encode()) % count


def count_rows(folder: str) -> int:
    """Rows of the Parquet files of `folder`, from their footers."""
    filesystem, path = storage.open_filesystem(folder)

    def rows(name: str) -> int:
        return int(pq.read_metadata(f"{path}/{name}", filesystem=filesystem).num_rows)

    with ThreadPoolExecutor(storage.AT_ONCE) as pool:
        return sum(pool.map(rows, storage.list_files(folder, suffix=".parquet")))


def read_batches(folder: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Some columns of all Parquet files of `folder`, batch by batch; absent columns are left out.

    A batch has at most `storage.PART_ROWS` rows.
    """
    for file in _files(folder):
        here = [name for name in columns if name in file.schema_arrow.names]
        for batch in file.iter_batches(storage.PART_ROWS, columns=here):
            yield pa.Table.from_batches([batch])


def _files(folder: str) -> Iterator[pq.ParquetFile]:
    filesystem, path = storage.open_filesystem(folder)
    for name in storage.list_files(folder, suffix=".parquet"):
        with pq.ParquetFile(f"{path}/{name}", filesystem=filesystem) as file:
            yield file


def has_audio(folder: str) -> bool:
    """Whether any track of the catalog in `folder` has audio."""
    return any(batch["uri"].null_count < len(batch) for batch in read_batches(folder, ["uri"]))


def read_schema(folder: str) -> pa.Schema:
    """The columns of all Parquet files of `folder` together, from their footers."""
    schemas = [file.schema_arrow for file in _files(folder)]
    return pa.unify_schemas(schemas, promote_options="permissive")


def split_table(source: str, cache: str, schema: pa.Schema, count: int) -> list[TablePart]:
    """The columns `schema` of the Parquet files in `source`, in `count` files below `cache`.

    Nothing is written where the same files were split so before.
    """
    folder = f"{cache}/{count}"
    state = json.loads(json.dumps([storage.files_below(source), schema.names]))
    if storage.exists(f"{folder}/{INDEX}"):
        index = storage.read_json(f"{folder}/{INDEX}")
        if index["source"] == state:
            return [TablePart(**part) for part in index["parts"]]
    with tempfile.TemporaryDirectory() as scratch:
        batches = (with_columns(batch, schema) for batch in read_batches(source, schema.names))
        outputs = _write_parts(batches, scratch, schema, count)
        parts = [
            TablePart(
                name=name,
                file=f"{folder}/{name}.parquet",
                digest=output.digest.hexdigest(),
                rows=output.rows,
            )
            for name, output in zip(partition_names(count), outputs, strict=True)
        ]
        storage.delete(f"{folder}/{INDEX}")  # until all files are of one state
        index = {"source": state, "parts": [asdict(part) for part in parts]}
        storage.write_json(f"{scratch}/{INDEX}", index)
        storage.copy_folder(scratch, folder, last=INDEX)
    return parts


def with_columns(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """`table` with exactly the columns of `schema`; one that it lacks is null."""
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.column_names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


@dataclass
class _Output:
    """The file of one partition while it is written."""

    writer: pq.ParquetWriter
    digest: Any  # hashlib has no public type
    rows: int = 0

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows."""
        self.writer.write_batch(rows)
        self.digest.update(rows.serialize())
        self.rows += len(rows)


def _write_parts(
    batches: Iterator[pa.Table], folder: str, schema: pa.Schema, count: int
) -> list[_Output]:
    """Split `batches` into the files of `folder`."""
    with ExitStack() as files:
        outputs = []
        for name in partition_names(count):
            writer = pq.ParquetWriter(f"{folder}/{name}.parquet", schema, compression="zstd")
            outputs.append(_Output(files.enter_context(writer), hashlib.sha256()))
        for rows in _gathered(batches, ROWS_AT_ONCE * count):
            numbers = partition_of(rows["track_id"], count)
            order = np.argsort(numbers, kind="stable")
            ends = np.cumsum(np.bincount(numbers, minlength=count))
            for output, start, end in zip(outputs, [0, *ends[:-1]], ends, strict=True):
                if end > start:
                    mine = rows.take(pa.array(order[start:end])).combine_chunks()
                    output.write(mine.to_batches()[0])
    return outputs


def _gathered(batches: Iterator[pa.Table], fewest: int) -> Iterator[pa.Table]:
    """`batches` joined to tables of at least `fewest` rows."""
    waiting: list[pa.Table] = []
    for batch in batches:
        waiting.append(batch)
        if sum(map(len, waiting)) >= fewest:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
