"""Native samples to mono float32 at the spec's rate: the only place that mixes and resamples.

It works block by block, so memory is that of the result, not of eight channels at 192 kHz. soxr's
stream is bit-identical to one call over the whole track.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import soxr

from raymtr.audio.source import AudioError
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

LOWEST_RATE, HIGHEST_RATE = 1_000, 1_000_000  # Hz; a header that states another is damaged

_CHUNK = 1 << 16  # samples per call of soxr: larger chunks do not fit the CPU cache
_LOUDEST = 1e6  # RMS relative to full scale: float files may exceed it, but not by 120 dB
_MOST_CHANNELS = 64
_SILENT = 1e-4  # relative to full scale: -80 dB, above the dither of 16 bits
_CANCELLED = 1e-3  # energy of the mean over that of the loudest channel: -30 dB
_EVERY = 37  # one frame in so many is used to estimate the energies of the channels


class Mixed(NamedTuple):
    """The result of mixing and resampling all blocks."""

    samples: np.ndarray  # float32 [n] at the spec's rate
    seconds: float  # at the native rate
    louder: int | None  # the loudest channel, if the channels cancel each other out
    also: np.ndarray | None = None  # float32 [m], the same at the other rate requested


def is_silent(samples: np.ndarray) -> bool:
    """Whether samples [n] are inaudible."""
    return not len(samples) or float(max(samples.max(), -samples.min())) < _SILENT


def to_mono(samples: np.ndarray, rate: int, spec: AudioSpec) -> np.ndarray:
    """Convert samples in memory, [n] or [n, channels] at `rate` Hz, as `decode` does.

    Integers are scaled by their full scale. Raises InputError for another shape, kind or rate,
    AudioError for empty or non-finite samples.
    """
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and samples.shape[1] > _MOST_CHANNELS):
        raise InputError(
            f"samples are [n] or [n, channels], got shape {samples.shape}; transpose [channels, n]"
        )
    if samples.dtype.kind not in "fiu":
        raise InputError(f"samples are floats or integers, got {samples.dtype}")
    if rate != int(rate) or not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise InputError(f"a sample rate in Hz is a whole number of at least 1000, got {rate!r}")
    if not samples.size:
        raise AudioError("empty", "there are no samples")
    block = as_float(samples.reshape(len(samples), -1))
    mixed = mix_and_resample([(int(rate), block)], spec)
    if mixed.louder is not None:
        mixed = mix_and_resample([(int(rate), block)], spec, channel=mixed.louder)
    return mixed.samples


def mix_and_resample(
    blocks: Iterable[tuple[int, np.ndarray]],
    spec: AudioSpec,
    max_s: float | None = None,
    *,
    channel: int | None = None,
    also: int | None = None,
) -> Mixed:
    """One channel, or the mean of all, of (rate in Hz, [frames, channels]) blocks.

    `also` is a further rate in Hz to resample to. The mean is a matrix product: thirty times faster
    than `mean` on interleaved samples. Raises AudioError beyond `max_s`, and for samples that are
    not finite or absurdly large.
    """
    frames, rate = 0, spec.sample_rate
    wanted = {hz: _Resampled(hz) for hz in (spec.sample_rate, also) if hz is not None}
    energies = np.zeros(_MOST_CHANNELS + 1)  # of each channel; of the mean last
    for rate, block in blocks:
        channels = block.shape[1]
        with np.errstate(invalid="ignore", over="ignore"):  # checked below
            if channel is None:
                mono = block @ np.full(channels, 1 / channels, np.float32)
                _add_energies(energies, block, mono)
            else:
                mono = np.ascontiguousarray(block[:, min(channel, channels - 1)])
        frames += len(mono)
        if max_s is not None and frames > max_s * rate:
            raise AudioError("too_long", f"it is longer than {max_s:.1f} s, the most that is read")
        for resampled in wanted.values():
            resampled.add(mono, rate)
    by_rate = {hz: resampled.samples() for hz, resampled in wanted.items()}
    samples = by_rate[spec.sample_rate]
    with np.errstate(invalid="ignore", over="ignore"):
        energy = float(samples @ samples)
    if not energy <= _LOUDEST**2 * len(samples):
        raise AudioError("bad_samples", "it contains NaN, infinite or absurdly large samples")
    loudest = int(energies[:-1].argmax())
    cancelled = energies[-1] < _CANCELLED * energies[loudest]
    return Mixed(samples, frames / rate, loudest if cancelled else None, by_rate.get(also or 0))


class _Resampled:
    """Mono samples at one rate, collected chunk by chunk."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._parts: list[np.ndarray] = []
        self._stream: soxr.ResampleStream | None = None

    def add(self, mono: np.ndarray, rate: int) -> None:
        """Add samples at `rate` Hz."""
        if rate == self._rate:
            self._parts.append(mono)
            return
        if self._stream is None:
            self._stream = soxr.ResampleStream(rate, self._rate, 1, dtype="float32", quality="HQ")
        for start in range(0, len(mono), _CHUNK):
            self._parts.append(self._stream.resample_chunk(mono[start : start + _CHUNK]))

    def samples(self) -> np.ndarray:
        """All of them, including those still buffered by soxr."""
        if self._stream is not None:
            self._parts.append(self._stream.resample_chunk(np.empty(0, np.float32), last=True))
        return np.concatenate(self._parts) if self._parts else np.empty(0, np.float32)


def _add_energies(energies: np.ndarray, block: np.ndarray, mono: np.ndarray) -> None:
    some, mean = block[::_EVERY, :_MOST_CHANNELS], mono[::_EVERY]
    if some.shape[1] > 1:
        energies[: some.shape[1]] += np.einsum("ij,ij->j", some, some, dtype=np.float64)
        energies[-1] += np.dot(mean, mean)


def resampled_length(frames: int, rate: int, to: int) -> int:
    """Number of samples at `to` Hz that soxr outputs for `frames` at `rate`, by its own formula."""
    return int(frames / (rate / to) + 0.5)


def as_float(samples: np.ndarray) -> np.ndarray:
    """float32 of the same shape; integers divided by full scale as in libsndfile, floats as is."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite
            return samples.astype(np.float32, copy=False)
    half = np.float32(1 << 8 * samples.dtype.itemsize - 1)
    centred = samples.astype(np.float32) - (half if samples.dtype.kind == "u" else 0)
    return np.asarray(centred / half, np.float32)
