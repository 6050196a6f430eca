"""A change of the tables of one build, or of one table shard, before it is published.

Readers see it only when a record names the new table versions; see `changes`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError, UnusableError
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.build_tables import vectors_table, windows_table
from raymtr.index.conditions import sql_among
from raymtr.index.gate import count_not_unit
from raymtr.index.track_rows import NEWER_COLUMNS, read_rows
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
NEVER = timedelta(days=36_500)
LEAST_STRAY = 1_000_000_000  # bytes; fewer are not worth a warning
MOST_PASSES = 5  # of LanceDB's optimize, which leaves some work to a second pass
IDS_AT_ONCE = 5_000  # per condition

Tables = dict[str, Table]


@dataclass(frozen=True, kw_only=True)
class Change:
    """Rows to delete from and to add to the tables of a build, or of one table shard of it."""

    part: Build  # the build or the table shard before the change
    tables: Tables
    counts: dict[str, int]  # rows of each table after the change
    ids: list[str]  # tracks whose rows are deleted
    rows: Mapping[str, pa.Table] = field(default_factory=dict)  # rows to add, by table

    def write(self) -> None:
        """Write the change as new versions of the tables."""
        for kind, table in self.tables.items():
            _delete(table, self.ids)
            if kind in self.rows and len(self.rows[kind]):
                table.add(fit_rows(self.rows[kind], table.schema))

    def changed(self) -> Build:
        """The build or the table shard after the change."""
        versions = {kind: table.version for kind, table in self.tables.items()}
        return replace(self.part, rows=self.counts, versions=versions)


def upsert_change(
    workspace: Workspace, part: Build, tracks: pa.Table, shards: EmbeddingStore | None
) -> Change:
    """The change that inserts or replaces `tracks`, all of which belong in `part`."""
    tables = open_tables(workspace, part)
    ids = tracks["track_id"].combine_chunks()
    rows = {"tracks": fit_rows(tracks, tables["tracks"].schema)}
    if shards is not None:
        embedded, windows = shards.of_tracks(ids)
        vectors = vectors_table(rows["tracks"], embedded, shards.made_by.fingerprint)
        columns = tables["vectors"].schema.names  # an older version copied fewer types there
        vectors = vectors.select([name for name in vectors.column_names if name in columns])
        first = _next_row_index(tables["vectors"])
        place = vectors.column_names.index("row_index")
        numbers = pa.array(np.arange(first, first + len(vectors), dtype=np.int64))
        rows["vectors"] = vectors.set_column(place, "row_index", numbers)
        of_change = pc.is_in(windows["track_id"], value_set=rows["vectors"]["track_id"])
        rows["windows"] = windows_table(windows.filter(of_change))
        if wrong := sum(count_not_unit(rows[kind]["vector"]) for kind in ("vectors", "windows")):
            raise UnusableError(f"{wrong} new vectors do not have length 1: embed them again")
    deleted = ids.to_pylist()
    counts = {
        kind: table.count_rows() - count_among(table, deleted) + len(rows.get(kind, ()))
        for kind, table in tables.items()
    }
    return Change(part=part, tables=tables, counts=counts, ids=deleted, rows=rows)


def fit_rows(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with the columns of `schema`; missing ones are null.

    Raises InputError for a column that the tables lack, or a value that does not fit their type.
    """
    new = [
        name for name in rows.column_names if name not in schema.names and name not in NEWER_COLUMNS
    ]
    if new and any(rows[name].null_count < len(rows) for name in new):
        raise InputError(
            f"column {new[0]!r} is not in the live tables, which have {', '.join(schema.names)}; "
            "`raymtr index` builds tables that have it"
        )
    columns = []
    for one in schema:
        if one.name not in rows.column_names:
            columns.append(pa.nulls(len(rows), one.type))
            continue
        try:
            columns.append(rows[one.name].cast(one.type))
        except pa.ArrowInvalid as error:
            raise InputError(
                f"column {one.name!r} is {one.type} in the live tables: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def open_tables(workspace: Workspace, build: Build) -> Tables:
    """The tables of a build for writing, restored to the versions that its record names."""
    db = lancedb.connect(workspace.db)
    tables = {}
    for kind in KINDS:
        name = table_name(kind, build.name)
        try:
            table = db.open_table(name)
            if table.version != build.versions[kind]:
                table.checkout(build.versions[kind])
                table.restore()
        except (ValueError, RuntimeError, OSError) as error:
            raise UnusableError(
                f"table {name} of a kept build cannot be opened ({error}); run `raymtr index`"
            ) from error
        tables[kind] = table
    return tables


def optimize(table: Table) -> int:
    """Merge files and update indices until nothing is left to do. Returns the final version."""
    for _ in range(MOST_PASSES):
        before = table.version
        table.optimize(cleanup_older_than=NEVER)
        if table.version == before:
            break
    return int(table.version)


def warn_of_stray_bytes(table: Table) -> None:
    """Log a warning where most of a table's bytes are not of its newest version.

    Some are normal: versions stay for readers. Many mean that clean-up fails, or that killed jobs
    left files that no version names.
    """
    newest, dataset = table.list_versions()[-1], table.to_lance()
    used = int(newest["metadata"]["total_files_size"])
    used += sum(index.total_size_bytes for index in dataset.describe_indices())
    on_disk = sum(size for size, _ in storage.files_below(dataset.uri).values() if size)
    stray = on_disk - used
    if stray > max(used, LEAST_STRAY):
        LOG.warning(
            "table %s has %.1f GB of files that its newest version does not use, beside %.1f GB "
            "that it uses; if this grows, run `raymtr index`: it builds new tables, and the old "
            "ones go with their builds (search.keep_versions)",
            table.name,
            stray / 1e9,
            used / 1e9,
        )


def _next_row_index(vectors: Table) -> int:
    numbers = read_rows(vectors, None, ["row_index"])["row_index"]
    return int(pc.max(numbers).as_py() or 0) + 1


def _delete(table: Table, ids: list[str]) -> None:
    for some in chunks(ids):
        table.delete(sql_among("track_id", some))


def count_among(table: Table, ids: list[str]) -> int:
    """How many rows of a table belong to these tracks."""
    return sum(table.count_rows(sql_among("track_id", some)) for some in chunks(ids))


def chunks(ids: list[str]) -> Iterator[list[str]]:
    """Track ids in chunks of at most IDS_AT_ONCE, the limit of one condition."""
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]
