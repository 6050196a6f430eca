"""Reads tabular files: Parquet, CSV, TSV and JSON Lines, each as one Arrow table.

It knows formats and nothing about tracks. The result has plain types (raymtr.columns).
"""

from __future__ import annotations

from raymtr import storage
from raymtr.catalog.delimited import read_delimited
from raymtr.catalog.json_lines import read_json_lines
from raymtr.catalog.parquet_files import read_parquet
from raymtr.catalog.rows import Rows
from raymtr.errors import InputError

SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")


def read_rows(uri: str) -> Rows:
    """The rows of the file at `uri`, or of a folder's Parquet files.

    Raises InputError for a file that is absent, empty, of another format or encoding, or ragged.
    """
    filesystem, path = storage.open_filesystem(uri)
    info = filesystem.get_file_info(path)
    suffix = "." + uri.rpartition(".")[2].lower()
    if info.is_file and suffix not in SUFFIXES:
        raise InputError(f"{uri} is not a table; expected {', '.join(SUFFIXES)}")
    if info.is_file and info.size == 0:
        raise InputError(f"{uri} is empty; expected rows under a header")
    if info.is_file and suffix in (".csv", ".tsv"):
        return read_delimited(uri, tabs=suffix == ".tsv")
    if info.is_file and suffix not in (".parquet", ".pq"):
        return read_json_lines(uri)
    rows = read_parquet(uri)
    if rows is None:
        raise InputError(f"no rows at {uri}; expected a file {', '.join(SUFFIXES)}, or a folder")
    return rows
