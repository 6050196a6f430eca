"""A small made index with sounds to play, and the real endpoint over it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
import soundfile
from builders import publish_catalog

from raymtr.model.pretrained import load_model
from raymtr.vectors import unit
from raymtr.workspace import Workspace

SOUNDS = ["slow piano ballad", "heavy metal guitars", "techno beat"]
ARTISTS = ["Ada Lark", "Bo Finch", "Cy Wren", "Dee Heron", "Eli Swift"]
SONG_S = 20
SILENT = 1  # the one track whose file is gone


@pytest.fixture(scope="session")
def workspace(
    make_workspace: Callable,
    commit_vectors: Callable,
    tiny_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Workspace:
    """30 tracks of three sounds; tracks with the same number modulo 3 sound alike."""
    song = tmp_path_factory.mktemp("songs") / "song.wav"
    soundfile.write(song, np.sin(np.arange(SONG_S * 16_000) / 9), 16_000)
    rows = [
        {
            "track_id": f"t{number:02}",
            "uri": "/gone/song.wav" if number == SILENT else str(song),
            "title": f"Tune {number}",
            "artist": ARTISTS[number % 5],
            "album": f"Album {number % 2}",
            "year": 1980 + number,
            "duration": float(SONG_S),
            "tags": [SOUNDS[number % 3].split()[-1], "even" if number % 2 == 0 else "odd"],
            "similar_artists": [ARTISTS[(number + 1) % 5]],
        }
        for number in range(30)
    ]
    workspace = make_workspace(rows)
    model = load_model(tiny_model)
    sounds = model.encode_text(SOUNDS)
    noise = 0.02 * np.random.default_rng(0).standard_normal((30, 2, sounds.shape[1]))
    windows = unit(sounds[np.arange(30) % 3][:, None] + noise)
    vectors = {f"t{number:02}": windows[number] for number in range(30)}
    commit_vectors(workspace, vectors, fingerprint=model.fingerprint)
    publish_catalog(workspace, model=tiny_model)
    return workspace


@pytest.fixture
def port() -> int:
    """A port nobody listens on."""
    return _free_port()


@pytest.fixture(scope="session")
def client(ray_cluster: None, workspace: Workspace) -> Iterator[httpx.Client]:
    """A client of the composed layout, as a cluster runs it; one for all files of this folder."""
    from jobs.serve import serve_endpoint

    answer = serve_endpoint(workspace, port=_free_port(), layout="composed")
    with httpx.Client(base_url=answer["address"], timeout=300) as opened:
        yield opened


@pytest.fixture(scope="session")
def run_app(client: httpx.Client, workspace: Workspace) -> Callable[..., httpx.Client]:
    """A function: name and settings -> one more application beside the first, under its name."""

    from ray import serve

    from serve.app import build_app

    def run(name: str, **settings: object) -> httpx.Client:
        given = {"workspace": workspace.root, "num_cpus": 0.1, "max_replicas": 1, **settings}
        serve.run(build_app(given), name=name, route_prefix=f"/{name}")
        return httpx.Client(base_url=client.base_url.join(f"/{name}"), timeout=300)

    return run


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Serve ends with the last test of this folder: its replicas hold what other tests need."""
    if nextitem is None or Path(__file__).parent not in nextitem.path.parents:
        import ray
        from ray import serve

        if ray.is_initialized():  # else it would join another's cluster and end what that serves
            serve.shutdown()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
