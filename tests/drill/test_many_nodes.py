"""The RayJob's own entrypoint, submitted to clusters of several nodes that lose them.

As KubeRay does it: a head that does no work, workers beside it, the job handed in over HTTP, a new
cluster when one is lost. The first cluster dies whole, half-way; the second one loses a worker,
gets another, and ends. Every track must then stand once, and none of the first cluster's again.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from nodes import Nodes, rendered, until

from raymtr import storage
from raymtr.embeddings.store import all_embeddings, find_embeddings
from raymtr.workspace import Workspace

TRACKS, SOURCES = 1_200, 12

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


@pytest.fixture(params=["", " --set embed.partitions=8 --set embed.drivers=2"])
def entrypoint(workspace: Workspace, request: pytest.FixtureRequest) -> str:
    """What RayJob `embed` of the dev overlay runs, its folder being this one; in partitions too."""
    command: str = rendered("RayJob", "embed")["spec"]["entrypoint"]
    return command.replace("$WORKSPACE", workspace.root) + str(request.param)


def committed(workspace: Workspace) -> set[str]:
    stores = all_embeddings(workspace)
    return set(stores[0].done().to_pylist()) if stores else set()


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
    second.lose(second.workers[0])
    at_loss = len(committed(workspace))
    assert at_loss < TRACKS
    second.add()
    state = second.finished(job)

    log = second.client.get_job_logs(job)
    # One track in twelve has no file, more than --max-error-rate: the job says so and fails.
    assert state == "FAILED" and "more than --max-error-rate" in log, log[-2000:]
    answer = json.loads(next(line for line in log.splitlines() if line.startswith('{"')))
    assert answer["new"] == TRACKS - len(kept)  # nothing of the first cluster is done again
    assert (answer["embedded"], answer["failed"]) == (TRACKS * 11 // 12, TRACKS // 12)
    (name,) = storage.list_folders(workspace.path("embeddings"))
    shards = find_embeddings(workspace, name)
    ids = [*shards.read_tracks()["track_id"].to_pylist()]
    letters = shards.read_dead_letters()
    missing = [f"t{n:04}" for n in range(TRACKS) if n % SOURCES == SOURCES - 1]
    assert sorted(letters["track_id"].to_pylist()) == missing
    assert set(letters["code"].to_pylist()) == {"missing"}
    assert sorted(ids + missing) == [f"t{n:04}" for n in range(TRACKS)]
    sys.stderr.write(f"kept {len(kept)}, {at_loss} at the node's loss, {TRACKS} at the end\n")
