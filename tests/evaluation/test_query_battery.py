from __future__ import annotations

import json
from typing import Any

import pytest

from raymtr.errors import InputError
from raymtr.evaluation.query_battery import (
    BatteryQuery,
    SearchResult,
    artists_to_look_up,
    by_class,
    failures,
    fits,
    read_battery,
    wilson,
)

TRACK = {
    "title": "Sunday Waltz",
    "artist": "Cy Wren",
    "tags": ["Hip-Hop", "punk rock"],
    "year": 1999,
    "duration": 61.0,
    "tempo_bpm": 110.0,
    "key": "A minor",
}


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ({"title": ["sunday waltz"]}, True),
        ({"title_starts": "SUNDAY"}, True),
        ({"title_has": "monday"}, False),
        ({"tag_any": ["hiphop", "jazz"]}, True),
        ({"tag_all": ["hip hop", "punkrock"]}, True),
        ({"tag_all": ["hip hop", "jazz"]}, False),
        ({"year": [1990, 1999]}, True),
        ({"year": [2000, 2010]}, False),
        ({"bpm": [105, 115]}, True),
        ({"key": ["a minor"]}, True),
        ({"meter": ["3/4"]}, False),
        ({"similar_of": "Bo Finch"}, True),
        ({"and": [{"artist": ["cy wren"]}, {"not": {"year": [1999, 1999]}}]}, False),
        ({"or": [{"artist": ["nobody"]}, {"year": [1999, 1999]}]}, True),
    ],
)
def test_a_predicate_says_what_the_catalog_says(predicate: dict[str, Any], expected: bool) -> None:
    assert fits(TRACK, predicate, {"bo finch": {"cy wren"}}) is expected


def told(count: int, **query: Any) -> SearchResult:
    answer = {"query": {"kind": "description", **query}, "took_ms": {"total": 5.0}}
    return SearchResult(answer=answer, tracks=[TRACK] * count)


@pytest.mark.parametrize(
    ("check", "answer", "right"),
    [
        ({"first": {"year": [1999, 1999]}}, told(1), True),
        ({"first": {"year": [1999, 1999]}}, told(0), False),
        ({"within": 3, "pred": {"artist": ["Cy Wren"]}}, told(2), True),
        ({"share": 0.8, "of": 10, "pred": {"tag_any": ["jazz"]}}, told(3), False),
        ({"share": 0.8, "of": 10, "pred": {"tag_any": ["hiphop"]}}, told(0), False),
        ({"none": {"tag_any": ["hiphop"]}, "of": 10}, told(1), False),
        ({"hits": [5, 100]}, told(4), False),
        ({"kind": ["title"]}, told(1), False),
        ({"excluded": True}, told(1, exclude=[{"term": "x"}]), True),
        ({"excluded": True}, told(1), False),
        ({"says_unknown": True}, told(1, ignored=[{"why": "unknown"}]), True),
        ({"or_says": True, "share": 1, "of": 1, "pred": {"tag_any": ["x"]}}, told(1), False),
        ({"ms": 4}, told(1), False),
        ({"error": True}, SearchResult(answer=None, error="refused"), True),
        ({"error": True}, told(1), False),
        ({"no_error": True}, told(0), True),
        ({"first": {"year": [1999, 1999]}}, SearchResult(answer=None, error="refused"), False),
    ],
)
def test_a_check_is_judged_on_the_answer(
    check: dict[str, Any], answer: SearchResult, right: bool
) -> None:
    query = BatteryQuery(query_id="q", text="x", kind="any", checks=(check,))
    assert (failures(query, answer, {}) == []) is right


def test_shares_have_wilson_intervals_by_class_and_together() -> None:
    figures = by_class([("title", True), ("title", False), ("mood", True)])
    assert list(figures) == ["title", "mood", "all"]
    assert (figures["all"]["right"], figures["all"]["queries"]) == (2, 3)
    assert wilson(0, 10)[0] == 0.0
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


def test_a_line_that_is_no_query_is_named() -> None:
    good = {"query": "x", "class": "mood", "check": [{"hits": [1, 9]}]}
    [query] = read_battery([json.dumps(good), ""], name="f")
    assert query.query_id == "line 1"
    with pytest.raises(InputError, match="f, line 2"):
        read_battery([json.dumps(good), "{"], name="f")
    with pytest.raises(InputError, match="unknown check"):
        read_battery([json.dumps(good | {"check": [{"hit": 1}]})], name="f")


def test_artists_are_found_wherever_a_check_names_them() -> None:
    check = {
        "share": 1,
        "of": 2,
        "pred": {"or": [{"similar_of": "A"}, {"not": {"similar_of": "B"}}]},
    }
    query = BatteryQuery(query_id="q", text="x", kind="any", checks=(check,))
    assert artists_to_look_up([query]) == {"A", "B"}
