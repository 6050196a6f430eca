from __future__ import annotations

import pytest

from raymtr.search.ranking import Candidate, Retrieved, cap_per_artist, fuse


def test_fusion_is_the_weighted_sum_of_reciprocal_ranks() -> None:
    """Cormack et al. 2009: 1 / (60 + rank); scaled so that first in all retrievers is 1."""
    text = Retrieved(by="text", ranked=[("a", 0.9), ("b", 0.8)], weight=2.0)
    words = Retrieved(by="words", ranked=[("b", 7.0), ("c", 1.0)])
    fused = fuse([text, words])
    assert [c.track_id for c in fused] == ["b", "a", "c"]
    best = 3 / 61
    expected = [(2 / 62 + 1 / 61) / best, (2 / 61) / best, (1 / 62) / best]
    assert [c.score for c in fused] == pytest.approx(expected)
    assert fused[0].why == [
        {"by": "text", "rank": 2, "score": 0.8},
        {"by": "words", "rank": 1, "score": 7.0},
    ]


def test_sure_hits_come_first_in_their_order() -> None:
    retrieved = [
        Retrieved(by="title", ranked=[("z", 1.0), ("y", 1.0)], exact=True),
        Retrieved(by="text", ranked=[("a", 0.9), ("y", 0.8)]),
    ]
    fused = fuse(retrieved)
    assert [c.track_id for c in fused] == ["z", "y", "a"]
    assert [c.score for c in fused] == pytest.approx([1.0, 1.0, 1.0])
    assert [c.exact for c in fused] == [True, True, False]


def test_scores_never_rise_along_the_list() -> None:
    retrieved = [
        Retrieved(by="text", ranked=[(f"t{i}", 1.0 - i / 50) for i in range(50)]),
        Retrieved(by="words", ranked=[(f"t{i}", 1.0) for i in range(49, -1, -3)], weight=0.5),
        Retrieved(by="names", ranked=[("t30", 1.0)], weight=0.25),
    ]
    scores = [c.score for c in fuse(retrieved)]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] < scores[0] <= 1


def test_nothing_fused_is_nothing() -> None:
    assert fuse([]) == []


def test_an_artist_has_at_most_so_many() -> None:
    artists = {"a": "X", "b": "X", "c": None, "d": "X", "e": None, "f": "Y"}
    candidates = [Candidate(track_id=track) for track in artists]
    kept = cap_per_artist(candidates, artists.__getitem__, 2)
    assert [c.track_id for c in kept] == ["a", "b", "c", "e", "f"]
