"""Reads CSV and TSV files as rows of text.

CSV follows RFC 4180. TSV has no quoting, as in most published tables: a quote is an ordinary
character, but a cell entirely in quotes loses them. Cells of both stay text, so that id 00123 keeps
its zeros. Limitation: other separators and encodings are never guessed; the error names the cure.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import islice
from typing import NoReturn

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from raymtr import storage
from raymtr.catalog.rows import Rows, explain_bytes, open_text, refuse_twice
from raymtr.errors import InputError

LONGEST_ROW = 32 << 20  # bytes of one CSV row; a longer one has a quote that never closes
OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars", ",": "commas"}


def read_delimited(uri: str, *, tabs: bool) -> Rows:
    """The rows of the file at `uri`, all as text. Raises InputError that names the faulty line."""
    filesystem, path = storage.open_filesystem(uri)
    header = next(_python_rows(uri, tabs=tabs), (1, []))[1]
    names = [name.strip() for name in header]
    refuse_twice(uri, names)
    _refuse_other_separator(uri, names, tabs=tabs)
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
    table = table.rename_columns(names)
    if tabs:
        table = pa.table({name: _unquoted(table[name]) for name in table.column_names})

    def place(index: int) -> str:
        line, _ = next(islice(_python_rows(uri, tabs=tabs), index + 1, None))
        return f"row {index + 1} (line {line})"

    if not tabs and _ends_quoted(uri, table):
        raise InputError(f"{uri}, {place(len(table) - 1)}: a double quote is never closed")
    return Rows(table, place, typed=False)


def _refuse_other_separator(uri: str, names: list[str], *, tabs: bool) -> None:
    """Raise InputError if a header of one cell contains the separator of another format."""
    seen = next((sign for sign in OTHER_SEPARATORS if len(names) == 1 and sign in names[0]), None)
    if seen:
        wanted = "tabs" if tabs else "commas"
        raise InputError(
            f"{uri}: its header has one column, {names[0][:80]!r}; cells are separated by {wanted} "
            f"in a {'.tsv' if tabs else '.csv'} file, not by {OTHER_SEPARATORS[seen]}: save it so"
        )


def _ends_quoted(uri: str, table: pa.Table) -> bool:
    """Whether an open quote made the rest of the file one cell; Arrow treats it as closed."""
    last = table.slice(max(len(table) - 1, 0)).to_pylist()
    many_lines = any("\n" in cell for row in last for cell in row.values())
    return many_lines and storage.read_bytes(uri).count(b'"') % 2 == 1


def _unquoted(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    quoted = pc.match_substring_regex(cells, r'^"(?:[^"]|"")*"$')
    if not pc.any(quoted).as_py():
        return cells
    inner = pc.replace_substring(pc.utf8_slice_codeunits(cells, 1, -1), '""', '"')
    return pc.if_else(quoted, inner, cells)


def _python_rows(uri: str, *, tabs: bool) -> Iterator[tuple[int, list[str]]]:
    """(first line, cells) of all rows that are not blank, header first."""
    with open_text(uri) as text:
        reader = csv.reader(
            text,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        )
        line = 1
        csv.field_size_limit(
            LONGEST_ROW
        )  # for the whole process; the default is 131,072, and lyrics can be longer
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
            explain_bytes(uri, error)


def _explain_delimited(uri: str, *, tabs: bool, width: int, error: pa.ArrowInvalid) -> NoReturn:
    """Raise InputError for the first row that has too few or too many cells or is not UTF-8."""
    for line, row in _python_rows(uri, tabs=tabs):
        if len(row) != width:
            cure = "" if tabs else "; put cells that contain a comma in double quotes"
            raise InputError(
                f"{uri} line {line}: {len(row)} cells, the header has {width}{cure}"
            ) from error
    raise InputError(f"{uri} cannot be read: {error}") from error
