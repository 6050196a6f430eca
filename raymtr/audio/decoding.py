"""One decoder for training, indexing and serving: audio bytes to mono float32 at the spec's rate.

Soundfile decodes at the file's own rate; PyAV decodes what soundfile cannot open or does not decode
completely (`backends`). Channels are averaged, then soxr HQ resamples. Both steps are in `mono`; no
backend may mix or resample. If the channels cancel each other out, the louder channel is decoded
instead, so that a track with audible sound is not silent.

No file is shortened silently. The length that a file states (`probe`) is compared with what was
decoded. A file that no backend decodes completely is refused, and jobs turn the `AudioError` into a
row. Limitations: the intact part of a damaged file is not used, and sample rates that change midway
are refused. A few damaged frames that do not change the length are accepted.
"""

from __future__ import annotations

import contextlib
import functools
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, NamedTuple

import numpy as np

from raymtr.audio.backends import CANNOT_OPEN, PyAVReader, SoundFileReader
from raymtr.audio.cuts import clip_start, loop_to
from raymtr.audio.describe import describe
from raymtr.audio.formats import by_soundfile, state
from raymtr.audio.mono import (
    HIGHEST_RATE,
    LOWEST_RATE,
    is_silent,
    mix_and_resample,
    resampled_length,
)
from raymtr.audio.probe import Stated
from raymtr.audio.source import AudioError, Source, opened
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

DECODING = "decode-1"  # part of every fingerprint; raised by hand when the samples would change
# Version of the rules for rejecting a file. Raised by hand when a rejected file may now be
# accepted, or the reverse; files rejected by older rules are tried again.
RULES = 2  # not part of a fingerprint

_MARGIN_S = 0.1  # decoded on both sides of a span; soxr HQ reaches 128 samples of the lower rate
_CODEC_FRAME = 4096  # samples; MP4 leaves up to so much padding after its stated end

