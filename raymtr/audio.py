"""One decoder for training, indexing and serving: audio bytes to mono float32 at the spec's rate.

Samples are decoded at their own rate by soundfile, or by PyAV what soundfile cannot open or does
not bring home whole; channels are averaged, then soxr HQ resamples. Both are done here and only
here, block by block: no backend may mix or resample, and memory is that of the result.

No file comes out short in silence. What a file states about its own length (`audio_probe`) is
compared with what was decoded; a file that no backend decodes whole is refused, and jobs turn the
`AudioError` into a row. Given up: whatever could be saved of a damaged file, and sample rates that
change midway. A few damaged frames that leave the length whole pass.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, NamedTuple

import numpy as np
import soxr

from raymtr.audio_backends import (
    CANNOT_OPEN,
    SOUNDFILE_FORMS,
    PyAVReader,
    SoundFileReader,
    as_float,
)
from raymtr.audio_probe import Stated, probe
from raymtr.audio_source import AudioError, opened
from raymtr.errors import InputError
from raymtr.specs import AudioSpec

DECODING = "decode-1"  # part of every fingerprint; raised by hand when the same file would differ

_MARGIN_S = 0.1  # decoded on both sides of a span: soxr HQ reaches 128 samples of the lower rate
_LOWEST_RATE, _HIGHEST_RATE = 1_000, 1_000_000  # Hz; beyond them a header is damaged
_LOUDEST = 1e6  # full scale is 1; float files may pass it, but not by 120 dB
_MOST_CHANNELS = 64
_CODEC_FRAME = 4096  # samples; MP4 leaves up to that much padding behind its stated end

Reader = SoundFileReader | PyAVReader


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A whole track."""

    samples: np.ndarray  # float32 [n], mono at the spec's rate
    seconds: float  # decoded, at the native rate
    expected_seconds: float | None  # by the file's own statement; None where it states nothing
    backend: str  # "soundfile" or "pyav"


def decode(
    source: str | bytes,
    spec: AudioSpec,
    *,
    max_s: float | None = None,
    max_mb: float | None = None,
) -> Decoded:
    """Decode a whole track: a local path, a URI, or the file's bytes.

    Raises AudioError; with `max_s` before decoding where the file states more, else on the way.
    """
    with opened(source, max_mb) as file:
        return _decode_whole(file, spec, max_s)


def decode_span(
    source: str | bytes, spec: AudioSpec, *, start_s: float, length_s: float
) -> np.ndarray:
    """The slice [start_s, start_s + length_s) of a full decode, by seeking: float32 [n].

    Equal to `decode(...).samples[round(start_s * rate):][:round(length_s * rate)]`, so shorter or
    empty where the track ends. Reads on sample positions at which both rates' grids meet, with a
    margin for the resampler. Files without an exact index (all but what soundfile opens, and MP4)
    are decoded whole. Raises AudioError.
    """
    start, count = round(start_s * spec.sample_rate), round(length_s * spec.sample_rate)
    if start < 0 or count < 0:
        raise InputError(f"a span starts and lasts at least 0 s, got {start_s} s and {length_s} s")
    with opened(source) as file:
        with _seekable(file) as track:
            span = _read_span(track, spec, start, count) if track else None
        return _decode_whole(file, spec).samples[start:][:count] if span is None else span


def random_clip(source: str | bytes, spec: AudioSpec, rng: np.random.Generator) -> np.ndarray:
    """One training clip at random, decoding only what it needs: float32 [window_samples].

    The place is `clip_start`'s, the same that `audio_cache` draws from the same rng. A track
    shorter than a window is repeated. Raises AudioError.
    """
    draw = rng.random()
    with opened(source) as file:
        with _seekable(file) as track:
            if track and (total := track.length(spec)) >= spec.window_samples:
                start = clip_start(total, spec.window_samples, draw)
                span = _read_span(track, spec, start, spec.window_samples)
                if span is not None:
                    return span
        return cut_clip(_decode_whole(file, spec).samples, spec, draw)


def cut_clip(samples: np.ndarray, spec: AudioSpec, draw: float) -> np.ndarray:
    """The clip that `draw`, uniform in [0, 1), picks from a whole track; [window_samples]."""
    start = clip_start(len(samples), spec.window_samples, draw)
    return loop_to(samples[start : start + spec.window_samples], spec.window_samples)


def clip_start(total: int, window: int, draw: float) -> int:
    """First sample of the clip that `draw`, uniform in [0, 1), picks among all that fit."""
    return int(draw * (max(0, total - window) + 1))


def loop_to(samples: np.ndarray, length: int) -> np.ndarray:
    """`samples` [n], repeated from their start until there are `length` of them."""
    return samples if len(samples) == length else np.resize(samples, length)


