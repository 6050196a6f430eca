"""Joint tokens M_A: an RVQ over the towers' vectors, of audio in training and of text in sampling.

Vectors of the windows of a crop are averaged and made unit vectors. Text vectors of such towers lie
in a region of their own (the modality gap), where the RVQ of audio vectors is coarse. So each side
is centred by its own mean before it is quantised; the text mean is that of the training tracks'
tags and captions, which are never paired with their audio here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.generation.quantizer import ResidualQuantizer, fit_quantizer
from raymtr.generation_specs import TokensSpec
from raymtr.vectors import unit


class JointTokens(nn.Module):
    """Tokens of averaged vectors float32 [D] of either side."""

    audio_mean: Tensor
    text_mean: Tensor

    def __init__(self, spec: TokensSpec, dim: int) -> None:
        super().__init__()
        self.levels, self.codes = spec.joint_levels, spec.joint_codes
        self.quantizer = ResidualQuantizer(self.levels, self.codes, dim)
        self.register_buffer("audio_mean", torch.zeros(dim))
        self.register_buffer("text_mean", torch.zeros(dim))

    def of_audio(self, vectors: np.ndarray) -> np.ndarray:
        """Audio vectors float32 [N, D] -> tokens int64 [N, levels]."""
        return self._tokens(vectors, self.audio_mean)

    def of_text(self, vectors: np.ndarray) -> np.ndarray:
        """Text vectors float32 [N, D] -> tokens int64 [N, levels]."""
        return self._tokens(vectors, self.text_mean)

    def _tokens(self, vectors: np.ndarray, mean: Tensor) -> np.ndarray:
        rows = centred(vectors, mean.numpy())
        return np.asarray(self.quantizer.encode(torch.from_numpy(rows)).numpy())


def centred(vectors: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Unit vectors of `vectors` [N, D], without the side's mean."""
    return unit(unit(vectors) - mean).astype(np.float32)


def fit_joint(audio: np.ndarray, text: np.ndarray, spec: TokensSpec) -> JointTokens:
    """Joint tokens fitted to audio vectors [N, D]; text vectors [M, D] give the mean of texts.

    Without texts their mean is that of audio. Raises UnusableError with fewer vectors than codes.
    """
    joint = JointTokens(spec, audio.shape[1])
    mean = unit(audio).mean(axis=0).astype(np.float32)
    joint.audio_mean = torch.from_numpy(mean)
    of_text = unit(text).mean(axis=0).astype(np.float32) if len(text) else mean
    joint.text_mean = torch.from_numpy(of_text)
    joint.quantizer = fit_quantizer(
        torch.from_numpy(centred(audio, mean)),
        *(spec.joint_levels, spec.joint_codes),
        rounds=spec.rounds,
        seed=spec.seed,
    )
    return joint


def crop_vector(
    starts_s: np.ndarray, vectors: np.ndarray, first_s: float, last_s: float
) -> np.ndarray:
    """The mean [D] of the windows' vectors that start in a crop, or of the one before it.

    `starts_s` [W] ascend, `vectors` are [W, D].
    """
    inside = (starts_s >= first_s) & (starts_s < last_s)
    if not inside.any():
        inside[max(0, int(np.searchsorted(starts_s, first_s, "right")) - 1)] = True
    return np.asarray(vectors[inside].mean(axis=0))
