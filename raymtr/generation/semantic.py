"""Semantic tokens: k-means over what an encoder hears in each short stretch of sound.

The paper takes layer 7 of w2v-BERT. Here it is the last middle layer of musicnn, which learnt from
200,000 songs, or a layer of a hub's encoder (hub_parts). Frames are resampled in time to
`semantic_hz`.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation.quantizer import ResidualQuantizer
from raymtr.generation_specs import TokensSpec
from raymtr.model.log_mel import LogMel
from raymtr.model.musicnn import AUDIO, Musicnn, read_musicnn

TAGGER = "musicnn-msd"
CHUNK_S = 10  # seconds heard at once


class Heard(Protocol):
    """What an encoder hears: frames of one width at a rate of its own."""

    sample_rate: int
    width: int

    def hear(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] -> frames float32 [T, width]."""
        ...


class MusicnnHeard(nn.Module):
    """The last middle layer of a musicnn, 62.5 frames a second of 64 numbers."""

    sample_rate, width = AUDIO.sample_rate, 64

    def __init__(self, network: Musicnn) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._log_mel = LogMel(AUDIO)

    @torch.inference_mode()
    def hear(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] -> float32 [T, 64]; chunks of CHUNK_S do not see one another."""
        waves = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        parts = [
            part
            for part in torch.split(waves, CHUNK_S * AUDIO.sample_rate)
            if len(part) > AUDIO.hop
        ]
        heard = [self.network.frames(self._log_mel(part[None]))[0].T for part in parts]
        return torch.cat(heard).clone() if heard else torch.empty(0, self.width)


class SemanticTokens(nn.Module):
    """Frames of a Heard, resampled to `frame_hz`, to the nearest of the codes."""

    def __init__(self, heard: Heard, spec: TokensSpec) -> None:
        super().__init__()
        self.heard = heard
        self.frame_hz = spec.semantic_hz
        self.quantizer = ResidualQuantizer(1, spec.semantic_codes, heard.width)

    @property
    def sample_rate(self) -> int:
        """Of the samples, in Hz."""
        return self.heard.sample_rate

    @property
    def codes(self) -> int:
        """How many tokens there are."""
        return self.quantizer.codes

    def frames(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] -> frames float32 [T, width], `frame_hz` a second."""
        count = int(len(samples) / self.sample_rate * self.frame_hz)
        heard = self.heard.hear(samples)
        if not count or not len(heard):
            return torch.empty(0, self.heard.width)
        return functional.interpolate(heard.T[None], count, mode="linear")[0].T.contiguous()

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Mono float32 [S] -> tokens int64 [T]."""
        return np.asarray(self.quantizer.encode(self.frames(samples))[:, 0].numpy())


def musicnn_heard() -> MusicnnHeard:
    """Musicnn with the authors' weights. Raises UnusableError where its package is missing."""
    return MusicnnHeard(read_musicnn(TAGGER))
