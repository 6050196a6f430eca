"""Files of rows, as people have them: Parquet, CSV, TSV and JSON lines, each as one Arrow table.

It knows formats and nothing about tracks. Files are read by Arrow at its speed; only when one is
refused is it gone through again in plain Python, because a message needs the line, the byte or
the value that is wrong, and Arrow names them only sometimes.

CSV follows RFC 4180. TSV does not quote, as most published tables: a quote is a letter, but a
cell wholly in quotes loses them. Cells of both stay text, so that id 00123 keeps its zeros. What
was given up: other separators and encodings are refused with the cure, never guessed.
"""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from raymtr import storage
from raymtr.errors import InputError

SUFFIXES = (".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")
LONGEST_ROW = 32 << 20  # bytes of one CSV row; more is a quote that never closes
JSON_LINES = 50_000  # lines parsed before they become columns
KINDS = {bool: "true/false", int: "numbers", float: "numbers", str: "text", list: "lists"}


@dataclass(frozen=True)
class Rows:
    """A file's rows; `place` names where row i stands; text formats are not `typed`."""

    table: pa.Table
    place: Callable[[int], str]
    typed: bool


def read_rows(uri: str) -> Rows:
    """The rows of the file at `uri`, or of a folder's Parquet files.

    Raises InputError on a file that is absent, empty, of another format or encoding, or ragged.
    """
    filesystem, path = storage.open_filesystem(uri)
    info = filesystem.get_file_info(path)
    suffix = "." + uri.rpartition(".")[2].lower()
    if not info.is_file:
        return _read_parquet(uri, lambda: storage.read_tables(uri))
    if suffix not in SUFFIXES:
        raise InputError(f"{uri} is no file of rows; expected {', '.join(SUFFIXES)}")
    if info.size == 0:
        raise InputError(f"{uri} is empty; expected rows under a header")
    if suffix in (".csv", ".tsv"):
        return _read_delimited(uri, tabs=suffix == ".tsv")
    if suffix in (".parquet", ".pq"):
        return _read_parquet(uri, lambda: pq.read_table(path, filesystem=filesystem))
    return _read_json_lines(uri)


def _read_parquet(uri: str, read: Callable[[], pa.Table | None]) -> Rows:
    try:
        table = read()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{uri} cannot be read as Parquet: {error}") from error
    if table is None:
        raise InputError(f"no rows at {uri}; expected a file {', '.join(SUFFIXES)}, or a folder")
    return Rows(_plain(table), lambda index: f"row {index + 1}", typed=True)


def _plain(table: pa.Table) -> pa.Table:
    """`table` with text as plain strings: no dictionaries, views or large strings on top."""
    for position, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
            kind = pa.string()
        if kind != field.type:
            table = table.set_column(position, field.name, table.column(position).cast(kind))
    return table


def _read_delimited(uri: str, *, tabs: bool) -> Rows:
    filesystem, path = storage.open_filesystem(uri)
    header = next(_python_rows(uri, tabs=tabs), (1, []))[1]
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise InputError(f"{uri}: column {', '.join(twice)} stands more than once in the header")
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            table = pa.csv.read_csv(
                stream,
                read_options=pa.csv.ReadOptions(use_threads=False, block_size=LONGEST_ROW),
                parse_options=pa.csv.ParseOptions(
                    delimiter="\t" if tabs else ",",
                    quote_char=False if tabs else '"',
                    newlines_in_values=not tabs,
                ),
                convert_options=pa.csv.ConvertOptions(
                    column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False
                ),
            )
    except pa.ArrowInvalid as error:
        _explain_delimited(uri, tabs=tabs, width=len(header), error=error)
    table = table.rename_columns([name.strip() for name in header])
    if tabs:
        table = pa.table({name: _unquoted(table[name]) for name in table.column_names})

    def place(index: int) -> str:
        line, _ = next(islice(_python_rows(uri, tabs=tabs), index + 1, None))
        return f"row {index + 1} (line {line})"

    if not tabs and _ends_quoted(uri, table):
        raise InputError(f"{uri}, {place(len(table) - 1)}: a double quote is never closed")
    return Rows(table, place, typed=False)


