"""Joint tokens M_A: an RVQ over the towers' vectors, of audio in training and of text in sampling.

The vectors of a crop's windows are averaged and normalised. Text vectors are in another region than
audio vectors (the modality gap), where an RVQ of audio vectors is coarse. So the vectors of each
side are centred by the mean of that side before quantisation. The text mean is that of sentences of
the training tracks' tags; text and audio are never paired here.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.generation.quantizer import ResidualQuantizer, fit_quantizer
from raymtr.generation_specs import TokensSpec
from raymtr.vectors import unit


class JointTokens(nn.Module):
    """Quantises averaged vectors float32 [D] of audio or of text."""

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
    """`vectors` [N, D] normalised, centred by `mean` [D], and normalised again."""
    return unit(unit(vectors) - mean).astype(np.float32)


def fit_joint(audio: np.ndarray, text: np.ndarray, spec: TokensSpec) -> JointTokens:
    """Joint tokens fitted to audio vectors [N, D]; text vectors [M, D] give only the text mean.

    Without texts, the text mean is the audio mean. Raises UnusableError if there are fewer vectors
    than codes.
    """
    joint = JointTokens(spec, audio.shape[1])
    mean = unit(audio).mean(axis=0).astype(np.float32)
    joint.audio_mean = torch.from_numpy(mean)
    text_mean = unit(text).mean(axis=0).astype(np.float32) if len(text) else mean
    joint.text_mean = torch.from_numpy(text_mean)
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
    """The mean vector [D] of the windows that start in a crop, or the vector of the one before it.

    `starts_s` [W] is ascending; `vectors` are [W, D].
    """
    inside = (starts_s >= first_s) & (starts_s < last_s)
    if not inside.any():
        inside[max(0, int(np.searchsorted(starts_s, first_s, "right")) - 1)] = True
    return np.asarray(vectors[inside].mean(axis=0))
