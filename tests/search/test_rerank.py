"""The second look: mixed scores by hand, names first, a deadline that is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from raymtr.errors import UnusableError
from raymtr.search.ranking import Candidate
from raymtr.search.rerank import rerank


class Told:
    """Known probabilities, after a wait."""

    run = "told"

    def __init__(self, known: dict[str, float], wait_s: float = 0.0) -> None:
        self.known, self.wait_s = known, wait_s

    def probabilities(
        self, sentence: str, track_ids: Sequence[str], within_s: float
    ) -> dict[str, float]:
        if self.wait_s > within_s:
            raise TimeoutError
        return {name: self.known[name] for name in track_ids if name in self.known}


def candidates(count: int) -> list[Candidate]:
    return [
        Candidate(track_id=f"t{n}", score=1.0 - 0.1 * n, exact=n == 0, why=[{"by": "text"}])
        for n in range(count)
    ]


def test_scores_are_mixed_and_what_is_sure_or_below_stays() -> None:
    told = Told({"t1": 0.0, "t2": 0.5, "t3": 1.0, "t4": 1.0, "t0": 0.0})
    found, notes, done = rerank(candidates(6), "harp", told, depth=3, mix=0.5)
    assert [c.track_id for c in found] == ["t0", "t3", "t2", "t1", "t4", "t5"]
    assert [c.score for c in found] == pytest.approx([1.0, 0.85, 0.65, 0.45, 0.45, 0.45])
    assert found[1].why == [{"by": "text"}, {"by": "rerank", "rank": 1, "score": 1.0}]
    assert found[0].why == [{"by": "text"}] and notes == () and done


def test_a_weight_of_nought_keeps_the_order_and_a_track_without_features_its_score() -> None:
    found, notes, done = rerank(
        candidates(4), "harp", Told({"t1": 0.0, "t3": 1.0}), depth=3, mix=0.0
    )
    assert [c.track_id for c in found] == ["t0", "t1", "t2", "t3"]
    assert notes == ("1 of 3 hits have no features of told: not re-ranked",) and done


def test_past_the_deadline_the_first_order_is_served_and_said_so() -> None:
    many = candidates(40)
    told = Told({c.track_id: 1.0 - c.score for c in many}, wait_s=0.05)
    found, notes, done = rerank(many, "harp", told, depth=40, mix=1.0, deadline_s=0.01)
    assert found == many and not done
    assert notes == ("re-ranking took longer than 0.01 s: first-stage order returned",)


def test_without_the_matching_head_the_first_order_is_served_and_said_so() -> None:
    class Lost(Told):
        def probabilities(self, *_: object) -> dict[str, float]:
            raise UnusableError("its replica stopped")

    found, notes, done = rerank(candidates(4), "harp", Lost({}), depth=4, mix=1.0)
    assert found == candidates(4) and not done
    assert notes == ("re-ranking failed (its replica stopped): first-stage order returned",)
