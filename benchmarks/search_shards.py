"""Search in table shards against one table: the same hits, recall, and CPU per query.

    python benchmarks/search_shards.py [--tracks 1000000] [--shards 4] [--keep FOLDER]

The catalog and the vectors are those of `index_scale.py`. They are published in one piece, then in
shards, and both are asked by the same searcher in this process, without a network. "Alone" is the
sum of what the shards' look-ups cost when each shard is asked by itself, without the merge.

Target: the hits of vectors, filters and names are those of one table where both are exact; recall
is at least 0.99; a query costs at most 1.3 times the CPU of the shards alone.
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
RECALL, CPU = 0.99, 1.3
LIMIT = 100  # of a retriever, for a page of ten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--exact-below", type=int, default=SearchSpec().exact_below)
    parser.add_argument("--keep", help="a folder for the workspace; else a temporary one")
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
        compare(figures, one, sharded, parts, looks(workspace))
    figures.save()


def build_of(workspace: Workspace, search: SearchSpec) -> Build:
    """A published build of the workspace's catalog."""
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    return publish(workspace, [tracks], find_embeddings(workspace), search=search)


def looks(workspace: Workspace) -> dict[str, Callable[[TrackTable, int], Any]]:
    """The look-ups that are compared, by name, each of a table and the number of a query."""
    vectors = World(DIM, seed=QUERY_SEED).text(QUERIES)
    rows = storage.read_tables(workspace.tracks, ["track_id", "title", "artist", "year", "tags"])
    some = rows.take(np.random.default_rng(0).integers(0, len(rows), QUERIES)).to_pylist()
    texts = [" ".join(row["tags"][:3]) for row in some]
    names = [f"{row['title']} {row['artist']}" for row in some]

    def filtered(table: TrackTable, n: int) -> Any:
        where = parse_filter(f"year = {some[n]['year']}", table.filterable)
        return table.nearest(vectors[n], limit=LIMIT, where=where)

    return {
        "vectors": lambda t, n: t.nearest(vectors[n], limit=LIMIT),
        "vectors and a filter": filtered,
        "names": lambda t, n: t.match_names(names[n], limit=LIMIT),
        "words": lambda t, n: t.match_words(texts[n], limit=LIMIT),
    }


def compare(
    figures: Figures,
    one: TrackTable,
    sharded: TrackTable,
    parts: Sequence[TrackTable],
    looks: dict[str, Callable[[TrackTable, int], Any]],
) -> None:
    """Hits, recall and CPU of each look-up."""
    for name, look in looks.items():
        expected, single_ms = asked(lambda n, look=look: look(one, n))
        found, fanned_ms = asked(lambda n, look=look: look(sharded, n))
        _, alone_ms = asked(lambda n, look=look: [look(part, n) for part in parts])
        figures.add(f"{name}: same first {HITS}", shared(expected, found))
        figures.add(f"{name}: CPU of one table", single_ms, unit="ms")
        figures.add(f"{name}: CPU of the shards alone", alone_ms, unit="ms")
        ratio = fanned_ms / alone_ms
        figures.add(f"{name}: CPU, of that alone", ratio, asked=f"at most {CPU}", met=ratio <= CPU)
        if name == "vectors":
            ids, matrix = one.all_vectors()
            vectors = World(DIM, seed=QUERY_SEED).text(QUERIES)
            right = [
                [(ids[place], 0.0) for place in np.argpartition(-(matrix @ vector), HITS)[:HITS]]
                for vector in vectors
            ]
            recall = shared(right, found)
            figures.add(
                f"recall@{HITS} in shards", recall, asked=f"at least {RECALL}", met=recall >= RECALL
            )


def asked(run: Callable[[int], Any]) -> tuple[list[Any], float]:
    """What the QUERIES return the second time, and their CPU in milliseconds a query."""
    for number in range(QUERIES):
        run(number)
    busy = time.process_time()
    answers = [run(number) for number in range(QUERIES)]
    return answers, 1e3 * (time.process_time() - busy) / QUERIES


def shared(expected: Sequence[Any], found: Sequence[Any]) -> float:
    """The share of the first HITS that both lists have."""
    pairs = zip(expected, found, strict=True)
    both = [({i for i, _ in a[:HITS]}, {i for i, _ in b[:HITS]}) for a, b in pairs]
    return sum(len(a & b) for a, b in both) / max(sum(len(a) for a, _ in both), 1)


if __name__ == "__main__":
    main()
