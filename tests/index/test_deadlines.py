"""Calls into LanceDB: the late ones are named, and lost files are told apart from other faults."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from builders import publish_catalog

from raymtr import storage
from raymtr.errors import InputError
from raymtr.index.build import KINDS, table_name
from raymtr.index.deadlines import LostTableError, overdue_calls, tracked_call
from raymtr.index.track_table import TrackTable
from raymtr.search.searcher import Searcher
from raymtr.workspace import Workspace


def build_words(workspace: Workspace) -> str:
    return publish_catalog(workspace).name


def test_a_call_past_its_deadline_is_named_until_it_ends() -> None:
    begun, end = threading.Event(), threading.Event()

    def hang() -> None:
        with tracked_call("a query that hangs"):
            begun.set()
            end.wait(600)

    thread = threading.Thread(target=hang)
    thread.start()
    begun.wait(600)
    assert overdue_calls() == {}
    late = overdue_calls(deadline_s=0.0)
    assert list(late) == ["a query that hangs"] and late["a query that hangs"] > 0
    end.set()
    thread.join()
    assert overdue_calls(deadline_s=0.0) == {}


def test_every_call_to_a_table_is_tracked(
    make_workspace: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = make_workspace([{"track_id": "a", "title": "Piano", "tags": ["calm"]}])
    build_words(workspace)
    table = Searcher(workspace).table
    seen: list[str] = []

    def look(*_: object, **__: object) -> list:
        seen.extend(overdue_calls(deadline_s=0.0))
        return []

    monkeypatch.setattr("raymtr.index.track_table.best_matches", look)
    table.match_words("calm", limit=1)
    table.match_names("piano", limit=1)
    assert seen == ["tracks by words", "tracks by names"]


def test_a_failed_call_is_over() -> None:
    with pytest.raises(InputError), tracked_call("refused"):
        raise InputError("file not found in the filter")
    with pytest.raises(RuntimeError, match="another"), tracked_call("broken"):
        raise RuntimeError("another fault")
    assert overdue_calls(deadline_s=0.0) == {}


def test_a_reader_whose_files_are_gone_continues_with_what_serves(make_workspace: Callable) -> None:
    rows = [{"track_id": f"t{i}", "title": f"Piano {i}", "tags": ["calm"]} for i in range(3)]
    workspace = make_workspace(rows)
    first = build_words(workspace)
    searcher = Searcher(workspace)
    assert searcher.search("calm", mode="keyword")["table_version"] == first
    second = build_words(workspace)
    for kind in KINDS:
        storage.delete(f"{workspace.db}/{table_name(kind, first)}.lance")
    for _ in range(2):
        found = searcher.search("calm piano", mode="keyword", where="tags has 'calm'")
        assert found["table_version"] == second and len(found["hits"]) == 3

    storage.delete(f"{workspace.db}/{table_name('tracks', second)}.lance")
    with pytest.raises(LostTableError, match="open the workspace again"):
        searcher.search("calm piano", mode="keyword", where="tags has 'calm'")
    assert isinstance(searcher.table, TrackTable) and searcher.build.name == first
