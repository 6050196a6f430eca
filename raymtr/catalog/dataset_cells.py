"""Cells and odd tables of published datasets: lists written as text, rows of varying length."""

from __future__ import annotations

import ast
import csv
import io
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
    return _split_word(os.path.basename(file)) or "train"


def _split_word(name: str) -> str | None:
    """The split that a part of `name` between hyphens begins with."""
    parts = name.lower().split("-")
    words = (("train", "train"), *SPLIT_WORDS)
    return next((split for part in parts for word, split in words if part.startswith(word)), None)


def tagged_rows(file: str) -> list[dict[str, Any]]:
    """MTG-Jamendo's TSV: a last column TAGS has a cell for each tag, so rows differ in length.

    A file of a split (`autotagging-train.tsv`) adds the column `fold`. Raises InputError that names
    a row that is too short.
    """
    lines = storage.read_bytes(file).decode("utf-8").splitlines()
    header = lines[0].split("\t") if lines else []
    rows, fold = [], _split_word(os.path.basename(file))
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if len(cells) < len(header):
            raise InputError(f"{file}:{number}: {len(cells)} cells, expected {len(header)} or more")
        row: dict[str, Any] = {**dict(zip(header, cells, strict=False)), "fold": fold}
        rows.append(row | {"TAGS": cells[len(header) - 1 :]} if header[-1] == "TAGS" else row)
    return rows


def tabbed_rows(file: str) -> list[dict[str, Any]]:
    """MagnaTagATune's tables: tabs between quoted cells, though they are called .csv."""
    lines = storage.read_bytes(file).decode("utf-8").splitlines()
    return list(csv.DictReader(lines, delimiter="\t"))


def fma_rows(file: str) -> list[dict[str, Any]]:
    """FMA's `tracks.csv`: a header of two lines, `set` over `split`, and a line of the index."""
    content = storage.read_bytes(file).decode("utf-8")
    lines = csv.reader(io.StringIO(content, newline=""))  # cells may have several lines
    above, below = next(lines, []), next(lines, [])
    names = ["track_id", *(f"{a}.{b}" for a, b in zip(above[1:], below[1:], strict=True))]
    rows = (dict(zip(names, line, strict=False)) for line in lines)
    return [row for row in rows if row.get("track_id", "").isdigit()]


def nsynth_rows(file: str) -> list[dict[str, Any]]:
    """NSynth's `nsynth-train/examples.json`: note -> its facts; the folder has the split's name."""
    folder = os.path.basename(os.path.dirname(file))
    notes = storage.read_json(file)
    return [{**row, "folder": folder, "fold": _split_word(folder)} for row in notes.values()]


def plain_rows(file: str) -> list[dict[str, Any]]:
    """The rows of a Parquet, CSV, TSV or JSON lines file."""
    rows: list[dict[str, Any]] = read_rows(file).table.to_pylist()
    return rows
