"""Indices are built, changed and rolled back, over and over, while people search the endpoint.

Whatever `search.keep_versions` says, no request fails and none loses its hits: what served until
now stays for those who still read it, and a rollback goes to what served before.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, cycle
from pathlib import Path

import httpx
import numpy as np
import pytest

from jobs.build_index import build_index
from raymtr.embeddings.store import find_embeddings
from raymtr.model.pretrained import load_model
from raymtr.recipes import tiny
from raymtr.vectors import unit
from raymtr.workspace import Workspace

REPOSITORY = Path(__file__).resolve().parents[2]
TRACKS, HITS, CLIENTS = 300, 5, 3
PAUSE_S = 0.3  # below the endpoint's 600 requests a minute
DRILL_S = 200.0  # of each number of kept builds; ten minutes together
CHANGES = ((), ("--upsert",), ("--rollback",), ("--upsert",), ())

pytestmark = pytest.mark.drill


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable, commit_vectors: Callable, tiny_model: str) -> Workspace:
    """Tracks that sound as the model reads their tag, published once."""
    sounds = ["slow piano", "heavy guitars", "techno beat"]
    rows = [
        {
            "track_id": f"t{n:03}",
            "uri": f"/t{n:03}.wav",
            "title": f"Tune {n}",
            "year": 1950 + n % 70,
        }
        | {"artist": f"Player {n % 40}", "tags": [sounds[n % 3]], "bpm": 60.5 + n}
        for n in range(TRACKS)
    ]
    made: Workspace = make_workspace(rows)
    model = load_model(tiny_model)
    vectors = model.encode_text(sounds)[np.arange(TRACKS) % 3][:, None]
    noise = 0.1 * np.random.default_rng(0).standard_normal((TRACKS, 2, vectors.shape[2]))
    windows = unit(vectors + noise)
    commit_vectors(
        made, {f"t{n:03}": windows[n] for n in range(TRACKS)}, fingerprint=model.fingerprint
    )
    shutil.copytree(tiny_model, find_embeddings(made).model_folder)
    build_index(made, tiny())
    return made


@pytest.fixture(scope="module")
def endpoint(
    ray_cluster: None, workspace: Workspace, free_port: Callable[[], int]
) -> Iterator[str]:
    from ray import serve

    from jobs.serve import serve_endpoint

    yield serve_endpoint(workspace, port=free_port(), layout="fused")["address"]
    serve.shutdown()


class Clients:
    """People who ask one thing after the other until the `with` block ends."""

    def __init__(self, address: str) -> None:
        self.address, self.seen = address, Counter[str]()
        self.versions: set[str] = set()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(n,)) for n in range(CLIENTS)]

    def _ask(self, number: int) -> None:
        with httpx.Client(base_url=self.address, timeout=60) as http:
            for turn in count():
                for asked in (
                    {"text": f"slow piano {number} {turn}"},
                    {"text": f"techno {turn}", "where": "year > 1990 and bpm > 61.5"},
                    {"like": [f"t{turn % TRACKS:03}"]},
                    {"text": f"Player {turn % 40}"},
                ):
                    if self._stop.wait(PAUSE_S):
                        return
                    self._note(http, asked)

    def _note(self, http: httpx.Client, asked: dict) -> None:
        try:
            answer = http.post("/v1/search", json=asked | {"k": HITS})
        except httpx.HTTPError as error:
            self.seen[type(error).__name__] += 1
            return
        if answer.status_code != 200:
            self.seen[f"{answer.status_code}: {answer.json().get('detail')}"] += 1
            return
        self.versions.add(answer.json()["table_version"])
        self.seen["answered" if len(answer.json()["hits"]) == HITS else "too few hits"] += 1

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_no_request_fails_while_builds_come_and_go(
    workspace: Workspace,
    endpoint: str,
    keep: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest = tmp_path / "change.csv"
    ended = time.monotonic() + DRILL_S
    with Clients(endpoint) as clients:
        for change, bpm in zip(cycle(CHANGES), count(100), strict=False):
            manifest.write_text(f"track_id,bpm\nt005,{bpm}\n")
            index(workspace, keep, *change, *([str(manifest)] if "--upsert" in change else []))
            if time.monotonic() > ended:
                break
    with capsys.disabled():
        said = f"{dict(clients.seen)}, {len(clients.versions)} versions"
        sys.stdout.write(f"\nkeep_versions={keep}: {said}\n")
    assert set(clients.seen) == {"answered"} and len(clients.versions) > len(CHANGES)


def index(workspace: Workspace, keep: int, *words: str) -> dict:
    """What `raymtr index` says, in a process of its own."""
    command = [sys.executable, "-m", "jobs", "index", *words, "--workspace", workspace.root]
    command += ["--json", "--recipe", "tiny", "--set", f"search.keep_versions={keep}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    answer: dict = json.loads(done.stdout)
    return answer