def windows(samples: np.ndarray, spec: AudioSpec) -> tuple[np.ndarray, np.ndarray]:
    """All windows of a track: starts in seconds float64 [W], float32 [W, window_samples].

    Windows start every `window_s`. Where a tail of at least `min_tail_s` remains, one more window
    ends exactly with the track, overlapping its predecessor. A track shorter than a window is
    repeated from its start until it fills one. Raises AudioError where there are no samples.
    """
    if not len(samples):
        raise AudioError("empty", "there are no samples")
    size = spec.window_samples
    starts = list(range(0, len(samples) - size + 1, size)) or [0]
    tail = len(samples) - (starts[-1] + size)
    if tail > 0 and tail >= spec.min_tail_s * spec.sample_rate:
        starts.append(len(samples) - size)
    cut = np.stack([loop_to(samples[s : s + size], size) for s in starts])
    return np.array(starts) / spec.sample_rate, cut.astype(np.float32, copy=False)


def to_mono(samples: np.ndarray, rate: int, spec: AudioSpec) -> np.ndarray:
    """Samples in memory, [n] or [n, channels] at `rate` Hz, as `decode` would give them.

    Integers count by their full scale. Raises InputError for another shape, kind or rate,
    AudioError for empty or non-finite samples.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS):
        raise InputError(
            f"samples are [n] or [n, channels], got shape {samples.shape}; transpose [channels, n]"
        )
    if samples.dtype.kind not in "fiu":
        raise InputError(f"samples are floats or integers, got {samples.dtype}")
    if rate != int(rate) or not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise InputError(f"a sample rate in Hz is a whole number of at least 1000, got {rate!r}")
    if not samples.size:
        raise AudioError("empty", "there are no samples")
    block = as_float(samples.reshape(len(samples), -1))
    return _mix_and_resample([(int(rate), block)], spec)[0]


# ---- whole tracks ------------------------------------------------------------------------------


def _decode_whole(file: BinaryIO, spec: AudioSpec, max_s: float | None = None) -> Decoded:
    if not file.seek(0, 2):
        raise AudioError("empty", "the file has no bytes")
    stated = probe(file)
    if stated is None:
        raise AudioError("not_audio", "it begins like no audio format known here")
    best: Decoded | None = None
    why = ""
    for opener in _openers(stated.form):
        try:
            reader = opener(file)
        except CANNOT_OPEN as error:
            why = str(error)
            continue
        with contextlib.closing(reader):
            attempt = _decode_with(reader, stated, spec, max_s)
            if _is_whole(attempt, reader, stated):
                return attempt
        if best is None or attempt.seconds > best.seconds:
            best = attempt
    raise _refusal(best, stated, why)


def _openers(form: str) -> list[Callable[[BinaryIO], Reader]]:
    """The backends for a container, the preferred one first."""
    by_pyav = functools.partial(PyAVReader, form=form)
    return [SoundFileReader, by_pyav] if form in SOUNDFILE_FORMS else [by_pyav]


def _decode_with(reader: Reader, stated: Stated, spec: AudioSpec, max_s: float | None) -> Decoded:
    """All that this backend finds in the file, with what it should find."""
    rate, frames = reader.rate, reader.frames
    if not _LOWEST_RATE <= rate <= _HIGHEST_RATE:
        raise AudioError("not_audio", f"its header states a sample rate of {rate} Hz")
    expected = stated.seconds
    if expected is None and frames is not None:
        expected = frames / rate * stated.stretch
    if max_s is not None and expected is not None and expected > max_s and not stated.missing:
        raise AudioError("too_long", f"it states {expected:.1f} s, at most {max_s:.1f} s are read")
    blocks = ((reader.rate, block) for block in reader.blocks())
    samples, seconds = _mix_and_resample(blocks, spec, max_s)
    if reader.can_seek and frames and frames < seconds * rate <= frames + _CODEC_FRAME:
        seconds = frames / rate  # cut the padding off, so that spans and wholes end alike
        samples = samples[: _resampled_length(frames, rate, spec)]
    return Decoded(samples=samples, seconds=seconds, expected_seconds=expected, backend=reader.name)


def _is_whole(attempt: Decoded, reader: Reader, stated: Stated) -> bool:
    """Whether the decode is as long as the file, its header and its own times say."""
    if stated.missing or not len(attempt.samples):
        return False
    if attempt.expected_seconds is None and reader.damaged:
        return False
    expected = max(attempt.expected_seconds or 0.0, reader.timeline_s)
    return attempt.seconds >= expected - min(stated.slack_s, expected / 4)


def _refusal(best: Decoded | None, stated: Stated, why: str) -> AudioError:
    """The error for a file that no backend decoded whole."""
    seconds = best.seconds if best else 0.0
    expected = best.expected_seconds if best else stated.seconds
    if not seconds and not expected and not stated.missing:
        if best:
            return AudioError("empty", "there are no samples in it")
        return AudioError("not_audio", f"it begins like {stated.form}, but: {why}")
    known = f"{expected:.2f} s" if expected else "an unknown length"
    note = stated.missing or "the rest is damaged or cut off"
    return AudioError("truncated", f"decoded {seconds:.2f} s of {known} expected: {note}")


def _mix_and_resample(
    blocks: Iterable[tuple[int, np.ndarray]], spec: AudioSpec, max_s: float | None = None
) -> tuple[np.ndarray, float]:
    """(float32 [n] at the spec's rate, native seconds) of (rate in Hz, [frames, channels]) blocks.

    The mean of the channels is a matrix product: thirty times faster than `mean` on interleaved
    samples. Raises AudioError beyond `max_s`, and for samples that no sound has.
    """
    parts: list[np.ndarray] = []
    stream: soxr.ResampleStream | None = None
    frames, rate = 0, spec.sample_rate
    for rate, block in blocks:
        channels = block.shape[1]
        mono = block @ np.full(channels, 1 / channels, np.float32)
        frames += len(mono)
        if max_s is not None and frames > max_s * rate:
            raise AudioError("too_long", f"it goes on after {max_s:.1f} s, the most that is read")
        if rate != spec.sample_rate:
            stream = stream or _resampler(rate, spec)
            mono = stream.resample_chunk(mono)
        parts.append(mono)
    if stream is not None:
        parts.append(stream.resample_chunk(np.empty(0, np.float32), last=True))
    samples = np.concatenate(parts) if parts else np.empty(0, np.float32)
    if len(samples) and not max(samples.max(), -samples.min()) <= _LOUDEST:
        raise AudioError("bad_samples", "it holds NaN, infinite or absurdly large samples")
    return samples, frames / rate


def _resampler(rate: int, spec: AudioSpec) -> soxr.ResampleStream:
    return soxr.ResampleStream(rate, spec.sample_rate, 1, dtype="float32", quality="HQ")


def _resampled_length(frames: int, rate: int, spec: AudioSpec) -> int:
    """Samples that soxr makes of `frames` native ones: rounded, halves up."""
    return (2 * frames * spec.sample_rate + rate) // (2 * rate)


# ---- spans -------------------------------------------------------------------------------------


class _Track(NamedTuple):
    """An opened track whose length is known exactly, so that it can be read from the middle."""

    reader: Reader
    frames: int  # native

    def length(self, spec: AudioSpec) -> int:
        """Samples of a full decode."""
        return _resampled_length(self.frames, self.reader.rate, spec)


@contextlib.contextmanager
def _seekable(file: BinaryIO) -> Iterator[_Track | None]:
    """The track, or None where only a full decode can be relied on (or can tell what is wrong)."""
    stated = probe(file)
    reader: Reader | None = None
    if stated and not stated.missing and stated.stretch == 1:
        with contextlib.suppress(*CANNOT_OPEN):
            reader = _openers(stated.form)[0](file)
    if stated is None or reader is None:
        yield None
        return
    with contextlib.closing(reader):
        yield _located(reader, stated)


def _located(reader: Reader, stated: Stated) -> _Track | None:
    """The track, where the decoder's header agrees with the file's own statement."""
    frames = reader.frames
    if frames is None or not reader.can_seek:
        return None
    if stated.seconds is not None:
        counted = round(stated.seconds * reader.rate)
        if abs(frames - counted) > stated.slack_s * reader.rate:
            return None
        frames = min(frames, counted)  # libsndfile guesses too much of an MP3 without a header
    return _Track(reader, frames)


def _read_span(track: _Track, spec: AudioSpec, start: int, count: int) -> np.ndarray | None:
    """Samples [start, start + count) of a full decode, or None where the file fails on the way."""
    rate, total = track.reader.rate, track.length(spec)
    count = min(count, total - start)
    if count <= 0:
        return np.empty(0, np.float32)
    common = math.gcd(rate, spec.sample_rate)
    down, up = rate // common, spec.sample_rate // common  # both grids meet every `up` samples
    margin = math.ceil(_MARGIN_S * spec.sample_rate)
    meeting = max(0, start - margin) // up
    stop = -(-(start + count + margin) * down // up)
    blocks = track.reader.blocks(meeting * down, None if stop >= track.frames else stop)
    samples, _ = _mix_and_resample(((rate, block) for block in blocks), spec)
    span = samples[start - meeting * up :][:count]
    return None if track.reader.damaged or len(span) < count else span
