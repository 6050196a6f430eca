"""Upserts into a large table while a reader queries it: latency, errors and freshness.

    python benchmarks/index_changes.py [--tracks 1000000] [--upsert 10000] [--keep FOLDER]

The workspace is that of benchmarks/index_scale.py, used unchanged if --keep names one. Half of the
upserted tracks are new, half exist and get another title. The command runs in a separate process,
and so does the reader. The reader sends one query after the other, tracks like a track and titles
by their words, each to the current live build. Target: no error, no duplicate track, a 99th
percentile within 3 times of the idle one, and the minimum recall of a new build. Freshness is the
time from the start of the command, with a manifest of a few tracks embedded before, to the reader's
first answer that contains them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from index_scale import QUERIES, QUERY_SEED, World, published, track_id, uri, write_shard
from watched import REPOSITORY, children_s

from raymtr.embeddings.store import find_embeddings
from raymtr.index.build import Build, table_name
from raymtr.index.publish import live_build
from raymtr.index.track_table import TrackTable
from raymtr.index.tune import TrialQueries, exact_hits, try_index
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

TARGET_TIMES = 3.0  # of the idle 99th percentile
QUIET_S, AFTER_S = 30.0, 5.0
FEW = 10  # tracks whose freshness is measured
SPAWN = get_context("spawn")  # LanceDB must not be loaded in a process that forks


@dataclass(frozen=True)
class Answer:
    """The result of one query."""

    began: float
    ms: float
    version: str
    twice: int  # duplicate hits
    error: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--upsert", type=int, default=10_000)
    parser.add_argument("--keep", help="a folder for the workspace; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = published(arguments.keep or scratch, arguments.tracks, 128)
        measure_upsert(workspace, scratch, arguments.upsert)
        measure_freshness(workspace, scratch)


def measure_upsert(workspace: Workspace, scratch: str, count: int) -> None:
    before, embedded = live_build(workspace), len(find_embeddings(workspace).done())
    manifest = make_manifest(workspace, scratch, new=count // 2, changed=count - count // 2)
    stop, (ours, theirs) = SPAWN.Event(), SPAWN.Pipe()
    reader = SPAWN.Process(target=read, args=(workspace, theirs, stop), daemon=True)
    reader.start()
    ours.recv()  # it has sent one query of each kind
    time.sleep(QUIET_S)
    began, busy = time.time(), children_s()
    answer = upsert(workspace, manifest)
    took, core_s = time.time() - began, children_s() - busy
    time.sleep(AFTER_S)
    stop.set()
    answers: list[Answer] = ours.recv()
    reader.join()
    print(
        f"upsert of {count:,} into {before.rows['tracks']:,}: {took:.1f} s, {core_s:.1f} "
        f"CPU-s; {answer['added']:,} added, {answer['changed']:,} changed, "
        f"{before.table_version} to {answer['table_version']}"
    )
    report(answers, began, began + took)
    check_rows(workspace, before, added=count // 2)
    check_recall(workspace, embedded)


def report(answers: list[Answer], began: float, ended: float) -> None:
    phases = {
        "quiet": [a for a in answers if a.began < began],
        "meanwhile": [a for a in answers if began <= a.began < ended],
        "after": [a for a in answers if a.began >= ended],
    }
    p99 = {}
    for phase, some in phases.items():
        ms = [a.ms for a in some] or [np.nan]
        p50, p99[phase], most = np.quantile(ms, (0.5, 0.99, 1.0))
        print(
            f"{phase:9} {len(some)} queries, p50 {p50:.1f} p99 {p99[phase]:.1f} longest {most:.1f} "
            f"ms, of {', '.join(sorted({a.version for a in some}))}"
        )
    errors = [a.error for a in answers if a.error]
    twice = sum(a.twice for a in answers)
    times = p99["meanwhile"] / p99["quiet"]
    say("errors a reader met", len(errors), "0", not errors)
    say("hits that stood twice in an answer", twice, "0", not twice)
    say("p99 meanwhile, of the quiet one", times, f"at most {TARGET_TIMES}", times <= TARGET_TIMES)
    for error in sorted(set(errors)):
        print(error)


def check_rows(workspace: Workspace, before: Build, *, added: int) -> None:
    """Counts the rows of the tables, independently of the checks before publishing."""
    live = live_build(workspace)
    for kind in ("tracks", "vectors"):
        table = lancedb.connect(workspace.db).open_table(table_name(kind, live.name))
        ids = table.search().select(["track_id"]).limit(table.count_rows()).to_arrow()["track_id"]
        distinct, right = pc.count_distinct(ids).as_py(), before.rows[kind] + added
        met = len(ids) == distinct == right
        say(f"distinct ids of {len(ids):,} rows in {kind}", distinct, f"{right:,}", met)


def check_recall(workspace: Workspace, held: int) -> None:
    """Checks the changed index like a new one, and also with vectors of the new tracks."""
    table = TrackTable(workspace.db, live_build(workspace))
    world = World(find_embeddings(workspace).made_by.dim, seed=QUERY_SEED)
    newcomers = table.vectors([track_id(held + number) for number in range(QUERIES)])
    queries = {"text": world.text(QUERIES), "audio": world.audio(QUERIES)}
    probes = TrialQueries(queries | {"newcomers": np.stack([*newcomers.values()])}, "made")
    right = {kind: exact_hits(table, vectors) for kind, vectors in probes.vectors.items()}
    target = SearchSpec().target_recall
    for kind, recall in try_index(table, probes, right).recall.items():
        say(
            f"recall@10 of {kind} queries afterwards",
            recall,
            f"at least {target}",
            recall >= target,
        )


def measure_freshness(workspace: Workspace, scratch: str) -> None:
    word = f"fresh{len(find_embeddings(workspace).done())}"  # in no title of an earlier run
    manifest = make_manifest(workspace, scratch, new=FEW, changed=0, title=word)
    stop, (ours, theirs) = SPAWN.Event(), SPAWN.Pipe()
    watcher = SPAWN.Process(target=watch, args=(workspace, word, theirs, stop), daemon=True)
    watcher.start()
    ours.recv()
    began = time.time()
    upsert(workspace, manifest)
    ended = time.time()
    if not ours.poll(60):
        stop.set()
    found = ours.recv()
    watcher.join()
    print(
        f"freshness: {FEW} tracks found {found - began:.1f} s after the command began, which ended "
        f"after {ended - began:.1f} s"
    )


def make_manifest(
    workspace: Workspace, scratch: str, *, new: int, changed: int, title: str = "Renamed"
) -> str:
    """A manifest of new tracks, embedded here, and of the first tracks of the catalog."""
    shards = find_embeddings(workspace)
    count = len(shards.done())
    world = World(shards.made_by.dim, seed=count)
    shards.take()
    write_shard(shards, world, count, new)
    shards.release()
    numbers = [*range(count, count + new), *range(changed)]
    ids = [track_id(number) for number in numbers]
    columns = {
        "track_id": ids,
        "uri": [uri(name) for name in ids[:new]] + [None] * changed,  # empty: unchanged
        "title": [f"{title} {number}" for number in numbers],
        "artist": [f"Newcomer {number % 997}" for number in numbers],
    }
    path = f"{scratch}/manifest-{count}.parquet"
    pq.write_table(pa.table(columns), path)
    return path


def upsert(workspace: Workspace, manifest: str) -> dict[str, Any]:
    command = ["index", "--workspace", workspace.root, "--upsert", manifest, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "jobs", *command],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def follow(searcher: Searcher) -> Searcher:
    """The searcher of the current live build."""
    if live_build(searcher.workspace) == searcher.build:
        return searcher
    return Searcher(searcher.workspace)


def read(workspace: Workspace, tell: Any, stop: Event) -> None:
    """Queries until the stop signal, then sends every answer."""
    searcher, rng, answers = Searcher(workspace), np.random.default_rng(3), []
    ids, _ = searcher.table.sample(1_000, rng)
    titles = [row["title"] for row in searcher.table.rows(ids, ["title"]).values()]
    turn = -10  # warm-up, not counted
    stopping = False
    while not stopping:
        stopping = stop.is_set()  # then sends one more query on the current build
        searches = {"like": [ids[turn % len(ids)]], "mode": "semantic"}
        request = searches if turn % 2 else {"text": titles[turn % len(titles)], "mode": "keyword"}
        began = time.time()
        try:
            searcher = follow(searcher)
            hits = [hit["track_id"] for hit in searcher.search(**request)["hits"]]
            twice, error = len(hits) - len(set(hits)), ""
        except Exception as fault:  # noqa: BLE001 - the reader met it, of any kind
            twice, error = 0, f"{type(fault).__name__}: {fault}"
        took_ms = 1e3 * (time.time() - began)
        if turn >= 0 or stopping:
            version = searcher.build.table_version
            answers.append(Answer(began, took_ms, version, twice, error))
        elif turn == -1:
            tell.send("ready")
        turn += 1
    tell.send(answers)


def watch(workspace: Workspace, word: str, tell: Any, stop: Event) -> None:
    """Queries a word until FEW tracks have it, then sends the time."""
    searcher = Searcher(workspace)
    tell.send("ready")
    hits: list[Any] = []
    while len(hits) < FEW and not stop.is_set():
        searcher = follow(searcher)
        hits = searcher.search(word, mode="keyword")["hits"]
        time.sleep(0.05)
    tell.send(time.time() if len(hits) >= FEW else float("nan"))


def say(what: str, value: float, target: str, met: bool) -> None:
    print(f"{'met ' if met else 'MISS'} {what}: {value:,.6g}, target {target}")


if __name__ == "__main__":
    main()
