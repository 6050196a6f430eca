"""Fuses several ranked lists into one: weighted reciprocal ranks, exact names first.

Reciprocal rank fusion (Cormack et al. 2009) needs no common score scale. Cosines, BM25 scores and
positions in an artist graph have none. Each list comes from a *retriever*. The hits of a `sure`
retriever (such as a title the user typed) precede all others and are not averaged in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from raymtr.index.full_text import Ranked
from raymtr.search.contract import Reason

RRF_K = 60


@dataclass(frozen=True, kw_only=True)
class Retrieved:
    """One ranked list of track ids with scores, and the retriever it comes from."""

    by: str  # title, artist, sound, words, names, artist graph ...
    ranked: Ranked = field(default_factory=list)
    weight: float = 1.0
    sure: bool = False


@dataclass(kw_only=True)
class Candidate:
    """A track with its fused score, in (0, 1], and its rank in each retriever."""

    track_id: str
    score: float = 0.0
    sure: bool = False
    why: list[Reason] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)  # the duplicates that it represents


def fuse(retrieved: Sequence[Retrieved]) -> list[Candidate]:
    """Candidates of all retrievers, best first.

    A score of 1 is the first place in every retriever, or a sure hit. Ties keep the order of the
    first retriever, then of ids, so the same search gives the same list.
    """
    candidates: dict[str, Candidate] = {}
    best = sum(one.weight for one in retrieved if not one.sure) / (RRF_K + 1)
    for one in retrieved:
        for place, (track_id, score) in enumerate(one.ranked, start=1):
            here = candidates.setdefault(track_id, Candidate(track_id=track_id))
            here.sure |= one.sure
            if not one.sure:
                here.score += one.weight / (RRF_K + place) / best
            here.why.append({"by": one.by, "rank": place, "score": round(score, 4)})
    sure_order = {
        track_id: place
        for one in reversed(retrieved)
        if one.sure
        for place, (track_id, _) in enumerate(one.ranked)
    }
    for here in candidates.values():
        if here.sure:
            here.score = 1.0
    last = len(sure_order)
    return sorted(
        candidates.values(),
        key=lambda c: (not c.sure, sure_order.get(c.track_id, last), -c.score, c.track_id),
    )


def cap_per_artist(
    candidates: Sequence[Candidate], artist_of: Callable[[str], str | None], most: int
) -> list[Candidate]:
    """At most `most` candidates per artist, best first. Tracks without a known artist all stay."""
    seen: dict[str, int] = {}
    kept = []
    for candidate in candidates:
        artist = artist_of(candidate.track_id)
        if artist is None or seen.get(artist, 0) < most:
            kept.append(candidate)
        if artist is not None:
            seen[artist] = seen.get(artist, 0) + 1
    return kept


def fold_groups(candidates: Sequence[Candidate], group_of: Mapping[str, int]) -> list[Candidate]:
    """The best candidate of each duplicate group, with the ids it represents."""
    first: dict[int, Candidate] = {}
    kept = []
    for candidate in candidates:
        candidate.folded = []
        group = group_of.get(candidate.track_id)
        if group in first:
            first[group].folded.append(candidate.track_id)
            continue
        kept.append(candidate)
        if group is not None:
            first[group] = candidate
    return kept


def diversify(
    candidates: Sequence[Candidate], vectors: Mapping[str, np.ndarray], *, diversity: float
) -> list[Candidate]:
    """The same candidates re-ranked for diversity; sure candidates stay first.

    Maximal marginal relevance (Carbonell and Goldstein 1998): each place goes to the highest
    `(1 - diversity) * score - diversity * cosine to the nearest one chosen`. `vectors` are unit
    [D]; a track without a vector counts as unlike all others.
    """
    sure = [c for c in candidates if c.sure]
    rest = [c for c in candidates if not c.sure]
    if not rest or not vectors:
        return [*sure, *rest]
    blank = np.zeros_like(next(iter(vectors.values())))
    matrix = np.array([vectors.get(c.track_id, blank) for c in rest])
    scores = np.array([c.score for c in rest])
    nearest = np.zeros(len(rest))
    for candidate in sure:
        nearest = np.maximum(nearest, matrix @ vectors.get(candidate.track_id, blank))
    left = np.ones(len(rest), bool)
    chosen: list[Candidate] = []
    for _ in rest:
        gain = np.where(left, (1 - diversity) * scores - diversity * nearest, -np.inf)
        best = int(gain.argmax())
        left[best] = False
        chosen.append(rest[best])
        nearest = np.maximum(nearest, matrix @ matrix[best])
    return [*sure, *chosen]
