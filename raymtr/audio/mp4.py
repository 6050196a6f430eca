"""Reads the boxes of MP4 (ISO 14496-12), and the tags in iTunes' list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from raymtr.audio.comments import MOST, MOST_PARTS, gathered
from raymtr.audio.extent import Extent, read_at
from raymtr.audio.id3 import GENRES, Fields
from raymtr.plain_text import from_bytes

_ATOMS = {
    b"\xa9nam": "TITLE",
    b"\xa9ART": "ARTIST",
    b"aART": "ALBUMARTIST",
    b"\xa9wrt": "COMPOSER",
    b"\xa9alb": "ALBUM",
    b"\xa9day": "DATE",
    b"\xa9gen": "GENRE",
}


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of the contents of the MP4 boxes between two offsets, as stated."""
    at = start
    for _ in range(MOST_PARTS):
        head = read_at(file, at, 16)
        if at + 8 > end or len(head) < 8:
            return
        size, width = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, width = int.from_bytes(head[8:16], "big"), 16
        size = size or end - at
        if size < width:
            return
        yield head[4:8], at + width, at + size
        at += size


def box_at(file: BinaryIO, start: int, end: int, path: str) -> tuple[int, int] | None:
    """Start and end of the first box on a path such as `moov/udta/meta`; None for none."""
    for wanted in path.split("/"):
        found = next((b for b in boxes(file, start, end) if b[0] == wanted.encode()), None)
        if found is None:
            return None
        _, start, end = found
    return start, end


def mp4_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """iTunes' list: one box per name, with one data box per value."""
    meta = box_at(file, extent.start, extent.end, "moov/udta/meta")
    if meta is None:
        return []
    is_full = read_at(file, meta[0] + 4, 4) not in (b"hdlr", b"ilst")  # QuickTime's is not full
    ilst = box_at(file, meta[0] + 4 * is_full, meta[1], "ilst")
    pairs = []
    for name, at, end in boxes(file, *ilst) if ilst else ():
        key = _ATOMS.get(name, "GENRE" if name == b"gnre" else "")
        if not key and name != b"----":
            continue
        for kind, p, q in boxes(file, at, end):
            data = read_at(file, p, min(q - p, MOST))
            if kind == b"name":
                key = from_bytes(data[4:])
            elif kind == b"data" and name == b"gnre":
                number = int.from_bytes(data[8:10], "big") - 1
                pairs += [(key, GENRES[number])] if 0 <= number < len(GENRES) else []
            elif kind == b"data" and data[3:4] in (b"\0", b"\1"):
                pairs.append((key, from_bytes(data[8:])))
            elif kind == b"data" and data[3:4] == b"\2":
                pairs.append((key, data[8:].decode("utf-16-be", "ignore")))
    return [gathered(pairs)]
