"""Reads a manifest, a user's own table of tracks.

Known columns are strictly typed; the error for a value that does not fit names its row. All other
columns are kept as extras. A column that the catalog has already gets the type it has there; any
other extra of a text format gets the type that `text_cells` infers. Lists in text (tags, similar
artists) are split on , ; and |, artists only on ; and | (Earth, Wind & Fire is one artist), unless
the cell is a list in JSON or Python syntax.

Relative URIs are relative to the manifest's folder, so that a manifest can move together with its
audio. Whether the audio exists is not checked: a missing file becomes an error row of embedding.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.catalog.tabular import read_rows
from raymtr.catalog.text_cells import inferred, trimmed
from raymtr.errors import InputError, UnusableError
from raymtr.track import KNOWN, SCHEMA, check_tracks, fit_column

LIST_SEPARATORS, NAME_SEPARATORS = r"[,;|]", r"[;|]"


def read_manifest(uri: str, *, like: pa.Schema | None = None) -> pa.Table:
    """The tracks of the Parquet, CSV, TSV or JSON lines file (or folder of Parquet) at `uri`.

    Columns that the catalog schema `like` has get its types. Raises InputError that names row,
    column, value and what was expected; UnusableError if there are columns but no rows.
    """
    rows = read_rows(uri)
    table = rows.table
    if "track_id" not in table.column_names:
        raise InputError(
            f"{uri} has no track_id column; columns seen: {', '.join(table.column_names) or 'none'}"
        )
    if len(table) == 0:
        raise UnusableError(f"{uri} has columns but no rows; nothing to scan")
    for position, name in enumerate(table.column_names):
        column = table.column(position)
        if name in KNOWN:
            column = known_column(column, SCHEMA.field(name).type, name, rows.place)
        elif like is not None and name in like.names:
            column = known_column(column, like.field(name).type, name, rows.place)
            column = fit_column(column, like.field(name), place=rows.place)
        elif not rows.typed:
            column = inferred(column, name)
        table = table.set_column(position, name, column)
    if "uri" in table.column_names:
        at = table.column_names.index("uri")
        table = table.set_column(at, "uri", absolute(table["uri"], folder=parent(uri)))
    try:
        return check_tracks(table, place=rows.place)
    except InputError as error:
        raise InputError(f"{uri}: {error}") from error


def known_column(
    column: pa.ChunkedArray, wanted: pa.DataType, name: str, place: Callable[[int], str]
) -> pa.ChunkedArray:
    """Trim text, make empty text null, split text if a list is wanted, then cast to `wanted`."""
    if column.null_count == len(column):
        return pa.chunked_array([pa.nulls(len(column), wanted)])
    is_list = pa.types.is_list(wanted)
    if pa.types.is_string(column.type):
        column = trimmed(column)
        if is_list:
            return split_texts(column, name, place)
        if pa.types.is_integer(wanted) or pa.types.is_floating(wanted):
            unknown = pc.match_substring_regex(column, r"(?i)^[+-]?nan$")
            column = pc.if_else(pc.fill_null(unknown, False), pa.scalar(None, pa.string()), column)
    texts = is_list and pa.types.is_string(wanted.value_type)
    if texts and pa.types.is_list(column.type) and not pa.types.is_nested(column.type.value_type):
        return without_empty(column.cast(wanted))
    return column


def split_texts(cells: pa.ChunkedArray, name: str, place: Callable[[int], str]) -> pa.ChunkedArray:
    """Cells of text as lists of texts: parsed if a cell begins with [, else split."""
    pattern = NAME_SEPARATORS if name == "artists" else LIST_SEPARATORS
    lists = pc.split_pattern_regex(cells, pattern=pattern)
    begins_json = pc.fill_null(pc.starts_with(cells, "["), False)
    if not pc.any(begins_json).as_py():
        return without_empty(lists)
    rows = lists.to_pylist()
    for row in np.flatnonzero(begins_json.to_numpy()):
        rows[row] = _written_list(cells[int(row)].as_py(), name, place(int(row)))
    return without_empty(pa.chunked_array([pa.array(rows, pa.list_(pa.string()))]))


def _written_list(cell: str, name: str, where: str) -> list[str]:
    try:
        values = json.loads(cell)
    except ValueError:
        try:
            values = ast.literal_eval(cell)  # as pandas writes it: ['rock', "rock 'n' roll"]
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise InputError(
                f"column {name!r}, {where}: {cell!r} begins like a list but is not one; "
                'expected ["a", "b"], or: a, b'
            ) from error
    return [str(value) for value in values if value is not None]


def without_empty(lists: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lists with trimmed texts and without empty ones; a list without any text is null."""
    chunks = [_without_empty(chunk) for chunk in lists.chunks]
    return pa.chunked_array(chunks, pa.list_(pa.string()))


def _without_empty(lists: pa.Array) -> pa.Array:
    texts = pc.utf8_trim_whitespace(pc.list_flatten(lists))
    kept = pc.fill_null(pc.not_equal(texts, ""), False)
    parents = pc.list_parent_indices(lists).filter(kept).to_numpy()
    counts = np.bincount(parents, minlength=len(lists))
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), texts.filter(kept), mask=pa.array(counts == 0)
    )


def parent(uri: str) -> str:
    """The folder of the manifest at `uri`; for a folder of Parquet files, `uri` itself."""
    filesystem, path = storage.open_filesystem(uri)
    folder = uri if storage.is_remote(uri) else path
    if filesystem.get_file_info(path).is_file:
        folder = folder.rpartition("/")[0]
    return folder.rstrip("/")


def absolute(uris: pa.ChunkedArray, *, folder: str) -> pa.ChunkedArray:
    """URIs and absolute paths unchanged; relative paths below `folder`."""
    if not pa.types.is_string(uris.type):
        return uris  # later checks refuse it
    fixed = pc.match_substring_regex(uris, r"^(/|[A-Za-z][A-Za-z0-9+.-]*://)")
    below = pc.replace_substring_regex(uris, r"^(\./)+", "")
    return pc.if_else(fixed, uris, pc.binary_join_element_wise(folder, below, "/"))
