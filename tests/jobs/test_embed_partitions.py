"""`embed` over a catalog in partitions, on a real, small Ray cluster."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from jobs import partitions
from jobs.embed_catalog import embed_catalog
from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, find_embeddings, matrix_of
from raymtr.errors import UnusableError
from raymtr.model.pretrained import load_model
from raymtr.recipes import tiny
from raymtr.specs import Settings
from raymtr.workspace import Workspace

TRACKS = 12


def in_partitions(count: int, *, drivers: int = 1) -> Settings:
    embed = replace(tiny().embed, partitions=count, actors=2, drivers=drivers)
    return replace(tiny(), embed=embed)


@pytest.fixture
def workspace(make_workspace: Callable, tmp_path: Path) -> Workspace:
    """Tracks of one recording; two whose file is absent, and one without audio."""
    uri = str(tmp_path / "noise.wav")
    soundfile.write(uri, 0.1 * np.random.default_rng(0).standard_normal(44_100), 22_050)
    absent = str(tmp_path / "absent.wav")
    rows = [{"track_id": f"t{n:02}", "uri": uri if n < 10 else absent} for n in range(TRACKS)]
    return make_workspace([*rows, {"track_id": "words", "uri": None}])


def assert_whole(workspace: Workspace, answer: dict, *, partitions: int) -> None:
    assert (answer["embedded"], answer["failed"], answer["skipped"]) == (10, 2, 1)
    assert answer["errors"] == {"missing": 2}
    shards = find_embeddings(workspace)
    assert sorted(shards.done().to_pylist()) == [f"t{n:02}" for n in range(TRACKS)]
    uri = storage.read_tables(workspace.tracks, ["uri"])["uri"][0].as_py()
    expected = load_model(shards.model_folder).encode_audio([uri])[0]
    assert {row.tobytes() for row in matrix_of(shards.read_tracks()["vector"])} == {
        expected.tobytes()
    }
    named = f"-of-{partitions:05}-"
    assert all(named in name for name in shards.names("tracks")) or partitions == 1


def test_a_store_of_one_partition_continues_in_several(
    ray_cluster: None, workspace: Workspace, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = embed_catalog(workspace, in_partitions(1), model=tiny_model)
    assert_whole(workspace, first, partitions=1)
    grown = embed_catalog(workspace, in_partitions(4), model=tiny_model)
    assert_whole(workspace, grown, partitions=4)
    assert grown["new"] == 0, "what one store held is not embedded again"
    monkeypatch.setattr(partitions, "_drive_all", None)  # it starts drivers
    again = embed_catalog(workspace, in_partitions(0), model=tiny_model)
    assert_whole(workspace, again, partitions=4)
    assert again["new"] == 0, "the number of partitions stays, and none has anything new"
    fewer = embed_catalog(workspace, in_partitions(1), model=tiny_model)
    assert_whole(workspace, fewer, partitions=1)
    assert fewer["new"] == 0


def test_two_drivers_share_the_partitions_and_only_changed_ones_are_opened_again(
    ray_cluster: None, workspace: Workspace, tiny_model: str
) -> None:
    answer = embed_catalog(workspace, in_partitions(4, drivers=2), model=tiny_model)
    assert_whole(workspace, answer, partitions=4)
    assert answer["new"] == TRACKS and answer["replicas"] >= 2
    shards = find_embeddings(workspace)
    runs = {part: shards.part(part).run["run"] for part in partitions_of(shards)}
    retried = embed_catalog(
        workspace, in_partitions(4, drivers=2), model=tiny_model, retry=["missing"]
    )
    assert_whole(workspace, retried, partitions=4)
    assert retried["new"] == 2
    catalog = storage.read_tables(workspace.tracks)
    storage.replace_tables(workspace.tracks, catalog.slice(1))
    runs = {part: shards.part(part).run["run"] for part in partitions_of(shards)}
    fewer = embed_catalog(workspace, in_partitions(4), model=tiny_model)
    assert (fewer["embedded"], fewer["new"]) == (9, 0)
    now = {part: shards.part(part).run["run"] for part in partitions_of(shards)}
    assert sum(runs[part] != now[part] for part in runs) == 1


@pytest.mark.slow
def test_a_coordinator_that_was_replaced_takes_no_partition_back(
    workspace: Workspace, tmp_path: Path, commit_vectors: Callable
) -> None:
    commit_vectors(workspace, {"t00": np.eye(2, dtype=np.float32)})
    mine, rival = find_embeddings(workspace), find_embeddings(workspace)
    mine.claim()
    rival.claim()
    parts = partitions.split_table(workspace.tracks, workspace.catalog_parts, partitions.COLUMNS, 2)
    work = partitions.Work(what="embed", shards=mine, run=nothing, embed=in_partitions(2).embed)
    with pytest.raises(UnusableError, match="another embed job has taken over"):
        partitions._drive(work, parts[0])


def nothing(*_: object) -> int:
    raise AssertionError("no pipeline is to start")


def partitions_of(shards: EmbeddingStore) -> list[str]:
    files = storage.list_files(f"{shards.folder}/partitions", suffix=".json")
    return [name.removesuffix(".json") for name in files]
