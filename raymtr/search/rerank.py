"""Re-ranking: a matching head scores the query text against each of the first hits.

Its probability is mixed with the score of the first stage. Exact names stay first. If the deadline
passes, or the matching head fails, the order of the first stage is returned and a note reports it,
because a late answer is worse than a less precise order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, Protocol

from raymtr.errors import UnusableError
from raymtr.search.contract import Reason
from raymtr.search.ranking import Candidate

DEADLINE_S = 1.0
BY = "rerank"  # in `why`


class Matcher(Protocol):
    """Computes match probabilities: `mulap.matcher.RunMatcher`, in this process or remote."""

    run: str

    def probabilities(
        self, sentence: str, track_ids: Sequence[str], within_s: float
    ) -> dict[str, float]:
        """The probability that the sentence describes each track, by id; some may be absent.

        Raises TimeoutError if that takes longer than `within_s`, UnusableError if it fails.
        """
        ...


Matchers = Callable[[str], Matcher]  # the matcher of a run, by its name


class Reranked(NamedTuple):
    """Candidates after re-ranking, notes for the answer, and whether it was done in time."""

    candidates: list[Candidate]
    notes: tuple[str, ...]
    done: bool


def rerank(
    candidates: Sequence[Candidate],
    sentence: str,
    matcher: Matcher,
    *,
    depth: int,
    mix: float,
    deadline_s: float = DEADLINE_S,
) -> Reranked:
    """The candidates with the first `depth` re-ranked.

    Scores become `(1 - mix) * score + mix * probability`. A track without features keeps its
    score. Candidates after `depth` follow, with scores no higher.
    """
    exact = [c for c in candidates if c.exact]
    rest = [c for c in candidates if not c.exact]
    top, others = rest[:depth], rest[depth:]
    ids = [candidate.track_id for candidate in top]
    try:
        probabilities = matcher.probabilities(sentence, ids, deadline_s)
    except TimeoutError:
        note = f"re-ranking took longer than {deadline_s:g} s: first-stage order returned"
        return Reranked(list(candidates), (note,), done=False)
    except UnusableError as error:
        note = f"re-ranking failed ({error}): first-stage order returned"
        return Reranked(list(candidates), (note,), done=False)
    top = _mixed(top, probabilities, mix)
    least = min((candidate.score for candidate in top), default=1.0)
    others = [replace(c, score=min(c.score, least)) for c in others]
    unknown = len(rest[:depth]) - len(probabilities)
    notes = [f"{unknown} of {len(top)} hits have no features of {matcher.run}: not re-ranked"]
    return Reranked([*exact, *top, *others], tuple(notes if unknown else ()), done=True)


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
