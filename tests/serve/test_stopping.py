"""Up by one command, down by Ctrl-C; and a replica that dies takes no valid request with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
import ray
from ray import serve
from ray.util import list_named_actors

from raymtr.workspace import Workspace

pytestmark = pytest.mark.ray
STARTS_WITHIN_S = 120.0
STOPS_WITHIN_S = 20.0  # five seconds on an idle machine


@pytest.mark.drill
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
        until, early = time.monotonic() + STARTS_WITHIN_S, set()
        while "Ctrl-C ends it" not in log.read_text():
            assert serving.poll() is None and time.monotonic() < until, log.read_text()[-2000:]
            with contextlib.suppress(httpx.TransportError):
                early.add(httpx.get(f"http://127.0.0.1:{port}/readyz").status_code)
            time.sleep(0.2)
        assert early <= {200, 503}  # the proxy is up before the application is
        asked = {"text": "slow piano ballad"}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/search", json=asked, timeout=600)
        assert answer.json()["hits"]
        began = time.monotonic()
        serving.send_signal(signal.SIGINT)
        said, _ = serving.communicate(timeout=600)
    finally:
        if serving.poll() is None:
            serving.kill()
    assert serving.returncode == 0, log.read_text()[-2000:]
    assert time.monotonic() - began < STOPS_WITHIN_S
    assert "no longer served" in said
    for unwanted in ("Traceback", "(raylet)"):
        assert unwanted not in log.read_text() + said
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez")


def test_serve_rejects_a_port_that_another_server_has(workspace: Workspace, port: int) -> None:
    """Before anything starts; two would share it and mix their catalogs' answers."""
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", port))
        other.listen()
        command = [sys.executable, "-m", "jobs", "serve", "--workspace", workspace.root]
        done = subprocess.run(
            [*command, "--port", str(port)], capture_output=True, text=True, timeout=600
        )
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert f"127.0.0.1:{port} is in use by process {os.getpid()}" in said
    assert "Traceback" not in done.stderr


def test_an_app_whose_proxy_shares_its_port_does_not_start(
    client: httpx.Client, run_app: Callable
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", client.base_url.port))
        other.listen()
        with pytest.raises(RuntimeError, match="Ingress"):
            run_app("shared", layout="fused", open_to_anyone=True)
    said = serve.status().applications["shared"].deployments["Ingress"].message
    assert f"in use by process {os.getpid()}" in said
    serve.delete("shared")
    assert client.get("/livez").status_code == 200


def test_a_replica_with_a_stuck_call_is_replaced(
    workspace: Workspace, run_app: Callable, tmp_path: Path
) -> None:
    """Storage that hangs: files of the tables give no byte until another replica opens them."""
    own = tmp_path / "workspace"
    shutil.copytree(workspace.root, own)
    hasty = {"request_timeout_s": 5.0, "queue_timeout_s": 1.0, "audio_timeout_s": 1.0}
    client = run_app(
        "stuck",
        layout="fused",
        open_to_anyone=True,
        workspace=str(own),
        health_check_s=1.0,
        **hasty,
    )
    first = replicas("stuck")
    files = [path for path in (own / "db").rglob("*.lance") if path.is_file()]
    for path in files:
        path.rename(path.with_suffix(".kept"))
        os.mkfifo(path)
    asked = {"text": "Tune", "mode": "keyword", "where": "year > 1999 and tags has 'odd'"}
    late = client.post("/v1/search", json=asked)
    for path in files:
        path.unlink()
        path.with_suffix(".kept").rename(path)
    assert late.json()["code"] == "timeout"
    until = time.monotonic() + 120
    while replicas("stuck") & first:
        assert time.monotonic() < until
        time.sleep(0.2)
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < until
        time.sleep(0.2)
    assert client.post("/v1/search", json=asked).json()["hits"]


def replicas(application: str) -> set[str]:
    named = list_named_actors(all_namespaces=True)
    return {one["name"] for one in named if f"::{application}#Ingress#" in one["name"]}


@pytest.mark.drill
@pytest.mark.parametrize("deployment", ["Retriever", "TextEncoder"])
def test_a_replica_that_dies_is_replaced(client: httpx.Client, deployment: str) -> None:
    """Until then a request is answered, or told to come again: never 500."""
    assert client.post("/v1/search", json={"text": "warm"}).status_code == 200
    named = list_named_actors(all_namespaces=True)
    [victim] = [actor["name"] for actor in named if f"::raymtr#{deployment}#" in actor["name"]]
    ray.kill(ray.get_actor(victim, namespace="serve"))
    statuses, deadline = [], time.monotonic() + 600
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
