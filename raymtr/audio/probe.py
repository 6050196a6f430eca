"""What an audio file's own bytes say about its length, before any decoder is asked.

Decoders return half a damaged file without a word, so `audio` needs a second opinion. Headers are
read here by hand, because a decoder's own header figure already hides the damage: libsndfile cuts
a torn WAV's length to fit, and guesses that of a VBR MP3 from its first frames. The bytes also
name the container, so a wrong suffix misleads nobody and FFmpeg is only ever offered the one
demuxer that fits: a playlist that names other files is no audio here.

Given up: formats outside `_MAGIC`, and free-format MP3. MP3, ADTS and Ogg files are read whole
and walked frame by frame or page by page (half a millisecond for 30 s); of others only headers.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

from raymtr.audio import mpeg

SLACK_S = 0.05  # a decode may be this much short of the stated length


@dataclass(frozen=True, kw_only=True)
class Stated:
    """A file's container and what it states about its length."""

    form: str  # name of the FFmpeg demuxer that reads it
    seconds: float | None = None  # None: ask the decoder's header, then multiply by `stretch`
    slack_s: float = SLACK_S
    stretch: float = 1.0  # stated over present bytes of the data chunk
    missing: str = ""  # why the file cannot be whole, where that is known already
    start: int = 0  # first byte behind ID3v2 tags that do not belong before such a container


def probe(file: BinaryIO) -> Stated | None:
    """The statement of `file`, or None where its bytes are no audio container known here."""
    size = file.seek(0, 2)
    start = _after_id3(file)
    head = _at(file, start, 64)
    form = next((name for name, found in _MAGIC if found(head)), "")
    if form:
        return replace(_container(file, form, head, start, size), start=start)
    return _mpeg(file, start, size)


def _container(file: BinaryIO, form: str, head: bytes, start: int, size: int) -> Stated:
    if form in _CHUNKS:
        return _chunked(file, form, head, start, size)
    if form == "flac":
        return _flac(_at(file, start + 8, 34))
    if form == "au":
        offset, stated = struct.unpack_from(">II", head.ljust(12, b"\0"), 4)
        return Stated(form=form, stretch=_stretch(stated, size - start - offset))
    if form == "ogg":
        return _ogg(_at(file, start, size - start))
    if form == "mov":
        return _mov(file, start, size)
    if form == "asf":
        return _asf(_at(file, start, 1 << 16))
    return Stated(form=form)


_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_MAGIC: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("wav", lambda b: b[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and b[8:12] == b"WAVE"),
    ("aiff", lambda b: b[:4] == b"FORM" and b[8:12] in (b"AIFF", b"AIFC")),
    ("w64", lambda b: b[:16] == _W64_RIFF),
    ("caf", lambda b: b[:4] == b"caff"),
    ("au", lambda b: b[:4] == b".snd"),
    ("flac", lambda b: b[:4] == b"fLaC"),
    ("ogg", lambda b: b[:4] == b"OggS"),
    ("mov", lambda b: b[4:8] in _MOV_BOXES),
    ("asf", lambda b: b[:16] == _ASF),
    ("matroska", lambda b: b[:4] == b"\x1aE\xdf\xa3"),
    ("wv", lambda b: b[:4] == b"wvpk"),
    ("tta", lambda b: b[:4] == b"TTA1"),
    ("ape", lambda b: b[:4] == b"MAC "),
    ("ac3,eac3", lambda b: b[:2] == b"\x0bw"),
)


def _at(file: BinaryIO, offset: int, count: int) -> bytes:
    file.seek(offset)
    return file.read(count)


def _after_id3(file: BinaryIO) -> int:
    """Where the audio begins: behind any ID3v2 tags (cover art included)."""
    start = 0
    while length := mpeg.id3_length(_at(file, start, 10)):
        start += length
    return start


# ---- chunks: WAV, AIFF, CAF, Wave64 ------------------------------------------------------------

