"""The RayJob's own entrypoint, submitted to clusters of several nodes that lose them.

As KubeRay does it: a head that does no work, workers beside it, the job handed in over HTTP, a new
cluster when one is lost. The first cluster dies whole, half-way; the second one loses a worker,
gets another, and ends. Every track must then stand once, and none of the first cluster's again.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from raymtr import storage
from raymtr.index.shards import find_shards
from raymtr.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
TRACKS, SOURCES, WAIT_S = 360, 12, 400.0

pytestmark = pytest.mark.drill


@pytest.fixture
def workspace(make_workspace: Callable, tiny_model: str, tmp_path: Path) -> Workspace:
    """Tracks of 10 to 60 s, every twelfth without its file, and a run that has trained."""
    rng = np.random.default_rng(0)
    for number in range(SOURCES - 1):
        samples = 0.1 * rng.standard_normal(int(22_050 * rng.uniform(10, 60)))
        soundfile.write(tmp_path / f"{number}.wav", samples, 22_050)
    rows = [
        {"track_id": f"t{n:04}", "uri": str(tmp_path / f"{n % SOURCES}.wav")} for n in range(TRACKS)
    ]
    made: Workspace = make_workspace(rows)
    shutil.copytree(tiny_model, f"{made.run('first')}/model")
    return made


@pytest.fixture
def entrypoint(workspace: Workspace, tmp_path: Path) -> str:
    """What RayJob `embed` of the dev overlay runs, its folder being this one."""
    sys.path.insert(0, str(ROOT))
    from k8s.kustomize import by_name, render

    job = by_name(render(ROOT / "k8s/overlays/dev"), "RayJob")["embed"]
    command: str = job["spec"]["entrypoint"]
    program = tmp_path / "bin" / "raymtr"  # the console command, installed or not
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m jobs "$@"\n')
    program.chmod(0o755)
    return command.replace("/workspace", workspace.root)


class Nodes:
    """A Ray cluster whose nodes are processes of this machine, each with a raylet of its own."""

    def __init__(self, tmp_path: Path) -> None:
        from ray.cluster_utils import Cluster
        from ray.job_submission import JobSubmissionClient

        port, agent = free_ports(2)  # other clusters of this machine may have the usual ones
        head = {
            "num_cpus": 0,
            "include_dashboard": True,
            "dashboard_port": port,
            "dashboard_agent_listen_port": agent,
        }
        self.cluster = Cluster(initialize_head=True, head_node_args={**head, **MEMORY})
        self.workers = [self.add(), self.add()]
        self.client = until(lambda: JobSubmissionClient(f"http://127.0.0.1:{port}"))
        self.environment = {
            "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def add(self) -> Any:
        """One worker more."""
        return self.cluster.add_node(num_cpus=1, **MEMORY)

    def submit(self, entrypoint: str) -> str:
        """The job's id; the head takes jobs some time after it is up."""
        environment = {"env_vars": self.environment}
        job: str = until(
            lambda: self.client.submit_job(entrypoint=entrypoint, runtime_env=environment)
        )
        return job

    def state(self, job: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED."""
        return str(self.client.get_job_status(job).value)


MEMORY = {"object_store_memory": 100 << 20}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Callable[[], Nodes]]:
    started: list[Nodes] = []

    def start() -> Nodes:
        started.append(Nodes(tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.cluster.shutdown()


def free_ports(count: int) -> list[int]:
    """Ports nobody listens on, all different."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def until(answer: Callable[[], Any]) -> Any:
    """What `answer` gives, once it gives something and raises nothing."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            if found := answer():
                return found
        except (ConnectionError, RuntimeError):
            pass
        assert time.monotonic() < deadline, f"waited for {answer} in vain"
        time.sleep(0.2)


def committed(workspace: Workspace) -> set[str]:
    names = storage.list_folders(workspace.path("embeddings"))
    return set(find_shards(workspace, names[0]).done().to_pylist()) if names else set()


def test_a_cluster_is_lost_then_a_node(
    nodes: Callable[[], Nodes], workspace: Workspace, entrypoint: str
) -> None:
    first = nodes()
    first.submit(entrypoint)
    until(lambda: len(committed(workspace)) > TRACKS // 8)
    first.cluster.shutdown()
    kept = committed(workspace)
    assert TRACKS // 8 < len(kept) < TRACKS

    second = nodes()
    job = second.submit(entrypoint)
    until(lambda: len(committed(workspace)) > len(kept) + TRACKS // 8)
    second.cluster.remove_node(second.workers[0], allow_graceful=False)
    at_loss = len(committed(workspace))
    assert at_loss < TRACKS
    second.add()
    state = until(lambda: second.state(job) in ("SUCCEEDED", "FAILED") and second.state(job))

    log = second.client.get_job_logs(job)
    # One track in twelve has no file, more than --max-error-rate: the job says so and fails.
    assert state == "FAILED" and "more than --max-error-rate" in log, log[-2000:]
    answer = json.loads(next(line for line in log.splitlines() if line.startswith('{"')))
    assert answer["new"] == TRACKS - len(kept)  # nothing of the first cluster is done again
    assert (answer["embedded"], answer["failed"]) == (TRACKS * 11 // 12, TRACKS // 12)
    (name,) = storage.list_folders(workspace.path("embeddings"))
    shards = find_shards(workspace, name)
    ids = [*shards.read_tracks()["track_id"].to_pylist()]
    letters = shards.read_dead_letters()
    missing = [f"t{n:04}" for n in range(TRACKS) if n % SOURCES == SOURCES - 1]
    assert sorted(letters["track_id"].to_pylist()) == missing
    assert set(letters["code"].to_pylist()) == {"missing"}
    assert sorted(ids + missing) == [f"t{n:04}" for n in range(TRACKS)]
    sys.stderr.write(f"kept {len(kept)}, {at_loss} at the node's loss, {TRACKS} at the end\n")
