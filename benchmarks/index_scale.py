"""A catalog of N tracks as tables: load, index, tune, search; against exact numpy in the same run.

    python benchmarks/index_scale.py --tracks 1000000 [--dim 128] [--keep FOLDER]

The vectors are made: tracks lie around CENTRES directions of unequal weight, and text-like queries
lie off that distribution, as words do, by a shift common to all and noise of their own. Metadata
grows from nothing but numbers. Recall is against an exact scan; latency is one query at a time on
one thread of ours; CPU is of the whole process. What a catalog of real vectors gives may differ:
the index is tuned on whatever it holds, and says what it found.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import live_build, publish, roll_back
from raymtr.index.shards import MadeBy, Shards
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.track import SCHEMA, check_tracks
from raymtr.workspace import Workspace

CENTRES, SPREAD, SHIFT = 2_000, 0.7, 0.6
SHARD_ROWS = 100_000
QUERIES, HITS = 200, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--keep", help="a folder for the workspace; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = Workspace.open(f"{arguments.keep or scratch}/w", create=True)
        run(workspace, arguments.tracks, arguments.dim)


def run(workspace: Workspace, count: int, dim: int) -> None:
    rng = np.random.default_rng(0)
    world = World(dim, rng)
    shards = Shards(
        workspace.embeddings("made"), MadeBy(fingerprint="made", precision="fp32", dim=dim)
    )
    shards.take()
    for start in range(0, count, SHARD_ROWS):
        write_shard(shards, world, start, min(SHARD_ROWS, count - start))
    shards.release()
    began, busy = time.perf_counter(), time.process_time()
    tracks = tracks_table(catalog(count), None)
    print(f"words and names of {count:,} tracks: {time.perf_counter() - began:.0f} s")
    began, busy = time.perf_counter(), time.process_time()
    build = publish(workspace, tracks, shards, search=SearchSpec())
    print(
        f"load, indices, tuning and gate: {time.perf_counter() - began:.0f} s, "
        f"{time.process_time() - busy:.0f} CPU-s; {build.index}"
    )
    print(f"trial: {build.trial}")
    size = sum(f.stat().st_size for f in Path(workspace.db).rglob("*") if f.is_file())
    print(f"disk {size / 1e6:.0f} MB; raw vectors as float16 {count * dim * 2 / 1e6:.0f} MB")
    compare(TrackTable(workspace.db, build), world)
    again = publish(workspace, tracks.slice(0, 1000), shards, search=SearchSpec())
    began = time.perf_counter()
    roll_back(workspace)
    print(f"rollback {1e3 * (time.perf_counter() - began):.1f} ms")
    assert live_build(workspace).name == build.name != again.name
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.2f} GB")


class World:
    """Where made vectors lie."""

    def __init__(self, dim: int, rng: np.random.Generator) -> None:
        self.rng, self.dim = rng, dim
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
        """Such vectors, moved as words are: all one way, and each its own."""
        noise = self.rng.standard_normal((count, self.dim)) / np.sqrt(self.dim)
        return unit(self.audio(count) + SHIFT * self.shift + SHIFT * noise)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def write_shard(shards: Shards, world: World, start: int, rows: int) -> None:
    """One committed shard of `rows` tracks of one window each."""
    from raymtr.index.shards import EMBEDDED

    vectors = world.audio(rows)
    lists = pa.ListArray.from_arrays(
        np.arange(0, rows * world.dim + 1, world.dim, dtype=np.int32), vectors.reshape(-1)
    )
    ones = np.arange(rows + 1, dtype=np.int32)
    ids = pa.array([f"t{start + n:08d}" for n in range(rows)])
    columns = {
        "track_id": ids,
        "uri": ids,
        "file_version": pa.nulls(rows, pa.string()),
        "starts_s": pa.ListArray.from_arrays(ones, np.zeros(rows)),
        "ends_s": pa.ListArray.from_arrays(ones, np.full(rows, 10.0)),
        "vector": lists,
        "windows": lists,
        "code": pa.nulls(rows, pa.string()),
        "reason": pa.nulls(rows, pa.string()),
    }
    shards.commit(pa.table(columns, schema=EMBEDDED))


def catalog(count: int) -> pa.Table:
    ids = [f"t{n:08d}" for n in range(count)]
    columns = {
        "track_id": ids,
        "uri": ids,
        "title": [f"Song {n % 70_001} of Night {n % 313}" for n in range(count)],
        "artist": [f"Artist {n % 19_997}" for n in range(count)],
        "year": pa.array(1950 + np.arange(count) % 75, pa.int32()),
        "tags": [[f"genre {n % 40}", f"mood {n % 23}"] for n in range(count)],
    }
    return check_tracks(pa.table(columns, schema=pa.schema([SCHEMA.field(n) for n in columns])))


def compare(table: TrackTable, world: World) -> None:
    """Our index and exact numpy, query by query in turn: recall, latency, CPU."""
    _, matrix = table.all_vectors()
    ids = np.array([f"t{n:08d}" for n in range(len(matrix))])

    def numpy_exact(query: np.ndarray) -> list[str]:
        scores = matrix @ query
        best = np.argpartition(-scores, HITS)[:HITS]
        return list(ids[best[np.argsort(-scores[best])]])

    def index(query: np.ndarray) -> list[str]:
        return [track for track, _ in table.nearest(query, limit=HITS)]

    for kind in ("audio", "text"):
        queries = getattr(world, kind)(QUERIES)
        exact, exact_ms, exact_cpu = timed(numpy_exact, queries)
        found, ms, cpu = timed(index, queries)
        recall = np.mean([len(set(a) & set(b)) / HITS for a, b in zip(exact, found, strict=True)])
        print(
            f"{kind:5} recall@10 {recall:.4f} | index p50 {np.median(ms):.2f} p95 "
            f"{np.quantile(ms, 0.95):.2f} p99 {np.quantile(ms, 0.99):.2f} ms, {cpu:.2f} CPU-ms | "
            f"numpy exact p50 {np.median(exact_ms):.2f} ms, {exact_cpu:.2f} CPU-ms"
        )


def timed(
    search: Callable[[np.ndarray], list[str]], queries: np.ndarray
) -> tuple[list[list[str]], list[float], float]:
    """Answers, milliseconds of each, CPU milliseconds of one on average."""
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
