"""The length that an audio file's own bytes state, without a decoder.

Decoders silently return half of a damaged file, so the decoded length needs an independent check.
Headers are parsed here, because a decoder's figure already hides the damage: libsndfile shortens
the length of a torn WAV to fit, and estimates that of a VBR MP3 from its first frames.

There are two results. `Stated` is the length that a decode must reach: MP3, ADTS and Ogg files are
read whole for it, frame by frame or page by page (0.5 ms for 30 s). The estimate of a scan reads
only the beginning and end of a file; the decoded length later corrects it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from raymtr.audio import mpeg, ogg
from raymtr.audio.extent import Extent, once, read_at
from raymtr.audio.mp4 import box_at, boxes

SLACK_S = 0.05  # a decode may be this much shorter than the stated length
LATE_SLACK_S = 0.5  # the same for a length that is counted from an estimated start


@dataclass(frozen=True, kw_only=True)
class Stated:
    """What a file states about its length."""

    form: str = ""  # name of the FFmpeg demuxer that reads it
    seconds: float | None = None  # None: ask the decoder's header, then multiply by `stretch`
    slack_s: float = SLACK_S
    stretch: float = 1.0  # stated over present bytes of the data chunk
    timed: bool = True  # whether the timestamps of decoded frames show gaps
    missing: str = ""  # why the file cannot be complete, if that is known already
    encrypted: bool = False
    start: int | None = None  # first byte to pass to a decoder; None: that of the container


def nothing(file: BinaryIO, extent: Extent) -> Stated:
    """For formats whose length only the decoder knows."""
    return Stated()


# ---- chunks: WAV, AIFF, CAF, Wave64, DSF -------------------------------------------------------

# offset of the first chunk, struct of id and size, padding, whether sizes count the header
_CHUNKS: dict[str, tuple[int, str, int, bool]] = {
    "wav": (12, "<4sI", 2, False),
    "aiff": (12, ">4sI", 2, False),
    "caf": (8, ">4sq", 1, False),
    "w64": (40, "<16sQ", 8, True),
    "dsf": (28, "<4sQ", 1, True),
}
_MAX_CHUNKS = 1000  # so that a file of zeros is not read as a million empty chunks
# A stated size from here on that exceeds the file is not a real size. It is a placeholder that a
# writer never corrected: about 2^31 or 2^32, less its header, or 2,000,000,000.
_OPEN = 0x7000_0000
_PCM = (1, 3, 0xFFFE)  # integers, floats, or extensible (the kind follows later in the chunk)


def _walk_chunks(file: BinaryIO, extent: Extent, kind: str) -> Iterator[tuple[bytes, int, int]]:
    """(id, start, stated size) of each chunk."""
    first, layout, align, counts_header = _CHUNKS[kind]
    head = read_at(file, extent.start, 4)
    layout = layout.replace("<", ">") if head == b"RIFX" else layout
    header, p = struct.calcsize(layout), extent.start + first
    for _ in range(_MAX_CHUNKS):
        if p + header > extent.end:
            return
        name, stated = struct.unpack(layout, read_at(file, p, header))
        stated -= header if counts_header else 0
        yield name, p + header, stated
        p += header + max(0, stated) + -stated % align


@once
def find_samples(file: BinaryIO, extent: Extent, kind: str) -> tuple[int, int, int] | None:
    """Start, present size and stated size of the chunk of samples; None if there is none."""
    long_size = 0
    for name, at, stated in _walk_chunks(file, extent, kind):
        if name == b"ds64":  # RF64 stores the 64-bit size of its data chunk here (EBU 3306)
            long_size = struct.unpack("<Q", read_at(file, at + 8, 8).ljust(8, b"\0"))[0]
        if name[:4] in (b"data", b"SSND"):
            if long_size and stated == 0xFFFFFFFF:
                stated = long_size
            present = extent.end - at
            is_open = (stated > present and _is_open(stated)) or stated <= 0
            return at, present if is_open else min(present, stated), stated
    return None


def chunked(kind: str, file: BinaryIO, extent: Extent) -> Stated:
    """Compare the size that the chunk of samples states with the bytes that follow it."""
    found = find_samples(file, extent, kind)
    if found is None:
        return Stated(missing="there is no chunk of samples")
    at, _, stated = found
    return Stated(stretch=_stretch(stated, extent.end - at))


def au(file: BinaryIO, extent: Extent) -> Stated:
    """Compare the size in the header of Sun's format with the bytes that follow it."""
    offset, stated = struct.unpack(">II", read_at(file, extent.start + 4, 8).ljust(8, b"\0"))
    return Stated(stretch=_stretch(stated, extent.end - extent.start - offset))


