"""Figures of generated clips: Frechet distance, agreement with the prompt, rank of the prompt.

FAD (Kilgour et al. 2019) depends on the embedding and on the number of clips, so both are reported
with it. The bias of few clips is removed by extrapolation to infinitely many (Gui et al. 2024). FAD
does not detect a wrong prompt. MCC (Agostinelli et al. 2023), the mean cosine of prompt and clip,
and the rank of a clip's prompt do.
"""

from __future__ import annotations

from typing import TypedDict

import numpy as np

FEWEST = 4  # clips for a Frechet distance
TINIEST = 1e-6  # added to a probability
SIZES = 8  # sample sizes of the extrapolation


class PromptFigures(TypedDict):
    """Agreement of clips with their prompts."""

    mcc: float
    mcc_shuffled: float  # control: each clip with another prompt
    first: float  # share of clips whose prompt is the nearest of all prompts
    median_rank: float  # of the clip's prompt, from 1
    prompts: int
    chance_first: float


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The Frechet distance of Gaussians fitted to rows [N, D] and [M, D]."""
    means = ours.mean(axis=0) - theirs.mean(axis=0)
    one, two = (np.cov(rows.astype(np.float64), rowvar=False) for rows in (ours, theirs))
    # The trace of the root of a product of covariances is the sum of its roots' eigenvalues.
    values = np.linalg.eigvals(one @ two)
    root = np.sqrt(np.clip(values.real, 0, None)).sum()
    return float(means @ means + np.trace(one) + np.trace(two) - 2 * root)


def frechet_at_infinity(ours: np.ndarray, theirs: np.ndarray, *, seed: int) -> float:
    """The Frechet distance extrapolated to infinitely many of `ours`, by a fit over 1/N."""
    rng = np.random.default_rng(seed)
    sizes = np.unique(np.linspace(max(FEWEST, len(ours) // 2), len(ours), SIZES).astype(int))
    distances = [
        frechet_distance(ours[rng.choice(len(ours), size, replace=False)], theirs) for size in sizes
    ]
    if len(sizes) < 2:
        return distances[-1]
    return float(np.polyfit(1 / sizes, distances, 1)[1])


def kl_divergence(generated: np.ndarray, real: np.ndarray) -> float:
    """The mean over rows of KL(real || generated) in nats, of label probabilities [N, L].

    Multi-label probabilities are divided by their sum to get a distribution.
    """
    ours, theirs = (rows / rows.sum(axis=1, keepdims=True) + TINIEST for rows in (generated, real))
    return float((theirs * np.log(theirs / ours)).sum(axis=1).mean())


def prompt_figures(clips: np.ndarray, texts: np.ndarray, prompt: np.ndarray) -> PromptFigures:
    """Figures of unit vectors of clips [N, D] and prompts [P, D]; `prompt` [N] indexes prompts.

    The shuffled control pairs each clip with the next prompt.
    """
    scores = clips @ texts.T
    rows = np.arange(len(clips))
    matching = scores[rows, prompt]
    other = scores[rows, (prompt + 1) % len(texts)]
    ranks = 1 + (scores > matching[:, None]).sum(axis=1)
    return {
        "mcc": float(matching.mean()),
        "mcc_shuffled": float(other.mean()),
        "first": float((ranks == 1).mean()),
        "median_rank": float(np.median(ranks)),
        "prompts": len(texts),
        "chance_first": 1 / len(texts),
    }
