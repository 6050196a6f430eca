"""The whole pipeline over real recordings and rendered folk tunes: every job in order."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs.build_index import build_index
from jobs.embed_catalog import embed_catalog
from jobs.evaluate_tracks import evaluate_tracks
from jobs.scan_catalog import scan_catalog
from jobs.train_towers import train_towers
from jobs.write_captions import write_captions
from raymtr import Searcher, storage
from raymtr.catalog.sources import midi_tracks, real_music_tracks
from raymtr.recipes import tiny
from raymtr.workspace import Workspace

OWN_GRAPH = "artist\tsimilar_artist\tscore\nERIC SKIFF\tMy Own Band\t0.9\nMy Own Band\tGoji\t0.5\n"


@pytest.fixture(scope="module")
def real_manifest(large_data: Path) -> pa.Table:
    """Every eighth recording and every twelfth tune, a clip each; datasets of their own."""
    music = real_music_tracks(str(large_data / "data" / "real_music"))
    music = music.filter(pc.equal(music["clip"], 0))
    midi = midi_tracks(str(large_data / "data" / "midi"))
    midi = midi.filter(pc.equal(midi["clip"], 0))
    parts = [every(music, 8), every(midi, 12)]
    return pa.concat_tables(parts, promote_options="permissive")


def every(table: pa.Table, step: int) -> pa.Table:
    return table.take(list(range(0, len(table), step)))


@pytest.fixture(scope="module")
def workspace(
    tmp_path_factory: pytest.TempPathFactory, real_manifest: pa.Table, ray_cluster: None
) -> Workspace:
    folder = tmp_path_factory.mktemp("real")
    pq.write_table(real_manifest, folder / "manifest.parquet")
    (folder / "graph.tsv").write_text(OWN_GRAPH)
    workspace = Workspace.open(str(folder / "w"), create=True)
    settings = tiny()
    mixture = {"real_music": 0.75, "midi": 0.25}
    train = dataclasses.replace(settings.train, mixture=mixture, steps=6, global_batch=8)
    settings = dataclasses.replace(settings, train=train)
    graph = str(folder / "graph.tsv")
    scan_catalog(workspace, settings, str(folder / "manifest.parquet"), artists=graph)
    write_captions(workspace, settings)
    train_towers(workspace, settings)
    embed_catalog(workspace, settings)
    build_index(workspace, settings)
    return workspace


def test_no_track_is_lost_on_the_way(workspace: Workspace, real_manifest: pa.Table) -> None:
    wanted = sorted(real_manifest["track_id"].to_pylist())
    catalog = storage.read_tables(workspace.tracks)
    captions = storage.read_tables(workspace.captions, ["track_id"])
    (fingerprint,) = storage.list_folders(workspace.path("embeddings"))
    vectors = storage.read_tables(f"{workspace.embeddings(fingerprint)}/tracks", ["track_id"])
    assert catalog and captions and vectors
    assert sorted(catalog["track_id"].to_pylist()) == wanted
    assert sorted(set(captions["track_id"].to_pylist())) == wanted
    assert sorted(vectors["track_id"].to_pylist()) == wanted
    assert {"key", "meter", "recording"} <= set(catalog.column_names), "extras are kept"


def test_names_find_their_tracks(workspace: Workspace, real_manifest: pa.Table) -> None:
    searcher = Searcher(workspace)
    for row in real_manifest.to_pylist():
        if row["artist"] is None:
            continue
        asked = f"{row['title']} by {row['artist']}"
        (hit,) = searcher.search(text=asked, k=1)["hits"]
        assert (hit["title"], hit["artist"]) == (row["title"], row["artist"]), asked


def test_the_users_own_graph_is_joined(workspace: Workspace) -> None:
    catalog = storage.read_tables(workspace.tracks, ["artist", "similar_artists"])
    assert catalog is not None
    names = {row["artist"]: row["similar_artists"] for row in catalog.to_pylist()}
    assert names["Eric Skiff"] == ["My Own Band"]
    (hit,) = Searcher(workspace).search(text="similar to My Own Band", k=1)["hits"]
    assert hit["artist"] in ("Eric Skiff", "Goji")


def test_known_truth_is_found_by_filter_and_words(
    workspace: Workspace, real_manifest: pa.Table
) -> None:
    tunes = [row for row in real_manifest.to_pylist() if row["meter"]]
    metre = tunes[0]["meter"]
    right = {row["track_id"] for row in tunes if row["meter"] == metre}
    hits = Searcher(workspace).search(text="a dance", where=f"meter = '{metre}'", k=100)["hits"]
    assert {hit["track_id"] for hit in hits} == right


def test_the_catalog_is_its_own_benchmark(workspace: Workspace) -> None:
    figures = evaluate_tracks(workspace, tiny(), split="train", system="search")
    assert figures["search"]["artist"]["r_at_1"] > 0.9
    assert figures["search"]["title"]["r_at_1"] > 0.8  # clips of one title are told apart by none
