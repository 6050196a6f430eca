"""Cells and odd tables of published datasets: lists written as text, rows of varying length."""

from __future__ import annotations

import ast
import csv
import os
from typing import Any

from raymtr import storage
from raymtr.catalog.tabular import read_rows
from raymtr.errors import InputError

SPLIT_WORDS = (("test", "test"), ("eval", "test"), ("valid", "valid"))
NOTHING = ("", "none", "nan")


def text(cell: object) -> str | None:
    """A text without white space around it; None for an absent one, however it is spelled."""
    content = "" if cell is None else str(cell).strip()
    return None if content.lower() in NOTHING else content


def listed(cell: Any) -> list[str] | None:
    """Texts of a list, of Python's spelling of one (`['a', 'b']`), or of `a, b`; None if empty."""
    if isinstance(cell, str):
        if cell.lstrip().startswith("["):
            try:
                cell = ast.literal_eval(cell.strip())
            except (ValueError, SyntaxError) as error:
                raise InputError(f"no list can be read from the cell {cell[:80]!r}") from error
        else:
            cell = cell.split(",")
    found = [str(item).strip() for item in cell or () if str(item).strip()]
    return list(dict.fromkeys(found)) or None


def split_of(file: str) -> str:
    """The split in a file's name, `test-00000-of-00001.parquet`; else `train`."""
    name = os.path.basename(file).lower()
    return next((split for word, split in SPLIT_WORDS if name.startswith(word)), "train")


def tagged_rows(file: str) -> list[dict[str, Any]]:
    """MTG-Jamendo's TSV: a last column TAGS has a cell for each tag, so rows differ in length.

    Raises InputError that names a row that is too short.
    """
    lines = storage.read_bytes(file).decode("utf-8").splitlines()
    header = lines[0].split("\t") if lines else []
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) < len(header):
            raise InputError(f"{file}:{number}: {len(cells)} cells, expected {len(header)} or more")
        row: dict[str, Any] = dict(zip(header, cells, strict=False))
        rows.append(row | {"TAGS": cells[len(header) - 1 :]} if header[-1] == "TAGS" else row)
    return rows


def tabbed_rows(file: str) -> list[dict[str, Any]]:
    """MagnaTagATune's tables: tabs between quoted cells, though they are called .csv."""
    lines = storage.read_bytes(file).decode("utf-8").splitlines()
    return list(csv.DictReader(lines, delimiter="\t"))


def plain_rows(file: str) -> list[dict[str, Any]]:
    """The rows of a Parquet, CSV, TSV or JSON lines file."""
    rows: list[dict[str, Any]] = read_rows(file).table.to_pylist()
    return rows
