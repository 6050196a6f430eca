"""Waveform -> log-mel spectrogram, the only implementation in the system.

The formula is TTMR++'s (Doh et al., ICASSP 2024), which is Whisper's with other sizes: power
spectrum, Slaney mel bands, log10, a floor 8 decades (80 dB) below the maximum, a shift into about
[-1, 1]. The maximum is taken **per clip**. The authors take it over the whole batch, so there a
quiet track's vector depends on its neighbours.

Where the spec says so, the level is removed: the maximum is scaled to 1 before the logarithm, so a
clip has the same spectrogram at every gain. Old masters are 6 to 12 dB quieter than new ones.
Towers trained with the level do not match one with the other.

With `compression="log1p"` the spectrogram is musicnn's instead (Pons & Serra 2019). The clip is
padded with zeros, powers are rounded to float16 as the authors do, and log10(1 + 10,000 power) goes
down to 0. That curve depends on the absolute level. So removing the level means scaling the clip's
root mean square to LOUDNESS, the level of its training music.

The code is arranged for a CPU. The spectrum is squared in place and enters the filters with real
and imaginary parts side by side. Each group of bands reads only the bins it covers. Clips are
processed one at a time, because a second spectrum would evict the first from the cache. That also
makes a clip byte-equal in every batch. A GPU takes the whole batch at once. Nothing here is learnt,
and no gradient passes. Where the spec has semitones, their rows follow the mel bands.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.model.exact import without_autocast
from raymtr.model.semitones import Semitones
from raymtr.tower_specs import SEMITONES, AudioSpec

# Part of the fingerprint: if a number below changes, raise model.identity.MEL_VERSION.
TINIEST_POWER = 1e-10
DECADES = 8.0  # range kept below the clip's maximum
GAIN = 10_000.0  # factor inside musicnn's logarithm
LOUDNESS = 0.125  # root mean square, -18 dB of full scale: a record of the 2000s
QUIETEST = 1e-3  # least root mean square assumed, so that quiet hiss is not amplified to music
BAND_GROUPS = 8  # more groups would make the matrix products too small to be efficient


class LogMel(nn.Module):
    """float32 waves [B, S] -> float32 log-mel [B, n_mels, S // hop]."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: AudioSpec) -> None:
        super().__init__()
        if spec.window_samples <= spec.n_fft // 2:
            raise InputError(
                f"audio.window_s must be longer than half of n_fft ({spec.n_fft} samples), "
                f"got {spec.window_s} s"
            )
        self.spec = spec
        bank = mel_filters(spec)  # [n_mels, bins]
        self.groups = [_reach(bank, bands) for bands in _split(spec.n_mels)]
        twice = torch.from_numpy(bank.T.astype(np.float32)).repeat_interleave(2, dim=0)
        self.register_buffer("filters", twice.contiguous(), persistent=False)  # [2 bins, n_mels]
        kind = torch.float64 if spec.compression == "log1p" else torch.float32
        window = torch.hann_window(spec.n_fft, dtype=kind)
        self.register_buffer("window", window, persistent=False)
        self.semitones = Semitones(spec) if spec.semitones else None

    @torch.no_grad()
    def forward(self, waves: Tensor) -> Tensor:
        """Log-mel of each clip, in float32 even under autocast: the logarithm needs it.

        With `spec.semitones` it is [B, n_mels + SEMITONES, S // hop].
        """
        waves = waves.float()
        frames = waves.shape[1] // self.spec.hop  # the last one is dropped, as in the paper's code
        mel = waves.new_empty(len(waves), frames, self.spec.n_mels)
        heard = waves.new_empty(len(waves), SEMITONES if self.semitones else 0, frames)
        at_once = 1 if waves.device.type == "cpu" else max(1, len(waves))
        with without_autocast(waves.device.type):
            for start in range(0, len(waves), at_once):
                part = slice(start, start + at_once)
                self._write(waves[part], mel[part])
                if self.semitones:
                    heard[part] = self.semitones(waves[part], frames)
        bands = mel.transpose(1, 2)
        return torch.cat([bands, heard], dim=1) if self.semitones else bands

    def _write(self, waves: Tensor, mel: Tensor) -> None:
        """Fill `mel` [B, frames, n_mels] with the log-mel of `waves` [B, S]."""
        if self.spec.compression == "log1p":
            self._write_log1p(waves, mel)
            return
        spectrum = self._spectrum(waves, mel.shape[1], edge="reflect")
        power = torch.view_as_real(spectrum).square_()  # re^2, im^2
        power = power.view(-1, len(self.filters))  # [B frames, 2 bins]
        rows = mel.view(-1, self.spec.n_mels)
        for bands, bins in self.groups:
            torch.mm(power[:, bins], self.filters[bins, bands], out=rows[:, bands])
        if self.spec.level == "removed":
            mel.div_(mel.amax(dim=(1, 2), keepdim=True).clamp_(min=TINIEST_POWER))
        mel.clamp_(min=TINIEST_POWER).log10_()
        floor = mel.amax(dim=(1, 2), keepdim=True) - DECADES  # per clip, never per batch
        torch.maximum(mel, floor, out=mel).add_(4.0).div_(4.0)

    def _write_log1p(self, waves: Tensor, mel: Tensor) -> None:
        """As `_write`, for musicnn, with the roundings of the authors' code.

        Their float16 turns the last bit of a power into one of a thousand. So the spectrum is
        computed in float64, and rounded to float32 with its magnitudes, powers and bands. On a CPU
        the magnitudes are numpy's, as theirs were.
        """
        if self.spec.level == "removed":
            rms = waves.square().mean(dim=1, keepdim=True).sqrt_().clamp_(min=QUIETEST)
            waves = waves * (LOUDNESS / rms)
        spectrum = self._spectrum(waves.double(), mel.shape[1], edge="constant")
        spectrum = spectrum.to(torch.complex64)
        on_cpu = spectrum.device.type == "cpu"
        power = torch.from_numpy(np.abs(spectrum.numpy())) if on_cpu else spectrum.abs()
        power.square_()
        torch.matmul(power, self.filters[::2], out=mel)
        mel.copy_(mel.half()).mul_(GAIN).add_(1.0).log10_()

    def _spectrum(self, waves: Tensor, frames: int, *, edge: str) -> Tensor:
        """Complex spectra [B, frames, bins] of centred, windowed frames."""
        size = self.spec.n_fft
        centred = functional.pad(waves[:, None], (size // 2, size // 2), mode=edge)[:, 0]
        cut = centred.unfold(1, size, self.spec.hop)[:, :frames]  # [B, frames, n_fft]
        spectrum: Tensor = torch.fft.rfft(cut * self.window)
        return spectrum


def _split(bands: int) -> list[slice]:
    groups = [group for group in np.array_split(np.arange(bands), BAND_GROUPS) if len(group)]
    return [slice(int(group[0]), int(group[-1]) + 1) for group in groups]


def _reach(bank: np.ndarray, bands: slice) -> tuple[slice, slice]:
    """The `bands` and the columns of the doubled spectrum where they are not all zero."""
    bins = np.flatnonzero(bank[bands].any(axis=0))
    return bands, slice(2 * int(bins[0]), 2 * int(bins[-1]) + 2) if len(bins) else slice(0, 0)


def mel_filters(spec: AudioSpec) -> np.ndarray:
    """Slaney's mel filterbank [n_mels, 1 + n_fft / 2]: triangles of equal area, 0 Hz to Nyquist.

    Slaney, Auditory Toolbox, 1998 (also librosa's default). The mel scale is linear up to 1 kHz and
    logarithmic above, with 27 mels per factor of 6.4.
    """
    top = spec.sample_rate / 2
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(top), spec.n_mels + 2))
    bins = np.linspace(0.0, top, 1 + spec.n_fft // 2)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return np.asarray(triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None])


HZ_PER_MEL = 200.0 / 3  # in the linear part
KNEE_HZ, KNEE_MEL = 1000.0, 15.0
MELS_PER_E = 27.0 / np.log(6.4)  # in the logarithmic part


def _hz_to_mel(hz: float) -> float:
    if hz < KNEE_HZ:
        return hz / HZ_PER_MEL
    return float(KNEE_MEL + np.log(hz / KNEE_HZ) * MELS_PER_E)


def _mel_to_hz(mel: np.ndarray) -> np.ndarray:
    above = KNEE_HZ * np.exp((mel - KNEE_MEL) / MELS_PER_E)
    return np.where(mel < KNEE_MEL, mel * HZ_PER_MEL, above)
