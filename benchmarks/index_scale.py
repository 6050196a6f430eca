"""A catalog of N tracks as tables: load, index, tune, search; against exact numpy in the same run.

    python benchmarks/index_scale.py --tracks 1000000 [--dim 128] [--partitions 4] [--keep FOLDER]
                                     [--workers 2]

The vectors are synthetic. Tracks lie around CENTRES directions of unequal weight. Text-like queries
lie off that distribution, as text vectors do, by a common shift and individual noise. Titles,
artists and tags are those of ../shared/data/mtg-jamendo, repeated with a number appended, or
numbers alone if that folder is absent. Recall is against an exact scan. Latency is one query at a
time on one thread of ours. CPU is of the whole process, the median of ROUNDS. Results on real
vectors may differ: the index is tuned on its own data, and reports the result.

The catalog is loaded in `--partitions`, by default as many as `embed` makes at this size.

With `--workers` the same catalog is indexed twice, by one process and by so many worker processes,
and nothing else is measured: CPU seconds, peak memory of each process, recall. The workers are
processes of this machine in the place of Ray tasks, and do the same units of work.

At the end the figures are printed next to the `raymtr plan` of a catalog of this size; the target
is within 30 %. The other benchmarks of the index reuse the folder that --keep names.
"""

from __future__ import annotations

import argparse
import csv
import os
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple, Self

import lancedb
import numpy as np
import pyarrow as pa

from jobs.build_index import parts_to_read
from raymtr import storage
from raymtr.capacity import Wanted, plan_capacity
from raymtr.embeddings.rewrite import partition_shards
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef, find_embeddings
from raymtr.index.build import table_name
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import live_build, publish, roll_back
from raymtr.index.track_table import TrackTable
from raymtr.index.tune import exact_hits
from raymtr.index.work import Item, Result, in_this_process
from raymtr.partitions import partition_count
from raymtr.specs import SearchSpec
from raymtr.track import SCHEMA, check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

CENTRES, SPREAD, SHIFT = 2_000, 0.7, 0.6
SHARD_ROWS = 100_000
QUERIES, ROUNDS, HITS = 200, 5, 10
IN_MEMORY = 3_000_000  # tracks whose vectors are compared in memory, as float32
INDEXED_SEED, QUERY_SEED = 1, 2  # seeds: of the tracks' vectors, of the queries
WITHIN = 0.3  # tolerance of a plan
Search = Callable[[np.ndarray], list[str]]
TITLED = Path(__file__).resolve().parents[2] / "shared/data/mtg-jamendo/titled_catalogue.tsv"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--partitions", type=int)
    parser.add_argument("--workers", type=int, help="compare one process with so many")
    parser.add_argument("--keep", help="a folder for the workspace; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.open(f"{arguments.keep or scratch}/w", create=True)
        fill_apart(workspace, arguments.tracks, arguments.dim)
        divide(workspace, arguments.partitions or partition_count(arguments.tracks))
        if arguments.workers:
            compare_ways(workspace.root, arguments.dim, arguments.workers)
        else:
            run(workspace, World(arguments.dim, seed=QUERY_SEED), arguments.tracks)


def published(folder: str, count: int, dim: int) -> Workspace:
    """The workspace in `folder`, filled and published if it is not."""
    workspace = Workspace.open(f"{folder}/w", create=True)
    if not storage.exists(workspace.live_pointer):
        fill_apart(workspace, count, dim)
        tracks = tracks_table(storage.read_tables(workspace.tracks), None)
        publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec())
    return workspace


