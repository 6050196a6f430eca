"""A workspace written at commit 715a6cd: it opens, and is searched, scanned and indexed again.

`tests/data/workspace-715a6cd.zip` has the workspace and its music (tests/data/README.md).
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest

import raymtr
from jobs.build_index import build_index
from jobs.scan_catalog import scan_catalog
from jobs.shard_rows import read_catalog, tracks_left
from raymtr import storage
from raymtr.embeddings.kept_model import identify, open_store
from raymtr.embeddings.store import find_embeddings
from raymtr.settings import load_settings
from raymtr.specs import Settings
from raymtr.workspace import Workspace

pytestmark = pytest.mark.slow

ARCHIVE = Path(__file__).parent / "data" / "workspace-715a6cd.zip"
TRACKS = 6  # and one file that is damaged


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with `workspace/` and `music/`; each file has the time it had when scanned."""
    folder = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(folder)
    catalog = storage.read_tables(f"{folder}/workspace/catalog/tracks")
    for row in catalog.select(["uri", "file_version"]).to_pylist():
        modified_ns = int(row["file_version"].partition("-")[2])
        os.utime(folder / "music" / Path(row["uri"]).name, ns=(modified_ns, modified_ns))
    return folder


@pytest.fixture(scope="module")
def workspace(old: Path) -> Workspace:
    return Workspace.open(str(old / "workspace"))


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings("tiny")


def test_it_is_searched(workspace: Workspace) -> None:
    searcher = raymtr.Searcher(workspace.root)
    hits = searcher.search(text="slow piano", k=3)["hits"]
    assert len(hits) == 3 and hits[0]["tags"]
    rain = next(hit for hit in searcher.search(text="Rain", k=3)["hits"] if hit["title"] == "Rain")
    assert rain["artists"] == ["Nobody"] and rain["segment"]["end_s"] > 0
    liked = searcher.search(like=[rain["track_id"]], where="year >= 1980 and tags has 'jazz'", k=5)
    assert {hit["title"] for hit in liked["hits"]} == {"Blue", "Café"}


def test_it_is_scanned_and_indexed_again_without_embedding(
    old: Path, workspace: Workspace, settings: Settings
) -> None:
    before = find_embeddings(workspace).read_tracks().sort_by("track_id")
    live = raymtr.Searcher(workspace.root).build
    scanned = scan_catalog(workspace, settings, str(old / "music"))
    assert scanned["tracks"] == TRACKS + 1
    shards = open_store(workspace, identify(find_embeddings(workspace).model_folder, "fp32"))
    assert shards.made_by == live.made_by, "the same model has the same fingerprint today"
    shards.take()
    left, changed = tracks_left(shards, read_catalog(workspace), retry=())
    shards.release()
    assert [Path(uri).name for uri in left["uri"].to_pylist()] == ["broken.ogg"] and not changed
    after = find_embeddings(workspace).read_tracks().sort_by("track_id")
    assert len(after) == TRACKS and after["vector"].equals(before["vector"])
    indexed = build_index(workspace, settings)
    searcher = raymtr.Searcher(workspace.root)
    assert indexed["vectors"] == TRACKS and searcher.build.after == live.name
    hits = searcher.search(text="slow piano", k=3)["hits"]
    assert {hit["uri"] for hit in hits} <= {str(path) for path in (old / "music").iterdir()}
