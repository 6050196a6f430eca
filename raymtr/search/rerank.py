"""A second look at the first hits: a matching head reads the text beside each of them.

Its probability is mixed with the first stage's score. Exact names stay first. If the deadline
passes, the first stage's order is served and the answer says so: a late order is worse than none.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from raymtr.search.contract import Reason
from raymtr.search.ranking import Candidate

DEADLINE_S = 1.0
AT_ONCE = 16  # hits between two looks at the clock
BY = "rerank"  # in `why`


class Matcher(Protocol):
    """What gives match probabilities; `mulap.reranker.Reranker`."""

    run: str

    def probabilities(self, sentence: str, track_ids: Sequence[str]) -> dict[str, float]:
        """The probability that the sentence is about each track; some may be unknown."""
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
    """The candidates with the first `depth` in a new order, and what the answer has to note.

    Scores become `(1 - mix) * score + mix * probability`. A track without features keeps its
    score. Those below `depth` follow, with scores no higher.
    """
    first = [c for c in candidates if c.sure]
    rest = [c for c in candidates if not c.sure]
    looked, below = rest[:depth], rest[depth:]
    began, found = time.perf_counter(), dict[str, float]()
    for start in range(0, len(looked), AT_ONCE):
        if time.perf_counter() - began > deadline_s:
            late = f"re-ranking took longer than {deadline_s:g} s: the order is the first stage's"
            return list(candidates), (late,)
        ids = [candidate.track_id for candidate in looked[start : start + AT_ONCE]]
        found |= matcher.probabilities(sentence, ids)
    looked = _mixed(looked, found, mix)
    least = min((candidate.score for candidate in looked), default=1.0)
    below = [replace(c, score=min(c.score, least)) for c in below]
    unknown = len(rest[:depth]) - len(found)
    notes = [f"{unknown} of {len(looked)} hits have no features of {matcher.run}: not re-ranked"]
    return [*first, *looked, *below], tuple(notes if unknown else ())


def _mixed(looked: Sequence[Candidate], found: dict[str, float], mix: float) -> list[Candidate]:
    """The candidates with mixed scores, best first, each with the reason; ties keep their order."""
    order = sorted(found, key=lambda track_id: -found[track_id])
    places = {track_id: place for place, track_id in enumerate(order, start=1)}
    mixed = []
    for one in looked:
        if (probability := found.get(one.track_id)) is None:
            mixed.append(one)
            continue
        why: Reason = {"by": BY, "rank": places[one.track_id], "score": round(probability, 4)}
        score = (1.0 - mix) * one.score + mix * probability
        mixed.append(replace(one, score=score, why=[*one.why, why]))
    return sorted(mixed, key=lambda candidate: -candidate.score)
