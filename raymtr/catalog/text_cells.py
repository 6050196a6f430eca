"""Infers types of text cells: those of CSV files, and the values in names of Hive partitions.

Text has no types, so a column becomes numbers or booleans only if each cell survives the round trip
to a number and back: 007, 1e5, and 1.10 beside 1.2 are codes. Cells that all have the same number
of decimals are numbers, because writing that many decimals restores them. This case matters:
databases and spreadsheets export such columns, about a tenth of the cells ends in a zero, and users
filter with `gain > -8.5`. A cell 1.10 is then stored as 1.1, which is logged. Version and catalogue
numbers usually differ in their number of decimals; if they do not, they order and compare correctly
as numbers.
"""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

LOG = logging.getLogger("raymtr")


def trimmed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without leading and trailing white space; empty ones are null."""
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def inferred(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The text column `name` as integers, floats or booleans, if all its cells are such values.

    A cell is a number only if writing that number in the column's format restores the cell.
    """
    texts = trimmed(cells)
    if texts.null_count == len(texts):
        return texts
    if pc.all(pc.match_substring_regex(texts, r"(?i)^(true|false)$")).as_py():
        return texts.cast(pa.bool_())
    if not pc.all(pc.match_substring_regex(texts, r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$")).as_py():
        return texts
    try:
        integers = texts.cast(pa.int64())
        return integers if integers.cast(pa.string()).equals(texts) else texts
    except pa.ArrowInvalid:
        numbers = texts.cast(pa.float64())
    given, kept = texts.drop_null().to_pylist(), numbers.drop_null().to_pylist()
    pairs = list(zip(kept, given, strict=True))
    if all(cell in (repr(number), f"{number:.0f}") for number, cell in pairs):
        return numbers
    decimals = {len(cell.partition(".")[2]) for cell in given}
    if len(decimals) > 1 or any(f"{n:.{min(decimals)}f}" != cell for n, cell in pairs):
        return texts
    LOG.info(
        "column %r is read as numbers of %d decimals; trailing zeros are not kept", name, *decimals
    )
    return numbers
