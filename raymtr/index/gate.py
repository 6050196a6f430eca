"""Checks on a finished build before it is published: its rows, vectors, recall and answers.

Every kind of read that a searcher does is tried once: a whole record, a search by words, by names
and by vector, and a filter on each column. A build that fails one of them would fail for every
reader. All faults are returned together, as sentences. The reads are tried only on a build without
other faults: a table that lacks rows or has wrong vectors gives wrong answers anyway.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import date
from decimal import Decimal

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.table import Table

from raymtr.embeddings.store import matrix_of
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.conditions import Condition, ParsedValue, condition_on, filterable_type, sql_among
from raymtr.index.filters import Filter, joined
from raymtr.index.track_rows import Row, read_rows
from raymtr.index.track_table import TrackTable
from raymtr.index.tune import RECALL_AT
from raymtr.vectors import TOLERANCE, is_unit, unit
from raymtr.workspace import Workspace

LANCEDB_ERRORS = (OSError, RuntimeError, ValueError)


def find_faults(workspace: Workspace, build: Build, *, target_recall: float) -> list[str]:
    """All checks before publishing: the faults of a finished build as sentences; [] for none.

    Reads (`find_answer_faults`) are tried only where the other checks find nothing.
    """
    db = lancedb.connect(workspace.db)
    tables = {kind: db.open_table(table_name(kind, build.name)) for kind in KINDS}
    faults = find_row_faults(tables, build.rows)
    for kind in ("vectors", "windows"):
        wrong = _wrong_vectors(tables[kind], build.rows[kind])
        if wrong:
            faults.append(f"{wrong} vectors in {kind} do not have length 1, or contain NaN")
    faults += find_recall_faults(build, target_recall=target_recall)
    return faults or find_answer_faults(TrackTable(workspace.db, build), tables)


def find_recall_faults(build: Build, *, target_recall: float) -> list[str]:
    """Check the recall that the build's trial measured against `target_recall`."""
    return [
        f"recall@{RECALL_AT} on {kind} queries is {recall:.3f} with {build.index.nprobes} of "
        f"{build.index.partitions} partitions, below search.target_recall={target_recall}"
        for kind, recall in (build.trial.recall.items() if build.trial else ())
        if recall < target_recall
    ]


def find_answer_faults(table: TrackTable, tables: Mapping[str, Table]) -> list[str]:
    """Try the reads of a searcher; `tables` are the LanceDB tables of the same build.

    Rows are read from LanceDB: the in-memory copy that `table` keeps of a small build is not used.
    """
    columns = ["track_id", "words", "names"]
    faults = []
    for row in tables["tracks"].search().select(columns).limit(1).to_arrow().to_pylist():
        faults += _record_faults(tables["tracks"], table.columns, row["track_id"])
        table.match_words(row["words"] or "music", limit=1)
        table.match_names(row["names"] or "music", limit=1)
    faults += _nearest_faults(table, tables["vectors"])
    for field in table.filterable:
        if filterable_type(field.type):
            faults += _filter_faults(tables, field)
    return faults


def _nearest_faults(table: TrackTable, vectors: Table) -> list[str]:
    """Check that a search by a track's vector has hits, and finds the track under a filter."""
    for row in vectors.search().select(["track_id", "vector"]).limit(1).to_arrow().to_pylist():
        vector, track_id = unit(np.array(row["vector"])), row["track_id"]
        itself = Condition("track_id", "in", (track_id,))
        if not table.nearest(vector, limit=RECALL_AT):
            return [f"a search by the vector of track {track_id!r} finds nothing"]
        found = table.nearest(vector, limit=1, where=itself)
        if not found or abs(found[0][1] - 1.0) > TOLERANCE:
            return [f"a search by the vector of track {track_id!r} does not find that track"]
    return []


