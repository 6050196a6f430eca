from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from builders import publish_catalog

from raymtr.errors import InputError
from raymtr.index.track_table import TrackTable
from raymtr.search.request import read_request


@pytest.fixture(scope="module")
def table(make_workspace: Callable, commit_vectors: Callable) -> TrackTable:
    rows = [{"track_id": "a", "uri": "/a.wav", "year": 1999}, {"track_id": "words-only"}]
    workspace = make_workspace(rows)
    commit_vectors(workspace, {"a": np.eye(4, dtype=np.float32)[:1]})
    build = publish_catalog(workspace)
    return TrackTable(workspace.db, build)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "non-empty text, like or audio"),
        ({"text": "  \n\t "}, "non-empty text"),
        ({"text": "", "unlike": ["a"]}, "non-empty text"),
        ({"text": 5}, "text is a text"),
        ({"text": "x" * 2001}, "2001 characters"),
        ({"text": "x", "limit": 5}, r"unknown key 'limit'.*accepted: text, like"),
        ({"text": "x", "where_text": "y"}, "unknown key"),
        ({"text": "x", "k": 0}, "1 to 100"),
        ({"text": "x", "k": 101}, "1 to 100"),
        ({"text": "x", "k": "10"}, "1 to 100"),
        ({"text": "x", "k": True}, "1 to 100"),
        ({"text": "x", "k": None}, "1 to 100"),
        ({"text": "x", "per_artist": 0}, "per_artist"),
        ({"text": "x", "mode": "fast"}, "auto, semantic, keyword, hybrid"),
        ({"text": "x", "where": "genre = 'x'"}, "unknown column 'genre'"),
        ({"text": "x", "where": 5}, "where is a text"),
        ({"like": ["b"]}, "unknown track_id 'b'"),
        ({"text": "x", "unlike": ["b"]}, "unknown track_id 'b'"),
        ({"like": ["words-only"]}, "no audio vector"),
        ({"like": "a"}, "like is a list"),
        ({"like": [5]}, "like is a list"),
        ({"like": [{"track_id": "a", "boost": 2}]}, "like is a list"),
        ({"like": [{"track_id": "a", "weight": 0}]}, "number above 0"),
        ({"like": [{"track_id": "a", "weight": float("nan")}]}, "number above 0"),
        ({"like": ["a"] * 101}, "at most 100"),
        ({"text": "x", "exclude": "vocals"}, "list of terms"),
        ({"text": "x", "exclude": [""]}, "non-empty terms"),
    ],
)
def test_a_wrong_request_says_what_is_accepted(
    table: TrackTable, asked: dict, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_request(asked, table)


def test_a_right_request_is_read(table: TrackTable) -> None:
    asked = {
        "text": " rainy\x00\n piano ",
        "like": ["a", {"track_id": "a", "weight": 0.5}],
        "exclude": [" vocals "],
        "where": "year > 1990",
        "k": 100,
        "per_artist": 2,
    }
    request = read_request(asked, table)
    assert request.text == "rainy piano"
    assert request.like == {"a": 1.5}
    assert request.exclude == ("vocals",)
    assert request.where is not None and request.where.sql() == "(`year` > 1990)"
    assert (request.k, request.per_artist, request.mode) == (100, 2, "auto")
    assert read_request({"text": "x", "where": " "}, table).where is None
