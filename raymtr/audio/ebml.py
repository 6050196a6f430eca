"""Reads Matroska and WebM: tags, length and the place of the audio (RFC 8794, RFC 9559)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from raymtr.audio.comments import MOST, gathered
from raymtr.audio.extent import Extent, once, read_at
from raymtr.audio.id3 import Fields
from raymtr.plain_text import from_bytes

Element = tuple[int, int, int]  # id, start and end of its content

_SEGMENT, _CLUSTER, _INFO, _TAGS = 0x18538067, 0x1F43B675, 0x1549A966, 0x1254C367
_TITLE, _SCALE, _DURATION = 0x7BA9, 0x2AD7B1, 0x4489
_TAG, _SIMPLE, _NAME, _STRING = 0x7373, 0x67C8, 0x45A3, 0x4487
_TARGETS, _TYPE, _TRACK = 0x63C0, 0x68CA, 0x63C5
_ALBUM = 50  # the level of album tags, where TITLE is the album's title
_MOST = 100_000  # elements; a long recording has a cluster every few seconds
_LEVELS = {"TITLE": "ALBUM", "ARTIST": "ALBUMARTIST"}
_RENAMED = {"DATE_RELEASED": "DATE", "DATE_RECORDED": "DATE", "LEAD_PERFORMER": "PERFORMER"}


def elements(file: BinaryIO, start: int, end: int) -> Iterator[Element]:
    """The elements between two offsets; one of unknown size extends to `end`."""
    at = start
    for _ in range(_MOST):
        head = read_at(file, at, 12)
        width = 9 - head[0].bit_length() if head else 0
        if not 1 <= width <= 4 or len(head) < width + 1 or at >= end:
            return
        size_width = 9 - head[width].bit_length()
        if size_width > 8:
            return
        raw = int.from_bytes(head[width : width + size_width], "big")
        size, body = raw & (1 << 7 * size_width) - 1, at + width + size_width
        is_open = size == (1 << 7 * size_width) - 1
        stop = end if is_open else min(body + size, end)
        yield int.from_bytes(head[:width], "big"), body, stop
        at = stop


@once
def segment(file: BinaryIO, extent: Extent) -> list[Element]:
    """The elements inside the segment."""
    for kind, start, end in elements(file, extent.start, extent.end):
        if kind == _SEGMENT:
            return list(elements(file, start, end))
    return []


def matroska_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The segment's title, then the tags of track and album, under the names of Vorbis comments."""
    pairs = []
    title = []
    for kind, start, end in segment(file, extent):
        if kind == _TAGS:
            for name, at, stop in elements(file, start, end):
                pairs += list(_tag(file, at, stop)) if name == _TAG else []
        elif kind == _INFO:
            title += [
                ("TITLE", _text(file, at, stop))
                for name, at, stop in elements(file, start, end)
                if name == _TITLE
            ]
    return [gathered(title), gathered(pairs)]


def _tag(file: BinaryIO, start: int, end: int) -> Iterator[tuple[str, str]]:
    inside = list(elements(file, start, end))
    level, of_track = 0, False
    for kind, at, stop in inside:
        for name, p, q in elements(file, at, stop) if kind == _TARGETS else ():
            number = int.from_bytes(read_at(file, p, min(q - p, 8)), "big")
            level = number if name == _TYPE else level
            of_track = of_track or (name == _TRACK and number > 0)
    for kind, at, stop in inside:
        if kind == _SIMPLE:
            parts = {name: _text(file, p, q) for name, p, q in elements(file, at, stop)}
            key = parts.get(_NAME, "").upper()
            if level == _ALBUM and not of_track:
                key = _LEVELS.get(key, key)
            yield _RENAMED.get(key, key), parts.get(_STRING, "")


def matroska_seconds(file: BinaryIO, extent: Extent) -> float | None:
    """The duration in Info, which live recordings lack."""
    for kind, start, end in segment(file, extent):
        if kind == _INFO:
            scale, ticks = 1_000_000, 0.0  # scale: nanoseconds per tick
            for name, at, stop in elements(file, start, end):
                data = read_at(file, at, min(stop - at, 8))
                if name == _SCALE:
                    scale = int.from_bytes(data, "big")
                elif name == _DURATION and len(data) in (4, 8):
                    ticks = struct.unpack(">f" if len(data) == 4 else ">d", data)[0]
            return ticks * scale / 1e9 or None
    return None


def clusters(file: BinaryIO, extent: Extent) -> tuple[int, int]:
    """Start of the first cluster and end of the last one."""
    found = [(at, stop) for kind, at, stop in segment(file, extent) if kind == _CLUSTER]
    return (found[0][0], found[-1][1]) if found else (extent.start, extent.end)


def _text(file: BinaryIO, start: int, end: int) -> str:
    return from_bytes(read_at(file, start, min(end - start, MOST)).rstrip(b"\0"))
