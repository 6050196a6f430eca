from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders import publish_catalog
from pydantic import ValidationError

from raymtr.errors import InputError
from raymtr.index.track_table import TrackTable
from raymtr.search.contract import SearchRequest
from raymtr.search.request import CheckedRequest, check_request
from raymtr.search.searcher import Searcher
from serve.messages import SearchBody


@pytest.fixture(scope="module")
def table(make_workspace: Callable, commit_vectors: Callable) -> TrackTable:
    rows = [{"track_id": "a", "uri": "/a.wav", "year": 1999}, {"track_id": "words-only"}]
    workspace = make_workspace(rows)
    commit_vectors(workspace, {"a": np.eye(4, dtype=np.float32)[:1]})
    build = publish_catalog(workspace)
    return TrackTable(workspace.db, build)


def read(asked: dict, table: TrackTable) -> CheckedRequest:
    return check_request(SearchRequest.read(asked), table)


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
        read(asked, table)


def test_a_right_request_is_read(table: TrackTable) -> None:
    asked = {
        "text": " rainy\x00\n piano ",
        "like": ["a", {"track_id": "a", "weight": 0.5}],
        "exclude": [" vocals "],
        "where": "year > 1990",
        "k": 100,
        "per_artist": 2,
    }
    request = read(asked, table)
    assert request.original.text == "rainy piano"
    assert request.like == {"a": 1.5}
    assert request.original.exclude == ["vocals"]
    assert request.where is not None and request.where.sql() == "(`year` > 1990)"
    assert (request.k, request.original.per_artist, request.mode) == (100, 2, "auto")
    assert read({"text": "x", "where": " "}, table).where is None


def test_python_offers_the_keys_of_a_request() -> None:
    offered = inspect.signature(Searcher.search).parameters
    assert set(offered) - {"self"} == set(SearchRequest.model_fields)
    for name, field in SearchRequest.model_fields.items():
        assert offered[name].default == field.default


def test_a_body_is_rejected_in_the_same_words() -> None:
    """And never takes a path of the server as its audio."""
    for wrong in ({"k": 0}, {"like": "a"}, {"text": 5}, {"mode": "fast"}):
        with pytest.raises(InputError) as told:
            SearchRequest.read(wrong)
        with pytest.raises(ValidationError) as refused:
            SearchBody.model_validate(wrong)
        assert refused.value.errors()[0]["msg"] == str(told.value)
    with pytest.raises(ValidationError):
        SearchBody.model_validate({"audio": "/etc/passwd"})
    with pytest.raises(ValidationError, match="unknown key 'similar_artist'"):
        SearchBody.model_validate({"similar_artist": "a"})


def test_any_recording_has_a_mark(tmp_path: Path) -> None:
    given = ("a.wav", tmp_path / "a.wav", b"RIFF", (np.zeros(3, np.float32), 8_000))
    marks = {SearchRequest(audio=audio).mark("build") for audio in given}
    assert len(marks) == len(given)
    as_path = SearchRequest(audio=Path("a.wav")).mark("build")
    assert as_path == SearchRequest(audio="a.wav").mark("build")
