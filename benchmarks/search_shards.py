"""Search in table shards against one table: the same hits, recall, and CPU per query.

    python benchmarks/search_shards.py [--tracks 1000000] [--shards 4] [--keep FOLDER]

The catalog and the vectors are those of `index_scale.py`. They are published as one table, then in
shards. Both are queried in this process, without a network. "Shards alone" is the sum of the CPU of
the shards' look-ups without the merge.

Target: the hits of vectors, filters and names equal those of one table if both are exact; recall is
at least 0.99; a query costs at most 1.3 times the CPU of the shards alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from figures import Figures
from index_scale import HITS, QUERY_SEED, World, published

from raymtr import storage
from raymtr.embeddings.store import find_embeddings
from raymtr.index.build import Build
from raymtr.index.build_tables import tracks_table
from raymtr.index.filters import parse_filter
from raymtr.index.publish import publish
from raymtr.index.sharded_table import open_table
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

QUERIES, DIM = 100, 128
RECALL, CPU_RATIO = 0.99, 1.3  # targets
RANKED, TIE = 50_000, 0.01  # hits of one table whose scores are compared; equal within a hundredth
LookUp = Callable[[TrackTable, int, int], Any]
LIMIT = 100  # hits of a retriever, for a page of ten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--exact-below", type=int, default=SearchSpec().exact_below)
    parser.add_argument("--keep", help="folder for the workspace; temporary by default")
    arguments = parser.parse_args()
    figures = Figures()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = published(arguments.keep or scratch, arguments.tracks, DIM)
        search = SearchSpec(exact_below=arguments.exact_below)
        whole = build_of(workspace, search)
        build = build_of(workspace, replace(search, shards=arguments.shards))
        one, sharded = (open_table(workspace.db, each) for each in (whole, build))
        parts = [TrackTable(workspace.db, part) for part in build.shards]
        figures.add("tracks", float(arguments.tracks))
        figures.add("shards", float(len(parts)))
        figures.add("index of one table, of a shard", f"{one.build.index.kind}, {build.index.kind}")
        compare(figures, one, sharded, parts, look_ups(workspace))
    figures.save()


def build_of(workspace: Workspace, search: SearchSpec) -> Build:
    """A published build of the workspace's catalog."""
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    return publish(workspace, [tracks], find_embeddings(workspace), search=search)


def look_ups(workspace: Workspace) -> dict[str, LookUp]:
    """The compared look-ups by name: functions of a table, the number of a query and a limit."""
    vectors = World(DIM, seed=QUERY_SEED).text(QUERIES)
    rows = storage.read_tables(workspace.tracks, ["track_id", "title", "artist", "year", "tags"])
    sample = rows.take(np.random.default_rng(0).integers(0, len(rows), QUERIES)).to_pylist()
    texts = [" ".join(row["tags"][:3]) for row in sample]
    names = [f"{row['title']} {row['artist']}" for row in sample]

    def filtered(table: TrackTable, n: int, limit: int) -> Any:
        where = parse_filter(f"year = {sample[n]['year']}", table.filterable)
        return table.nearest(vectors[n], limit=limit, where=where)

    return {
        "vectors": lambda t, n, limit: t.nearest(vectors[n], limit=limit),
        "vectors and a filter": filtered,
        "names": lambda t, n, limit: t.match_names(names[n], limit=limit),
        "words": lambda t, n, limit: t.match_words(texts[n], limit=limit),
    }


def compare(
    figures: Figures,
    one: TrackTable,
    sharded: TrackTable,
    parts: Sequence[TrackTable],
    look_ups_by_name: dict[str, LookUp],
) -> None:
    """Hits, recall and CPU of each look-up."""
    for name, look in look_ups_by_name.items():
        expected, single_ms = measure(lambda n, look=look: look(one, n, LIMIT))
        found, sharded_ms = measure(lambda n, look=look: look(sharded, n, LIMIT))
        _, alone_ms = measure(lambda n, look=look: [look(part, n, LIMIT) for part in parts])
        figures.add(f"{name}: same first {HITS}", shared(expected, found))
        ranked = [look(one, n, RANKED) for n in range(QUERIES)]
        figures.add(f"{name}: same first {HITS} up to ties", up_to_ties(ranked, found))
        figures.add(f"{name}: CPU of one table", single_ms, unit="ms")
        figures.add(f"{name}: CPU of the shards alone", alone_ms, unit="ms")
        ratio, most = sharded_ms / alone_ms, f"at most {CPU_RATIO}"
        figures.add(f"{name}: CPU, of that alone", ratio, asked=most, met=ratio <= CPU_RATIO)
        if name == "vectors":
            ids, matrix = one.all_vectors()
            vectors = World(DIM, seed=QUERY_SEED).text(QUERIES)
            exact = [
                [(ids[place], 0.0) for place in np.argpartition(-(matrix @ vector), HITS)[:HITS]]
                for vector in vectors
            ]
            recall = shared(exact, found)
            figures.add(
                f"recall@{HITS} in shards", recall, asked=f"at least {RECALL}", met=recall >= RECALL
            )


def measure(run: Callable[[int], Any]) -> tuple[list[Any], float]:
    """The results of QUERIES in a second, warm pass, and the CPU milliseconds per query."""
    for number in range(QUERIES):
        run(number)
    started = time.process_time()
    results = [run(number) for number in range(QUERIES)]
    return results, 1e3 * (time.process_time() - started) / QUERIES


def shared(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """The mean share of the first HITS that are in both lists."""
    pairs = zip(expected, found, strict=True)
    both = [({i for i, _ in a[:HITS]}, {i for i, _ in b[:HITS]}) for a, b in pairs]
    return sum(len(a & b) for a, b in both) / max(sum(len(a) for a, _ in both), 1)


def up_to_ties(ranked: Sequence[Any], found: Sequence[Any]) -> float:
    """The mean share of the first HITS that one table scores as high as its own HITS-th hit.

    `ranked` are the long lists of one table, (track id, score), best first. Scores that differ by
    less than TIE of the best count as equal. An id that is not in the list counts as a miss.
    """
    shares = []
    for longer, hits in zip(ranked, found, strict=True):
        scores, last = dict(longer), longer[:HITS][-1][1]
        least = last - TIE * abs(longer[0][1])
        good = sum(scores.get(track_id, -np.inf) >= least for track_id, _ in hits[:HITS])
        shares.append(good / len(longer[:HITS]))
    return float(np.mean(shares))


if __name__ == "__main__":
    main()
