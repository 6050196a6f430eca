"""Reads Vorbis comments, FLAC comments and APEv2 items; helpers that all tag readers share.

Each reader returns a file's tags as lists of values under the names of Vorbis comments. The catalog
decides what they mean for a track. Tags are not read by a library, because those with a licence
compatible with Apache-2.0 (tinytag, PyAV) lose lists and bytes that are not UTF-8, and those that
keep them (mutagen, pytaglib) are GPL, which would extend to everything built with raymtr. Pictures
are skipped.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import BinaryIO

from raymtr.audio.extent import Extent, read_at
from raymtr.audio.id3 import Fields, read_id3v1, read_id3v2
from raymtr.plain_text import from_bytes

MOST = 1 << 20  # bytes of tags read from one place
MOST_PARTS = 1_000  # chunks, blocks, items or boxes read


def gathered(pairs: Iterable[tuple[str, str]]) -> Fields:
    """Lists of values by name, in the order of `pairs`."""
    fields: Fields = {}
    for name, value in pairs:
        fields.setdefault(name.upper(), []).append(value)
    return fields


def outer_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The tags around the audio: ID3v2, then APEv2, then ID3v1."""
    readers = {"id3v2": read_id3v2, "ape": read_ape, "id3v1": read_id3v1}
    found = []
    for kind, read in readers.items():
        found += [read(file, tag.start) for tag in extent.tags if tag.kind == kind]
    return found


def vorbis_comments(data: bytes) -> Fields:
    """A comment header after its magic (Vorbis I, 5): vendor, count, then NAME=value items."""
    at = 4 + int.from_bytes(data[:4], "little")
    count, at = int.from_bytes(data[at : at + 4], "little"), at + 4
    pairs = []
    for _ in range(min(count, MOST_PARTS)):
        if at + 4 > len(data):
            break
        length = int.from_bytes(data[at : at + 4], "little")
        name, equals, value = data[at + 4 : at + 4 + min(length, MOST)].partition(b"=")
        if equals and not name.upper().endswith(b"PICTURE"):
            pairs.append((from_bytes(name), from_bytes(value)))
        at += 4 + length
    return gathered(pairs)


def flac_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The comments in the metadata blocks of FLAC (RFC 9639, 8)."""
    at = extent.start + 4
    for _ in range(MOST_PARTS):
        head = read_at(file, at, 4)
        length = int.from_bytes(head[1:], "big")
        if len(head) == 4 and head[0] & 0x7F == 4:
            return [vorbis_comments(read_at(file, at + 4, min(length, MOST)))]
        if len(head) < 4 or head[0] & 0x80:
            break
        at += 4 + length
    return []


def read_ape(file: BinaryIO, start: int) -> Fields:
    """The text items of the APEv2 tag at `start`, which may have no header."""
    data = read_at(file, start, MOST)
    at = 32 if data[:8] == b"APETAGEX" else 0
    pairs = []
    for _ in range(MOST_PARTS):
        end = data.find(b"\0", at + 8)
        if end < 0 or data[at : at + 8] == b"APETAGEX":
            break
        length, flags = struct.unpack_from("<II", data, at)
        if not flags & 6:  # text
            for value in data[end + 1 : end + 1 + length].split(b"\0"):
                pairs.append((from_bytes(data[at + 8 : end]), from_bytes(value)))
        at = end + 1 + length
    return gathered(pairs)
