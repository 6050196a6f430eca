"""The artist graph at TTMR++'s size and above: 10^4 artists, 10^7 pairs, joined to a catalog.

    python benchmarks/artist_graph.py [--artists 10000] [--edges 10000000] [--tracks 1000000]

Pairs are generated (popular artists have more), written as one Parquet file, and read back by the
function that `raymtr scan --artists` calls. Reports wall and CPU seconds of reading and of joining,
and the peak memory of this process. Generation runs in a separate process and is not included. The
lists of a few artists are then verified by counting again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from raymtr.catalog.similar_artists import MOST, join_similar_artists, read_graph
from raymtr.track import artist_key, check_tracks

CHECKED = 20  # artists verified by counting
T = TypeVar("T")


def generate(path: str, artists: int, edges: int) -> None:
    """`edges` scored pairs of `artists` names; low numbers are popular."""
    rng = np.random.default_rng(0)
    names = pa.array([f"The Artist No. {n} é" for n in range(artists)])
    left, right = (
        (artists * rng.power(0.7, edges)).astype(np.int32) for _ in ("artist", "similar_artist")
    )
    columns = {"artist": names.take(pa.array(left)), "similar_artist": names.take(pa.array(right))}
    pq.write_table(pa.table(columns | {"score": rng.random(edges)}), path)


def timed(what: str, run: Callable[[], T]) -> T:
    wall, cpu = time.perf_counter(), time.process_time()
    result = run()
    print(
        f"{what:20} {time.perf_counter() - wall:6.1f} s wall, {time.process_time() - cpu:6.1f} s "
        f"CPU, peak so far {peak_gib():.2f} GiB",
        flush=True,
    )
    return result


def peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def check(path: str, tracks: pa.Table, lists: list[list[str] | None]) -> bool:
    """Whether the lists of a few artists are the best of their pairs, counted one by one."""
    table = pq.read_table(path)
    left, right, scores = (
        table[name].to_numpy(zero_copy_only=False) for name in table.column_names
    )
    for row in np.linspace(0, len(tracks) - 1, CHECKED).astype(int):
        key = artist_key(tracks["artist"][int(row)].as_py())
        spelled = f"The Artist No. {key.split()[2]} é"
        best: dict[str, float] = {}
        for mine, other in ((left, right), (right, left)):
            for place in np.flatnonzero(mine == spelled):
                name = other[place]
                if name != spelled:
                    best[name] = max(scores[place], best.get(name, -1.0))
        wanted = sorted(best, key=lambda name: -best[name])[:MOST]
        if (lists[int(row)] or []) != wanted:
            return False
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--artists", type=int, default=10_000)
    parser.add_argument("--edges", type=int, default=10_000_000)
    parser.add_argument("--tracks", type=int, default=1_000_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "graph.parquet")
        maker = multiprocessing.get_context("spawn").Process(
            target=generate, args=(path, arguments.artists, arguments.edges)
        )
        maker.start()
        maker.join()
        numbers = np.random.default_rng(1).integers(arguments.artists, size=arguments.tracks)
        names = pa.array([f"artist no. {n} e" for n in range(arguments.artists)])
        ids = pa.array([f"t{n:07d}" for n in range(arguments.tracks)])
        tracks = check_tracks(pa.table({"track_id": ids, "artist": names.take(pa.array(numbers))}))
        print(
            f"{arguments.artists} artists, {arguments.edges} pairs, {arguments.tracks} tracks; "
            f"{peak_gib():.2f} GiB before reading"
        )
        graph = timed("read", lambda: read_graph(path))
        joined, matched = timed("join", lambda: join_similar_artists(tracks, graph))
        sample = joined.take(np.linspace(0, arguments.tracks - 1, CHECKED).astype(int))
        right = check(path, sample, sample["similar_artists"].to_pylist())
    print(
        f"{matched.found} of {matched.artists} artists found; {CHECKED} lists counted by hand: "
        f"{'the same' if right else 'OTHERS'}"
    )
    return int(not right)


if __name__ == "__main__":
    sys.exit(main())
