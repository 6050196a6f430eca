"""The codec trained here: an RVQ over pairs of log-mel frames, and a learned decoder.

A token frame is two log-mel frames of 20 ms, so there are 25 per second. Each RVQ level refines the
levels before it, so the first levels alone give coarser audio.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.audio import loop_to
from raymtr.generation.quantizer import ResidualQuantizer, fit_quantizer
from raymtr.generation.vocoder import Vocoder, fit_vocoder
from raymtr.generation_specs import TokensSpec
from raymtr.model.log_mel import LogMel
from raymtr.tower_specs import AudioSpec

AUDIO = AudioSpec(sample_rate=16_000, n_fft=1_024, hop=320, n_mels=80, window_s=1.0)
PAIR = 2  # log-mel frames per token frame
PAIR_SAMPLES = PAIR * AUDIO.hop


class Codec(Protocol):
    """Encodes audio to tokens of several levels, and decodes them."""

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        ...

    @property
    def frame_hz(self) -> float:
        """Token frames per second."""
        ...

    @property
    def levels(self) -> int:
        """Tokens per frame."""
        ...

    @property
    def codes(self) -> int:
        """Codebook size of a level."""
        ...

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Mono float32 [S] -> tokens int64 [F, levels]."""
        ...

    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens int64 [F, L] of the first L levels -> mono float32 [S]."""
        ...


class MelCodec(nn.Module):
    """See the file's docstring; a Codec."""

    def __init__(self, spec: TokensSpec) -> None:
        super().__init__()
        self.levels, self.codes = spec.levels, spec.codes
        self.quantizer = ResidualQuantizer(spec.levels, spec.codes, PAIR * AUDIO.n_mels)
        self.vocoder = Vocoder(AUDIO, spec.decoder_width, spec.decoder_layers)
        self._log_mel = LogMel(AUDIO)

    sample_rate = AUDIO.sample_rate
    frame_hz = AUDIO.sample_rate / PAIR_SAMPLES

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Mono float32 [S] -> tokens int64 [F, levels]; an incomplete last frame is dropped."""
        return np.asarray(self.quantizer.encode(self.frames(samples)).numpy())

    @torch.inference_mode()
    def decode(self, tokens: np.ndarray) -> np.ndarray:
        """Tokens int64 [F, L] of the first L levels -> mono float32 [S]."""
        mel = self.mel_of(torch.from_numpy(np.asarray(tokens, np.int64)))
        wave = self.vocoder.refine(mel[None])[0]
        return np.asarray(wave.clamp(-1, 1).numpy())

    def frames(self, samples: np.ndarray) -> Tensor:
        """Pairs of log-mel frames, float32 [F, 160]; none for audio below 64 ms."""
        waves = torch.from_numpy(np.ascontiguousarray(samples, np.float32))[None]
        if waves.shape[1] <= AUDIO.n_fft:
            return torch.empty(0, PAIR * AUDIO.n_mels)
        mel = self._log_mel(waves)[0].T  # [frames, n_mels]
        pairs: Tensor = mel[: len(mel) // PAIR * PAIR].reshape(-1, PAIR * AUDIO.n_mels).contiguous()
        return pairs

    def mel_of(self, tokens: Tensor) -> Tensor:
        """Tokens [F, L] -> log-mel [n_mels, 2 F]."""
        mel: Tensor = self.quantizer.decode(tokens).reshape(-1, AUDIO.n_mels).T
        return mel


def fit_mel_codec(clips: Sequence[np.ndarray], spec: TokensSpec) -> tuple[MelCodec, float]:
    """A codec fitted to mono clips at 16 kHz, float32 [S] each, and its decoder's final loss.

    Raises UnusableError if there is too little audio.
    """
    torch.manual_seed(spec.seed)
    codec = MelCodec(spec)
    frames = [codec.frames(clip) for clip in clips]
    codec.quantizer = fit_quantizer(
        torch.cat(frames), spec.levels, spec.codes, rounds=spec.rounds, seed=spec.seed
    )
    tokens = [codec.quantizer.encode(part) for part in frames]
    length = round(codec.frame_hz)  # frames of one second
    usable = [n for n, part in enumerate(tokens) if len(part) >= length] or list(range(len(tokens)))

    def draw(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        mels, waves = [], []
        for _ in range(rows):
            n = usable[_below(len(usable), generator)]
            first = _below(max(1, len(tokens[n]) - length + 1), generator)
            # All levels with probability 0.5, as in sampling; else fewer (level dropout).
            few = 1 + _below(spec.levels, generator) if _below(2, generator) else spec.levels
            part = tokens[n][first : first + length, :few]
            wave = clips[n][first * PAIR_SAMPLES : (first + length) * PAIR_SAMPLES]
            waves.append(torch.from_numpy(loop_to(wave, length * PAIR_SAMPLES).copy()))
            mels.append(_looped(codec.mel_of(part), PAIR * length))
        return torch.stack(mels), torch.stack(waves)

    return codec, fit_vocoder(codec.vocoder, draw, spec)


def _looped(mel: Tensor, length: int) -> Tensor:
    return mel.repeat(1, -(-length // mel.shape[1]))[:, :length]


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (1,), generator=generator))