# form -> offset of the first chunk, struct of id and size, padding, whether sizes count the header
_CHUNKS: dict[str, tuple[int, str, int, bool]] = {
    "wav": (12, "<4sI", 2, False),
    "aiff": (12, ">4sI", 2, False),
    "caf": (8, ">4sq", 1, False),
    "w64": (40, "<16sQ", 8, True),
}
_MAX_CHUNKS = 1000  # a file of zeros is not a million empty chunks


def _chunked(file: BinaryIO, form: str, head: bytes, start: int, size: int) -> Stated:
    """Compare the size that the chunk of samples states with the bytes that follow it."""
    first, layout, align, counts_header = _CHUNKS[form]
    layout = layout.replace("<", ">") if head[:4] == b"RIFX" else layout
    header, p, long_size = struct.calcsize(layout), start + first, 0
    for _ in range(_MAX_CHUNKS):
        if p + header > size:
            break
        name, stated = struct.unpack(layout, _at(file, p, header))
        stated -= header if counts_header else 0
        if name == b"ds64":  # RF64 keeps the long size of its data chunk here (EBU 3306)
            long_size = struct.unpack("<Q", _at(file, p + header + 8, 8).ljust(8, b"\0"))[0]
        if name[:4] in (b"data", b"SSND"):
            if long_size and stated == 0xFFFFFFFF:
                stated = long_size
            return Stated(form=form, stretch=_stretch(stated, size - p - header))
        p += header + max(0, stated) + -stated % align
    return Stated(form=form, missing="there is no chunk of samples")


def _stretch(stated: int, present: int) -> float:
    """Stated over present bytes; 1 where a streaming writer left the size open."""
    is_open = stated <= 0 or stated == 0xFFFFFFFF or 0x7FFF0000 <= stated <= 0x80000000
    return 1.0 if is_open or stated <= present else stated / max(present, 1)


# ---- headers that state a length ---------------------------------------------------------------


def _flac(streaminfo: bytes) -> Stated:
    """STREAMINFO: 20 bits of rate, 8 of format, 36 of total samples (RFC 9639, 8.2)."""
    packed = int.from_bytes(streaminfo[10:18].ljust(8, b"\0"), "big")
    rate, total = packed >> 44, packed & (1 << 36) - 1
    return Stated(form="flac", seconds=total / rate if rate and total else None)


