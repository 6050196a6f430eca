"""A table shard is killed under load: answers go on without it, say so, and are whole again.

Every answer is compared with what one process gives over the same tables, with all shards or
without the one that was killed.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import ray
from made_music import SOUNDS
from ray import serve
from ray.util import list_named_actors

from jobs.build_index import build_index
from raymtr.recipes import tiny
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace
from serve.app import build_app

SHARDS, KILLED, CLIENTS = 4, 2, 3
LOAD_S, KILL_AFTER_S = 60.0, 10.0
WHOLE_WITHIN_S = 30.0
ASKED: list[dict[str, Any]] = [
    *({"text": sound, "mode": "semantic", "k": 10} for sound in SOUNDS),
    {"text": "Tune 17 by Cy Swift", "k": 5},
    {"text": "jazz", "where": "year > 1990", "k": 10},
    {"text": "songs by Ada Wren", "k": 10},
    {"text": "similar to Bo Lark", "per_artist": 2, "k": 10},
]

pytestmark = pytest.mark.drill


@dataclass
class Told:
    """What the clients were told: the number of the question, partial or not, hits, and when."""

    answers: list[tuple[int, bool, list[str], float]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def workspace(music: Workspace, tmp_path: Path) -> Workspace:
    """The made catalog, in SHARDS table shards."""
    shutil.copytree(music.root, tmp_path / "sharded")
    workspace = Workspace.open(str(tmp_path / "sharded"))
    build_index(workspace, replace(tiny(), search=SearchSpec(shards=SHARDS)))
    return workspace


@pytest.fixture
def address(ray_cluster: None, workspace: Workspace, free_port: Callable[[], int]) -> Iterator[str]:
    """Where the shards are served, each by one replica."""
    port = free_port()
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": port})
    given = {"workspace": workspace.root, "shards": SHARDS, "open_to_anyone": True}
    given |= {"num_cpus": 0.1, "max_replicas": 1, "shutdown_wait_s": 0.2}
    serve.run(build_app(given), name="sharded", route_prefix="/")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def test_a_killed_shard_is_left_out_and_comes_back(workspace: Workspace, address: str) -> None:
    here = Searcher(workspace)
    whole = [ids(here.search(**asked)) for asked in ASKED]
    without = [ids(here.present({KILLED}).search(**asked)) for asked in ASKED]
    assert whole != without
    told = Told()
    clients = [threading.Thread(target=ask, args=(address, told, n)) for n in range(CLIENTS)]
    for client in clients:
        client.start()
    began = time.monotonic()
    time.sleep(KILL_AFTER_S)
    kill(f"RetrieverShard{KILLED}")
    killed = time.monotonic()
    time.sleep(max(0.0, began + LOAD_S - time.monotonic()))
    told.over.set()
    for client in clients:
        client.join(timeout=120)
    partial = [at - killed for _, is_partial, _, at in told.answers if is_partial]
    sys.stderr.write(
        f"{len(told.answers)} answers, {len(partial)} of them partial, the last "
        f"{max(partial, default=0):.1f} s after the kill\n"
    )
    assert not told.faults, told.faults[:5]
    wrong = [
        (ASKED[number], is_partial, hits)
        for number, is_partial, hits, _ in told.answers
        if hits != (without if is_partial else whole)[number]
    ]
    assert not wrong, f"{len(wrong)} of {len(told.answers)} differ: {wrong[:3]}"
    assert partial and min(partial) > 0 and max(partial) < WHOLE_WITHIN_S
    assert not told.answers[-1][1]


def ask(address: str, told: Told, first: int) -> None:
    """One client: all questions in turn, until the load is over."""
    with httpx.Client(base_url=address, timeout=60) as http:
        number = first
        while not told.over.is_set():
            number = (number + 1) % len(ASKED)
            # A cached answer is whole, whatever was lost since: another k is another request.
            asked = ASKED[number] | {"k": ASKED[number]["k"] + len(told.answers) % 7}
            answer = http.post("/v1/search", json=asked)
            if answer.status_code != 200:
                told.faults.append(f"{answer.status_code} {answer.text}")
                continue
            said = answer.json()
            hits = ids(said)[: ASKED[number]["k"]]
            told.answers.append((number, said["partial"], hits, time.monotonic()))
            time.sleep(0.05)


def ids(answer: Any) -> list[str]:
    return [hit["track_id"] for hit in answer["hits"]]


def kill(deployment: str) -> None:
    """End the replica of a deployment, without a word to it."""
    named = list_named_actors(all_namespaces=True)
    [victim] = [actor["name"] for actor in named if f"::sharded#{deployment}#" in actor["name"]]
    ray.kill(ray.get_actor(victim, namespace="serve"))
