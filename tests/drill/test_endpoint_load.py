"""Ten minutes of many clients at once, while the tables change and replicas die under them.

Every valid request is answered, or told to come again; garbage gets its 4xx; a client that floods
takes nothing from the others; every answer is the exact one of the version it names, which is
computed here by a searcher of its own before the version is replaced; memory stays flat. Replicas
are killed in the first fifth only, so that none dies later with what it leaked.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import ray
from load_clients import PAGES, QUESTIONS, Book, Client, Flood, Garbage, Hits, Valid
from made_music import SOUNDS, TRACKS, UNLISTED, row_of
from ray import serve
from ray.util import list_named_actors

from jobs.build_index import build_index
from jobs.change_index import upsert_tracks
from jobs.memory_watch import tree_bytes
from jobs.serve import serve_endpoint
from raymtr.embeddings.store import find_embeddings
from raymtr.index import changes
from raymtr.index.publish import live_build
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model
from raymtr.recipes import tiny
from raymtr.search.searcher import Searcher
from raymtr.workspace import Workspace
from serve.settings import ServeSettings

LOAD_S = 600.0
FIFTHS = 5
FLAT = 1.2  # memory of the last fifth, of the second
VALID_CLIENTS, FLOODERS = 4, 3
PER_MINUTE = ServeSettings(workspace="").requests_per_minute
GRACE_S = 10.0  # instead of an hour, so that the versions of one fifth go in the next

pytestmark = pytest.mark.drill


class Tables:
    """Changes what is published, and keeps the exact answers of every version."""

    def __init__(self, workspace: Workspace, folder: Path) -> None:
        self.workspace, self.folder = workspace, folder
        names = {build.fingerprint for build in changes.all_builds(workspace)}
        self.models: dict[str, Model] = {
            name: load_model(find_embeddings(workspace, name).model_folder)
            for name in names
            if name
        }
        self.exact: dict[str, list[list[Hits]]] = {}
        self.upserts = self.swept = 0
        self.keep_answers()

    def keep_answers(self) -> None:
        """The exact answers of the live version."""
        searcher = Searcher(self.workspace)
        version = searcher.build.table_version
        if version not in self.exact:
            model = self.models[searcher.build.fingerprint or ""]
            searcher._models = {"text": model, "audio": model}  # saves loading it again
            self.exact[version] = [question.exact(searcher) for question in QUESTIONS]

    def publish_other(self) -> None:
        """A build of the other model takes over."""
        live = live_build(self.workspace).fingerprint
        (other,) = set(self.models) - {live}
        build_index(self.workspace, tiny(), fingerprint=other)
        self.keep_answers()

    def upsert(self) -> None:
        """Thirty tracks get other names and sounds in words, some new ones come in."""
        self.upserts += 1
        first = 100 + 30 * (self.upserts % 10)
        new = TRACKS + self.upserts % UNLISTED
        lines = ["track_id,uri,title,artist,tags"]
        for number in (*range(first, first + 30), new):
            row = row_of(number)
            title = f"Tune {number} take {self.upserts}"
            tag = SOUNDS[self.upserts % 4].split()[-1]
            lines.append(f'{row["track_id"]},{row["uri"]},{title},{row["artist"]},"{tag},new"')
        source = self.folder / "manifest.csv"
        source.write_text("\n".join(lines))
        upsert_tracks(self.workspace, tiny(), str(source))
        self.keep_answers()

    def sweep(self) -> None:
        """Versions replaced some time ago lose their files."""
        self.swept += changes.sweep(self.workspace)


@pytest.fixture
def endpoint(
    ray_cluster: None, music: Workspace, free_port: Callable[[], int], tmp_path: Path
) -> Iterator[Callable[[str], httpx.Client]]:
    """A function: who asks -> a client with a key of its own, of the composed layout."""
    people = ["garbage", "flood", "watch", *(f"valid {n}" for n in range(VALID_CLIENTS))]
    keys = {who: f"key of {who}" for who in people}
    lines = [f"{n} {hashlib.sha256(k.encode()).hexdigest()}" for n, k in enumerate(keys.values())]
    (tmp_path / "keys").write_text("\n".join(lines))
    served = serve_endpoint(
        music, port=free_port(), layout="composed", api_keys=str(tmp_path / "keys")
    )
    opened: list[httpx.Client] = []

    def client(who: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {keys[who]}"}
        opened.append(httpx.Client(base_url=served["address"], headers=headers, timeout=60))
        return opened[-1]

    yield client
    for one in opened:
        one.close()
    serve.shutdown()


def kill(deployment: str) -> None:
    """End a replica of a deployment, without a word to it."""
    named = list_named_actors(all_namespaces=True)
    [victim] = [actor["name"] for actor in named if f"::raymtr#{deployment}#" in actor["name"]]
    ray.kill(ray.get_actor(victim, namespace="serve"))


def test_every_answer_is_right_whatever_happens(
    endpoint: Callable[[str], httpx.Client],
    music: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(changes, "READER_GRACE", timedelta(seconds=GRACE_S))
    monkeypatch.setattr(changes, "LONGEST_CHANGE", timedelta(0))
    tables, book, watch = Tables(music, tmp_path), Book(), endpoint("watch")
    assert watch.get("/readyz").status_code == 200
    clients: list[Client] = [Garbage("garbage", endpoint("garbage"), book, pause_s=0.5)]
    for number in range(FLOODERS):
        clients.append(Flood(f"flood {number}", endpoint("flood"), book, pause_s=0.0))
    for number in range(VALID_CLIENTS):
        who = f"valid {number}"
        clients.append(Valid(who, endpoint(who), book, pause_s=0.4))
    began = time.monotonic()
    for client in clients:
        client.start()
    memory = change_meanwhile(tables)
    book.over.set()
    for client in clients:
        client.join(timeout=90)
    took_s = time.monotonic() - began
    live = live_build(music).table_version
    assert watch.get("/readyz").json()["table_version"] == live
    tell(book, tables, memory)
    check_hits(book, tables)
    assert not book.faults, f"{len(book.faults)} faults:\n" + "\n".join(book.faults[:10])
    check_everyone_was_heard(book, tables)
    check_the_flood_was_held(book, took_s)
    assert memory[-1] < FLAT * memory[1]


def change_meanwhile(tables: Tables) -> list[float]:
    """What happens to the tables and replicas in each fifth; the memory of each, bytes."""
    began, medians = time.monotonic(), []
    for fifth in range(FIFTHS):
        events: list[Callable[[], None]] = [tables.publish_other, tables.upsert, tables.sweep]
        if fifth == 0:
            events += [lambda: kill("Retriever"), lambda: kill("TextEncoder")]
        samples = []
        for step, event in enumerate([*events, None], start=1):
            until = began + LOAD_S / FIFTHS * (fifth + step / (len(events) + 1))
            while time.monotonic() < until:
                samples.append(tree_bytes())
                time.sleep(1.0)
            if event is not None:
                event()
        medians.append(statistics.median(samples or [tree_bytes()]))
    return medians


def tell(book: Book, tables: Tables, memory: list[float]) -> None:
    """The figures, for whoever runs the drill."""
    for (who, what), count in sorted(book.counts.items()):
        sys.stderr.write(f"{who}: {what}: {count}\n")
    kinds = Counter[str]()
    for (number, *_), count in book.hits.items():
        kinds[QUESTIONS[number].kind] += count
    sys.stderr.write(f"answers compared: {dict(kinds)}\n")
    sys.stderr.write(f"versions: {list(tables.exact)}, {tables.swept} swept\n")
    sys.stderr.write(f"GiB in each fifth: {[round(used / 2**30, 3) for used in memory]}\n")


def check_hits(book: Book, tables: Tables) -> None:
    """Every answer is the exact one of the version it names."""
    wrong = [
        f"{QUESTIONS[number]} page {page} of {version}:\n{hits}\n"
        f"exact:\n{tables.exact[version][number][page]}"
        for (number, page, version, hits) in book.hits
        if hits != tables.exact[version][number][page]
    ]
    assert not wrong, f"{len(wrong)} of {len(book.hits)} different answers:\n" + "\n".join(
        wrong[:3]
    )


def check_everyone_was_heard(book: Book, tables: Tables) -> None:
    """That the drill tried what it says: all kinds, most versions; and most were served."""
    asked = {(QUESTIONS[number].kind, page) for number, page, *_ in book.hits}
    kinds = {question.kind for question in QUESTIONS}
    assert asked == {(kind, 0) for kind in kinds} | {("pages", n) for n in range(PAGES)}
    assert len({version for _, _, version, _ in book.hits}) > len(tables.exact) // 2
    valid = {what: count for (who, what), count in book.counts.items() if who == "valid"}
    assert valid["200"] > 0.8 * sum(valid.values())
    assert tables.swept


def check_the_flood_was_held(book: Book, took_s: float) -> None:
    """It got its rate and no more; a machine too slow for more has nothing to hold."""
    flood = {what: count for (who, what), count in book.counts.items() if who == "flood"}
    due = PER_MINUTE * (1 + took_s / 60)
    assert 0 < flood["200"] <= due
    assert flood.get("429 rate_limited", 0) or sum(flood.values()) <= due
