"""Metrics of ranked lists by kind of query, with intervals and chance levels.

The input is a ranked list of track ids, best first. It may be partial: tracks it does not name rank
behind those it does, with the wrong ones first (raymtr.metrics). So a search that returns a hundred
hits gets no credit for the rest of the pool.

    r_at_k       share of queries with any relevant track among the first k
    median_rank  of the first relevant track, counted from 1
    mrr          mean of 1 / that rank
    map_at_10, ndcg_at_10   as in raymtr.metrics; nDCG's gain is the grade
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NotRequired, TypedDict

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from raymtr import metrics
from raymtr.evaluation.benchmarks import Benchmark, Query
from raymtr.trained_on import Record, known, track_names

Figures = dict[str, float]
Intervals = dict[str, list[float]]  # figure -> [low, high]
Run = Mapping[str, Sequence[str]]  # query_id -> track ids, best first

RECALL_AT = (1, 5, 10)
DEPTH = 10  # of nDCG and mAP


def rank_pool(benchmark: Benchmark, queries: Sequence[Query], scores: ArrayLike) -> Run:
    """The whole pool ranked by `scores` [queries, pool], higher is better; ties as in metrics."""
    relevance = np.stack([benchmark.grades(query.query_id) for query in queries])
    order = metrics.pessimistic_order(scores, relevance)
    return {
        query.query_id: [benchmark.pool[column] for column in row]
        for query, row in zip(queries, order, strict=True)
    }


def measure(
    benchmark: Benchmark, run: Run, rng: np.random.Generator
) -> tuple[dict[str, Figures], dict[str, Intervals]]:
    """Figures by kind, and the 95 % bootstrap intervals of those that are means.

    Raises ValueError where `run` lacks a query, repeats a track, or names one not in the pool.
    """
    figures: dict[str, Figures] = {}
    intervals: dict[str, Intervals] = {}
    for kind in benchmark.kinds():
        values = _per_query(benchmark, run, kind)
        figures[kind] = {"queries": len(values["ranks"])}
        intervals[kind] = {}
        for name, column in values.items():
            if name == "ranks":
                figures[kind]["median_rank"] = float(np.median(column))
                continue
            figures[kind][name] = float(column.mean())
            intervals[kind][name] = list(metrics.bootstrap_interval(column, rng, bounds=(0.0, 1.0)))
    return figures, intervals


def _per_query(benchmark: Benchmark, run: Run, kind: str) -> dict[str, NDArray[np.float64]]:
    """Each figure of every query of one kind, [Q]; row by row, because a pool may be large."""
    ranks, precisions, gains = [], [], []
    for scores, grades in _rows(benchmark, run, kind):
        ranks.append(metrics.first_right_ranks(scores, grades)[0])
        precisions.append(metrics.average_precisions(scores, grades, k=DEPTH)[0])
        gains.append(metrics.ndcgs_at(scores, grades, k=DEPTH)[0])
    rank = np.array(ranks, np.float64)
    recalls = {f"r_at_{k}": (rank <= k).astype(np.float64) for k in RECALL_AT}
    return {
        **recalls,
        "ranks": rank,
        "mrr": 1 / rank,
        f"map_at_{DEPTH}": np.array(precisions),
        f"ndcg_at_{DEPTH}": np.array(gains),
    }


def _rows(
    benchmark: Benchmark, run: Run, kind: str
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Scores and grades, [1, N] each, of the queries of one kind."""
    column = {track_id: place for place, track_id in enumerate(benchmark.pool)}
    for query in benchmark.of_kind(kind):
        if query.query_id not in run:
            raise ValueError(f"query {query.query_id!r} has no ranked list")
        ranked = run[query.query_id]
        outside = [track_id for track_id in ranked if track_id not in column]
        if outside:
            raise ValueError(f"{outside[0]!r} is ranked, but not in the pool")
        if len(set(ranked)) != len(ranked):
            raise ValueError(f"query {query.query_id!r} ranks a track twice")
        scores = np.zeros((1, len(column)))
        scores[0, [column[track_id] for track_id in ranked]] = np.arange(len(ranked), 0, -1)
        yield scores, benchmark.grades(query.query_id)[None]


class TrainedOn(TypedDict):
    """Counts of what a model was trained on; None where that is not known."""

    pool: int | None  # tracks of the pool
    queries: dict[str, int | None]  # queries of each kind with a relevant track among them


class QualityFigures(TypedDict):
    """Figures by kind of query of the systems that were measured, next to the chance level."""

    pool: int  # tracks
    trained_on: TrainedOn | None  # None if no model is used
    seed: int
    split: str | None  # of a benchmark drawn from the catalog
    benchmark: str | None  # the folder of a given one
    chance: dict[str, Figures]
    intervals: dict[str, dict[str, Intervals]]  # system -> kind -> figure -> 95 %
    notes: list[str]
    towers: NotRequired[dict[str, Figures]]
    search: NotRequired[dict[str, Figures]]


def by_system(quality: QualityFigures) -> dict[str, dict[str, Figures]]:
    """The figures of each system that was measured, by kind."""
    found = {"towers": quality.get("towers"), "search": quality.get("search")}
    return {name: figures for name, figures in found.items() if figures}


def trained_on(benchmark: Benchmark, tracks: pa.Table, record: Record | None) -> TrainedOn:
    """How much of the pool a model was trained on, and how many queries of each kind are affected.

    `tracks` is a catalog of the pool, `record` the model's (raymtr.trained_on). Counts are None
    if the model has none. It is not an error, because recall of training data is also worth
    measuring. A query counts as soon as one of its relevant tracks was trained on.
    """
    if record is None:
        return {"pool": None, "queries": dict.fromkeys(benchmark.kinds())}
    ids = tracks["track_id"].to_pylist()
    digests = [None] * len(ids)
    if "audio_digest" in tracks.column_names:
        digests = tracks["audio_digest"].to_pylist()
    names = dict(zip(ids, digests, strict=True))
    seen = known(record, [track_names(track, names.get(track)) for track in benchmark.pool])
    learnt = {track for track, there in zip(benchmark.pool, seen, strict=True) if there}
    return {
        "pool": len(learnt),
        "queries": {
            kind: sum(
                not learnt.isdisjoint(benchmark.right[query.query_id])
                for query in benchmark.of_kind(kind)
            )
            for kind in benchmark.kinds()
        },
    }


def chance(benchmark: Benchmark, rng: np.random.Generator) -> dict[str, Figures]:
    """Figures of a random ranking, by kind: closed forms, and for nDCG 1,000 random rankings.

    `ndcg_at_10_p95` is their 95th percentile: a figure below it may be luck.
    """
    levels = {}
    for kind in benchmark.kinds():
        queries = benchmark.of_kind(kind)
        right = [len(benchmark.right[query.query_id]) for query in queries]
        drawn = sum(
            metrics.random_ndcgs_at(benchmark.grades(query.query_id)[None], k=DEPTH, rng=rng)
            for query in queries
        ) / np.float64(len(queries))
        size = len(benchmark.pool)
        levels[kind] = {
            "queries": len(queries),
            **{
                f"r_at_{k}": float(metrics.chance_recall_at(size, right, k=k).mean())
                for k in RECALL_AT
            },
            "median_rank": float(metrics.chance_median_rank(size, right)),
            f"ndcg_at_{DEPTH}": float(np.mean(drawn)),
            f"ndcg_at_{DEPTH}_p95": float(np.quantile(drawn, 0.95)),
        }
    return levels
