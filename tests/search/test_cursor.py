"""Cursors and diversity, on lists small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest

from raymtr.errors import InputError
from raymtr.search.cursor import TTL_S, make_cursor, mark_of, read_cursor
from raymtr.search.ranking import Candidate, diversify


def test_a_cursor_is_good_for_its_own_search_alone() -> None:
    mark = mark_of("000001", {"text": "piano"})
    cursor = make_cursor(20, mark=mark, now_s=0.0)
    assert read_cursor(cursor, mark=mark, now_s=1.0) == 20
    for other in (mark_of("000002", {"text": "piano"}), mark_of("000001", {"text": "flute"})):
        with pytest.raises(InputError, match="another search"):
            read_cursor(cursor, mark=other, now_s=1.0)
    with pytest.raises(InputError, match="expired"):
        read_cursor(cursor, mark=mark, now_s=TTL_S + 1.0)


@pytest.mark.parametrize("text", ["?", "abc", "W10", "WzFd", "é", "bnVsbA"])
def test_what_no_search_gave_is_rejected(text: str) -> None:
    with pytest.raises(InputError):
        read_cursor(text, mark="m", now_s=0.0)


def test_diversity_pulls_up_what_differs_and_leaves_sure_hits() -> None:
    given = [
        Candidate(track_id="sure", score=1.0, exact=True),
        Candidate(track_id="a", score=0.9),
        Candidate(track_id="twin of a", score=0.8),
        Candidate(track_id="other", score=0.5),
    ]
    east, north, west = np.eye(3, dtype=np.float32)
    vectors = {"sure": west, "a": east, "twin of a": east, "other": north}
    order = [c.track_id for c in diversify(given, vectors, diversity=0.5)]
    assert order == ["sure", "a", "other", "twin of a"]
    assert [c.track_id for c in diversify(given, vectors, diversity=0.0)] == [
        c.track_id for c in given
    ]