def _ends_quoted(uri: str, table: pa.Table) -> bool:
    """Whether the last row swallowed the rest of the file; Arrow takes an open quote for closed."""
    last = table.slice(max(len(table) - 1, 0)).to_pylist()
    many_lines = any("\n" in cell for row in last for cell in row.values())
    return many_lines and storage.read_bytes(uri).count(b'"') % 2 == 1


def _unquoted(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    whole = pc.match_substring_regex(cells, r'^"(?:[^"]|"")*"$')
    if not pc.any(whole).as_py():
        return cells
    inner = pc.replace_substring(pc.utf8_slice_codeunits(cells, 1, -1), '""', '"')
    return pc.if_else(whole, inner, cells)


def _python_rows(uri: str, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of every row that is not blank, header first."""
    with _open_text(uri) as text:
        reader = csv.reader(
            text,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        )
        line = 1
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise InputError(
                f"{uri}, the row that begins in line {line}: {error}; is a double quote not closed?"
            ) from error
        except UnicodeDecodeError as error:
            _explain_bytes(uri, error)


def _open_text(uri: str) -> io.TextIOWrapper:
    filesystem, path = storage.open_filesystem(uri)
    stream = filesystem.open_input_stream(path, compression=None)
    return io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")


def _explain_delimited(uri: str, *, tabs: bool, width: int, error: pa.ArrowInvalid) -> NoReturn:
    """Raise InputError for the first row that is too short, too long or not UTF-8."""
    for line, row in _python_rows(uri, tabs=tabs):
        if len(row) != width:
            cure = "" if tabs else "; put cells that hold a comma in double quotes"
            raise InputError(
                f"{uri} line {line}: {len(row)} cells, the header has {width}{cure}"
            ) from error
    raise InputError(f"{uri} cannot be read: {error}") from error


def _explain_bytes(uri: str, error: UnicodeDecodeError) -> NoReturn:
    """Raise InputError for the first byte of a file that is not UTF-8."""
    seen = 0
    for number, line in enumerate(storage.read_bytes(uri).split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as found:
            raise InputError(
                f"{uri} line {number}: byte 0x{line[found.start]:02x} at {seen + found.start} is "
                f"not UTF-8; save the file as UTF-8 (iconv -f latin1 -t utf-8, if it is Latin-1)"
            ) from error
        seen += len(line) + 1
    raise InputError(f"{uri} is not UTF-8: {error}") from error


def _read_json_lines(uri: str) -> Rows:
    places = array("q")  # line of each row
    table = pa.table({})
    with _open_text(uri) as text:
        numbered = ((n, line) for n, line in enumerate(text, start=1) if line.strip())
        try:
            while part := list(islice(numbered, JSON_LINES)):
                rows = [_json_row(uri, number, line) for number, line in part]
                more = _json_table(uri, rows, [number for number, _ in part])
                table = _joined(uri, table, more, line=part[0][0]) if places else more
                places.extend(number for number, _ in part)
        except UnicodeDecodeError as error:
            _explain_bytes(uri, error)
    if not places:
        raise InputError(f"{uri} is empty; expected one JSON object a line")
    return Rows(table, lambda index: f"line {places[index]}", typed=True)


def _joined(uri: str, table: pa.Table, more: pa.Table, *, line: int) -> pa.Table:
    try:
        return pa.concat_tables([table, more], promote_options="permissive")
    except pa.ArrowException as error:
        raise InputError(
            f"{uri}, from line {line} on: a column changes its type: {error}; "
            "give all its values one type"
        ) from error


def _json_row(uri: str, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{uri} line {number} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise InputError(
            f"{uri} line {number}: expected a JSON object such as "
            f'{{"track_id": "a1"}}, saw {line.strip()[:40]}'
        )
    return row


def _json_table(uri: str, rows: list[dict[str, Any]], lines: list[int]) -> pa.Table:
    """`rows` as columns; a key that some rows lack is null there."""
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except (pa.ArrowException, OverflowError, UnicodeEncodeError) as error:
            seen: dict[str, str] = {}
            for line, value in zip(lines, values, strict=True):
                if value is not None:
                    kind = KINDS.get(type(value), "objects")
                    seen.setdefault(kind, f"{kind} (line {line}: {value!r:.40})")
            raise InputError(
                f"{uri}: column {name!r} holds {' and '.join(seen.values())}: {error}; "
                "give all its values one type"
            ) from error
    return pa.table(columns)
