"""The table of audio formats: suffixes, magic bytes, readers of tags and length, and decoder.

Only formats in this table are audio for raymtr. So every file that a scan lists can be read by the
scan and decoded by `embed`. A file's bytes decide its format, never its name, so a wrong suffix
does not matter. FFmpeg gets only the one demuxer that fits, so a playlist that names other files is
not audio here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import BinaryIO

from raymtr.audio import asf, chunks, comments, ebml, mp4, mpeg, ogg, probe
from raymtr.audio.extent import Extent, find_extent, read_at
from raymtr.audio.id3 import Fields
from raymtr.audio.probe import Stated

_Words = Callable[[BinaryIO, Extent], list[Fields]]
_Seconds = Callable[[BinaryIO, Extent], float | None]


def _no_words(file: BinaryIO, extent: Extent) -> list[Fields]:
    return []


def _by_statement(stated: Callable[[BinaryIO, Extent], Stated | None]) -> _Seconds:
    """A reader of seconds from a `stated` function that reads only a header."""

    def seconds(file: BinaryIO, extent: Extent) -> float | None:
        header = stated(file, extent)
        return header.seconds if header else None

    return seconds


def _unknown(file: BinaryIO, extent: Extent) -> float | None:
    return None


@dataclass(frozen=True, kw_only=True)
class Format:
    """One row of the table."""

    form: str  # name of the FFmpeg demuxer; for MPEG audio, decided by its frames
    suffixes: str
    begins: Callable[[bytes], bool]  # checks the first 64 bytes after leading tags
    words: _Words = _no_words  # reads tags in the container, most trusted first
    inner_first: bool = False  # whether those are trusted more than ID3 and APEv2 around it
    stated: Callable[[BinaryIO, Extent], Stated | None] = probe.nothing  # what a decode must reach
    seconds: _Seconds = _unknown  # a scan's estimate, from the beginning and end of a file
    by_soundfile: bool = False  # libsndfile decodes it too, and is tried first
    pcm: bool = False  # raw samples: an edit can change some but not the size


_W64_RIFF = bytes.fromhex("726966662e91cf11a5d628db04c10000")
_ASF = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")


def _chunked(kind: str) -> Callable[[BinaryIO, Extent], Stated]:
    return functools.partial(probe.chunked, kind)


def _is_wav(b: bytes) -> bool:
    return b[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and b[8:12] == b"WAVE"


FORMATS = (
    Format(
        form="wav",
        suffixes=".wav .wave",
        begins=_is_wav,
        words=chunks.wav_fields,
        stated=_chunked("wav"),
        seconds=probe.wav_seconds,
        by_soundfile=True,
        pcm=True,
    ),
    Format(
        form="aiff",
        suffixes=".aif .aiff .aifc",
        begins=lambda b: b[:4] == b"FORM" and b[8:12] in (b"AIFF", b"AIFC"),
        words=chunks.aiff_fields,
        stated=_chunked("aiff"),
        seconds=probe.aiff_seconds,
        by_soundfile=True,
        pcm=True,
    ),
    Format(
        form="w64",
        suffixes=".w64",
        begins=lambda b: b[:16] == _W64_RIFF,
        stated=_chunked("w64"),
        by_soundfile=True,
        pcm=True,
    ),
    Format(
        form="caf",
        suffixes=".caf",
        begins=lambda b: b[:4] == b"caff",
        words=chunks.caf_fields,
        stated=_chunked("caf"),
        by_soundfile=True,
        pcm=True,
    ),
    Format(
        form="au",
        suffixes=".au .snd",
        begins=lambda b: b[:4] == b".snd",
        stated=probe.au,
        by_soundfile=True,
        pcm=True,
    ),
    Format(
        form="flac",
        suffixes=".flac",
        begins=lambda b: b[:4] == b"fLaC",
        words=comments.flac_fields,
        inner_first=True,
        stated=probe.flac,
        seconds=_by_statement(probe.flac),
        by_soundfile=True,
    ),
    Format(
        form="ogg",
        suffixes=".ogg .oga .opus .spx",
        begins=lambda b: b[:4] == b"OggS",
        words=ogg.ogg_fields,
        inner_first=True,
        stated=probe.ogg_pages,
        seconds=ogg.glance,
        by_soundfile=True,
    ),
    Format(
        form="mov",
        suffixes=".m4a .m4b .mp4",
        begins=lambda b: b[4:8] in _MOV_BOXES,
        words=mp4.mp4_fields,
        inner_first=True,
        stated=probe.mov,
        seconds=probe.mov_seconds,
    ),
    Format(
        form="asf",
        suffixes=".wma .asf",
        begins=lambda b: b[:16] == _ASF,
        words=asf.asf_fields,
        inner_first=True,
        stated=probe.asf,
        seconds=_by_statement(probe.asf),
    ),
    Format(
        form="matroska",
        suffixes=".mka .webm .weba",
        begins=lambda b: b[:4] == b"\x1aE\xdf\xa3",
        words=ebml.matroska_fields,
        inner_first=True,
        seconds=ebml.matroska_seconds,
    ),
    Format(form="wv", suffixes=".wv", begins=lambda b: b[:4] == b"wvpk"),
    Format(form="tta", suffixes=".tta", begins=lambda b: b[:4] == b"TTA1"),
    Format(form="ape", suffixes=".ape", begins=lambda b: b[:4] == b"MAC "),
    Format(form="mpc", suffixes=".mpc", begins=lambda b: b[:3] == b"MP+"),
    Format(form="mpc8", suffixes="", begins=lambda b: b[:4] == b"MPCK"),
    Format(
        form="dsf",
        suffixes=".dsf",
        begins=lambda b: b[:4] == b"DSD ",
        words=chunks.dsf_fields,
        stated=_chunked("dsf"),
        seconds=probe.dsf_seconds,
    ),
    Format(form="amr", suffixes=".amr", begins=lambda b: b[:5] == b"#!AMR"),
    Format(form="ac3,eac3", suffixes=".ac3", begins=lambda b: b[:2] == b"\x0bw"),
    Format(  # last, because it has no magic bytes: frames are searched for
        form="mp3",
        suffixes=".mp3 .mp2 .mpga .aac",
        begins=lambda b: True,
        stated=probe.mpeg_frames,
        seconds=mpeg.glance,
        by_soundfile=True,
    ),
)
SUFFIXES = frozenset(suffix for each in FORMATS for suffix in each.suffixes.split())


_BY_SOUNDFILE = {each.form for each in FORMATS if each.by_soundfile}


def by_soundfile(form: str) -> bool:
    """Whether libsndfile decodes what the demuxer `form` reads; of MPEG audio not AAC."""
    return form in _BY_SOUNDFILE


@dataclass(frozen=True)
class Identified:
    """An opened file's format, and the extent of its audio."""

    format: Format
    extent: Extent


def identify(file: BinaryIO) -> Identified:
    """Identify a file by its first bytes; if nothing else fits, as MPEG audio, unverified."""
    extent = find_extent(file)
    head = read_at(file, extent.start, 64)
    return Identified(next(each for each in FORMATS if each.begins(head)), extent)


def state(file: BinaryIO) -> Stated | None:
    """What the file states about its length; None if its bytes are not a supported format."""
    known = identify(file)
    stated = known.format.stated(file, known.extent)
    if stated is None:
        return None
    start = known.extent.start if stated.start is None else stated.start
    return replace(stated, form=stated.form or known.format.form, start=start)