def _asf(head: bytes) -> Stated:
    """Play duration less preroll of the file properties object (ASF specification, 3.2)."""
    p = head.find(bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"))
    if p < 0 or len(head) < p + 92:
        return Stated(form="asf")
    play, _, preroll, flags = struct.unpack_from("<QQQI", head, p + 64)
    seconds = play / 1e7 - preroll / 1e3
    is_live = flags & 1 or seconds <= 0
    # A WMA decoder keeps back up to a frame at either end, 46 ms each.
    return Stated(form="asf", seconds=None if is_live else seconds, slack_s=0.1)


def _mov(file: BinaryIO, start: int, size: int) -> Stated:
    """Walk the top-level boxes: without `moov` nothing can be decoded, nor the length be known."""
    p = start
    for _ in range(_MAX_CHUNKS):
        if p + 16 > size:
            break
        length, name, long = struct.unpack(">I4sQ", _at(file, p, 16))
        length = long if length == 1 else length
        p = p + length if length >= 8 else size
        if name == b"moov" and p <= size:
            return Stated(form="mov")
    seconds = (max(p, size) - start) * 8 / 128_000
    missing = "its index (moov) is cut off; the length is a guess from its size at 128 kb/s"
    return Stated(form="mov", seconds=seconds, missing=missing)


def _mpeg(file: BinaryIO, start: int, size: int) -> Stated | None:
    """The frames counted. Half a file without a Xing header is simply a shorter whole file."""
    head = _at(file, start, 1 << 17)
    counted = mpeg.count_frames(head, size - start, lambda: _at(file, start, size - start))
    if counted is None:
        return None
    slack_s = mpeg.SLACK_FRAMES * counted.frame_s
    missing = f"{counted.missing_s:.2f} s of frames are missing or damaged"
    return Stated(
        form=counted.form,
        seconds=counted.seconds,
        slack_s=slack_s,
        missing=missing if counted.missing_s > slack_s else "",
    )


# ---- Ogg ---------------------------------------------------------------------------------------

_OGG_HEADER = struct.Struct("<5xBqII4xB")
_LONGEST_PAGE_S = 60  # beyond that a damaged page's word is damaged too
_MOST_DAMAGED = 100  # pages, then the walk ends: bytes made to look like pages cost no minutes
_REVERSED = bytes(int(f"{i:08b}"[::-1], 2) for i in range(256))


def _ogg(data: bytes) -> Stated:
    """Sum, over chained streams, the last granule position over its clock (RFC 3533, RFC 7845).

    Decoders drop a page whose checksum fails, a second of Opus, and go on; so every checksum is
    verified, and a gap in the numbers of the intact pages, or no page marked as the last, means
    that audio is missing. Of a page that fails, the granule position still tells how long the
    track was at least.
    """
    streams: list[_OggStream] = []
    current: dict[int, _OggStream] = {}  # by serial, which the same file twice has twice
    for page in _ogg_pages(data):
        if page.begins and page.intact and (clock := _ogg_clock(page.body)):
            current[page.serial] = _OggStream(*clock, number=page.number)
            streams.append(current[page.serial])
        elif stream := current.get(page.serial):
            if page.intact or page.granule - stream.granule < _LONGEST_PAGE_S * stream.rate:
                stream.granule = max(stream.granule, page.granule)
            if page.intact:
                stream.gaps += page.number != stream.number + 1
                stream.number, stream.ended = page.number, page.ends
    seconds = sum(max(0, s.granule - s.skip) / s.rate for s in streams)
    missing = ""
    if any(s.gaps for s in streams):
        missing = "pages are missing or damaged"
    elif not all(s.ended for s in streams):
        missing = "there is no last page, so expected is the least it can be"
    return Stated(form="ogg", seconds=seconds or None, missing=missing)


@dataclass
class _OggStream:
    """One logical stream while its pages go by."""

    rate: int  # granules a second
    skip: int  # granules before the first sample
    granule: int = 0
    number: int = 0  # of the last intact page
    gaps: int = 0
    ended: bool = False


class _OggPage(NamedTuple):
    serial: int
    number: int
    granule: int
    begins: bool
    ends: bool
    intact: bool
    body: bytes


def _ogg_pages(data: bytes) -> Iterator[_OggPage]:
    """The pages; from a damaged header the next capture pattern is searched (RFC 3533, 6)."""
    p, damaged = data.find(b"OggS"), 0
    while 0 <= p <= len(data) - 27 and damaged < _MOST_DAMAGED:
        flags, granule, serial, number, segments = _OGG_HEADER.unpack_from(data, p)
        body = p + 27 + segments
        end = body + sum(data[p + 27 : body])
        whole = data[p:end]
        intact = end <= len(data) and _ogg_checksum(whole) == whole[22:26]
        yield _OggPage(
            serial,
            number,
            granule,
            bool(flags & 2),
            bool(flags & 4),
            intact,
            whole[27 + segments :],
        )
        damaged += not intact
        p = end if intact else data.find(b"OggS", p + 4)


def _ogg_clock(packet: bytes) -> tuple[int, int] | None:
    """Granules a second and granules to skip, from a codec's first packet; None for no audio."""
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


def _ogg_checksum(page: bytes) -> bytes:
    """The checksum of a page as its header should hold it.

    Ogg runs the polynomial of zlib's CRC-32 from the other end, from zero and without inverting:
    reversing the bits of each byte, and of the result, makes zlib's C loop compute it.
    """
    blank = page[:22] + bytes(4) + page[26:]
    crc = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc.to_bytes(4, "big").translate(_REVERSED)