def fill_apart(workspace: Workspace, count: int, dim: int) -> None:
    """`fill` in a separate process, so that its memory is not counted for the index."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(fill, workspace, count, dim).result()


def fill(workspace: Workspace, count: int, dim: int) -> None:
    """Catalog and embeddings of `count` tracks."""
    storage.replace_tables(workspace.tracks, catalog(count))
    world = World(dim, seed=INDEXED_SEED)
    made_by = ModelRef(fingerprint="made", precision="fp32", dim=dim)
    shards = EmbeddingStore(workspace.embeddings("made"), made_by)
    shards.take()
    for start in range(0, count, SHARD_ROWS):
        write_shard(shards, world, start, min(SHARD_ROWS, count - start))
    shards.release()


def divide(workspace: Workspace, partitions: int) -> None:
    """Distribute the shards over partitions, as `embed` does."""
    shards = find_embeddings(workspace)
    if partitions > 1:
        shards.take()
        partition_shards(shards, partitions)
        shards.note(partitions=partitions)
        shards.release()
    print(f"partitions: {partitions}")


def run(workspace: Workspace, world: World, count: int) -> None:
    shards = find_embeddings(workspace)
    clock = Clock()
    build = publish(workspace, parts_to_read(workspace, shards), shards, search=SearchSpec())
    took_s, took_core_s = clock.read()
    print(f"load, indices, tuning and gate: {took_s:.0f} s, {took_core_s:.0f} CPU-s; {build.index}")
    print(f"trial: {build.trial}")
    disk_mb = sum(f.stat().st_size for f in Path(workspace.db).rglob("*") if f.is_file()) / 1e6
    raw_mb = count * world.dim * 2 / 1e6
    print(f"disk {disk_mb:.0f} MB; raw vectors as float16 {raw_mb:.0f} MB")
    print(f"peak memory {peak_gb():.2f} GB")
    measured = {
        "load and index, s": took_s,
        "load and index, CPU-s": took_core_s,
        "disk, MB": disk_mb,
        "peak memory, GB": peak_gb(),
    } | compare(TrackTable(workspace.db, build), world)
    few = [read().slice(0, 1000) for read in parts_to_read(workspace, shards)]
    second = publish(workspace, few, shards, search=SearchSpec())
    began = time.perf_counter()
    roll_back(workspace)
    print(f"rollback {1e3 * (time.perf_counter() - began):.1f} ms")
    assert live_build(workspace).name == build.name != second.name
    judge_plan(measured, count, world.dim, exact=build.index.kind == "exact")


class Way(NamedTuple):
    """What a build took: peak memory of each process, the one that commits first."""

    seconds: float
    core_s: float
    peaks_gb: list[float]
    segments: int
    recall: dict[str, float]


class Processes:
    """A mapper whose workers are processes of one core; it keeps what each of them used."""

    def __init__(self, workers: int) -> None:
        self._pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
        self.used: dict[int, tuple[float, float]] = {}  # by process: CPU seconds, peak GB

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()

    def __call__(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        answers = []
        for process, core_s, peak_gb, answer in self._pool.map(
            in_a_worker, [work] * len(items), items
        ):
            known_s, known_gb = self.used.get(process, (0.0, 0.0))
            self.used[process] = max(known_s, core_s), max(known_gb, peak_gb)
            answers.append(answer)
        return answers


def in_a_worker(work: Callable[[Item], Result], item: Item) -> tuple[int, float, float, Result]:
    os.environ.setdefault("LANCE_CPU_THREADS", "1")
    answer = work(item)
    return os.getpid(), time.process_time(), peak_gb(), answer


def peak_gb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def compare_ways(root: str, dim: int, workers: int) -> None:
    """Prints what a build takes by one process, and by workers."""
    ways = {}
    for count in (1, workers):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            way = ways[count] = pool.submit(build_apart, root, dim, count).result()
        peaks = ", ".join(f"{peak:.2f}" for peak in way.peaks_gb)
        recall = ", ".join(f"{kind} {share:.4f}" for kind, share in way.recall.items())
        print(
            f"workers {count}: {way.seconds:.0f} s, {way.core_s:.0f} CPU-s, peaks {peaks} GB, "
            f"{way.segments} segments of vectors, recall@10 {recall}"
        )
    print(f"CPU-s of workers against one process: {ways[workers].core_s / ways[1].core_s:.2f}x")


def build_apart(root: str, dim: int, workers: int) -> Way:
    """One build and its recall."""
    workspace = Workspace.open(root)
    shards = find_embeddings(workspace)
    search = replace(SearchSpec(), index_workers=workers)
    parts = parts_to_read(workspace, shards)
    clock = Clock()
    with Processes(workers) as processes:
        mapper = processes if workers > 1 else in_this_process
        build = publish(workspace, parts, shards, search=search, mapper=mapper)
    seconds, core_s = clock.read()
    peaks = [peak_gb(), *(peak for _, peak in processes.used.values())]
    core_s += sum(one_s for one_s, _ in processes.used.values())
    table = lancedb.connect(workspace.db).open_table(table_name("vectors", build.name))
    [segments] = [
        index.num_segments for index in table.list_indices() if index.columns == ["vector"]
    ]
    recall = recall_of(TrackTable(workspace.db, build), World(dim, seed=QUERY_SEED))
    return Way(seconds, core_s, peaks, segments, recall)


def recall_of(table: TrackTable, world: World) -> dict[str, float]:
    """Recall@10 by kind of query against an exact scan."""
    names, matrix = table.all_vectors()
    found = {}
    for kind in ("audio", "text"):
        queries = getattr(world, kind)(QUERIES)
        best = np.argpartition(-(matrix @ queries.T), HITS, axis=0)[:HITS]
        hits = [
            {names[row] for row in rows} & {i for i, _ in table.nearest(query, limit=HITS)}
            for rows, query in zip(best.T, queries, strict=True)
        ]
        found[kind] = sum(map(len, hits)) / (HITS * QUERIES)
    return found


def judge_plan(measured: dict[str, float], count: int, dim: int, *, exact: bool) -> None:
    """Prints the `raymtr plan` of this size, one window per track, next to the measurements."""
    plan = plan_capacity(
        Wanted(tracks=count, hours=24, minutes_per_track=1 / 6, dim=dim), exact=exact
    )
    planned = {
        "load and index, s": plan["build_hours"] * 3600,
        "load and index, CPU-s": plan["build_core_hours"] * 3600,
        "disk, MB": 1e3 * (plan["disk_gb"]["all"] - plan["disk_gb"]["embeddings"]),
        "peak memory, GB": plan["build_memory_gb"],
    } | {f"a query ({kind}), CPU-ms": ms for kind, ms in plan["query_core_ms"].items()}
    for what, value in planned.items():
        off = value / measured[what] - 1
        verdict = "ok" if abs(off) <= WITHIN else "MISS"
        print(f"plan: {what}: {value:.3g}, measured {measured[what]:.3g}: {off:+.0%} {verdict}")


class Clock:
    """Seconds, and CPU seconds of this process, since its creation."""

    def __init__(self) -> None:
        self._began, self._busy = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._began, time.process_time() - self._busy


class World:
    """The distribution of the synthetic vectors."""

    def __init__(self, dim: int, *, seed: int) -> None:
        self.rng, self.dim = np.random.default_rng(seed), dim
        rng = np.random.default_rng(0)
        self.centres = unit(rng.standard_normal((CENTRES, dim)))
        weights = 1 / np.arange(1, CENTRES + 1) ** 0.7
        self.weights = weights / weights.sum()
        self.shift = unit(rng.standard_normal((1, dim)))

    def audio(self, count: int) -> np.ndarray:
        """Unit vectors [count, D] around the centres."""
        around = self.centres[self.rng.choice(CENTRES, count, p=self.weights)]
        noise = self.rng.standard_normal((count, self.dim), dtype=np.float32)
        return unit(around + SPREAD * noise / np.sqrt(self.dim))

    def text(self, count: int) -> np.ndarray:
        """Such vectors, shifted as text vectors are: by a common shift and individual noise."""
        noise = self.rng.standard_normal((count, self.dim)) / np.sqrt(self.dim)
        return unit(self.audio(count) + SHIFT * self.shift + SHIFT * noise)


def write_shard(shards: EmbeddingStore, world: World, start: int, rows: int) -> None:
    """One committed shard of `rows` tracks of one window each."""
    vectors = world.audio(rows)
    lists = pa.ListArray.from_arrays(
        np.arange(0, rows * world.dim + 1, world.dim, dtype=np.int32), vectors.reshape(-1)
    )
    ones = np.arange(rows + 1, dtype=np.int32)
    ids = [track_id(start + n) for n in range(rows)]
    columns = {
        "track_id": ids,
        "uri": [uri(name) for name in ids],
        "file_version": pa.nulls(rows, pa.string()),
        "audio_digest": pa.nulls(rows, pa.string()),
        "seconds": pa.array(np.full(rows, 10.0)),
        "starts_s": pa.ListArray.from_arrays(ones, np.zeros(rows)),
        "ends_s": pa.ListArray.from_arrays(ones, np.full(rows, 10.0)),
        "vector": lists,
        "windows": lists,
        "code": pa.nulls(rows, pa.string()),
        "reason": pa.nulls(rows, pa.string()),
    }
    shards.commit(pa.table(columns, schema=EMBEDDED_SCHEMA))


def track_id(number: int) -> str:
    return f"t{number:08d}"


def uri(name: str) -> str:
    return f"/made/{name}.mp3"


def catalog(count: int) -> pa.Table:
    numbers = range(count)
    ids = [track_id(n) for n in numbers]
    columns = {
        "track_id": ids,
        "uri": [uri(name) for name in ids],
        "year": pa.array(1950 + np.arange(count) % 75, pa.int32()),
    }
    if TITLED.exists():
        with open(TITLED, newline="", encoding="utf-8") as table:
            known = list(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE))
        rows = [(known[n % len(known)], n // len(known)) for n in numbers]
        columns |= {
            "title": [f"{row['title']} {take}" if take else row["title"] for row, take in rows],
            "artist": [f"{row['artist']} {take}" if take else row["artist"] for row, take in rows],
            "duration": [float(row["duration"]) for row, _ in rows],
            "tags": [tags_of(row) for row, _ in rows],
        }
    else:
        print(f"no {TITLED}: titles, artists and tags are numbers")
        columns |= {
            "title": [f"Song {n % 70_001} of Night {n % 313}" for n in numbers],
            "artist": [f"Artist {n % 19_997}" for n in numbers],
            "tags": [[f"genre {n % 40}", f"mood {n % 23}"] for n in numbers],
        }
    return check_tracks(pa.table(columns, schema=pa.schema([SCHEMA.field(n) for n in columns])))


def tags_of(row: dict[str, str]) -> list[str]:
    kinds = ("genre", "instrument", "mood_theme")
    return [tag for kind in kinds for tag in row[kind].split(",") if tag]


def compare(table: TrackTable, world: World) -> dict[str, float]:
    """Our index and exact numpy: recall, latency; the CPU of our queries.

    Above IN_MEMORY tracks the exact hits are found by a scan in batches, and numpy is not timed.
    """
    if table.build.rows["vectors"] > IN_MEMORY:
        return compare_by_scan(table, world)
    names, matrix = table.all_vectors()
    ids = np.array(names)

    def numpy_exact(query: np.ndarray) -> list[str]:
        scores = matrix @ query
        best = np.argpartition(-scores, HITS)[:HITS]
        return list(ids[best[np.argsort(-scores[best])]])

    def index(query: np.ndarray) -> list[str]:
        return [track for track, _ in table.nearest(query, limit=HITS)]

    kinds = ("audio", "text")
    queries = {kind: [getattr(world, kind)(QUERIES) for _ in range(ROUNDS)] for kind in kinds}
    rounds: dict[str, list[Round]] = {kind: [] for kind in kinds}
    for number in range(ROUNDS):  # kinds in turn: a second of noise affects one of many rounds
        for kind in kinds:
            rounds[kind].append(one_round(index, numpy_exact, queries[kind][number]))
    cpu_ms = {}
    for kind, done in rounds.items():
        ms, exact_ms = (np.concatenate([getattr(r, n) for r in done]) for n in ("ms", "exact_ms"))
        core_ms = sorted(one.core_ms for one in done)
        cpu_ms[f"a query ({kind}), CPU-ms"] = float(np.median(core_ms))
        print(
            f"{kind:5} recall@10 {np.mean([one.recall for one in done]):.4f} | index p50 "
            f"{np.median(ms):.2f} p95 {np.quantile(ms, 0.95):.2f} p99 {np.quantile(ms, 0.99):.2f} "
            f"ms, CPU-ms {np.median(core_ms):.2f} ({core_ms[0]:.2f} to {core_ms[-1]:.2f} of "
            f"{ROUNDS} rounds) | numpy exact p50 {np.median(exact_ms):.2f} ms, "
            f"{np.median([one.exact_core_ms for one in done]):.2f} CPU-ms"
        )
    return cpu_ms


def compare_by_scan(table: TrackTable, world: World) -> dict[str, float]:
    """As `compare`, of a table whose vectors do not fit in memory."""
    cpu_ms = {}
    for kind in ("audio", "text"):
        queries = getattr(world, kind)(QUERIES)
        right = exact_hits(table, queries)
        found, ms, core_ms = timed(
            lambda query: [track for track, _ in table.nearest(query, limit=HITS)], queries
        )
        recall = np.mean([len({*a} & b) / HITS for a, b in zip(found, right, strict=True)])
        print(
            f"{kind:5} recall@10 {recall:.4f} | index p50 {np.median(ms):.2f} "
            f"p95 {np.quantile(ms, 0.95):.2f} ms, CPU-ms {core_ms:.2f}"
        )
        cpu_ms[f"a query ({kind}), CPU-ms"] = core_ms
    return cpu_ms


class Round(NamedTuple):
    """QUERIES queries by the index and by numpy: ms of each query, mean CPU ms per query."""

    recall: float
    ms: list[float]
    core_ms: float
    exact_ms: list[float]
    exact_core_ms: float


def one_round(index: Search, exact: Search, queries: np.ndarray) -> Round:
    """Both measured, one after the other."""
    right, exact_ms, exact_core_ms = timed(exact, queries)
    found, ms, core_ms = timed(index, queries)
    recall = np.mean([len({*a} & {*b}) / HITS for a, b in zip(right, found, strict=True)])
    return Round(float(recall), ms, core_ms, exact_ms, exact_core_ms)


def timed(search: Search, queries: np.ndarray) -> tuple[list[list[str]], list[float], float]:
    """Answers, milliseconds of each, mean CPU milliseconds per query."""
    search(queries[0])
    answers, times = [], []
    busy = time.process_time()
    for query in queries:
        began = time.perf_counter()
        answers.append(search(query))
        times.append(1e3 * (time.perf_counter() - began))
    return answers, times, 1e3 * (time.process_time() - busy) / len(queries)


if __name__ == "__main__":
    main()
