"""The RayService's own endpoint on several nodes: it grows and shrinks, loses a replica and a node.

Brought up as KubeRay brings it up: the overlay's `serveConfigV2` is put to the head over HTTP, and
the pods' environment is the nodes'.

A light, constant load asks all the while. Every request must get 200, or 429 or 503 with a
Retry-After after which it succeeds, and every answer must be the exact one.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from made_music import SOUNDS
from nodes import Nodes, endpoint_config, rendered, until

from raymtr.search.searcher import Searcher
from raymtr.workspace import Workspace

KEY = "drill"
MOODS = ("calm", "rainy", "late night", "sunny", "sad", "fast", "driving", "odd")
TEXTS = [f"{mood} {sound}" for mood in MOODS for sound in SOUNDS]
LIGHT, HEAVY = 4, 8  # clients
PAUSE_S = 0.2  # of a light client, between requests
PATIENCE_S = 120  # whatever else this machine does: how fast it answers is not asked here
SCALING = {  # the defaults wait half a minute and ten; no drill can
    "min_replicas": 1,
    "max_replicas": 3,
    "target_ongoing_requests": 2,
    "upscale_delay_s": 1,
    "downscale_delay_s": 3,
    "metrics_interval_s": 0.5,
    "look_back_period_s": 2,
}
TWO = {"min_replicas": 2, "max_replicas": 2}

pytestmark = pytest.mark.drill


class Clients:
    """People who ask one question after the other and come again when they are told to."""

    def __init__(self, address: str, exact: dict[str, list[Any]]) -> None:
        self.address, self.exact = address, exact
        self.statuses: Counter[int] = Counter()
        self.retries: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.longest_s = 0.0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, count: int, *, pause_s: float) -> None:
        """`count` more of them."""
        for number in range(count):
            thread = threading.Thread(target=self._ask_on, args=(number, pause_s))
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """All of them, after the answer they wait for."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask_on(self, number: int, pause_s: float) -> None:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=self.address, headers=headers, timeout=PATIENCE_S + 10) as http:
            while not self._stop.wait(pause_s):
                number = (number + 1) % len(TEXTS)
                began = time.monotonic()
                fault = self._ask(http, TEXTS[number])
                with self._lock:
                    self.longest_s = max(self.longest_s, time.monotonic() - began)
                    self.wrong += [fault] if fault else []

    def _ask(self, http: httpx.Client, text: str) -> str | None:
        """Ask until it is answered; what was against the contract, if anything."""
        for _ in range(10):
            try:
                answer = http.post("/v1/search", json={"text": text})
            except httpx.HTTPError as error:
                return f"{text}: {error!r}"
            with self._lock:
                self.statuses[answer.status_code] += 1
            if answer.status_code == 200:
                found = hits_of(answer.json())
                return None if found == self.exact[text] else f"{text}: {found}"
            wait = answer.headers.get("retry-after")
            if answer.status_code not in (429, 503) or wait is None:
                return f"{text}: {answer.status_code} {answer.text[:200]}"
            with self._lock:
                self.retries[f"{answer.status_code} {answer.json()['code']}"] += 1
            time.sleep(float(wait))
        return f"{text}: ten times in vain"

    def said(self) -> str:
        """The counts."""
        return (
            f"{dict(self.statuses)}, retried {dict(self.retries) or 'none'}, "
            f"longest {self.longest_s:.1f} s"
        )


def hits_of(answer: dict[str, Any]) -> list[Any]:
    """What is compared: which tracks and where in them; a batch's last digits are its own."""
    return [(hit["track_id"], hit["segment"]) for hit in answer["hits"]]


@pytest.fixture
def service(music: Workspace, tmp_path: Path) -> dict[str, Any]:
    """The overlay's configuration over the made catalog; one key asks much, a machine is busy."""
    keys = tmp_path / "keys"
    keys.write_text(f"drill {hashlib.sha256(KEY.encode()).hexdigest()} search\n")
    config = endpoint_config(workspace=music.root, keys=str(keys))
    config["http_options"]["request_timeout_s"] = PATIENCE_S + 5
    config["applications"][0]["args"] |= {
        "requests_per_minute": 100_000,
        "request_timeout_s": PATIENCE_S,
        "health_check_s": 2,
    }
    return config


def scaled(config: dict[str, Any], retriever: dict[str, Any]) -> dict[str, Any]:
    """The configuration composed as the base's is, and retrievers that scale like this."""
    base = rendered("RayService", "raymtr", folder="base")["spec"]["serveConfigV2"]
    deployments = [
        *yaml.safe_load(base)["applications"][0]["deployments"],
        {"name": "Retriever", "autoscaling_config": retriever},
    ]
    [application] = config["applications"]
    composed = {"args": application["args"] | {"layout": "composed"}, "deployments": deployments}
    return config | {"applications": [application | composed]}


