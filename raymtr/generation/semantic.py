"""Semantic tokens: k-means over the frames of a pretrained audio encoder.

The paper uses layer 7 of w2v-BERT. Here it is the last intermediate layer of musicnn, which was
trained on 200,000 songs, or a layer of an encoder from a hub (hub_parts). Frames are resampled in
time to `semantic_hz`.
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
CHUNK_S = 10  # encoded at once


class FrameEncoder(Protocol):
    """An encoder of audio to frames of a fixed width, at its own frame rate."""

    sample_rate: int
    width: int

    def encode_frames(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] -> frames float32 [T, width]."""
        ...


class MusicnnEncoder(nn.Module):
    """A FrameEncoder: the last intermediate layer of a musicnn, 62.5 frames per second."""

    sample_rate, width = AUDIO.sample_rate, 64

    def __init__(self, network: Musicnn) -> None:
        super().__init__()
        self.network = network.eval().requires_grad_(False)
        self._log_mel = LogMel(AUDIO)

    @torch.inference_mode()
    def encode_frames(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] -> float32 [T, 64]; chunks of CHUNK_S are encoded independently."""
        waves = torch.from_numpy(np.ascontiguousarray(samples, np.float32))
        chunks = [
            chunk
            for chunk in torch.split(waves, CHUNK_S * AUDIO.sample_rate)
            if len(chunk) > AUDIO.hop
        ]
        frames = [self.network.frames(self._log_mel(chunk[None]))[0].T for chunk in chunks]
        return torch.cat(frames).clone() if frames else torch.empty(0, self.width)


class SemanticTokens(nn.Module):
    """Quantises the frames of a FrameEncoder, resampled to `frame_hz`."""

    def __init__(self, encoder: FrameEncoder, spec: TokensSpec) -> None:
        super().__init__()
        self.heard = encoder  # the name is a key of saved weights
        self.frame_hz = spec.semantic_hz
        self.quantizer = ResidualQuantizer(1, spec.semantic_codes, encoder.width)

    @property
    def sample_rate(self) -> int:
        """Sample rate in Hz."""
        return self.heard.sample_rate

    @property
    def codes(self) -> int:
        """Codebook size."""
        return self.quantizer.codes

    def frames(self, samples: np.ndarray) -> Tensor:
        """Mono float32 [S] -> frames float32 [T, width], `frame_hz` per second."""
        count = int(len(samples) / self.sample_rate * self.frame_hz)
        frames = self.heard.encode_frames(samples)
        if not count or not len(frames):
            return torch.empty(0, self.heard.width)
        return functional.interpolate(frames.T[None], count, mode="linear")[0].T.contiguous()

    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Mono float32 [S] -> tokens int64 [T]."""
        return np.asarray(self.quantizer.encode(self.frames(samples))[:, 0].numpy())


def musicnn_encoder() -> MusicnnEncoder:
    """Musicnn with the authors' weights. Raises UnusableError if its package is missing."""
    return MusicnnEncoder(read_musicnn(TAGGER))
