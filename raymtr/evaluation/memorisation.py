"""How much of its training tracks a MusicLM repeats, compared with held-out ones.

As in the paper (Agostinelli et al., arXiv 2301.11325, section 6): the semantic stage gets M_A of a
track and its first semantic tokens, and continues greedily. A continuation that equals the track's
own is an exact match. An approximate match has a similar distribution of tokens: its Sinkhorn
distance, over the distances of the tokens' centroids, is below that of pairs of different tracks,
except for a share FALSE_MATCHES of them. A model that repeats its training matches there more often
than on held-out tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from raymtr.errors import InputError
from raymtr.generation.musiclm import MusicLM
from raymtr.generation.sampling import Sampler, slide

PREFIXES = (0, 10, 25, 50, 100, 150, 200, 250)  # tokens that are given
CONTINUED = 125  # tokens that are written after them; fewer where tracks are short
TOGETHER = 32  # tracks of a batch
GREEDY = 1e-6  # temperature at which the likeliest token is drawn
FALSE_MATCHES = 0.01  # share of pairs of different tracks below the threshold
MOST_PAIRS = 2_000  # of different tracks
SHARPNESS = 0.05  # of the transport, in mean distances of centroids (entropic regularisation)
STEPS = 60  # of Sinkhorn's iteration


@dataclass(frozen=True)
class Remembered:
    """A track to be continued: M_A int64 [1, levels], its semantic tokens int64 [T]."""

    joint: np.ndarray
    semantic: np.ndarray


class MatchFigures(TypedDict):
    """Shares of tracks whose continuation is their own."""

    tracks: int
    exact: float
    approximate: float


class PrefixFigures(TypedDict):
    """Figures for one length of the prefix."""

    prefix: int  # tokens
    continued: int  # tokens
    threshold: float  # Sinkhorn distance below which a match is approximate
    training: MatchFigures
    held_out: MatchFigures


def memorisation(
    model: MusicLM, training: Sequence[Remembered], held_out: Sequence[Remembered], *, seed: int
) -> list[PrefixFigures]:
    """Figures for each of PREFIXES that the tracks are long enough for.

    Raises InputError where there are fewer than two tracks of each, or they are too short, or the
    model has no semantic stage.
    """
    if not model.stages.spec.hears_semantic:
        raise InputError(
            f"model {model.fingerprint} has no semantic stage (musiclm.hears_semantic=false) to "
            "continue tokens; name another model"
        )
    if min(len(training), len(held_out)) < 2:
        raise InputError(
            f"memorisation compares training tracks with held-out ones, two of each at least; "
            f"there are {len(training)} and {len(held_out)} with tokens"
        )
    shortest = min(len(track.semantic) for track in [*training, *held_out])
    continued = min(CONTINUED, shortest // 2)
    if continued < 1:
        raise InputError("the shortest track has no semantic tokens to continue; leave it out")
    cost = centroid_distances(model.parts.semantic.quantizer.books[0])
    figures = []
    for prefix in PREFIXES:
        if prefix + continued > shortest:
            break
        continued_tokens = [
            continue_greedily(model, tracks, prefix, continued) for tracks in (training, held_out)
        ]
        true_tokens = [
            np.stack([track.semantic[prefix : prefix + continued] for track in tracks])
            for tracks in (training, held_out)
        ]
        threshold = match_threshold(
            np.concatenate(continued_tokens), np.concatenate(true_tokens), cost, seed=seed
        )
        figures.append(
            PrefixFigures(
                prefix=prefix,
                continued=continued,
                threshold=threshold,
                training=_matches(continued_tokens[0], true_tokens[0], cost, threshold),
                held_out=_matches(continued_tokens[1], true_tokens[1], cost, threshold),
            )
        )
    return figures


def continue_greedily(
    model: MusicLM, tracks: Sequence[Remembered], prefix: int, count: int
) -> np.ndarray:
    """The `count` likeliest tokens after the first `prefix` of each track, int64 [N, count]."""
    rate, stages, continuations = model.parts.semantic.frame_hz, model.stages, []
    for first in range(0, len(tracks), TOGETHER):
        batch = tracks[first : first + TOGETHER]
        joint = torch.from_numpy(np.stack([track.joint for track in batch])).to(model.device)
        given = torch.from_numpy(np.stack([track.semantic[:prefix] for track in batch]))

        def condition(first: int, last: int, done: int, joint: Tensor = joint) -> list[Tensor]:
            played = stages.no_melody(len(joint), (last - first) / rate)
            return [joint, *(tokens.to(model.device) for tokens in played)]

        tokens = slide(
            *(stages.semantic, condition),
            *(given[..., None].to(model.device), prefix + count),
            round(stages.crop_s("semantic") * rate),
            Sampler(GREEDY),
            [torch.Generator().manual_seed(0) for _ in batch],
        )
        continuations.append(tokens[:, prefix:, 0].cpu().numpy())
    return np.concatenate(continuations)


def centroid_distances(centroids: Tensor) -> Tensor:
    """Distances of centroids [codes, D], float64 [codes, codes], in means of them."""
    far = torch.cdist(centroids.double(), centroids.double())
    return far / far.mean().clamp_min(1e-12)


def match_threshold(made: np.ndarray, own: np.ndarray, cost: Tensor, *, seed: int) -> float:
    """The distance below which FALSE_MATCHES of pairs of different tracks are."""
    rng, count = np.random.default_rng(seed), len(made)
    ours, shifts = rng.integers(count, size=MOST_PAIRS), rng.integers(1, count, size=MOST_PAIRS)
    theirs = (ours + shifts) % count
    return float(np.quantile(sinkhorn(made[ours], own[theirs], cost), FALSE_MATCHES))


def sinkhorn(ours: np.ndarray, theirs: np.ndarray, cost: Tensor) -> np.ndarray:
    """The transport's cost between the tokens of row pairs int64 [N, T], float64 [N].

    `cost` [codes, codes] is that of moving a token. Entropic regularisation (Cuturi 2013).
    """
    weights = torch.exp(-cost / SHARPNESS)
    far = []
    for one, other in zip(
        *(torch.split(torch.from_numpy(rows), 256) for rows in (ours, theirs)), strict=True
    ):
        left, right = (_shares(rows, len(cost)) for rows in (one, other))
        v = torch.ones_like(right)
        for _ in range(STEPS):
            u = left / (v @ weights.T).clamp_min(1e-300)
            v = right / (u @ weights).clamp_min(1e-300)
        far.append(((u @ (weights * cost)) * v).sum(dim=1))
    return np.asarray(torch.cat(far).numpy())


def _shares(tokens: Tensor, codes: int) -> Tensor:
    """The share of each code in rows of tokens [N, T], float64 [N, codes]."""
    counts = torch.zeros(len(tokens), codes, dtype=torch.float64)
    counts.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=torch.float64))
    return counts / tokens.shape[1]


def _matches(made: np.ndarray, own: np.ndarray, cost: Tensor, threshold: float) -> MatchFigures:
    return {
        "tracks": len(made),
        "exact": float((made == own).all(axis=1).mean()),
        "approximate": float((sinkhorn(made, own, cost) < threshold).mean()),
    }