def running(nodes: Nodes, deployment: str) -> list[dict[str, Any]]:
    """The deployment's replicas that serve: their `pid`, their `node_id`."""
    said = httpx.get(f"{nodes.dashboard}/api/serve/applications/", timeout=30).json()
    application = said["applications"].get("raymtr", {"status": "", "deployments": {}})
    assert application["status"] != "DEPLOY_FAILED", application["message"]
    found = application["deployments"].get(deployment, {"replicas": []})
    return [one for one in found["replicas"] if one["state"] == "RUNNING"]


def homes(nodes: Nodes, deployment: str) -> list[str]:
    """The node of each replica that serves."""
    return [one["node_id"] for one in running(nodes, deployment)]


def test_it_scales_and_answers_through_losses(
    nodes: Callable[..., Nodes], service: dict[str, Any], music: Workspace
) -> None:
    searcher = Searcher(music)
    exact = {text: hits_of(searcher.search(text=text)) for text in TEXTS}
    cluster = nodes(cpus=2)
    cluster.serve(scaled(service, SCALING))
    address = f"http://127.0.0.1:{service['http_options']['port']}"
    until(lambda: running(cluster, "Ingress") and is_ready(address))

    began = time.monotonic()
    light = Clients(address, exact)
    light.start(LIGHT, pause_s=PAUSE_S)
    try:
        tell(scale(cluster, address, exact))
        cluster.serve(scaled(service, SCALING | TWO))
        until(lambda: len(running(cluster, "Retriever")) == 2)
        calm(light)
        for deployment in ("Retriever", "Ingress"):
            tell(lose_a_replica(cluster, deployment))
            calm(light)
        tell(lose_a_node(cluster))
        calm(light)
    finally:
        light.stop()
    took = time.monotonic() - began
    tell(f"light load for {took:.0f} s: {light.said()}")
    assert light.wrong == []
    assert set(light.statuses) <= {200, 429, 503} and light.statuses[200] > 100


def tell(line: str) -> None:
    sys.stderr.write(f"\n{line}")


def is_ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/readyz", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def calm(clients: Clients, *, seconds: float = 3.0) -> None:
    """Let them ask for a while; what went wrong so far is told at once."""
    time.sleep(seconds)
    assert clients.wrong == []


def scale(cluster: Nodes, address: str, exact: dict[str, list[Any]]) -> str:
    """One replica becomes three under load, spread over the nodes, and one again."""
    assert len(running(cluster, "Retriever")) == 1
    began = time.monotonic()
    heavy = Clients(address, exact)
    heavy.start(HEAVY, pause_s=0.0)
    try:
        until(lambda: len(running(cluster, "Retriever")) == 3)
        up = time.monotonic() - began
        assert set(homes(cluster, "Retriever")) == {w.node_id for w in cluster.workers}
        calm(heavy)
    finally:
        heavy.stop()
    began = time.monotonic()
    until(lambda: len(running(cluster, "Retriever")) == 1)
    down = time.monotonic() - began
    assert heavy.wrong == []
    return f"1 to 3 replicas in {up:.0f} s, back in {down:.0f} s; heavy load {heavy.said()}"


def lose_a_replica(cluster: Nodes, deployment: str) -> str:
    """SIGKILL to one of two."""
    before = {one["pid"] for one in running(cluster, deployment)}
    began = time.monotonic()
    os.kill(min(before), signal.SIGKILL)

    def replaced() -> bool:
        now = {one["pid"] for one in running(cluster, deployment)}
        return len(now) == 2 and min(before) not in now

    until(replaced)
    return f"{deployment} killed, replaced after {time.monotonic() - began:.0f} s"


def lose_a_node(cluster: Nodes) -> str:
    """A worker with an ingress on it is gone, and another comes, as the operator would see to."""
    [lost, *_] = [w for w in cluster.workers if w.node_id in homes(cluster, "Ingress")]
    retrievers = homes(cluster, "Retriever").count(lost.node_id)
    began = time.monotonic()
    cluster.lose(lost)
    cluster.add()
    left = {worker.node_id for worker in cluster.workers}

    def moved() -> bool:
        found = [homes(cluster, name) for name in ("Retriever", "Ingress")]
        return all(len(nodes) == 2 and set(nodes) <= left for nodes in found)

    until(moved)
    return (
        f"a node was lost with an ingress and {retrievers} retrievers, and another added: "
        f"all replicas stand again after {time.monotonic() - began:.0f} s"
    )