def _is_open(stated: int) -> bool:
    return stated <= 0 or _OPEN <= stated <= 0xFFFFFFFF


def _stretch(stated: int, present: int) -> float:
    """Stated over present bytes; 1 if a streaming writer left the size open."""
    return 1.0 if stated <= present or _is_open(stated) else stated / max(present, 1)


def wav_seconds(file: BinaryIO, extent: Extent) -> float | None:
    """Bytes of samples over bytes per second of the chunk `fmt `, which are exact only for PCM."""
    rate = 0
    for name, at, _ in _walk_chunks(file, extent, "wav"):
        if name == b"fmt ":
            order = ">" if read_at(file, extent.start, 4) == b"RIFX" else "<"
            kind, _, _, rate = struct.unpack(f"{order}HHII", read_at(file, at, 12).ljust(12, b"\0"))
            rate = rate if kind in _PCM else 0
        if name == b"data":
            break
    found = find_samples(file, extent, "wav")
    return found[1] / rate if found and rate else None


def aiff_seconds(file: BinaryIO, extent: Extent) -> float | None:
    """Frames over the rate, an 80-bit float, from the chunk COMM."""
    for name, at, _ in _walk_chunks(file, extent, "aiff"):
        if name == b"COMM":
            comm = read_at(file, at, 18).ljust(18, b"\0")
            frames = int.from_bytes(comm[2:6], "big")
            exponent, mantissa = struct.unpack(">HQ", comm[8:18])
            rate = mantissa * 2.0 ** ((exponent & 0x7FFF) - 16383 - 63)
            return frames / rate if rate >= 1 else None
    return None


def dsf_seconds(file: BinaryIO, extent: Extent) -> float | None:
    """Samples over the rate in the chunk `fmt `."""
    head = read_at(file, extent.start + 28, 52).ljust(52, b"\0")
    rate, _, samples = struct.unpack_from("<IIQ", head, 28)
    return samples / rate if rate else None


# ---- headers that state a length ---------------------------------------------------------------


def flac(file: BinaryIO, extent: Extent) -> Stated:
    """STREAMINFO: 20 bits of rate, 8 of format, 36 of total samples (RFC 9639, 8.2)."""
    packed = int.from_bytes(read_at(file, extent.start + 18, 8).ljust(8, b"\0"), "big")
    rate, total = packed >> 44, packed & (1 << 36) - 1
    return Stated(seconds=total / rate if rate and total else None)


_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ENCRYPTION = (  # content encryption, extended and advanced (ASF, 3.14 to 3.16)
    bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e"),
    bytes.fromhex("14e68a292226174cb935dae07ee9289c"),
    bytes.fromhex("b69b077aa4da124ea5ca91d38dc11a8d"),
)


def asf(file: BinaryIO, extent: Extent) -> Stated:
    """Play duration less preroll of the file properties object (ASF specification, 3.2)."""
    head = read_at(file, extent.start, 1 << 16)
    size = min(int.from_bytes(head[16:24], "little"), len(head))
    encrypted = any(mark in head[:size] for mark in _ENCRYPTION)
    p = head.find(_PROPERTIES)
    if p < 0 or len(head) < p + 92:
        return Stated(encrypted=encrypted)
    play, _, preroll, flags = struct.unpack_from("<QQQI", head, p + 64)
    seconds = play / 1e7 - preroll / 1e3
    is_live = flags & 1 or seconds <= 0
    # A WMA decoder omits up to a frame at either end, 46 ms each.
    return Stated(seconds=None if is_live else seconds, slack_s=0.1, encrypted=encrypted)


