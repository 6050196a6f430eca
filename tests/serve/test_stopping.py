"""Up by one command, down by Ctrl-C; and a replica that dies takes no valid request with it."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import ray
from ray.util import list_named_actors

from raymtr.workspace import Workspace

STARTS_WITHIN_S = 120.0
STOPS_WITHIN_S = 20.0  # five seconds on an idle machine

pytestmark = pytest.mark.drill


def test_ctrl_c_ends_it_cleanly(workspace: Workspace, port: int, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "jobs", "serve", "--workspace", workspace.root]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        serving = subprocess.Popen(
            [*command, "--port", str(port)],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=Path(__file__).parents[2],
        )
    try:
        until = time.monotonic() + STARTS_WITHIN_S
        while "Ctrl-C ends it" not in log.read_text():
            assert serving.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            time.sleep(0.2)
        asked = {"text": "slow piano ballad"}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/search", json=asked, timeout=60)
        assert answer.json()["hits"]
        began = time.monotonic()
        serving.send_signal(signal.SIGINT)
        said, _ = serving.communicate(timeout=60)
    finally:
        if serving.poll() is None:
            serving.kill()
    assert serving.returncode == 0, log.read_text()[-2000:]
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert "no longer served" in said
    assert "Traceback" not in log.read_text()
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")


@pytest.mark.parametrize("deployment", ["Retriever", "TextEncoder"])
def test_a_replica_that_dies_is_replaced(client: httpx.Client, deployment: str) -> None:
    """Until then a request is answered, or told to come again: never 500."""
    assert client.post("/v1/search", json={"text": "warm"}).status_code == 200
    named = list_named_actors(all_namespaces=True)
    [victim] = [actor["name"] for actor in named if f"::raymtr#{deployment}#" in actor["name"]]
    ray.kill(ray.get_actor(victim, namespace="serve"))
    statuses, deadline = [], time.monotonic() + 90
    while time.monotonic() < deadline:
        asked = {"text": f"never asked before {len(statuses)}"}
        answer = client.post("/v1/search", json=asked)
        statuses.append(answer.status_code)
        assert answer.status_code == 200 or "retry-after" in answer.headers, answer.text
        if statuses[-3:] == [200, 200, 200]:
            break
        time.sleep(0.1)
    assert set(statuses) <= {200, 503}
    assert statuses[-1] == 200
