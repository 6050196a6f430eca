"""Rows of the `tracks` table by id and by name, from memory or from LanceDB.

A LanceDB lookup takes some milliseconds at any table size, and a query makes several. So a table
small enough for exact search is kept in memory, where a lookup is a dictionary access. Both classes
have the same methods. Filters and full-text search always use LanceDB.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, Final, NotRequired, TypedDict, cast

import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table

from raymtr.index.conditions import sql_among, sql_column, sql_literal

# Columns that `build_tables` adds to `tracks` for search. A catalog's own columns never begin with
# an underscore.
TITLE_KEY: Final = "_title_key"
ARTIST_KEY: Final = "_artist_key"
SIMILAR_KEYS: Final = "_similar_keys"
ARTIST_KEYS: Final = (
    "_artist_keys"  # one per artist; ARTIST_KEY is the key of the whole artist text
)
SEARCH_COLUMNS = ("words", "names", TITLE_KEY, ARTIST_KEY, ARTIST_KEYS, SIMILAR_KEYS)
NAMED_COLUMNS = ["track_id", "title", "artist", "artists", TITLE_KEY, ARTIST_KEY, ARTIST_KEYS]
# Columns that some builds of 2026 lack; there, reads and upserts leave them out.
NEWER_COLUMNS = ("artists", ARTIST_KEYS, "audio_digest")

Row = dict[str, Any]


class NamedRow(TypedDict):
    """NAMED_COLUMNS of a track; keys of NEWER_COLUMNS are absent if the build lacks the column."""

    track_id: str
    title: str | None
    artist: str | None
    artists: NotRequired[list[str] | None]
    _title_key: str | None
    _artist_key: str | None
    _artist_keys: NotRequired[list[str] | None]


class LanceRows:
    """Rows read from a LanceDB table through its scalar indices."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def by_id(self, ids: Sequence[str], columns: Sequence[str]) -> list[Row]:
        """The rows of these ids, in any order; an unknown id has no row."""
        return self._where(sql_among("track_id", ids), self._existing(columns))

    def by_name(self, keys: Iterable[str]) -> list[NamedRow]:
        """NAMED_COLUMNS of the tracks whose title or artist has one of these keys."""
        distinct = sorted(set(keys))
        condition = f"{sql_among(TITLE_KEY, distinct)} OR {sql_among(ARTIST_KEY, distinct)}"
        if ARTIST_KEYS in self._table.schema.names and distinct:
            among = ", ".join(map(sql_literal, distinct))
            condition += f" OR array_has_any({sql_column(ARTIST_KEYS)}, make_array({among}))"
        return cast(list[NamedRow], self._where(condition, self._existing(NAMED_COLUMNS)))

    def by_similar(self, key: str) -> list[Row]:
        """`track_id, _similar_keys` of the tracks whose artist graph names this artist."""
        condition = f"array_has({sql_column(SIMILAR_KEYS)}, {sql_literal(key)})"
        return self._where(condition, ["track_id", SIMILAR_KEYS])

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        return read_rows(self._table, None, [name])[name]

    def _existing(self, columns: Sequence[str]) -> list[str]:
        names = self._table.schema.names
        return [name for name in columns if name not in NEWER_COLUMNS or name in names]

    def _where(self, condition: str, columns: Sequence[str]) -> list[Row]:
        return list(read_rows(self._table, condition, columns).to_pylist())


class InMemoryRows:
    """The same methods on an Arrow table in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self._row_of = {track: row for row, track in enumerate(table["track_id"].to_pylist())}

    def by_id(self, ids: Sequence[str], columns: Sequence[str]) -> list[Row]:
        """The rows of these ids, in any order; an unknown id has no row."""
        return self._take([self._row_of[i] for i in ids if i in self._row_of], columns)

    def by_name(self, keys: Iterable[str]) -> list[NamedRow]:
        """NAMED_COLUMNS of the tracks whose title or artist has one of these keys."""
        rows = {row for key in keys for row in self._names.get(key, ())}
        return cast(list[NamedRow], self._take(sorted(rows), NAMED_COLUMNS))

    def by_similar(self, key: str) -> list[Row]:
        """`track_id, _similar_keys` of the tracks whose artist graph names this artist."""
        return self._take(self._similar.get(key, []), ["track_id", SIMILAR_KEYS])

    def column(self, name: str) -> pa.ChunkedArray:
        """One column of all rows."""
        return self._table[name]

    @cached_property
    def _names(self) -> dict[str, list[int]]:
        rows: dict[str, list[int]] = {}
        for column in (TITLE_KEY, ARTIST_KEY):
            for row, key in enumerate(self._table[column].to_pylist()):
                if key is not None:
                    rows.setdefault(key, []).append(row)
        if ARTIST_KEYS in self._table.column_names:
            for key, some in self._listed(ARTIST_KEYS).items():
                rows[key] = list(dict.fromkeys([*rows.get(key, ()), *some]))
        return rows

    @cached_property
    def _similar(self) -> dict[str, list[int]]:
        return self._listed(SIMILAR_KEYS)

    def _listed(self, column: str) -> dict[str, list[int]]:
        """Key -> the rows whose list in `column` has the key."""
        lists = self._table[column]
        parents = pc.list_parent_indices(lists).to_pylist()
        rows: dict[str, list[int]] = {}
        for row, key in zip(parents, pc.list_flatten(lists).to_pylist(), strict=True):
            rows.setdefault(key, []).append(row)
        return rows

    def _take(self, rows: Sequence[int], columns: Sequence[str]) -> list[Row]:
        names = self._table.column_names
        known = [
            name for name in dict.fromkeys(columns) if name not in NEWER_COLUMNS or name in names
        ]
        chosen = self._table.select(known)
        return list(chosen.take(pa.array(rows, pa.int64())).to_pylist())


def read_rows(table: Table, condition: str | None, columns: Sequence[str]) -> pa.Table:
    """Some columns of all rows of a LanceDB table that meet an SQL condition; None: of all rows."""
    query = table.search()
    if condition is not None:
        query = query.where(condition, prefilter=True)
    chosen = list(dict.fromkeys(columns))
    return query.select(chosen).limit(max(table.count_rows(), 1)).to_arrow()