def _record_faults(tracks: Table, columns: list[str], track_id: str) -> list[str]:
    record = read_rows(tracks, sql_among("track_id", [track_id]), columns).to_pylist()[0]
    try:
        json.dumps(record, allow_nan=False, default=_iso_date).encode()
    except (ValueError, TypeError) as error:
        return [f"the record of track {track_id!r} cannot be written as JSON: {error}"]
    return []


def _iso_date(value: object) -> str:
    if not isinstance(value, date):
        raise TypeError(f"{value!r:.80} has no JSON form")
    return value.isoformat()


def _filter_faults(tables: Mapping[str, Table], field: pa.Field) -> list[str]:
    """Check that filtering on a column's first value finds its track, in `tracks` and `vectors`."""
    try:
        for kind in ("tracks", "vectors"):
            rows = tables[kind].search().where(Condition(field.name, "null", (), True).sql())
            selected = list(dict.fromkeys(["track_id", field.name]))
            for row in rows.select(selected).limit(1).to_arrow().to_pylist():
                where = _filter_on_row(row, field)
                if where and not len(read_rows(tables[kind], where.sql(), ["track_id"])):
                    track = row["track_id"]
                    return [f"column {field.name!r} of {kind}: its value does not find {track!r}"]
    except LANCEDB_ERRORS as error:
        message = str(error).strip().splitlines()[0]
        return [f"column {field.name!r} cannot be filtered on: {message}"]
    return []


def _filter_on_row(row: Row, field: pa.Field) -> Filter | None:
    value, operator = row[field.name], "="
    if isinstance(value, list):
        value, operator = next((item for item in value if item is not None), None), "has"
    if value is None:
        return None
    same_track = Condition("track_id", "in", (row["track_id"],))
    parsed = (_as_parsed(value),)
    return joined(
        "and", same_track, condition_on(field.name, field.type, operator, parsed, negated=False)
    )


def _as_parsed(value: str | bool | float | date) -> ParsedValue:
    """A value in the type that the filter parser gives it."""
    if isinstance(value, date):
        return value.isoformat()
    return value if isinstance(value, (str, bool)) else Decimal(repr(value))


def find_row_faults(tables: Mapping[str, Table], rows: Mapping[str, int]) -> list[str]:
    """Check that each table has the expected number of rows, and each track only once."""
    faults = []
    for kind, table in tables.items():
        if table.count_rows() != rows[kind]:
            faults.append(f"{kind} has {table.count_rows()} rows, expected {rows[kind]}")
    for kind in ("tracks", "vectors"):
        duplicates = _count_duplicates(tables[kind], rows[kind])
        if duplicates:
            faults.append(f"{duplicates} track ids occur more than once in {kind}")
    return faults


def _count_duplicates(table: Table, rows: int) -> int:
    """How many rows repeat the track id of an earlier row.

    Hashes of 8 bytes are compared, because the ids of a large table do not fit into memory. Ids
    with equal hashes are then read again and compared themselves.
    """
    hashes = [np.fromiter(map(hash, ids), np.int64, len(ids)) for ids in _ids(table, rows)]
    ordered = np.sort(np.concatenate([np.empty(0, np.int64), *hashes]))
    del hashes
    collisions = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not collisions:
        return 0
    repeated = [one for ids in _ids(table, rows) for one in ids if hash(one) in collisions]
    return len(repeated) - len(set(repeated))


def _ids(table: Table, rows: int) -> Iterator[list[str]]:
    for batch in table.search().select(["track_id"]).limit(rows + 1).to_batches():
        yield batch["track_id"].to_pylist()


def count_not_unit(vectors: pa.ChunkedArray) -> int:
    """How many vectors of a column do not have length 1, or are not finite."""
    return int((~is_unit(matrix_of(vectors))).sum())


def _wrong_vectors(table: Table, rows: int) -> int:
    wrong = 0
    for batch in table.search().select(["vector"]).limit(rows + 1).to_batches():
        wrong += count_not_unit(pa.chunked_array([batch["vector"]]))
    return wrong
