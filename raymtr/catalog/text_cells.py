"""Cells of text that may be numbers: a CSV file's, and the values in the names of Hive's folders.

Text has no types, so a column becomes numbers or truth values only where each of its cells comes
back as it was written: 007, 1e5, and 1.10 beside 1.2 are codes. Cells that all have the same number
of decimals come back by writing that many, so they are numbers. They have to be: databases and
spreadsheets export so, some tenth of such cells ends in a zero, and `gain > -8.5` is asked of them;
what is kept of 1.10 is 1.1 then, which is told. Versions and catalogue numbers have ragged decimals
sooner or later, and where they have not, numbers order and compare them as they stand.
"""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.compute as pc

LOG = logging.getLogger("raymtr")


def trimmed(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Texts without outer white space; empty ones null."""
    texts = pc.utf8_trim_whitespace(texts)
    return pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)


def inferred(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """The column `name` of text as whole numbers, numbers or truth values where all cells are.

    A cell is a number only where that number, written again as the column writes, is the cell.
    """
    texts = trimmed(cells)
    if texts.null_count == len(texts):
        return texts
    if pc.all(pc.match_substring_regex(texts, r"(?i)^(true|false)$")).as_py():
        return texts.cast(pa.bool_())
    if not pc.all(pc.match_substring_regex(texts, r"^-?(0|[1-9][0-9]*)(\.[0-9]+)?$")).as_py():
        return texts
    try:
        whole = texts.cast(pa.int64())
        return whole if whole.cast(pa.string()).equals(texts) else texts
    except pa.ArrowInvalid:
        numbers = texts.cast(pa.float64())
    given, kept = texts.drop_null().to_pylist(), numbers.drop_null().to_pylist()
    pairs = list(zip(kept, given, strict=True))
    if all(cell in (repr(number), f"{number:.0f}") for number, cell in pairs):
        return numbers
    decimals = {len(cell.partition(".")[2]) for cell in given}
    if len(decimals) > 1 or any(f"{n:.{min(decimals)}f}" != cell for n, cell in pairs):
        return texts
    LOG.info("column %r is numbers of %d decimals; closing zeros are not kept", name, *decimals)
    return numbers
