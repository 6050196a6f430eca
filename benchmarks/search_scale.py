"""A whole search over 10^6 tracks: time by kind of query, filter selectivity and retriever.

    python benchmarks/search_scale.py [--tracks 1000000] [--keep FOLDER]

The catalog, vectors and text-like queries are those of `index_scale.py`; FOLDER may be one that it
or this script filled before. The sentence of a query is not encoded: its vector is given. The time
therefore covers understanding, search, fusion and the rows of ten hits, with one client. For each
filter it also shows LanceDB called directly with its defaults (20 probes, no refinement), and the
recall of both against an exact scan of the rows that pass the filter.

Target: the fusion of four retrievers takes at most 1.5 times its slowest retriever alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
from index_scale import HITS, QUERY_SEED, World, published

from raymtr import storage
from raymtr.index.build import table_name
from raymtr.index.filters import parse_filter
from raymtr.index.track_table import TrackTable
from raymtr.search.contract import SearchRequest
from raymtr.search.plan import Encoded
from raymtr.search.request import check_request
from raymtr.search.retrievers import QueryVector, retrieve
from raymtr.search.searcher import Searcher
from raymtr.search.understand import understand

QUERIES, DIM = 100, 128
ASKED_FUSION = 1.5
LIMIT = 100  # of a retriever, for a page of ten


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--keep", help="a folder for the workspace; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        workspace = published(arguments.keep or scratch, arguments.tracks, DIM)
        searcher = Searcher(workspace)
        rows = storage.read_tables(
            workspace.tracks, ["track_id", "title", "artist", "year", "tags"]
        )
        vectors = World(DIM, seed=QUERY_SEED).text(QUERIES)
        some = rows.take(np.random.default_rng(0).integers(0, len(rows), QUERIES)).to_pylist()
        by_kind(searcher, some, vectors)
        by_filter(searcher.table, rows, vectors)
        by_retriever(searcher, some, vectors)


def percentiles(run: Callable[[int], Any]) -> tuple[list[Any], str]:
    """The results of the QUERIES, and their times as text."""
    answers, times = [run(0)], []
    busy, started = time.process_time(), time.perf_counter()
    for number in range(1, QUERIES):
        began = time.perf_counter()
        answers.append(run(number))
        times.append(1e3 * (time.perf_counter() - began))
    rate = (QUERIES - 1) / (time.perf_counter() - started)
    cpu_ms = 1e3 * (time.process_time() - busy) / (QUERIES - 1)
    p50, p95, p99 = np.quantile(times, (0.5, 0.95, 0.99))
    return answers, (
        f"p50 {p50:6.1f} p95 {p95:6.1f} p99 {p99:6.1f} ms, {rate:6.1f} a second, "
        f"{cpu_ms:.1f} CPU-ms"
    )


def by_kind(searcher: Searcher, some: Sequence[dict[str, Any]], vectors: np.ndarray) -> None:
    """Every kind of query through the whole search."""
    asked: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "description": lambda row: {"text": " ".join(row["tags"][:3])},
        "title by artist": lambda row: {"text": f"{row['title']} by {row['artist']}"},
        "artist": lambda row: {"text": row["artist"]},
        "similar to an artist": lambda row: {"text": f"similar to {row['artist']}"},
        "example": lambda row: {"like": [row["track_id"]]},
    }
    for kind, make in asked.items():

        def run(number: int, make: Callable[[dict[str, Any]], dict[str, Any]] = make) -> Any:
            plan = searcher.plan(SearchRequest.read(make(some[number])))
            given = [vectors[number]] * len(plan.sentences)
            return searcher.answer(plan, Encoded(text=given))

        answers, times = percentiles(run)
        found = ""
        if kind in ("title by artist", "artist"):
            key = "track_id" if kind == "title by artist" else "artist"
            first = [a["hits"][0][key] == row[key] for a, row in zip(answers, some, strict=True)]
            found = f", first hit right {np.mean(first):.2f}"
        print(f"{kind:20} {times}{found}")


def by_filter(table: TrackTable, rows: pa.Table, vectors: np.ndarray) -> None:
    """The vector retriever at four selectivities, ours and LanceDB's own."""
    held = lancedb.connect(table._db.uri).open_table(table_name("vectors", table.build.name))
    ids, matrix = table.all_vectors()
    known = np.array(ids)
    order = np.argsort(known)
    year = np.empty(len(known), np.int32)
    listed = np.array(rows["track_id"].to_pylist())
    year[order] = rows["year"].to_numpy()[np.argsort(listed)]
    few = listed[rows["year"].to_numpy() == 1950][: max(len(listed) // 10_000, HITS)].tolist()
    below = np.median(year)
    filters = {
        None: np.ones(len(known), bool),
        f"year < {below:.0f}": year < below,
        "year = 1950": year == 1950,
        f"year = 1950 and track_id <= '{max(few)}'": (year == 1950) & (known <= max(few)),
    }
    for text, mask in filters.items():
        where = parse_filter(text, table.filterable) if text else None
        allowed = np.flatnonzero(mask)

        def exact(number: int, allowed: np.ndarray = allowed) -> set[str]:
            scores = matrix[allowed] @ vectors[number]
            return set(known[allowed[np.argpartition(-scores, HITS - 1)[:HITS]]])

        def ours(number: int, where: Any = where) -> set[str]:
            return {i for i, _ in table.nearest(vectors[number], limit=HITS, where=where)}

        def plain(number: int, where: Any = where) -> set[str]:
            query = held.search(vectors[number], vector_column_name="vector")
            query = query.distance_type("cosine").limit(HITS).select(["track_id", "_distance"])
            if where is not None:
                query = query.where(where.sql(), prefilter=True)
            return set(query.to_arrow()["track_id"].to_pylist())

        truth = [exact(number) for number in range(QUERIES)]
        print(f"{mask.mean():.2%} of the tracks ({text or 'no filter'})")
        for name, run in (("ours", ours), ("LanceDB's defaults", plain)):
            answers, times = percentiles(run)
            recall = np.mean([len(a & b) / HITS for a, b in zip(truth, answers, strict=True)])
            print(f"    {name:20} {times}, recall@10 {recall:.3f}")


def by_retriever(searcher: Searcher, some: Sequence[dict[str, Any]], vectors: np.ndarray) -> None:
    """Four retrievers together against each of them alone."""
    table = searcher.table
    texts = [" ".join(row["tags"][:3]) for row in some]
    threads = ThreadPoolExecutor(4)
    liked = table.vectors([row["track_id"] for row in some])
    examples = [liked[row["track_id"]] for row in some]

    def together(number: int) -> Any:
        asked = SearchRequest(text=texts[number], like=[some[number]["track_id"]])
        request = check_request(asked, table)
        directions = [QueryVector("sound", examples[number]), QueryVector("text", vectors[number])]
        understood = understand(texts[number], table)
        return retrieve(table, request, understood, directions, limit=LIMIT, threads=threads)

    sides: dict[str, Callable[[int], Any]] = {
        "sound": lambda n: table.nearest(examples[n], limit=LIMIT),
        "text": lambda n: table.nearest(vectors[n], limit=LIMIT),
        "words": lambda n: table.match_words(texts[n], limit=LIMIT),
        "names": lambda n: table.match_names(texts[n], limit=LIMIT),
        "all four": together,
    }
    medians = {}
    for name, run in sides.items():
        run(0)
        times = []
        for number in range(QUERIES):
            began = time.perf_counter()
            run(number)
            times.append(1e3 * (time.perf_counter() - began))
        medians[name] = float(np.median(times))
        print(f"retriever {name:10} p50 {medians[name]:.1f} ms")
    ratio = medians.pop("all four") / max(medians.values())
    met = "met " if ratio <= ASKED_FUSION else "MISS"
    print(f"{met} four retrievers take {ratio:.2f} times the slowest alone, asked {ASKED_FUSION}")


if __name__ == "__main__":
    main()
