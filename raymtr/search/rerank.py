"""Re-ranking: a matching head scores the query text against each of the first hits.

Its probability is mixed with the score of the first stage. Exact names stay first. If the deadline
passes, the order of the first stage is returned and a note reports it, because a late answer is
worse than a less precise order.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from raymtr.search.contract import Reason
from raymtr.search.ranking import Candidate

DEADLINE_S = 1.0
BATCH = 16  # hits per call of the matcher; the deadline is checked between calls
BY = "rerank"  # in `why`


class Matcher(Protocol):
    """Computes match probabilities; implemented by `mulap.reranker.Reranker`."""

    run: str

    def probabilities(self, sentence: str, track_ids: Sequence[str]) -> dict[str, float]:
        """The probability that the sentence describes each track, by id; some may be absent."""
        ...


def rerank(
    candidates: Sequence[Candidate],
    sentence: str,
    matcher: Matcher,
    *,
    depth: int,
    mix: float,
    deadline_s: float = DEADLINE_S,
) -> tuple[list[Candidate], tuple[str, ...]]:
    """The candidates with the first `depth` re-ranked, and notes for the answer.

    Scores become `(1 - mix) * score + mix * probability`. A track without features keeps its
    score. Candidates after `depth` follow, with scores no higher.
    """
    exact = [c for c in candidates if c.exact]
    rest = [c for c in candidates if not c.exact]
    top, others = rest[:depth], rest[depth:]
    began, probabilities = time.perf_counter(), dict[str, float]()
    for start in range(0, len(top), BATCH):
        if time.perf_counter() - began > deadline_s:
            note = f"re-ranking took longer than {deadline_s:g} s: first-stage order returned"
            return list(candidates), (note,)
        ids = [candidate.track_id for candidate in top[start : start + BATCH]]
        probabilities |= matcher.probabilities(sentence, ids)
    top = _mixed(top, probabilities, mix)
    least = min((candidate.score for candidate in top), default=1.0)
    others = [replace(c, score=min(c.score, least)) for c in others]
    unknown = len(rest[:depth]) - len(probabilities)
    notes = [f"{unknown} of {len(top)} hits have no features of {matcher.run}: not re-ranked"]
    return [*exact, *top, *others], tuple(notes if unknown else ())


def _mixed(
    top: Sequence[Candidate], probabilities: dict[str, float], mix: float
) -> list[Candidate]:
    """The candidates with mixed scores and a reason, best first; ties keep their order."""
    order = sorted(probabilities, key=lambda track_id: -probabilities[track_id])
    ranks = {track_id: rank for rank, track_id in enumerate(order, start=1)}
    mixed = []
    for one in top:
        if (probability := probabilities.get(one.track_id)) is None:
            mixed.append(one)
            continue
        why: Reason = {"by": BY, "rank": ranks[one.track_id], "score": round(probability, 4)}
        score = (1.0 - mix) * one.score + mix * probability
        mixed.append(replace(one, score=score, why=[*one.why, why]))
    return sorted(mixed, key=lambda candidate: -candidate.score)
