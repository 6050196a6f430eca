"""The embedding job on a real, small Ray cluster: results, errors as rows, a kill and a resume."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from jobs.embed_catalog import describe, embed_catalog, plan_embedding, run
from jobs.scan_catalog import scan_catalog
from jobs.shard_rows import fit_actors
from raymtr import storage
from raymtr.embeddings.store import find_embeddings, matrix_of
from raymtr.errors import InputError, UnusableError
from raymtr.model.pretrained import load_model
from raymtr.recipes import tiny
from raymtr.settings import load_settings
from raymtr.specs import EmbedSpec, Settings
from raymtr.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]
RATE = 22_050


def write_noise(folder: Path, name: str, seconds: float) -> str:
    samples = 0.1 * np.random.default_rng(len(name)).standard_normal(int(seconds * RATE))
    soundfile.write(folder / f"{name}.wav", samples, RATE)
    return str(folder / f"{name}.wav")


def vectors_of(workspace: Workspace) -> dict[str, bytes]:
    """Every track's vector, as bytes; fails where an id stands twice."""
    tracks = find_embeddings(workspace).read_tracks()
    ids = tracks["track_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return {i: row.tobytes() for i, row in zip(ids, matrix_of(tracks["vector"]), strict=True)}


@pytest.fixture
def settings() -> Settings:
    return replace(tiny(), embed=replace(tiny().embed, max_track_s=40.0))


def test_good_tracks_get_vectors_and_bad_ones_a_reason(
    ray_cluster: None,
    tmp_path: Path,
    make_workspace: Callable,
    tiny_model: str,
    settings: Settings,
) -> None:
    uris = {
        name: write_noise(tmp_path, name, s)
        for name, s in (("long", 23), ("odd ü#%", 2), ("s", 10))
    }
    uris |= {"absurd": write_noise(tmp_path, "absurd", 41), "absent": str(tmp_path / "absent.wav")}
    (tmp_path / "empty.wav").touch()
    uris |= {"empty": str(tmp_path / "empty.wav"), "words": None}
    rows = [
        {"track_id": f"t{n}", "uri": uri, "title": t} for n, (t, uri) in enumerate(uris.items())
    ]
    workspace = make_workspace(rows)

    plan = plan_embedding(workspace, settings, model=tiny_model)
    assert (plan["tracks"], plan["skipped"], plan["done"]) == (6, 1, 0)
    assert "6 of unknown length" in describe(plan)
    assert not storage.list_folders(workspace.path("embeddings"))  # a dry run writes nothing

    answer = embed_catalog(workspace, settings, model=tiny_model)
    assert (answer["embedded"], answer["failed"], answer["skipped"], answer["new"]) == (3, 3, 1, 6)
    assert answer["errors"] == {"too_long": 1, "missing": 1, "empty": 1}
    assert answer["error_rate"] == pytest.approx(0.5)
    assert "3 failed" in describe(answer)

    model = load_model(tiny_model)
    expected = {
        f"t{n}": model.encode_audio([uri])[0] for n, uri in enumerate(uris.values()) if n < 3
    }
    assert vectors_of(workspace) == {i: vector.tobytes() for i, vector in expected.items()}
    shards = find_embeddings(workspace)
    assert shards.made_by.fingerprint == model.fingerprint == answer["fingerprint"]
    assert load_model(shards.model_folder).fingerprint == model.fingerprint
    letters = shards.read_dead_letters().to_pylist()
    assert {row["track_id"]: row["code"] for row in letters} == {
        "t3": "too_long",
        "t4": "missing",
        "t5": "empty",
    }

    again = embed_catalog(workspace, settings, model=tiny_model)  # nothing is left to do
    assert (again["embedded"], again["failed"], again["new"]) == (3, 3, 0)


DRIVER = """
import sys
from jobs.embed_catalog import embed_catalog
from raymtr.recipes import tiny
from raymtr.workspace import Workspace
embed_catalog(Workspace.open(sys.argv[1]), tiny(), model=sys.argv[2])
"""


def test_a_killed_run_continues_where_it_stopped(
    ray_cluster: None, tmp_path: Path, make_workspace: Callable, tiny_model: str
) -> None:
    import ray

    uri = write_noise(tmp_path, "noise", 30.0)
    workspace = make_workspace([{"track_id": f"t{n:02}", "uri": uri} for n in range(80)])
    # The driver joins this cluster, so its workers outlive it, as they do in a real one.
    address = ray.get_runtime_context().gcs_address
    environment = os.environ | {"RAY_ADDRESS": address, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", DRIVER, workspace.root, tiny_model]
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        kill_after_first_commit(driver, workspace)
    finally:
        driver.kill()
        driver.wait()
    before = vectors_of_unfinished(workspace)
    assert 0 < len(before) < 80

    answer = embed_catalog(workspace, tiny(), model=tiny_model)
    assert (answer["embedded"], answer["failed"]) == (80, 0)
    assert answer["new"] == 80 - len(before)  # nothing that was committed is done again
    after = vectors_of(workspace)
    assert len(after) == 80 and before.items() <= after.items()
    assert set(after.values()) == {load_model(tiny_model).encode_audio([uri])[0].tobytes()}


def kill_after_first_commit(driver: subprocess.Popen, workspace: Workspace) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        assert driver.poll() is None, "the driver ended before it could be killed"
        for name in storage.list_folders(workspace.path("embeddings")):
            if storage.list_files(f"{workspace.embeddings(name)}/tracks", suffix=".parquet"):
                os.kill(driver.pid, signal.SIGKILL)
                return
        time.sleep(0.01)
    pytest.fail("no shard was committed within two minutes")


def vectors_of_unfinished(workspace: Workspace) -> dict[str, bytes]:
    (name,) = storage.list_folders(workspace.path("embeddings"))
    shards = find_embeddings(workspace, name)
    assert not shards.complete
    tracks = shards.read_tracks()
    rows = matrix_of(tracks["vector"])
    return {i: row.tobytes() for i, row in zip(tracks["track_id"].to_pylist(), rows, strict=True)}


def test_a_gpu_that_is_not_there_is_an_error(
    ray_cluster: None, tmp_path: Path, make_workspace: Callable, tiny_model: str
) -> None:
    workspace = make_workspace([{"track_id": "a", "uri": write_noise(tmp_path, "a", 1.0)}])
    settings = load_settings("tiny", assignments=["embed.use_gpu=true"])
    with pytest.raises(UnusableError, match="1 GPU requested, 0 in this Ray cluster"):
        embed_catalog(workspace, settings, model=tiny_model)


def test_without_a_catalog_the_next_step_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="raymtr scan"):
        embed_catalog(Workspace.open(str(tmp_path / "w"), create=True), tiny())


@pytest.mark.slow
def test_where_no_model_is_named_and_no_run_has_finished_pretrained_taggers_embed(
    make_workspace: Callable,
) -> None:
    workspace = make_workspace([{"track_id": "a", "uri": "/a.wav"}])
    plan = plan_embedding(workspace, tiny())
    named = plan_embedding(workspace, tiny(), model="musicnn-minilm")
    assert plan["fingerprint"] == named["fingerprint"]


def test_a_catalog_of_words_needs_no_model(make_workspace: Callable) -> None:
    answer = embed_catalog(make_workspace([{"track_id": "a"}, {"track_id": "b"}]), tiny())
    assert (answer["embedded"], answer["skipped"], answer["error_rate"]) == (0, 2, 0.0)
    assert "2 without audio skipped" in describe(answer)


def test_only_what_is_new_or_changed_is_embedded_again(
    ray_cluster: None, tmp_path: Path, tiny_model: str
) -> None:
    music = tmp_path / "music"
    music.mkdir()
    for name in ("kept", "replaced", "removed"):
        write_noise(music, name, 2)
    (music / "broken.wav").write_text("not audio")
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    scan_catalog(workspace, tiny(), str(music))
    first = embed_catalog(workspace, tiny(), model=tiny_model)
    assert (first["embedded"], first["failed"], first["new"]) == (3, 1, 4)
    before = vectors_of(workspace)

    write_noise(music, "replaced", 3)
    write_noise(music, "added", 2)
    (music / "removed.wav").unlink()
    write_noise(music, "broken", 2)
    music.rename(tmp_path / "moved")
    scan_catalog(workspace, tiny(), str(tmp_path / "moved"))
    second = embed_catalog(workspace, tiny(), model=tiny_model)
    assert (second["embedded"], second["failed"], second["new"]) == (4, 0, 3)
    after = vectors_of(workspace)
    titles = storage.read_tables(workspace.tracks, ["track_id", "title"])
    ids = dict(zip(titles["title"].to_pylist(), titles["track_id"].to_pylist(), strict=True))
    assert after[ids["kept"]] == before[ids["kept"]]
    assert after[ids["replaced"]] != before[ids["replaced"]]
    assert {ids["added"], ids["broken"]} <= set(after)


def test_fewer_replicas_to_start_with_are_no_more_than_the_tracks_are_worth() -> None:
    embed = EmbedSpec(actors=8, min_actors=4)
    few = fit_actors(embed, pa.table({"duration": [4.0] * 600}))
    assert (few.actors, few.min_actors) == (2, 2)


def test_replicas_are_as_many_as_the_tracks_are_worth() -> None:
    asked = EmbedSpec(actors=8)
    sizes = (0, 1, 119, 240, 390, 10**6)

    def actors(lengths: list[float | None]) -> int:
        return fit_actors(asked, pa.table({"duration": pa.array(lengths, pa.float64())})).actors

    assert [actors([10.0] * size) for size in sizes] == [1, 1, 1, 2, 3, 8]
    assert actors([None] * 12) == 2  # four minutes each, where the catalog does not know


@pytest.mark.ray
def test_a_pool_may_start_with_the_gpus_there_are(
    tmp_path: Path, make_workspace: Callable, tiny_model: str
) -> None:
    """A GPU by name only, as Ray takes it on trust: two are wanted. The model then finds none."""
    uris = [write_noise(tmp_path, name, 1.0) for name in ("a", "bb")]
    workspace = make_workspace([{"track_id": f"t{n}", "uri": uri} for n, uri in enumerate(uris)])
    script = """
import sys
from jobs import shard_rows
from jobs.__main__ import main
from jobs.cluster import start_local
shard_rows.SECONDS_PER_ACTOR = 1
start_local(num_cpus=2, num_gpus=1, log_to_driver=False)
common = ["--workspace", sys.argv[1], "--model", sys.argv[2], "--recipe", "tiny"]
wide = ["--set", "embed.use_gpu=true", "--set", "embed.actors=2", "--set", "embed.min_actors="]
for fewest in ("0", "1"):
    main(["embed", *common, *wide[:-1], wide[-1] + fewest])
"""
    command = [sys.executable, "-c", script, workspace.root, tiny_model]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    all_or_none, some = (line for line in run.stderr.splitlines() if "raymtr embed: " in line)
    assert "2 GPU requested, 1 in this" in all_or_none
    assert "the model does not run on a worker" in some and "cuda" in some


def test_one_pass_tags_too_and_the_next_makes_up_what_a_kill_left_out(
    ray_cluster: None, tmp_path: Path, make_workspace: Callable, tiny_model: str
) -> None:
    from raymtr.tagging.store import TagStore

    rows = [{"track_id": n, "uri": write_noise(tmp_path, n, 3.0)} for n in ("a", "b")]
    (tmp_path / "text.wav").write_text("not audio")
    workspace = make_workspace([*rows, {"track_id": "c", "uri": str(tmp_path / "text.wav")}])
    answer = embed_catalog(workspace, tiny(), model=tiny_model, tag=True)
    assert (answer["embedded"], answer["failed"]) == (2, 1)
    assert (answer["also"]["tagged"], answer["also"]["not_tagged"]) == (2, 1)
    assert "2 tracks tagged and measured, 1 failed" in describe(answer)
    vectors, heard = vectors_of(workspace), TagStore(workspace)
    shards = find_embeddings(workspace)
    for store, lost in ((shards, "a"), (heard, "b")):  # as after a kill between two commits
        store.take()
        store.forget(pa.chunked_array([[lost]]))
    again = embed_catalog(workspace, tiny(), model=tiny_model, tag=True)
    assert (again["new"], again["embedded"], again["also"]["tagged"]) == (1, 2, 2)
    assert vectors_of(workspace) == vectors
    found = heard.read()
    assert found is not None and sorted(found["track_id"].to_pylist()) == ["a", "b"]


def test_what_else_the_pass_can_do_is_named() -> None:
    asked = argparse.Namespace(also="tags", dry_run=False, model=None, retry=[])
    with pytest.raises(InputError, match="--also takes tags,attributes"):
        run(asked, Workspace("/absent"), tiny())
