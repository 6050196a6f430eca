"""The exact length of MP3, MP2 and ADTS AAC files, by counting their frames.

These files are sequences of frames without a container. Nothing states a length; decoders estimate
it from the first frames, or stop at the first damage. An encoder's count in the first frame is used
if it fits the file's size. Otherwise the frames are walked from header to header (0.4 microseconds
per frame, a fiftieth of its decoding), which counts the frames and the bytes of gaps between them.
Limitation: layer I and free-format files are not audio here.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

from raymtr.audio.extent import Extent, id3_length, once, read_at

SLACK_FRAMES = 4  # for encoder delay and padding without a LAME tag, and a concealed frame

_HEAD = 1 << 17  # bytes in which the first frame nearly always begins
_GLANCE = 1 << 14  # bytes that a scan searches for it
_FURTHER = 1 << 15  # bytes that the digest searches if the scan found none
_SEARCH = 1 << 24  # bytes in which it must begin, after a cover whose tag states too small a size
_LONGEST_GAP = 1 << 22  # bytes; after a longer gap frames are not searched
_HOLE = 0.1  # share of a stream
_CHAIN = 4  # consecutive frames that are needed to accept a first one
_ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000)


class _Frames(NamedTuple):
    """The framing of one stream: `size_at(p)` is the length in bytes of the frame at p, or 0."""

    form: str
    size_at: Callable[[int], int]
    samples: int  # in a frame
    rate: int  # Hz


class _Header(NamedTuple):
    """What a Xing, Info or VBRI header states; 0 for what it does not state."""

    frames: int
    bytes: int  # of the stream, the frame with the header included
    trim: int  # samples of delay and padding


_NO_HEADER = _Header(0, 0, 0)


@dataclass(frozen=True, kw_only=True)
class Counted:
    """The length of a recording and how much of it is present."""

    form: str  # "mp3" or "aac"
    seconds: float  # of the whole recording, gaps included
    missing_s: float  # seconds of it whose frames are missing
    frame_s: float  # seconds in one frame
    first: int  # byte at which the first frame begins


def count_frames(read: Callable[[int], bytes], length: int) -> Counted | None:
    """The length of a stream of `length` bytes; `read(n)` returns the first n. None: no frames.

    A Xing, Info or VBRI header counts the frames of the whole recording. It is trusted if its count
    of bytes matches the stream. Otherwise all frames are walked. If there is no such header, or
    there are more frames than it counts, a gap between frames counts as the audio that would fit
    its bytes. Bytes before the first frame and after the last one are not audio: text,
    padding, or the rest of a cover whose tag states too small a size.
    """
    head = read(_HEAD)
    found = _first_frame(head, whole=length <= _HEAD)
    if found is None and length > _HEAD:
        head = read(_SEARCH)
        found = _first_frame(head, whole=length <= _SEARCH)
    if found is None:
        return None
    first, (form, _, samples, rate) = found
    header = _xing(head[first : first + 256]) if form == "mp3" else _NO_HEADER
    near = 128 + SLACK_FRAMES * header.bytes // max(1, header.frames)  # an ID3v1 tag may follow
    if header.bytes and abs(length - first - header.bytes) <= near:
        count, expected = header.frames, float(header.frames)
    else:
        count, expected = _walk(read(length), first, header.frames)
    return Counted(
        form=form,
        seconds=max(0.0, expected * samples - header.trim) / rate,
        missing_s=(expected - count) * samples / rate,
        frame_s=samples / rate,
        first=first,
    )


def glance(file: BinaryIO, extent: Extent) -> float | None:
    """Estimate the seconds by the encoder's count of frames, else as if all were like the first.

    None if the first bytes have no consecutive frames.
    """
    found, head = _glanced(file, extent)
    if found is None:
        return None
    length = extent.end - extent.start
    first, (form, size_at, samples, rate) = found
    header = _xing(head[first : first + 256]) if form == "mp3" else _NO_HEADER
    frames = header.frames or (length - first) / size_at(first)
    return max(0.0, frames * samples - header.trim) / rate


@once
def _glanced(file: BinaryIO, extent: Extent) -> tuple[tuple[int, _Frames] | None, bytes]:
    """The first frame in the first bytes, and these bytes."""
    length = extent.end - extent.start
    head = read_at(file, extent.start, min(_GLANCE, length))
    return _first_frame(head, whole=length <= _GLANCE), head


def first_frame(file: BinaryIO, extent: Extent) -> int | None:
    """Offset in the first bytes of a stream at which its frames begin, mostly 0."""
    found, _ = _glanced(file, extent)
    if found is None or found[0]:
        head = read_at(file, extent.start, min(_FURTHER, extent.end - extent.start))
        found = _first_frame(head, whole=True)
    return found[0] if found else None


def _walk(data: bytes, first: int, stated: int) -> tuple[int, float]:
    """(complete frames present, frames expected); `stated` is a header's count, or 0.

    A frame right before a gap counts as part of the gap, because its length may be damaged.
    """
    frames = _frames_at(data, first)
    if frames is None:
        return 0, float(stated)
    size_at, p, end = frames.size_at, first, len(data)
    size, count, frame_bytes, gap_bytes = 0, 0, 0, 0
    while p < end - 6:
        before, size = size, size_at(p)
        if size and p + size > end:
            break  # the last frame is cut off
        if size:
            count, frame_bytes = count + 1, frame_bytes + size
            p += size
        elif tag := _tag_length(data, p):
            p += tag
        else:
            after = _resync(data, p - before, end, size_at)
            if after == end and not is_hole(data[p:], end):
                break  # the bytes after the last frame are not audio
            count, frame_bytes = count - (before > 0), frame_bytes - before
            gap_bytes += after - (p - before)
            p = after
    count -= 1 if stated else 0  # the frame with the header is silent
    if count <= stated:
        return count, float(stated)
    return count, count + gap_bytes * count / max(1, frame_bytes)


def _first_frame(data: bytes, *, whole: bool) -> tuple[int, _Frames] | None:
    """The first offset with consecutive frames; a `whole` stream may end before _CHAIN of them."""
    p, end = data.find(b"\xff"), len(data) - 6
    while 0 <= p < end:
        frames = _frames_at(data, p)
        if frames and _chain_holds(frames.size_at, p, end, may_end=whole):
            return p, frames
        p = data.find(b"\xff", p + 1)
    return None


def _frames_at(data: bytes, p: int) -> _Frames | None:
    return _layer_frames(data, p) or _adts_frames(data, p)


def _chain_holds(size_at: Callable[[int], int], p: int, end: int, *, may_end: bool = True) -> bool:
    for _ in range(_CHAIN):
        size = size_at(p) if p < end else 0
        if not size:
            return p >= end and may_end
        p += size
    return True


def _tag_length(data: bytes, p: int) -> int:
    """Bytes of the ID3 tag at `p`, or 0; concatenated recordings have tags between them."""
    return 128 if data[p : p + 3] == b"TAG" else id3_length(data[p : p + 10])


def _resync(data: bytes, p: int, end: int, size_at: Callable[[int], int]) -> int:
    """The offset after `p` at which frames are consecutive again or reach the end; else the end."""
    limit = min(end - 6, p + _LONGEST_GAP)
    while 0 <= (p := data.find(b"\xff", p + 1)) < limit:
        if _chain_holds(size_at, p, end - 6):
            return p
    return end


def is_hole(tail: bytes, whole: int) -> bool:
    """Whether the last bytes of `whole` ones were never written: only zeros, and many of them.

    Many writers leave some padding of zeros. Only its share of the file distinguishes an incomplete
    download into reserved space from such padding.
    """
    return len(tail) > whole * _HOLE and not tail.strip(b"\0")


def _xing(frame: bytes) -> _Header:
    """What the first frame of an MP3 states about all frames; zeros if it states nothing.

    Xing and Info: flags, then frames, bytes, a table and a quality, each only if flagged. After
    them a LAME tag may have delay and padding in 12 bits each.
    """
    if frame[36:40] == b"VBRI" and len(frame) >= 54:
        size, frames = struct.unpack_from(">II", frame, 46)
        return _Header(frames, size, 0)
    p = max(frame.find(b"Xing"), frame.find(b"Info"))
    if not 0 < p <= 48 or len(frame) < p + 200 or not frame[p + 7] & 1:
        return _NO_HEADER
    flags = frame[p + 7]
    frames, size = struct.unpack_from(">II", frame, p + 8)
    lame = p + 12 + 4 * (flags >> 1 & 1) + 100 * (flags >> 2 & 1) + 4 * (flags >> 3 & 1)
    packed = int.from_bytes(frame[lame + 21 : lame + 24], "big")
    has_lame = frame[lame : lame + 3] in (b"LAM", b"Lav")
    trim = (packed >> 12) + (packed & 0xFFF) if has_lame else 0
    return _Header(frames, size if flags & 2 else 0, trim)


@functools.cache
def _layer_sizes(kind: int) -> tuple[dict[int, int], int, int]:
    """Frame sizes of one MPEG kind by the second and third header byte; samples; rate.

    `kind` is these two bytes without the bits that may change from frame to frame: protection,
    bitrate, padding, private (ISO 11172-3 2.4.1.3, 13818-3). No sizes if there is no such kind.
    """
    version, layer, rate_index = kind >> 11 & 3, kind >> 9 & 3, kind >> 2 & 3
    if kind >> 13 != 7 or version == 1 or layer not in (1, 2) or rate_index == 3:
        return {}, 0, 0
    rate = (44_100, 48_000, 32_000)[rate_index] >> {3: 0, 2: 1, 0: 2}[version]
    steps = {
        (3, 1): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
        (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    }.get((version, layer), (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160))
    samples = 1152 if version == 3 or layer == 2 else 576
    sizes = {}
    for step, kilobits in enumerate(steps, start=1):
        for free in range(8):  # protection, padding, private
            padding = free >> 1 & 1
            key = kind | (free & 1) << 8 | step << 4 | padding << 1 | free >> 2
            sizes[key] = samples // 8 * kilobits * 1000 // rate + padding
    return sizes, samples, rate


def _layer_frames(data: bytes, p: int) -> _Frames | None:
    """The framing of MPEG audio of layer II or III, from the frame header at `p`."""
    sizes, samples, rate = _layer_sizes((data[p + 1] << 8 | data[p + 2]) & 0xFE0C)
    if not sizes:
        return None
    get = sizes.get

    def size_at(p: int) -> int:
        return get(data[p + 1] << 8 | data[p + 2], 0) if data[p] == 0xFF else 0

    return _Frames("mp3", size_at, samples, rate)


def _adts_frames(data: bytes, p: int) -> _Frames | None:
    """The framing of AAC in ADTS, from the frame header at `p` (ISO 13818-7, 6.2)."""
    kind, rate_index = data[p + 2] & 0xFC, data[p + 2] >> 2 & 15
    if data[p + 1] & 0xF6 != 0xF0 or rate_index >= len(_ADTS_RATES):
        return None

    def size_at(p: int) -> int:
        if data[p] != 0xFF or data[p + 1] & 0xF6 != 0xF0 or data[p + 2] & 0xFC != kind:
            return 0
        size = (data[p + 3] & 3) << 11 | data[p + 4] << 3 | data[p + 5] >> 5
        return size if size > 7 else 0

    return _Frames("aac", size_at, 1024, _ADTS_RATES[rate_index])
