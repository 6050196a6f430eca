"""Reads JSON Lines: one object per line, whose keys are columns."""

from __future__ import annotations

import json
from array import array
from itertools import islice
from typing import Any

import pyarrow as pa

from raymtr.catalog.rows import Rows, explain_bytes, open_text
from raymtr.columns import plain_table
from raymtr.errors import InputError

JSON_LINES = 50_000  # lines parsed before they become columns
KINDS = {bool: "true/false", int: "numbers", float: "numbers", str: "text", list: "lists"}


def read_json_lines(uri: str) -> Rows:
    """The rows of the file at `uri`, typed. Raises InputError that names the line or column."""
    places = array("q")  # line of each row
    table = pa.table({})
    with open_text(uri) as text:
        numbered = ((n, line) for n, line in enumerate(text, start=1) if line.strip())
        try:
            while part := list(islice(numbered, JSON_LINES)):
                rows = [_json_row(uri, number, line) for number, line in part]
                more = _json_table(uri, rows, [number for number, _ in part])
                table = _joined(uri, table, more, line=part[0][0]) if places else more
                places.extend(number for number, _ in part)
        except UnicodeDecodeError as error:
            explain_bytes(uri, error)
    if not places:
        raise InputError(f"{uri} is empty; expected one JSON object per line")
    try:
        table = plain_table(table)
    except InputError as error:
        raise InputError(f"{uri}: {error}") from error
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
        line.encode()
        "".join(row).encode()  # checks the keys; values are checked as columns
    except UnicodeEncodeError as error:
        raise InputError(
            f"{uri} line {number} contains half a character (a lone surrogate)"
        ) from error
    except RecursionError as error:
        raise InputError(f"{uri} line {number}: lists or objects are nested too deep") from error
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{uri} line {number} is no JSON object: {_why_none(uri, line)}"
        ) from error
    if not isinstance(row, dict):
        raise InputError(f"{uri} line {number} is no JSON object: {_why_none(uri, line)}")
    return row


def _why_none(uri: str, line: str) -> str:
    """Why a line is not an object, for the message."""
    shown = line.strip()[:40]
    if shown.startswith("["):
        return f"it begins a list, {shown!r}; write one object per line (jq -c '.[]')"
    if uri.lower().endswith(".json") or shown == "{":
        return f"it reads {shown!r}; write each object on one line (jq -c .)"
    return f'it reads {shown!r}; expected an object such as {{"track_id": "a1"}}'


def _json_table(uri: str, rows: list[dict[str, Any]], lines: list[int]) -> pa.Table:
    """`rows` as columns; a key that a row lacks is null."""
    columns = {}
    for name in dict.fromkeys(key for row in rows for key in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pa.array(values)
        except UnicodeEncodeError as error:
            raise InputError(
                f"{uri}: a text in column {name!r} contains half a character (a lone surrogate)"
            ) from error
        except (pa.ArrowException, OverflowError) as error:
            seen: dict[str, str] = {}
            for line, value in zip(lines, values, strict=True):
                if value is not None:
                    kind = KINDS.get(type(value), "objects")
                    seen.setdefault(kind, f"{kind} (line {line}: {value!r:.40})")
            raise InputError(
                f"{uri}: column {name!r} contains {' and '.join(seen.values())}: {error}; "
                "give all its values one type"
            ) from error
    return pa.table(columns)
