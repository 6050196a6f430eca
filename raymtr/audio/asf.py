"""Reads the tags of ASF, the container of WMA files."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from raymtr.audio.comments import MOST, MOST_PARTS, gathered
from raymtr.audio.extent import Extent, read_at
from raymtr.audio.id3 import Fields

_ASF = {"AUTHOR": "ARTIST", "WM/ALBUMTITLE": "ALBUM", "WM/ALBUMARTIST": "ALBUMARTIST"}
_ASF |= {"WM/YEAR": "DATE", "WM/GENRE": "GENRE", "WM/ARTISTS": "ARTISTS"}
_ASF |= {"WM/ORIGINALRELEASEYEAR": "ORIGINALDATE", "WM/COMPOSER": "COMPOSER"}
_CONTENT = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
_EXTENDED = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
_HEADER_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_LIBRARIES = (  # metadata, and metadata library
    bytes.fromhex("eacbf8c5af5b77488467aa8c44fa4cca"),
    bytes.fromhex("941c23449894d149a1411d134e457054"),
)


def asf_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The content description, the extended one, and the metadata library (ASF, 3.10, 4.8)."""
    size = int.from_bytes(read_at(file, extent.start + 16, 8), "little")
    pairs = list(_asf_objects(read_at(file, extent.start + 30, min(size, 4 * MOST))))
    return [gathered((_ASF.get(name.upper(), name), value) for name, value in pairs)]


def _asf_objects(data: bytes) -> Iterator[tuple[str, str]]:
    """Tags of the objects in `data`; those of the header extension last, where lists continue."""
    at, extension = 0, b""
    for _ in range(MOST_PARTS):
        if at + 24 > len(data):
            break
        name, size = data[at : at + 16], int.from_bytes(data[at + 16 : at + 24], "little")
        body = data[at + 24 : at + size]
        if name == _CONTENT:
            lengths, p = struct.unpack_from("<5H", body.ljust(10, b"\0")), 10
            for key, length in zip(("TITLE", "AUTHOR"), lengths, strict=False):
                yield key, _wide(body[p : p + length])
                p += length
        elif name == _EXTENDED:
            yield from _asf_items(body, "<H", "<HH")
        elif name in _LIBRARIES:
            yield from _asf_items(body, "<4xHHI", "")
        elif name == _HEADER_EXTENSION:
            extension = body[22:]
        at += max(size, 24)
    if extension:
        yield from _asf_objects(extension)


def _asf_items(body: bytes, first: str, second: str) -> Iterator[tuple[str, str]]:
    """Text items: name length, name, type and length, value; the library has all lengths first."""
    count, p = int.from_bytes(body[:2], "little"), 2
    for _ in range(min(count, MOST_PARTS)):
        if p + struct.calcsize(first) > len(body):
            return
        name_length, *rest = struct.unpack_from(first, body, p)
        p += struct.calcsize(first)
        name, p = _wide(body[p : p + name_length]), p + name_length
        if not rest:
            if p + struct.calcsize(second) > len(body):
                return
            rest = list(struct.unpack_from(second, body, p))
            p += struct.calcsize(second)
        kind, length = rest
        if kind == 0:
            yield name, _wide(body[p : p + length])
        p += length


def _wide(data: bytes) -> str:
    return data.decode("utf-16-le", "ignore").rstrip("\0")
