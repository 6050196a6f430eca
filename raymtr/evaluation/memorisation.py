"""How much of its training data a MusicLM repeats, compared with held-out tracks.

As in the paper (Agostinelli et al., arXiv 2301.11325, section 6), the semantic stage gets M_A of a
track and its first semantic tokens, and continues with greedy decoding. In a model without one, the
acoustic stage continues frames, and the first level is compared. An exact match is a
continuation that equals the track's. An approximate match has a similar distribution of tokens: its
Sinkhorn distance, with the distances of the tokens' centroids as costs, is below a threshold. A
share FALSE_MATCHES of pairs of different tracks is below that threshold too. A model that has
memorised its training data has more matches on it than on held-out tracks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from raymtr.errors import InputError
from raymtr.generation.codec import MelCodec
from raymtr.generation.musiclm import MusicLM
from raymtr.generation.sampling import Sampler, slide
from raymtr.generation.semantic import SemanticTokens
from raymtr.generation.stages import StageName

PREFIXES = (0, 10, 25, 50, 100, 150, 200, 250)  # tokens
CONTINUED = 125  # tokens sampled after a prefix; fewer if tracks are short
BATCH_TRACKS = 32
GREEDY = 1e-6  # temperature at which sampling is greedy
FALSE_MATCHES = 0.01  # share of pairs of different tracks below the threshold
MOST_PAIRS = 2_000  # of different tracks
REGULARISATION = 0.05  # entropic, in units of the mean distance of centroids
STEPS = 60  # Sinkhorn iterations


@dataclass(frozen=True)
class TrackTokens:
    """Tokens of a track: M_A int64 [1, levels], and of the continued stage int64 [T, levels]."""

    joint: np.ndarray
    continued: np.ndarray


class MatchFigures(TypedDict):
    """Shares of tracks whose continuation matches."""

    tracks: int
    exact: float
    approximate: float


class PrefixFigures(TypedDict):
    """Figures for one length of the prefix."""

    prefix: int  # tokens of the semantic stage, or frames of the acoustic stage
    continued: int  # the same
    threshold: float  # Sinkhorn distance below which a match is approximate
    training: MatchFigures
    held_out: MatchFigures


def memorisation(
    model: MusicLM, training: Sequence[TrackTokens], held_out: Sequence[TrackTokens], *, seed: int
) -> list[PrefixFigures]:
    """Figures for each of PREFIXES that fits the shortest track.

    Raises InputError if there are fewer than two tracks of each kind, if they are too short, or as
    `continued_stage`.
    """
    codebook = _encoder(model).quantizer.books[0]
    if min(len(training), len(held_out)) < 2:
        raise InputError(
            f"memorisation compares training tracks with held-out ones, two of each at least; "
            f"there are {len(training)} and {len(held_out)} with tokens"
        )
    shortest = min(len(track.continued) for track in [*training, *held_out])
    continued = min(CONTINUED, shortest // 2)
    if continued < 1:
        raise InputError("the shortest track has too few tokens; leave it out")
    cost = centroid_distances(codebook)
    figures = []
    for prefix in PREFIXES:
        if prefix + continued > shortest:
            break
        continued_tokens = [
            continue_greedily(model, tracks, prefix, continued) for tracks in (training, held_out)
        ]
        true_tokens = [
            np.stack([track.continued[prefix : prefix + continued, 0] for track in tracks])
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


def continued_stage(model: MusicLM) -> StageName:
    """The stage whose tokens are continued.

    Raises InputError if the model has no semantic stage, and either no acoustic stage or a codec
    whose codes have no distances.
    """
    spec = model.stages.spec
    if spec.hears_semantic:
        return "semantic"
    if spec.depth_layers and isinstance(model.parts.codec, MelCodec):
        return "acoustic"
    raise InputError(
        f"model {model.fingerprint} has no semantic stage (musiclm.hears_semantic=false) to "
        "continue tokens, nor an acoustic stage over the codec trained here; name another model"
    )


def _encoder(model: MusicLM) -> SemanticTokens | MelCodec:
    """The part with the tokens of the continued stage."""
    if continued_stage(model) == "semantic":
        return model.parts.semantic
    assert isinstance(model.parts.codec, MelCodec), "checked by continued_stage"
    return model.parts.codec


def continue_greedily(
    model: MusicLM, tracks: Sequence[TrackTokens], prefix: int, count: int
) -> np.ndarray:
    """The first level of `count` frames after the first `prefix` of each track, int64 [N, C].

    Decoding is greedy.
    """
    stages, name, continuations = model.stages, continued_stage(model), []
    rate = _encoder(model).frame_hz
    for first in range(0, len(tracks), BATCH_TRACKS):
        batch = tracks[first : first + BATCH_TRACKS]
        joint = torch.from_numpy(np.stack([track.joint for track in batch])).to(model.device)
        prefixes = torch.from_numpy(np.stack([track.continued[:prefix] for track in batch]))

        def conditions(first: int, last: int, done: int, joint: Tensor = joint) -> list[Tensor]:
            melody = stages.no_melody(len(joint), (last - first) / rate)
            return [joint, *(tokens.to(model.device) for tokens in melody)]

        tokens = slide(
            *(stages.of(name), conditions),
            *(prefixes.to(model.device), prefix + count),
            round(stages.crop_s(name) * rate),
            Sampler([GREEDY]),
            [torch.Generator().manual_seed(0) for _ in batch],
        )
        continuations.append(tokens[:, prefix:, 0].cpu().numpy())
    return np.concatenate(continuations)


def centroid_distances(centroids: Tensor) -> Tensor:
    """Distances of centroids [codes, D] divided by their mean, float64 [codes, codes]."""
    distances = torch.cdist(centroids.double(), centroids.double())
    return distances / distances.mean().clamp_min(1e-12)


def match_threshold(continued: np.ndarray, true: np.ndarray, cost: Tensor, *, seed: int) -> float:
    """The distance with a share FALSE_MATCHES of pairs of different tracks below it."""
    rng, count = np.random.default_rng(seed), len(continued)
    ours, shifts = rng.integers(count, size=MOST_PAIRS), rng.integers(1, count, size=MOST_PAIRS)
    theirs = (ours + shifts) % count
    return float(np.quantile(sinkhorn(continued[ours], true[theirs], cost), FALSE_MATCHES))


def sinkhorn(ours: np.ndarray, theirs: np.ndarray, cost: Tensor) -> np.ndarray:
    """The optimal transport cost between the tokens of row pairs int64 [N, T], float64 [N].

    `cost` [codes, codes] is the cost of moving a token; with entropic regularisation (Cuturi 2013).
    """
    weights = torch.exp(-cost / REGULARISATION)
    costs = []
    for one, other in zip(
        *(torch.split(torch.from_numpy(rows), 256) for rows in (ours, theirs)), strict=True
    ):
        left, right = (_shares(rows, len(cost)) for rows in (one, other))
        v = torch.ones_like(right)
        for _ in range(STEPS):
            u = left / (v @ weights.T).clamp_min(1e-300)
            v = right / (u @ weights).clamp_min(1e-300)
        costs.append(((u @ (weights * cost)) * v).sum(dim=1))
    return np.asarray(torch.cat(costs).numpy())


def _shares(tokens: Tensor, codes: int) -> Tensor:
    """The share of each code in rows of tokens [N, T], float64 [N, codes]."""
    counts = torch.zeros(len(tokens), codes, dtype=torch.float64)
    counts.scatter_add_(1, tokens, torch.ones_like(tokens, dtype=torch.float64))
    return counts / tokens.shape[1]


def _matches(
    continued: np.ndarray, true: np.ndarray, cost: Tensor, threshold: float
) -> MatchFigures:
    return {
        "tracks": len(continued),
        "exact": float((continued == true).all(axis=1).mean()),
        "approximate": float((sinkhorn(continued, true, cost) < threshold).mean()),
    }
