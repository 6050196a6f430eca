"""Waveform -> the power of each semitone over time, where mel bands are too wide to show pitch.

Below 500 Hz a mel band of the usual transform covers several semitones, so neither key nor register
can be read from it. This second transform has windows of about 0.37 s, long enough to tell
semitones apart from A1 on, and an eighth of the log-mel's frames. Each bin belongs to its nearest
semitone in equal temperament (as in a chromagram, Fujishima 1999). Levels are relative to the
maximum of the clip, so the level of the clip never matters. Nothing is learnt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.errors import InputError
from raymtr.tower_specs import SEMITONES, AudioSpec

# Part of the fingerprint: if a number below changes, raise model.identity.SEMITONES_VERSION.
LOWEST = 33  # MIDI note: A1, 55 Hz
WINDOW_S = 0.37
FRAMES_PER_HOP = 8  # frames of the log-mel; for `raymtr-small` a hop is half a window
DECADES = 6.0  # range kept below the clip's maximum
TINIEST_POWER = 1e-10


class Semitones(nn.Module):
    """float32 waves [B, S] -> float32 [B, SEMITONES, frames], -0.5 to 1."""

    window: Tensor
    filters: Tensor

    def __init__(self, spec: AudioSpec) -> None:
        super().__init__()
        self.n_fft = 2 ** round(math.log2(WINDOW_S * spec.sample_rate))
        if spec.window_samples <= self.n_fft // 2:
            raise InputError(
                f"audio.semitones need windows longer than {self.n_fft // 2 / spec.sample_rate:.2f}"
                f" s, audio.window_s is {spec.window_s}"
            )
        self.hop = FRAMES_PER_HOP * spec.hop
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)
        hz = torch.arange(self.n_fft // 2 + 1) * spec.sample_rate / self.n_fft
        note = 69 + 12 * torch.log2(hz.clamp(min=1.0) / 440)  # MIDI's numbers
        notes = torch.arange(LOWEST, LOWEST + SEMITONES)
        filters = (note.round()[:, None] == notes).float()  # [bins, SEMITONES]
        self.bins = int(filters.any(dim=1).nonzero().max()) + 1  # the others are above the notes
        self.register_buffer("filters", filters[: self.bins].clone(), persistent=False)

    def forward(self, waves: Tensor, frames: int) -> Tensor:
        """Each of its own frames is repeated FRAMES_PER_HOP times, to the log-mel's `frames`."""
        size = self.n_fft
        centred = functional.pad(waves[:, None], (size // 2, size // 2), mode="reflect")[:, 0]
        cut = centred.unfold(1, size, self.hop) * self.window
        spectrum = torch.view_as_real(torch.fft.rfft(cut)[..., : self.bins])
        power = spectrum.square().sum(-1) @ self.filters  # [B, T, SEMITONES]
        power /= power.amax(dim=(1, 2), keepdim=True).clamp_(min=TINIEST_POWER)
        levels: Tensor = (power.clamp_(min=10**-DECADES).log10_() + 4.0) / 4.0
        return levels.repeat_interleave(FRAMES_PER_HOP, dim=1)[:, :frames].transpose(1, 2)
