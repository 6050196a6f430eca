"""Finds a file's audio between the tags that other programs put before and after it.

ID3v2, APEv2, ID3v1 and Lyrics3 tags are outside any container: several of them may be before the
first or after the last byte of any file. Frame readers must not take them for damaged audio, and
tag readers find them here. Only headers and footers of tags are read, at most MOST_TAGS per side.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeVar, TypeVarTuple, cast

Ts = TypeVarTuple("Ts")
T = TypeVar("T")

MOST_TAGS = 16
_FURTHEST = 1 << 62
_LYRICS_MOST = 5100  # bytes of a Lyrics3v1 tag
_HEAD, _TAIL = 32 << 10, 16 << 10  # bytes cached at either end of a `CachedFile` file
_AHEAD = 512  # least bytes per read in between


class OuterTag(NamedTuple):
    """A tag outside the container."""

    kind: str  # id3v2, ape, id3v1 or lyrics
    start: int
    end: int


@dataclass(frozen=True)
class Extent:
    """The range of bytes of a file that is audio, or a container of audio."""

    start: int
    end: int
    tags: tuple[OuterTag, ...] = ()  # in file order


class CachedFile:
    """A cache around an opened file that many readers read in the same few places, for `read_at`.

    It caches the first and last bytes, where most data is, and the last piece read in between, and
    the results of readers (`once`). So a file takes about five reads, not fifty.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.found = file, dict[Any, Any]()
        try:
            self._descriptor: int | None = file.fileno()
        except (io.UnsupportedOperation, AttributeError):  # the file is in memory or a store
            self._descriptor = None
        self.size = size = file.seek(0, 2)
        self._head = self._read(0, min(size, _HEAD))
        self._first = self._between = len(self._head)
        self._piece = b""
        self._last = max(size - _TAIL, self._first)
        self._tail = self._read(self._last, size - self._last)

    def seek(self, offset: int, whence: int) -> int:
        """The size of the file; supports only seeking to the end."""
        if offset or whence != io.SEEK_END:
            raise ValueError("only the end can be sought here; read with `at`")
        return self.size

    def at(self, offset: int, count: int) -> bytes:
        """Up to `count` bytes from `offset`."""
        stop = offset + count
        if 0 <= offset <= stop <= self._first:
            return self._head[offset:stop]
        offset = max(offset, 0)
        stop = min(offset + count, self.size)
        if offset >= stop:  # from a damaged number, or after the end
            return b""
        if offset >= self._last:
            return self._tail[offset - self._last : stop - self._last]
        if stop <= self._first:
            return self._head[offset:stop]
        if count >= _AHEAD:  # audio, which is read once
            return self._read(offset, stop - offset)
        if not self._between <= offset <= stop <= self._between + len(self._piece):
            self._piece = self._read(offset, min(_AHEAD, self.size - offset))
            self._between = offset
        return self._piece[offset - self._between : stop - self._between]

    def _read(self, offset: int, count: int) -> bytes:
        if self._descriptor is None:
            self._file.seek(offset)
            data = self._file.read(count)
            while 0 < len(data) < count and (more := self._file.read(count - len(data))):
                data += more
            return data
        data = os.pread(self._descriptor, count, offset)
        while 0 < len(data) < count and (
            more := os.pread(self._descriptor, count - len(data), offset + len(data))
        ):
            data += more
        return data


def once(
    read: Callable[[BinaryIO, Extent, *Ts], T],
) -> Callable[[BinaryIO, Extent, *Ts], T]:
    """Decorator for a reader of an extent: caches its result in a `CachedFile` file."""

    def kept(file: BinaryIO, extent: Extent, *args: *Ts) -> T:
        if not isinstance(file, CachedFile):
            return read(file, extent, *args)
        key = read, extent, args
        if key not in file.found:
            file.found[key] = read(file, extent, *args)
        return cast(T, file.found[key])

    return kept


def read_at(file: BinaryIO, offset: int, count: int) -> bytes:
    """Up to `count` bytes from `offset`; also of an unbuffered file, whose reads may be short."""
    if isinstance(file, CachedFile):
        return file.at(offset, count)
    if offset > _FURTHEST:  # a damaged size
        return b""
    file.seek(max(offset, 0))
    data = file.read(max(count, 0))
    while 0 < len(data) < count and (more := file.read(count - len(data))):
        data += more
    return data


def find_extent(file: BinaryIO) -> Extent:
    """The extent of an opened file."""
    size = file.seek(0, 2)
    start, end = 0, size
    front: list[OuterTag] = []
    while len(front) < MOST_TAGS:
        head = read_at(file, start, 32)
        kind, length = ("id3v2", id3_length(head)) if head[:3] == b"ID3" else ("ape", _ape(head))
        if not 0 < length <= end - start:
            break
        front.append(OuterTag(kind, start, start + length))
        start += length
    back: list[OuterTag] = []
    while len(back) < MOST_TAGS and (tag := _tag_before(file, end)) and tag.start >= start:
        back.append(tag)
        end = tag.start
    return Extent(start, end, (*front, *reversed(back)))


def id3_length(head: bytes) -> int:
    """Size in bytes of the ID3v2 tag that begins with `head`; 0 for none (ID3v2.4, 3.1)."""
    if len(head) < 10 or head[:3] != b"ID3":
        return 0
    return 10 + syncsafe(head[6:10]) + (10 if head[5] & 0x10 else 0)


def syncsafe(four: bytes) -> int:
    """The number that ID3v2 stores in the low seven bits of four bytes."""
    a, b, c, d = four
    return a << 21 | b << 14 | c << 7 | d


def _ape(head: bytes) -> int:
    """Size in bytes of the APEv2 tag whose header or footer is `head`; 0 for none."""
    if len(head) < 32 or head[:8] != b"APETAGEX":
        return 0
    _, size, _, flags = struct.unpack_from("<4I", head, 8)
    return int(size) + (32 if flags >> 31 else 0)  # the size excludes the header


def _tag_before(file: BinaryIO, end: int) -> OuterTag | None:
    """The tag that ends at `end`."""
    tail = read_at(file, end - 128, min(end, 128))
    if len(tail) == 128 and tail[:3] == b"TAG":
        return OuterTag("id3v1", end - 128, end)
    if length := _ape(tail[-32:]):
        return OuterTag("ape", end - length, end)
    if tail[-10:-7] == b"3DI":
        return OuterTag("id3v2", end - 20 - syncsafe(tail[-4:]), end)
    if tail[-9:] == b"LYRICS200" and tail[-15:-9].isdigit():
        return OuterTag("lyrics", end - 15 - int(tail[-15:-9]), end)
    if tail[-9:] == b"LYRICSEND":
        most = read_at(file, end - _LYRICS_MOST, min(end, _LYRICS_MOST))
        at = most.rfind(b"LYRICSBEGIN")
        return OuterTag("lyrics", end - len(most) + at, end) if at >= 0 else None
    return None
