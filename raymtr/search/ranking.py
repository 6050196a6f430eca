"""Fuses several ranked lists into one: weighted reciprocal ranks, exact names first.

Reciprocal rank fusion (Cormack et al. 2009) needs no common score scale. Cosines, BM25 scores and
positions in an artist graph have none. Each list comes from a *retriever*. An `exact` retriever
looks up a name that the query states, such as a title. Its hits precede all others and are not
averaged in.
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
    exact: bool = False


@dataclass(kw_only=True)
class Candidate:
    """A track with its fused score, in (0, 1], and its rank in each retriever's list."""

    track_id: str
    score: float = 0.0
    exact: bool = False
    why: list[Reason] = field(default_factory=list)
    folded: list[str] = field(default_factory=list)  # the duplicates that it represents


def fuse(retrieved: Sequence[Retrieved]) -> list[Candidate]:
    """Candidates of all retrievers, best first.

    A score of 1 means rank 1 in every list, or an exact hit. Ties keep the order of the exact
    lists, then of ids, so the same search gives the same list.
    """
    candidates: dict[str, Candidate] = {}
    best = sum(one.weight for one in retrieved if not one.exact) / (RRF_K + 1)
    for one in retrieved:
        for rank, (track_id, score) in enumerate(one.ranked, start=1):
            candidate = candidates.setdefault(track_id, Candidate(track_id=track_id))
            candidate.exact |= one.exact
            if not one.exact:
                candidate.score += one.weight / (RRF_K + rank) / best
            candidate.why.append({"by": one.by, "rank": rank, "score": round(score, 4)})
    exact_order = {
        track_id: rank
        for one in reversed(retrieved)
        if one.exact
        for rank, (track_id, _) in enumerate(one.ranked)
    }
    for candidate in candidates.values():
        if candidate.exact:
            candidate.score = 1.0
    last = len(exact_order)
    return sorted(
        candidates.values(),
        key=lambda c: (not c.exact, exact_order.get(c.track_id, last), -c.score, c.track_id),
    )


def cap_per_artist(
    candidates: Sequence[Candidate], artist_of: Callable[[str], str | None], most: int
) -> list[Candidate]:
    """At most `most` candidates per artist, best first; tracks of unknown artist all stay."""
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
    """The candidates, only the best of each duplicate group, which lists the ids of the others."""
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
    """The same candidates re-ranked for diversity; exact candidates stay first.

    Maximal marginal relevance (Carbonell and Goldstein 1998): each rank goes to the highest
    `(1 - diversity) * score - diversity * cosine to the nearest one chosen`. `vectors` are unit
    vectors [D]; a track without one has cosine 0 to all others.
    """
    exact = [c for c in candidates if c.exact]
    rest = [c for c in candidates if not c.exact]
    if not rest or not vectors:
        return [*exact, *rest]
    blank = np.zeros_like(next(iter(vectors.values())))
    matrix = np.array([vectors.get(c.track_id, blank) for c in rest])
    scores = np.array([c.score for c in rest])
    nearest = np.zeros(len(rest))
    for candidate in exact:
        nearest = np.maximum(nearest, matrix @ vectors.get(candidate.track_id, blank))
    left = np.ones(len(rest), bool)
    chosen: list[Candidate] = []
    for _ in rest:
        gain = np.where(left, (1 - diversity) * scores - diversity * nearest, -np.inf)
        best = int(gain.argmax())
        left[best] = False
        chosen.append(rest[best])
        nearest = np.maximum(nearest, matrix @ matrix[best])
    return [*exact, *chosen]
