"""The embedding job killed at random moments, again and again, until it is through.

Whatever was killed and whenever: each track stands once, in `tracks/` or in `dead_letter/`, and its
vectors are, byte for byte, those of a run that was left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import soundfile

from jobs.embed_catalog import embed_catalog
from raymtr import storage
from raymtr.embeddings.store import (
    EmbeddingStore,
    all_embeddings,
    find_embeddings,
    matrix_of,
)
from raymtr.errors import UnusableError
from raymtr.model.pretrained import load_model
from raymtr.recipes import tiny
from raymtr.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]
TRACKS, SOURCES, KILLS = 240, 12, 20
DRIVER = """
import sys
from jobs.embed_catalog import embed_catalog
from raymtr.settings import load_settings
from raymtr.workspace import Workspace
settings = load_settings("tiny", assignments=sys.argv[3:])
embed_catalog(Workspace.open(sys.argv[1]), settings, model=sys.argv[2])
"""
ALONE: list[str] = []
IN_PARTITIONS = ["embed.partitions=8", "embed.actors=2", "embed.drivers=2"]

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Recordings of 1 to 45 s, and one that is none."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for number in range(SOURCES - 1):
        samples = 0.1 * rng.standard_normal(int(22_050 * rng.uniform(1, 45)))
        soundfile.write(folder / f"{number}.wav", samples, 22_050)
    return [str(folder / f"{number}.wav") for number in range(SOURCES)]


@pytest.fixture
def workspace(make_workspace: Callable, sources: list[str]) -> Workspace:
    return make_workspace(
        [{"track_id": f"t{n:04}", "uri": sources[n % SOURCES]} for n in range(TRACKS)]
    )


@pytest.fixture
def start(ray_cluster: None, workspace: Workspace, tiny_model: str) -> Iterator[Callable]:
    """A function that starts a driver, or coordinator; on the tests' cluster, or on its own."""
    import ray

    drivers = []

    def start(*settings: str, own_cluster: bool = False) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        if not own_cluster:
            environment["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        command = [sys.executable, "-c", DRIVER, workspace.root, tiny_model, *settings]
        driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        drivers.append(driver)
        return driver

    yield start
    for driver in drivers:
        driver.kill()
        driver.wait()


@pytest.mark.parametrize("settings", [ALONE, IN_PARTITIONS], ids=["alone", "in partitions"])
def test_the_driver_is_killed_at_random_moments(
    start: Callable, workspace: Workspace, tiny_model: str, sources: list[str], settings: list[str]
) -> None:
    rng = np.random.default_rng(1)
    committed = [0]
    for _ in range(KILLS):
        driver = start(*settings)
        before_first = wait_for_commit(driver, workspace, more_than=committed[-1])
        time.sleep(0 if before_first else rng.uniform(0.0, 1.5))
        driver.send_signal(signal.SIGKILL)
        driver.wait()
        committed.append(check_what_is_there(workspace, tiny_model, sources))
        if committed[-1] == TRACKS:
            break
    assert committed == sorted(committed) and len(committed) > 3
    assert_complete(workspace, tiny_model, sources)


def test_the_driver_of_a_partition_is_killed_and_another_takes_it_over(
    start: Callable, workspace: Workspace, tiny_model: str, sources: list[str]
) -> None:
    import ray

    coordinator = start(*IN_PARTITIONS)
    wait_for_commit(coordinator, workspace, more_than=0)
    assert ray.is_initialized()
    mine = psutil.Process().children(recursive=True)
    [victim, *_] = [process for process in mine if "_drive" in " ".join(process.cmdline())]
    victim.kill()
    assert coordinator.wait(timeout=600) == 0
    assert check_what_is_there(workspace, tiny_model, sources) == TRACKS


def test_a_run_dies_with_its_whole_cluster(
    start: Callable, workspace: Workspace, tiny_model: str, sources: list[str]
) -> None:
    driver = start(own_cluster=True)
    wait_for_commit(driver, workspace, more_than=0)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    assert 0 < check_what_is_there(workspace, tiny_model, sources) < TRACKS
    assert_complete(workspace, tiny_model, sources)


def test_a_worker_is_killed_and_the_run_continues(
    start: Callable, workspace: Workspace, tiny_model: str, sources: list[str]
) -> None:
    import ray

    driver = start()
    wait_for_commit(driver, workspace, more_than=0)
    mine = {child.pid for child in psutil.Process().children(recursive=True)}
    actors = [
        process
        for process in psutil.process_iter(["pid", "cmdline"])
        if process.pid in mine and "MapWorker" in " ".join(process.info["cmdline"] or ())
    ]
    assert ray.is_initialized() and actors
    actors[0].kill()
    assert driver.wait(timeout=300) == 0
    assert check_what_is_there(workspace, tiny_model, sources) == TRACKS


@pytest.mark.parametrize("settings", [ALONE, IN_PARTITIONS], ids=["alone", "in partitions"])
def test_two_runs_at_once_end_with_one(
    start: Callable, workspace: Workspace, tiny_model: str, sources: list[str], settings: list[str]
) -> None:
    first = start(*settings)
    wait_for_commit(first, workspace, more_than=0)
    second = start(*settings)
    assert second.wait(timeout=300) == 0
    assert first.wait(timeout=300) != 0  # refused at its next commit
    assert check_what_is_there(workspace, tiny_model, sources) == TRACKS


def test_a_worker_that_computes_otherwise_is_rejected(
    ray_cluster: None, workspace: Workspace, tiny_model: str, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    golden = json.loads((tmp_path / "model" / "golden.json").read_text())
    golden["audio"] = [-value for value in golden["audio"]]
    (tmp_path / "model" / "golden.json").write_text(json.dumps(golden))
    with pytest.raises(UnusableError, match="pinned audio vector"):
        embed_catalog(workspace, tiny(), model=str(tmp_path / "model"))
    assert not find_embeddings(workspace, load_model(tiny_model).fingerprint).complete


def wait_for_commit(driver: subprocess.Popen, workspace: Workspace, *, more_than: int) -> bool:
    """Wait until more tracks are committed, or the driver ended; whether it ended."""
    deadline = time.monotonic() + 180
    while driver.poll() is None:
        assert time.monotonic() < deadline, "nothing was committed within three minutes"
        if any(len(store.done()) > more_than for store in all_embeddings(workspace)):
            return False
        time.sleep(0.02)
    return True


def check_what_is_there(workspace: Workspace, model_folder: str, sources: list[str]) -> int:
    """Every committed track once, whole and byte-equal; how many there are."""
    (name,) = storage.list_folders(workspace.path("embeddings"))
    shards = find_embeddings(workspace, name)
    ids = shards.done().to_pylist()
    assert len(set(ids)) == len(ids)
    check_vectors(shards, model_folder, sources)
    letters = shards.read_dead_letters()
    assert set(letters["code"].to_pylist()) <= {"missing"}
    return len(ids)


def check_vectors(shards: EmbeddingStore, model_folder: str, sources: list[str]) -> None:
    model = load_model(model_folder)
    windows = pa.concat_tables([*shards.window_tables()])
    counts = windows["track_id"].value_counts().to_pylist()
    found = {entry["values"]: entry["counts"] for entry in counts}
    tracks = shards.read_tracks()
    truth: dict[int, tuple[bytes, int]] = {}
    for track_id, vector in zip(
        tracks["track_id"].to_pylist(), matrix_of(tracks["vector"]), strict=True
    ):
        number = int(track_id[1:]) % SOURCES
        if number not in truth:
            unit = model.encode_audio([sources[number]])[0]
            truth[number] = unit.tobytes(), len(model.audio_windows(sources[number])[0])
        assert vector.tobytes() == truth[number][0]
        assert found.pop(track_id) == truth[number][1]
    assert not found  # no window of a track that is not there


def assert_complete(workspace: Workspace, model_folder: str, sources: list[str]) -> None:
    """Left alone, the job ends with all of it."""
    answer = embed_catalog(workspace, tiny(), model=model_folder)
    assert (answer["embedded"], answer["failed"]) == (TRACKS * 11 // 12, TRACKS // 12)
    assert check_what_is_there(workspace, model_folder, sources) == TRACKS
