"""MuLaP's three losses, each with the loss of a baseline that ignores the input.

Every function returns a sum over this worker's rows. The caller divides by the count of the whole
batch, so that several workers have the gradient of one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from raymtr.errors import UnusableError

LEAST_SPREAD = 0.01  # of `spread_of`; below it the features have collapsed


def words_loss(logits: Tensor, labels: Tensor, unigram: Tensor) -> tuple[Tensor, Tensor]:
    """Cross entropy of masked words: logits [M, V], ids [M]; and that of their frequencies.

    `unigram`, float32 [V], are the logarithms of the words' frequencies in the training text.
    """
    loss = functional.cross_entropy(logits.float(), labels, reduction="sum")
    return loss, -unigram[labels].sum()


def chunks_loss(guessed: Tensor, heard: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
    """Squared error of masked chunks' features [M, D], averaged over D; and that of `mean` [D].

    `heard` are the features before the mask; they must not have a gradient.
    """
    assert not heard.requires_grad, "a target with gradient would move towards the prediction"
    loss = (guessed.float() - heard).square().mean(dim=1).sum()
    return loss, (mean - heard).square().mean(dim=1).sum()


def match_loss(logits: Tensor, matched: Tensor) -> Tensor:
    """Binary cross entropy of logits [B] against `matched`, float [B]."""
    return functional.binary_cross_entropy_with_logits(logits.float(), matched, reduction="sum")


def match_baseline(share: float) -> float:
    """The loss of the best constant guess where a `share` of the rows match."""
    return -sum(p * math.log(p) for p in (share, 1.0 - share) if p > 0)


def spread_of(features: Tensor) -> Tensor:
    """How far features [N, D] differ from one another, 0 (all equal) to 1, relative to their size.

    The root of the variance over N divided by the mean square, each averaged over D.
    """
    variance = features.var(dim=0, correction=0).mean()
    size = features.square().mean()
    return torch.sqrt(variance / size.clamp(min=1e-30))


def refuse_collapse(spread: float, size: float, cure: str) -> None:
    """Raise UnusableError if all chunks have the same vector, or a zero one (collapse).

    `spread` is of `spread_of`, `size` the root mean square of the features. Regression onto a tower
    in training has this solution: features that do not depend on the audio.
    """
    if not spread >= LEAST_SPREAD or not size > 1e-6:
        raise UnusableError(
            f"the features collapsed to one vector (spread {spread:.3g} of at least "
            f"{LEAST_SPREAD:g}, size {size:.3g}){cure}"
        )