_CIPHERS = (b"drms", b"drmi", b"enca", b"encv", b"aavd")  # sample entries that need a key


def mov(file: BinaryIO, extent: Extent) -> Stated:
    """Walk the top-level boxes; without `moov` neither decoding nor the length is possible."""
    stop = extent.start
    for name, _, end in boxes(file, extent.start, extent.end):
        stop = end
        if name == b"moov" and end <= extent.end:
            return Stated(encrypted=_encrypted(file, extent))
    seconds = (max(stop, extent.end) - extent.start) * 8 / 128_000
    missing = "its index (moov) is cut off; the length is a guess from its size at 128 kb/s"
    return Stated(seconds=seconds, missing=missing)


def _encrypted(file: BinaryIO, extent: Extent) -> bool:
    """Whether all audio tracks have sample entries that need a key."""
    kinds = [entry for entry in _sample_entries(file, extent) if entry]
    return bool(kinds) and all(kind in _CIPHERS for kind in kinds)


def _sample_entries(file: BinaryIO, extent: Extent) -> Iterator[bytes]:
    """The type of the sample entry of each audio track."""
    moov = box_at(file, extent.start, extent.end, "moov")
    for name, start, end in boxes(file, *moov) if moov else ():
        media = box_at(file, start, end, "mdia") if name == b"trak" else None
        handler = media and box_at(file, *media, "hdlr")
        table = media and box_at(file, *media, "minf/stbl/stsd")
        if handler and table and read_at(file, handler[0] + 8, 4) == b"soun":
            yield read_at(file, table[0] + 12, 4)


def mov_seconds(file: BinaryIO, extent: Extent) -> float | None:
    """The movie's duration, or that of its fragments if the header has none (ISO 14496-12)."""
    moov = box_at(file, extent.start, extent.end, "moov")
    header = box_at(file, *moov, "mvhd") if moov else None
    if moov is None or header is None:
        return None
    data = read_at(file, header[0], 32).ljust(32, b"\0")
    wide = data[0] == 1
    scale = int.from_bytes(data[20:24] if wide else data[12:16], "big")
    ticks = int.from_bytes(data[24:32] if wide else data[16:20], "big")
    if not ticks and (fragments := box_at(file, *moov, "mvex/mehd")):
        data = read_at(file, fragments[0], 12).ljust(12, b"\0")
        ticks = int.from_bytes(data[4:12] if data[0] == 1 else data[4:8], "big")
    return ticks / scale if scale and 0 < ticks < 0xFFFFFFFF else None


def mpeg_frames(file: BinaryIO, extent: Extent) -> Stated | None:
    """The length by counting frames; half a file without a Xing header looks like a whole file."""
    length = extent.end - extent.start
    counted = mpeg.count_frames(
        lambda count: read_at(file, extent.start, min(count, length)), length
    )
    if counted is None:
        return None
    slack_s = mpeg.SLACK_FRAMES * counted.frame_s
    # MPEG decoders skip a leading ID3v2 tag themselves, and work best on the unchanged file.
    only_id3 = all(tag.kind == "id3v2" for tag in extent.tags if tag.start < extent.start)
    missing = f"{counted.missing_s:.2f} s of frames are missing or damaged"
    return Stated(
        form=counted.form,
        seconds=counted.seconds,
        slack_s=slack_s,
        missing=missing if counted.missing_s > slack_s else "",
        start=extent.start + counted.first if counted.first or not only_id3 else 0,
    )


def ogg_pages(file: BinaryIO, extent: Extent) -> Stated:
    """The sum of the lengths of chained streams: first to last granule, over the clock rate."""
    streams, torn = ogg.walk(read_at(file, extent.start, extent.end - extent.start))
    missing = ""
    if any(stream.gaps for stream in streams):
        missing = "pages are missing or damaged"
    elif torn and streams:
        missing = "the last page is cut off, so expected is the least it can be"
    seconds = sum(stream.seconds for stream in streams) or None
    late = any(stream.start for stream in streams)  # the start of such a stream is estimated
    slack_s = LATE_SLACK_S if late else SLACK_S
    return Stated(seconds=seconds, missing=missing, slack_s=slack_s, timed=not late)
