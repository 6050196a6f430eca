"""What drills share: a made catalog that two models have embedded, clusters of several nodes."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from made_music import SOUNDS, TRACKS, UNLISTED, row_of
from nodes import Nodes, pod_environment

from raymtr.workspace import Workspace


@pytest.fixture(scope="session")
def music(
    make_workspace: Callable,
    commit_vectors: Callable,
    tiny_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Workspace:
    """The workspace; a build by `tiny_model` serves."""
    from jobs.build_index import build_index
    from raymtr.embeddings.store import find_embeddings
    from raymtr.model.model_folder import save_towers
    from raymtr.model.pretrained import load_model
    from raymtr.model.two_towers import build_towers
    from raymtr.recipes import tiny

    workspace: Workspace = make_workspace([row_of(number) for number in range(TRACKS)])
    other = str(tmp_path_factory.mktemp("other") / "model")
    save_towers(build_towers(tiny().towers, seed=1), other)
    numbers, rng = np.arange(TRACKS + UNLISTED), np.random.default_rng(0)
    for folder in (other, tiny_model):
        model = load_model(folder)
        sounds = model.encode_text(SOUNDS)
        noise = 0.1 * rng.standard_normal((len(numbers), 2, sounds.shape[1]))
        windows = (sounds[numbers % 4][:, None] + noise).astype(np.float32)
        windows /= np.linalg.norm(windows, axis=2, keepdims=True)
        vectors = {row_of(number)["track_id"]: windows[number] for number in numbers}
        commit_vectors(workspace, vectors, fingerprint=model.fingerprint)
        shutil.copytree(folder, find_embeddings(workspace, model.fingerprint).model_folder)
        build_index(workspace, tiny(), fingerprint=model.fingerprint)
    return workspace


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function: a port nobody listens on."""

    def find() -> int:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return int(free.getsockname()[1])

    return find


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Nodes]]:
    """A function that starts a cluster of several nodes, with the pods' environment."""
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as own:
        for name, value in pod_environment(own).items():  # a socket's path has to be short
            monkeypatch.setenv(name, value)
        started: list[Nodes] = []

        def start(*, cpus: int = 1) -> Nodes:
            started.append(Nodes(tmp_path / "bin", cpus=cpus))
            return started[-1]

        yield start
        for one in started:
            one.cluster.shutdown()
        for process in psutil.process_iter(["name", "cmdline"]):  # what HAProxy's manager leaves
            said = " ".join(process.info["cmdline"] or ())  # a zombie has none
            if process.info["name"] == "haproxy" and own in said:
                process.kill()
