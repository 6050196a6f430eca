from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from jobs import build_index, search
from raymtr import storage
from raymtr.errors import InputError
from raymtr.index.publish import live_build
from raymtr.recipes import tiny
from raymtr.search.searcher import Searcher
from raymtr.specs import Settings
from raymtr.workspace import Workspace

DIM = 8


def run(workspace: Workspace, *words: str, settings: Settings | None = None) -> dict:
    parser = argparse.ArgumentParser()
    build_index.add_arguments(parser)
    answer = build_index.run(parser.parse_args(words), workspace, settings or tiny())
    assert build_index.describe(answer)
    return answer


@pytest.fixture
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    """Four tracks: two with vectors, one with audio but without a vector, one of words alone."""
    workspace = make_workspace(
        [
            {"track_id": "a", "uri": "/a.wav", "title": "First", "label": "Blue"},
            {"track_id": "b", "uri": "/b.wav", "title": "Second", "label": None},
            {"track_id": "c", "uri": "/c.wav", "title": "Third"},
            {"track_id": "d", "title": "Fourth"},
        ]
    )
    commit_vectors(workspace, {i: np.eye(DIM, dtype=np.float32)[:2] for i in ("a", "b", "gone")})
    return workspace


@pytest.mark.slow
def test_the_catalog_is_published_with_what_was_embedded(workspace: Workspace) -> None:
    captions = pa.table({"track_id": ["a", "gone"], "caption": ["a slow bell", "x"]})
    storage.write_table(f"{workspace.captions}/part-0.parquet", captions)
    answer = run(workspace)
    assert (answer["tracks"], answer["vectors"], answer["windows"]) == (3, 2, 4)
    assert answer["left_out"] == 1 and answer["live"] == answer["build"]
    searcher = Searcher(workspace)
    found = searcher.search("bell", mode="keyword")
    assert [hit["track_id"] for hit in found["hits"]] == ["a"]
    assert searcher.search("Fourth", mode="keyword")["hits"][0]["track_id"] == "d"
    found = searcher.search("first", mode="keyword", where="label = 'Blue'")
    assert [hit["track_id"] for hit in found["hits"]] == ["a"]


@pytest.mark.slow
def test_rollback_and_explain(workspace: Workspace) -> None:
    first, second = run(workspace), run(workspace)
    assert second["kept"] == [first["build"], second["build"]]
    assert run(workspace, "--rollback")["build"] == first["build"]
    assert live_build(workspace).name == first["build"]
    settings = replace(tiny(), search=replace(tiny().search, exact_below=1))
    explained = run(workspace, "--explain", settings=settings)
    assert explained["index"]["kind"] == "ivf_rq"
    assert live_build(workspace).name == first["build"]  # explaining builds nothing


@pytest.mark.slow
def test_the_models_of_two_embeddings_are_not_mixed(
    workspace: Workspace, commit_vectors: Callable
) -> None:
    commit_vectors(workspace, {"c": np.eye(DIM, dtype=np.float32)[:1]}, fingerprint="newer")
    assert run(workspace)["fingerprint"] == "newer"
    assert live_build(workspace).rows["vectors"] == 1
    assert run(workspace, "--model", "made-up")["fingerprint"] == "made-up"
    with pytest.raises(InputError, match="made-up, newer"):
        run(workspace, "--model", "unknown")


def test_what_is_missing_is_said(make_workspace: Callable, commit_vectors: Callable) -> None:
    workspace = make_workspace([{"track_id": "a", "uri": "/a.wav"}])
    with pytest.raises(InputError, match="raymtr embed"):
        run(workspace)
    commit_vectors(workspace, {"other": np.eye(DIM, dtype=np.float32)[:1]})
    with pytest.raises(InputError, match=r"none of the 1 tracks.*dead_letter"):
        run(workspace)
    with pytest.raises(InputError, match="nothing to search"):
        Searcher(workspace)


@pytest.mark.slow
def test_the_command_line_asks_the_searcher(workspace: Workspace) -> None:
    run(workspace)
    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    words = ["second", "--mode", "keyword", "-k", "1", "--where", "label is null"]
    answer = search.run(parser.parse_args(words), workspace, tiny())
    assert [hit["track_id"] for hit in answer["hits"]] == ["b"]
    assert "Second" in search.describe(answer)
    none = search.run(parser.parse_args(["zzz", "--mode", "keyword"]), workspace, tiny())
    assert "no track matches" in search.describe(none)
