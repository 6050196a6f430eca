"""Reads Ogg: pages, the length of a track, and its comments (RFC 3533, RFC 7845).

A decoder drops a page whose checksum fails (a second of Opus) and continues. So every checksum is
verified, and a gap in the numbers of the intact pages, or a torn page at the end, means that audio
is missing. The granule position of a page that fails still gives a minimum length of the track.
Files of live recorders count as complete: their granules begin late, and no page is marked last.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from raymtr.audio.comments import gathered, vorbis_comments
from raymtr.audio.extent import Extent, once, read_at
from raymtr.audio.id3 import Fields
from raymtr.audio.mpeg import is_hole

_HEADER = struct.Struct("<5xBqII4xB")
_LONGEST_PAGE_S = 60  # beyond that the granule of a damaged page is damaged too
_MOST_DAMAGED = 100  # pages, then the walk ends, so that forged pages do not take minutes
_MOST_HEADERS = 1 << 25  # bytes of header packets: the comments may contain a cover
_BIGGEST_PAGE = 27 + 255 + 255 * 255
_LONGEST_PACKET = 8192  # samples, of Vorbis
_USUAL_PAGE = 16 << 10
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))
_LATE_S = 0.05  # an estimated start before that counts as 0, within the estimate's error


class Page(NamedTuple):
    """One page; `body` is its audio, segments of packets."""

    serial: int
    number: int
    granule: int
    begins: bool
    ends: bool
    intact: bool
    packets: int  # number of packets that end in it
    body: bytes


@dataclass
class Stream:
    """The state of one logical stream while its pages are read."""

    rate: int  # granules per second
    skip: int  # granules before the first sample
    number: int  # of the last intact page
    granule: int = 0
    gaps: int = 0
    first: tuple[int, int] | None = None  # granule and packets of the first page of audio
    start: int | None = None  # granule at which the audio begins, once it is known

    def add(self, page: Page) -> None:
        """Update the state with the next page."""
        if page.intact or page.granule - self.granule < _LONGEST_PAGE_S * self.rate:
            self._locate(page)
            self.granule = max(self.granule, page.granule)
        if page.intact:
            self.gaps += page.number != self.number + 1
            self.number = page.number

    def _locate(self, page: Page) -> None:
        """Find the start: the packets of the first page are as long as those of the second."""
        if page.granule <= 0 or self.start is not None:
            return
        if self.first is None:
            self.first = page.granule, page.packets
            if not page.ends:
                return
        granule, packets = self.first
        each = (page.granule - granule) / max(page.packets, 1)
        if page.ends:  # its granule may be trimmed to the length of the track
            each = _LONGEST_PACKET
        begins = round(granule - packets * each)
        self.start = begins if begins > _LATE_S * self.rate else 0

    @property
    def seconds(self) -> float:
        """From the first sample to the end of the last page seen."""
        return max(0, self.granule - self.skip - (self.start or 0)) / self.rate


def walk(data: bytes) -> tuple[list[Stream], bool]:
    """The chained streams in `data`, and whether it ends inside a page, or in a hole."""
    streams: list[Stream] = []
    current: dict[int, Stream] = {}  # by serial, which a file chained to itself repeats
    page, end = None, 0
    for page, end in pages(data):  # noqa: B007
        if page.begins and page.intact and (clock := _clock(page.body)):
            current[page.serial] = Stream(*clock, number=page.number)
            streams.append(current[page.serial])
        elif stream := current.get(page.serial):
            stream.add(page)
    torn = page is not None and not page.intact
    return streams, torn or is_hole(data[end:], len(data))


def pages(data: bytes, *, verified: bool = True) -> Iterator[tuple[Page, int]]:
    """The pages, and where each ends; after a damaged page the next is searched (RFC 3533, 6).

    Without `verified` checksums are not computed, which takes a tenth of the time.
    """
    p, damaged = data.find(b"OggS"), 0
    while 0 <= p <= len(data) - 27 and damaged < _MOST_DAMAGED:
        page, end = _page_at(data, p, verified=verified)
        yield page, end
        damaged += not page.intact
        p = data.find(b"OggS", end if page.intact else p + 4)


def _page_at(data: bytes, p: int, *, verified: bool) -> tuple[Page, int]:
    """The page whose header is at `p`, and where it ends."""
    flags, granule, serial, number, segments = _HEADER.unpack_from(data, p)
    body = p + 27 + segments
    lacing = data[p + 27 : body]
    end = body + sum(lacing)
    page_bytes = data[p:end]
    intact = end <= len(data) and not (verified and _checksum(page_bytes) != page_bytes[22:26])
    packets = segments - lacing.count(255)
    page = Page(
        serial,
        number,
        granule,
        bool(flags & 2),
        bool(flags & 4),
        intact,
        packets,
        page_bytes[27 + segments :],
    )
    return page, end


def glance(file: BinaryIO, extent: Extent) -> float | None:
    """Estimate the seconds from the first pages and the last; None if they differ in stream.

    The pages between are not read, so chained streams are not seen.
    """
    begun, stream = None, None
    for page, _ in pages(read_at(file, extent.start, _BIGGEST_PAGE), verified=False):
        if begun is None and page.begins and (clock := _clock(page.body)):
            begun, stream = page, Stream(*clock, number=page.number)
        elif begun and stream and page.serial == begun.serial:
            stream.add(page)
            if stream.start is not None:
                break
    last = _last_page(file, extent)
    if not (begun and stream and last) or last.serial != begun.serial or last.granule <= 0:
        return None
    stream.granule = last.granule
    return stream.seconds or None


def page_from(file: BinaryIO, offset: int, end: int) -> bytes:
    """The body of the first page that begins at or after `offset`, cut at `end`."""
    for most in (2 * _USUAL_PAGE, 2 * _BIGGEST_PAGE):
        data = read_at(file, offset, min(most, end - offset))
        at = data.find(b"OggS")
        if 0 <= at <= len(data) - 27:
            page, stop = _page_at(data, at, verified=False)
            if stop <= len(data) or offset + len(data) >= end:
                return page.body
    return b""


def last_page(file: BinaryIO, extent: Extent) -> bytes:
    """The body of the last page."""
    page = _last_page(file, extent)
    return page.body if page else b""


@once
def _last_page(file: BinaryIO, extent: Extent) -> Page | None:
    for most in (_USUAL_PAGE, _BIGGEST_PAGE):
        most = min(most, extent.end - extent.start)
        tail = read_at(file, extent.end - most, most)
        at = tail.rfind(b"OggS")
        if 0 <= at <= len(tail) - 27:
            return _page_at(tail, at, verified=False)[0]
    return None


@once
def read_headers(file: BinaryIO, extent: Extent) -> tuple[list[bytearray], int]:
    """The header packets of the first audio stream, and where its audio begins (or the end)."""
    at, serial, wanted = extent.start, -1, 2
    packets = [bytearray()]
    while at < min(extent.end, extent.start + _MOST_HEADERS):
        head = read_at(file, at, 27 + 255)
        if head[:4] != b"OggS" or len(head) < 27:
            break
        flags, _, of, _, segments = _HEADER.unpack_from(head, 0)
        lacing = head[27 : 27 + segments]
        body = read_at(file, at + 27 + segments, sum(lacing))
        if flags & 2 and serial < 0 and _clock(body):
            serial, wanted = of, _header_packets(body)
        elif of == serial and len(packets) > wanted:
            return packets[:-1], at
        if of == serial:
            _take(packets, lacing, body)
        at += 27 + segments + sum(lacing)
    return packets, at


def _take(packets: list[bytearray], lacing: bytes, body: bytes) -> None:
    """Add the segments of a page to the packets; the last one is open."""
    p = 0
    for length in lacing:
        packets[-1] += body[p : p + length]
        p += length
        if length < 255:
            packets.append(bytearray())


def _header_packets(first: bytes) -> int:
    if first.startswith(b"\x01vorbis"):
        return 3
    if first.startswith(b"\x7fFLAC"):
        return 1 + (int.from_bytes(first[7:9], "big") or 1)  # 0: not stated
    return 2


def ogg_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The comments of the first audio stream: its second packet, after the codec's magic."""
    packets, _ = read_headers(file, extent)
    if len(packets) < 2:
        return []
    kind, packet = packets[0], packets[1]
    skip = 0
    if kind.startswith(b"\x01vorbis"):
        skip = 7
    elif kind.startswith(b"OpusHead"):
        skip = 8
    elif kind.startswith(b"\x7fFLAC"):
        skip = 4
        packet = next((p for p in packets[1:] if p[:1] and p[0] & 0x7F == 4), bytearray())
    return [vorbis_comments(bytes(packet[skip:]))] if packet else [gathered(())]


def _clock(packet: bytes) -> tuple[int, int] | None:
    """Granules per second and granules to skip, from a codec's first packet; None for no audio."""
    packet, rate, skip = packet.ljust(64, b"\0"), 0, 0
    if packet.startswith(b"\x01vorbis"):
        rate = struct.unpack_from("<I", packet, 12)[0]
    elif packet.startswith(b"OpusHead"):
        rate, skip = 48_000, struct.unpack_from("<H", packet, 10)[0]
    elif packet.startswith(b"\x7fFLAC"):
        rate = int.from_bytes(packet[27:30], "big") >> 4
    elif packet.startswith(b"Speex   "):
        rate = struct.unpack_from("<I", packet, 36)[0]
    return (rate, skip) if rate else None


def _checksum(page: bytes) -> bytes:
    """The checksum that a page's header should have.

    Ogg's CRC-32 has zlib's polynomial in the other bit order, starts at zero and does not invert.
    Reversing the bits of each byte, and of the result, lets zlib's C loop compute it.
    """
    blank = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED)