Reader = SoundFileReader | PyAVReader


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A track decoded completely."""

    samples: np.ndarray  # float32 [n], mono at the spec's rate
    seconds: float  # decoded length, at the native rate
    expected_seconds: float | None  # the length that the file states; None if it states none
    backend: str  # "soundfile" or "pyav"
    digest: str | None = None  # of the coded audio (`audio.digest`)
    also: np.ndarray | None = None  # float32 [m], mono at the other rate requested


def decode(
    source: Source,
    spec: AudioSpec,
    *,
    max_s: float | None = None,
    max_mb: float | None = None,
    also: int | None = None,
) -> Decoded:
    """Decode a whole track: a local path, a URI, or the file's bytes.

    `also` is a further rate in Hz, for a second use of the track: the samples are those of a decode
    at that rate, for the cost of resampling. Raises AudioError. For a track longer than `max_s` it
    is raised before decoding if the file states its length, else while decoding.
    """
    with opened(source, max_mb) as file:
        decoded = _decode_whole(file, spec, max_s, also)
        return replace(decoded, digest=describe(file).digest)


def decode_span(source: Source, spec: AudioSpec, *, start_s: float, length_s: float) -> np.ndarray:
    """The slice [start_s, start_s + length_s) of a full decode, by seeking: float32 [n].

    Equal to `decode(...).samples[round(start_s * rate):][:round(length_s * rate)]`, so shorter or
    empty at the end of the track. Reads at sample positions where the grids of both rates meet,
    with a margin for the resampler. Files without an exact index (all but MP4 and those that
    soundfile opens) are decoded whole. In AAC, substituted noise (PNS) is drawn again after a seek;
    all else is equal to 1e-6. Raises AudioError.
    """
    start, count = round(start_s * spec.sample_rate), round(length_s * spec.sample_rate)
    if start < 0 or count < 0:
        raise InputError(f"a span starts and lasts at least 0 s, got {start_s} s and {length_s} s")
    with opened(source) as file:
        with _seekable(file) as track:
            span = _read_span(track, spec, start, count) if track else None
        return _decode_whole(file, spec).samples[start:][:count] if span is None else span


def random_clip(source: Source, spec: AudioSpec, rng: np.random.Generator) -> np.ndarray:
    """One random training clip, decoding only what it needs: float32 [window_samples].

    `clip_start` draws its position, the same that `audio_cache` draws from the same rng. A track
    shorter than a window is repeated. Raises AudioError.
    """
    draw, window = rng.random(), spec.window_samples
    with opened(source) as file:
        with _seekable(file) as track:
            if track and (total := track.length(spec)) >= window:
                span = _read_span(track, spec, clip_start(total, window, draw), window)
                if span is not None:
                    return span
        samples = _decode_whole(file, spec).samples
    start = clip_start(len(samples), window, draw)
    return loop_to(samples[start : start + window], window)


# ---- whole tracks ------------------------------------------------------------------------------


def _decode_whole(
    file: BinaryIO, spec: AudioSpec, max_s: float | None = None, also: int | None = None
) -> Decoded:
    if not file.seek(0, 2):
        raise AudioError("empty", "the file has no bytes")
    stated = state(file)
    if stated is None:
        raise AudioError("not_audio", "it is not in a known audio format")
    file = _behind_tags(file, stated)
    best: Decoded | None = None
    why = ""
    for opener in _openers(stated):
        try:
            attempt, is_whole = _attempt(opener, file, stated, spec, max_s, also)
        except CANNOT_OPEN as error:
            why = getattr(error, "strerror", None) or str(error)
            continue
        if is_whole:
            if is_silent(attempt.samples):
                raise AudioError("silent", f"its {attempt.seconds:.1f} s are silent")
            return attempt
        if best is None or attempt.seconds > best.seconds:
            best = attempt
        if stated.stretch > 1:
            break  # no other decoder can find missing bytes
    raise _refusal(best, stated, why)


def _attempt(
    opener: Callable[[BinaryIO], Reader],
    file: BinaryIO,
    stated: Stated,
    spec: AudioSpec,
    max_s: float | None,
    also: int | None,
) -> tuple[Decoded, bool]:
    """What one backend decodes of the file, and whether that is the whole track.

    Raises the errors in CANNOT_OPEN.
    """
    with contextlib.closing(opener(file)) as reader:
        decoded, louder = _decode_with(reader, stated, spec, max_s, also)
        is_whole = _is_whole(decoded, reader, stated)
    if louder is None or not is_whole:
        return decoded, is_whole
    with contextlib.closing(opener(file)) as reader:
        return _decode_with(reader, stated, spec, max_s, also, channel=louder)[0], True


def _behind_tags(file: BinaryIO, stated: Stated) -> BinaryIO:
    """The file, or a copy without the bytes before its audio that mislead decoders."""
    if not stated.start:
        return file
    file.seek(stated.start)
    return io.BytesIO(file.read())


def _openers(stated: Stated) -> list[Callable[[BinaryIO], Reader]]:
    """The backends for a file, the preferred one first.

    libsndfile hides a hole in an Ogg file by seeking past it. So PyAV, which does not, decodes
    files with holes.
    """
    by_pyav = functools.partial(PyAVReader, form=stated.form)
    trusted = by_soundfile(stated.form) and not stated.missing
    return [SoundFileReader, by_pyav] if trusted else [by_pyav]


def _decode_with(
    reader: Reader,
    stated: Stated,
    spec: AudioSpec,
    max_s: float | None,
    also: int | None,
    *,
    channel: int | None = None,
) -> tuple[Decoded, int | None]:
    """What a reader decodes, with the expected length; the channel to use if the mean cancels."""
    rate, frames = reader.rate, reader.frames
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise AudioError("not_audio", f"its header states a sample rate of {rate} Hz")
    expected = stated.seconds
    if expected is None and frames is not None:
        expected = frames / rate * stated.stretch
    if max_s is not None and expected is not None and expected > max_s and not stated.missing:
        raise AudioError("too_long", f"it states {expected:.1f} s, at most {max_s:.1f} s are read")
    blocks = ((reader.rate, block) for block in reader.blocks())
    mixed = mix_and_resample(blocks, spec, max_s, channel=channel, also=also)
    samples, seconds, other = mixed.samples, mixed.seconds, mixed.also
    if reader.can_seek and frames and frames < seconds * rate <= frames + _CODEC_FRAME:
        seconds = frames / rate  # cut the padding off, so that spans and full decodes end alike
        samples = samples[: resampled_length(frames, rate, spec.sample_rate)]
        if also is not None and other is not None:
            other = other[: resampled_length(frames, rate, also)]
    decoded = Decoded(
        samples=samples,
        seconds=seconds,
        expected_seconds=expected,
        backend=reader.name,
        also=other,
    )
    return decoded, mixed.louder


def _is_whole(attempt: Decoded, reader: Reader, stated: Stated) -> bool:
    """Whether the decode is as long as the file, its header and its timestamps state."""
    if stated.missing or not len(attempt.samples):
        return False
    if attempt.expected_seconds is None and reader.damaged:
        return False
    expected = max(attempt.expected_seconds or 0.0, reader.timeline_s if stated.timed else 0.0)
    return attempt.seconds >= expected - min(stated.slack_s, expected / 4)


def _refusal(best: Decoded | None, stated: Stated, why: str) -> AudioError:
    """The error for a file that no backend decoded whole."""
    seconds = best.seconds if best else 0.0
    expected = best.expected_seconds if best else stated.seconds
    if not seconds and not expected and not stated.missing:
        if best:
            return AudioError("empty", "there are no samples in it")
        return AudioError("not_audio", f"it begins like {stated.form}, but: {why}")
    if stated.encrypted:  # checked only after decoding failed: some files mark plain sound so
        return AudioError("encrypted", f"its audio is encrypted ({stated.form}); it takes a key")
    known = f"{expected:.2f} s" if expected else "an unknown length"
    note = stated.missing or "the rest is damaged or cut off"
    return AudioError("truncated", f"decoded {seconds:.2f} s of {known} expected: {note}")


# ---- spans -------------------------------------------------------------------------------------


class _Track(NamedTuple):
    """An opened track whose exact length is known, so that it can be read from the middle."""

    reader: Reader
    frames: int  # at the native rate

    def length(self, spec: AudioSpec) -> int:
        """Samples of a full decode."""
        return resampled_length(self.frames, self.reader.rate, spec.sample_rate)


@contextlib.contextmanager
def _seekable(file: BinaryIO) -> Iterator[_Track | None]:
    """The track, or None if only a full decode is reliable (or can report what is wrong)."""
    stated = state(file)
    reader: Reader | None = None
    if stated and not stated.missing and stated.stretch == 1:
        with contextlib.suppress(*CANNOT_OPEN):
            reader = _openers(stated)[0](_behind_tags(file, stated))
    if stated is None or reader is None:
        yield None
        return
    with contextlib.closing(reader):
        yield _located(reader, stated)


def _located(reader: Reader, stated: Stated) -> _Track | None:
    """The track, if the decoder's header agrees with the length that the file states."""
    frames = reader.frames
    if frames is None or not reader.can_seek:
        return None
    if stated.seconds is not None:
        counted = round(stated.seconds * reader.rate)
        if abs(frames - counted) > stated.slack_s * reader.rate:
            return None
        frames = min(frames, counted)  # libsndfile overestimates an MP3 without a header
    return _Track(reader, frames)


def _read_span(track: _Track, spec: AudioSpec, start: int, count: int) -> np.ndarray | None:
    """Samples [start, start + count) of a full decode, or None if decoding fails midway."""
    rate, total = track.reader.rate, track.length(spec)
    count = min(count, total - start)
    if count <= 0:
        return np.empty(0, np.float32)
    common = math.gcd(rate, spec.sample_rate)
    down, up = rate // common, spec.sample_rate // common  # the grids meet every `up` samples
    margin = math.ceil(_MARGIN_S * spec.sample_rate)
    meeting = max(0, start - margin) // up
    stop = -(-(start + count + margin) * down // up)
    blocks = track.reader.blocks(meeting * down, None if stop >= track.frames else stop)
    mixed = mix_and_resample(((rate, block) for block in blocks), spec)
    span = mixed.samples[start - meeting * up :][:count]
    unsure = track.reader.damaged or mixed.louder is not None
    return None if unsure or len(span) < count else span
