"""Reads third-party Parquet files: one file, or the parts in a folder, as one table.

Each part is converted to plain types before the parts are joined, because writers differ: integers
in one file and floats in another, text in one of four types. Folders named `key=value` below the
given folder are Hive partitions: their keys become columns, unless a file has such a column. The
names of folders above it are ignored.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from raymtr import storage
from raymtr.catalog.rows import Rows, refuse_twice
from raymtr.catalog.text_cells import inferred
from raymtr.columns import join_parts, plain_columns
from raymtr.errors import InputError

Keys = dict[str, str | None]  # keys of the partition that a file belongs to

_NOTHING = "__HIVE_DEFAULT_PARTITION__"


def read_parquet(uri: str) -> Rows | None:
    """The rows of a file, or of the Parquet files of a folder; None if it has none.

    Raises InputError that names the file that is not Parquet, or two files with incompatible
    columns.
    """
    filesystem, path = storage.open_filesystem(uri)
    one = filesystem.get_file_info(path).is_file
    parts = {uri: {}} if one else partitions(uri.rstrip("/"))
    files = list(parts)
    tables = _with_keys([_table(file) for file in files], list(parts.values()))
    if not tables:
        return None
    try:
        table = join_parts(tables)
    except pa.ArrowException as error:
        raise InputError(f"{uri} cannot be read as one: {_clash(files, tables)}") from error
    ends = list(accumulate(len(part) for part in tables))

    def place(index: int) -> str:
        part = bisect_right(ends, index)
        row = index - (ends[part] - len(tables[part])) + 1
        return f"row {row}" if one else f"row {row} of {files[part]}"

    return Rows(table, place, typed=True)


def partitions(folder: str, above: Keys | None = None) -> dict[str, Keys]:
    """The Parquet files of a folder and its partitions, with the keys of each.

    Hidden files are other programs' metadata and are skipped.
    """
    keys = above or {}
    names = storage.list_files(folder, suffix=".parquet")
    found = {f"{folder}/{name}": keys for name in names if not name.startswith((".", "_"))}
    for name in storage.list_folders(folder):
        key, equals, value = (unquote(part) for part in name.partition("="))
        if key and equals and key not in keys and not name.startswith((".", "_")):
            partition_key = {key: None if value == _NOTHING else value}
            found |= partitions(f"{folder}/{name}", keys | partition_key)
    return found


def _with_keys(tables: list[pa.Table], keys: list[Keys]) -> list[pa.Table]:
    """Each table with those keys of its partition for which it has no column."""
    for key in dict.fromkeys(key for own in keys for key in own):
        texts = pa.chunked_array([pa.array([own.get(key) for own in keys], pa.string())])
        values = zip(tables, inferred(texts, key), strict=True)
        tables = [
            table
            if key in table.column_names
            else table.append_column(key, pa.repeat(value, len(table)))
            for table, value in values
        ]
    return tables


def _table(file: str) -> pa.Table:
    filesystem, path = storage.open_filesystem(file)
    try:
        with pq.ParquetFile(path, filesystem=filesystem) as opened:
            table = opened.read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file} cannot be read as Parquet: {error}") from error
    refuse_twice(file, table.column_names)
    try:
        return plain_columns(table)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _clash(files: list[str], tables: list[pa.Table]) -> str:
    """The first column that has incompatible types in two files, for the message."""
    first: dict[str, tuple[str, pa.DataType]] = {}
    for file, table in zip(files, tables, strict=True):
        for field in table.schema:
            before, kind = first.setdefault(field.name, (file, field.type))
            try:
                pa.unify_schemas(
                    [pa.schema([(field.name, kind)]), pa.schema([field])],
                    promote_options="permissive",
                )
            except pa.ArrowException:
                return f"column {field.name!r} is {kind} in {before} and {field.type} in {file}"
    return "its files have columns of other types"
