"""Reads the tags of chunked formats: WAV, AIFF (both also with ID3), CAF and DSF."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from raymtr.audio.comments import MOST, MOST_PARTS, gathered
from raymtr.audio.extent import Extent, read_at
from raymtr.audio.id3 import Fields, read_id3v2
from raymtr.plain_text import from_bytes

_INFO = {
    b"INAM": "TITLE",
    b"IART": "ARTIST",
    b"IPRD": "ALBUM",
    b"ICRD": "DATE",
    b"IGNR": "GENRE",
}
_CAF = {"YEAR": "DATE", "RECORDED DATE": "DATE"}
_AIFF = {b"NAME": "TITLE", b"AUTH": "ARTIST"}


def chunks(file: BinaryIO, start: int, end: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(id, start, size) of the chunks from `start`; sizes have the byte order "<" or ">".

    Some writers omit the padding of odd sizes; then the next id is one byte earlier.
    """
    at = start
    for _ in range(MOST_PARTS):
        head = read_at(file, at, 9)
        if len(head) < 8 or at + 8 > end:
            return
        if head[0] == 0 and head[1:5].isalnum():  # padding after an even size
            at, head = at + 1, head[1:] + read_at(file, at + 9, 1)
        name, size = struct.unpack_from(f"{order}4sI", head)
        yield name, at + 8, min(size, end - at - 8)
        at += 8 + size
        if size & 1 and not read_at(file, at, 4).isalnum():
            at += 1


def wav_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """Tags of the ID3 chunks, then those of INFO."""
    order = ">" if read_at(file, extent.start, 4) == b"RIFX" else "<"
    info: list[Fields] = []
    id3: list[Fields] = []
    for name, at, size in chunks(file, extent.start + 12, extent.end, order):
        if name.lower() in (b"id3 ", b"id32"):
            id3.append(read_id3v2(file, at))
        elif name == b"LIST" and read_at(file, at, 4) == b"INFO":
            found = [
                (_INFO[kind], from_bytes(read_at(file, p, min(n, MOST)).split(b"\0")[0]))
                for kind, p, n in chunks(file, at + 4, at + size, order)
                if kind in _INFO
            ]
            info.append(gathered(found))
    return id3 + info


def aiff_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """Tags of the ID3 chunks, then those of NAME and AUTH."""
    own, id3 = [], []
    for name, at, size in chunks(file, extent.start + 12, extent.end, ">"):
        if name.upper() == b"ID3 ":
            id3.append(read_id3v2(file, at))
        elif name in _AIFF:
            own.append((_AIFF[name], from_bytes(read_at(file, at, min(size, MOST)))))
    return [*id3, gathered(own)]


def caf_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """Tags of the chunk `info`: a count, then names and values, each ended by a zero byte."""
    at = extent.start + 8
    for _ in range(MOST_PARTS):
        head = read_at(file, at, 12)
        if len(head) < 12:
            break
        name, size = struct.unpack(">4sq", head)
        if name == b"info":
            texts = read_at(file, at + 16, min(max(size - 4, 0), MOST)).split(b"\0")
            pairs = zip(map(from_bytes, texts[::2]), map(from_bytes, texts[1::2]), strict=False)
            return [gathered((_CAF.get(key.upper(), key), value) for key, value in pairs)]
        if size < 0:  # the last chunk, whose length was left open
            break
        at += 12 + size
    return []


def dsf_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The ID3v2 tag that the header of a DSF file points to."""
    at = int.from_bytes(read_at(file, extent.start + 20, 8), "little")
    return [read_id3v2(file, at)] if read_at(file, at, 3) == b"ID3" else []
