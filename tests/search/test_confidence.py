"""Calibrated scores: what a text sounds like, compared with what nonsense sounds like."""

from __future__ import annotations

import pytest

from raymtr.index.build import Build, Calibration, VectorIndex
from raymtr.index.calibrate import nonsense
from raymtr.search.confidence import LEAST_CONFIDENCE, is_nonsense, query_confidence
from raymtr.search.ranking import Candidate, Retrieved
from raymtr.search.slots import Include, Understood

MEASURED = Calibration(nothing=0.2, tags=0.6)


def build(calibration: Calibration | None) -> Build:
    return Build(
        name="000001",
        built_at="2026-01-01T00:00:00+00:00",
        made_by=None,
        rows={"tracks": 2, "vectors": 2, "windows": 2},
        versions={},
        index=VectorIndex(kind="exact", why="few vectors"),
        calibration=calibration,
    )


def test_a_cosine_counts_between_nonsense_and_tags() -> None:
    heard = [MEASURED.confidence(cosine) for cosine in (-1.0, 0.2, 0.4, 0.6, 1.0)]
    assert heard == pytest.approx([0, 0, 0.5, 1, 1])
    assert Calibration(nothing=0.5, tags=0.4).confidence(0.9) == 0, "they are not apart"


def test_words_that_no_slot_took_count_by_what_they_sound_like() -> None:
    def sure(known: float, cosine: float, measured: Calibration | None = MEASURED) -> float:
        understood = Understood(kind="description", text="x", known_share=known)
        return query_confidence(
            understood, [Retrieved(by="text", ranked=[("a", cosine)])], build(measured)
        )

    assert sure(0.0, 0.1) == LEAST_CONFIDENCE
    assert sure(0.0, 0.6) == 1.0
    assert sure(0.5, 0.4) == pytest.approx(0.75)
    assert sure(0.5, 0.6, None) == 0.5, "a build of an older version"


def test_only_a_text_like_nonsense_is_unheard() -> None:
    def nonsense(by: str, cosine: float, measured: Calibration | None = MEASURED, **slots) -> bool:
        understood = Understood(kind="description", text="x", unmatched="x", **slots)
        found = [Candidate(track_id="a", why=[{"by": by, "rank": 1, "score": cosine}])]
        return is_nonsense(understood, found, build(measured))

    assert nonsense("text", 0.1)
    assert not nonsense("text", 0.3)
    assert not nonsense("names", 0.1)
    assert not nonsense("text", 0.1, None)
    assert not nonsense("text", 0.1, include=(Include(term="x", words="x", tags=()),))


def test_nonsense_is_the_same_each_time() -> None:
    assert nonsense() == nonsense()
    assert len(set(nonsense())) == len(nonsense())
