"""A digest of a file's coded audio, which identifies the sound under any tags and name.

A tag editor rewrites comments, moves the bytes after them and renumbers pages, but keeps the coded
audio. So the digest covers only that part of the file. It is cheap enough for every scan: FLAC
stores the MD5 of its samples; for other formats the size and a few places are read. For coded audio
three places are enough, because an encoder given other sound writes other bytes from there on. For
raw samples the places are spread over the whole track, because an editor can change a part without
changing the size.

Limitations: not detected are an edit of raw samples that keeps the size and is shorter than a 32nd
of the track, and an edit of coded frames that keeps beginning, middle, end and size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import BinaryIO

from raymtr.audio import ebml, mpeg, ogg
from raymtr.audio.extent import Extent, read_at
from raymtr.audio.formats import Format, Identified
from raymtr.audio.mp4 import boxes
from raymtr.audio.probe import find_samples

VERSION = 1  # raised by hand when the same file would get another digest
_PLACES, _PIECE = 3, 4 << 10  # of coded audio: places, and bytes per place
_PCM_PLACES, _PCM_PIECE = 32, 512


def digest_of(file: BinaryIO, known: Identified) -> str | None:
    """The digest of an opened file, as `<version>-<hex>`; None if there is no audio."""
    kind, extent = known.format, known.extent
    if kind.form == "flac":
        checksum = read_at(file, extent.start + 26, 16)
        if len(checksum) == 16 and any(checksum):
            return f"{VERSION}-{checksum.hex()}"
    if kind.form == "ogg":
        return _ogg_digest(file, extent)
    start, end = _place(file, kind, extent)
    if end <= start:
        return None
    places, piece = (_PCM_PLACES, _PCM_PIECE) if kind.pcm else (_PLACES, _PIECE)
    if end - start <= 2 * places * piece:
        return _named(kind.form, end - start, [read_at(file, start, end - start)])
    last = end - piece - start
    offsets = (start + last * n // (places - 1) for n in range(places))
    return _named(kind.form, end - start, [read_at(file, at, piece) for at in offsets])


def _named(form: str, size: int, pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256(f"{form} {size} ".encode() + b"".join(pieces))
    return f"{VERSION}-{digest.hexdigest()[:32]}"


def _ogg_digest(file: BinaryIO, extent: Extent) -> str | None:
    """The digest of the audio inside Ogg pages; page numbers and checksums change with tags."""
    _, start = ogg.read_headers(file, extent)
    size = extent.end - start
    if size <= 0:
        return None
    first = ogg.page_from(file, start, extent.end)
    middle = ogg.page_from(file, start + size // 2, extent.end)
    return _named("ogg", size, (first, middle, ogg.last_page(file, extent)))


def _place(file: BinaryIO, kind: Format, extent: Extent) -> tuple[int, int]:
    """Where the coded audio begins and ends."""
    if kind.form in ("wav", "aiff", "w64", "caf", "dsf"):
        found = find_samples(file, extent, kind.form)
        return (found[0], found[0] + found[1]) if found else (extent.start, extent.start)
    if kind.form == "mov":
        found_boxes = boxes(file, extent.start, extent.end)
        data = [
            (start, min(end, extent.end)) for name, start, end in found_boxes if name == b"mdat"
        ]
        return max(
            data, key=lambda place: place[1] - place[0], default=(extent.start, extent.start)
        )
    if kind.form == "asf":  # after the header, which states its own size
        header = int.from_bytes(read_at(file, extent.start + 16, 8), "little")
        at = extent.start + header
        data_size = int.from_bytes(read_at(file, at + 16, 8), "little")
        return at + 50, min(at + data_size, extent.end)
    if kind.form == "matroska":
        return ebml.clusters(file, extent)
    if kind.form == "mp3":
        first = mpeg.first_frame(file, extent)
        return (extent.start + first, extent.end) if first is not None else (0, 0)
    return extent.start, extent.end
