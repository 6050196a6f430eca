"""The result of a reader of tabular files, and helpers that readers of text share.

Arrow reads the files, because it is fast. Only a file that Arrow refuses is read again in plain
Python: a message needs the wrong line, byte or value, which Arrow names only sometimes.
"""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

import pyarrow as pa

from raymtr import storage
from raymtr.errors import InputError


@dataclass(frozen=True)
class Rows:
    """A file's rows. `place(i)` names the place of row i; text formats are not `typed`."""

    table: pa.Table
    place: Callable[[int], str]
    typed: bool


def refuse_twice(uri: str, names: list[str]) -> None:
    """Raise InputError if a column name occurs more than once."""
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            f"{uri}: column {', '.join(twice)} occurs more than once in the header; rename or "
            "drop one"
        )


def open_text(uri: str) -> io.TextIOWrapper:
    """The file at `uri` as UTF-8 text, with line ends unchanged."""
    filesystem, path = storage.open_filesystem(uri)
    stream = filesystem.open_input_stream(path, compression=None)
    return io.TextIOWrapper(io.BufferedReader(stream), encoding="utf-8-sig", newline="")


def explain_bytes(uri: str, error: UnicodeDecodeError) -> NoReturn:
    """Raise InputError for the first byte of a file that is not UTF-8."""
    data = storage.read_bytes(uri)
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(
            f"{uri} is UTF-16; save the file as UTF-8 (iconv -f utf-16 -t utf-8)"
        ) from error
    seen = 0
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            line.decode()
        except UnicodeDecodeError as found:
            raise InputError(
                f"{uri} line {number}: byte 0x{line[found.start]:02x} at {seen + found.start} is "
                f"not UTF-8; save the file as UTF-8 (iconv -f latin1 -t utf-8, if it is Latin-1)"
            ) from error
        seen += len(line) + 1
    raise InputError(f"{uri} is not UTF-8: {error}") from error
