"""A paired comparison of two systems by their TREC runs over the same queries and qrels.

Figures are trec_eval's: they are computed from ranks alone, and a relevant track that a run does
not name was not found. AP is over the whole run and divides by all relevant tracks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from raymtr import metrics, storage
from raymtr.errors import InputError
from raymtr.evaluation.trec import parse_qrel, parse_run

DEPTH = 10
FIGURES = ("r_at_1", f"r_at_{DEPTH}", "mrr", "ap", f"ndcg_at_{DEPTH}")


class RunComparison(TypedDict):
    """Two runs on the same queries."""

    queries: int
    runs: list[str]  # the files
    figures: dict[str, dict[str, float]]  # one, other, and `metrics.paired_difference`


def compare_runs(one: str, other: str, qrels: str, *, seed: int) -> RunComparison:
    """Figures of two run files, and the difference `other` - `one` with interval and p-value.

    Raises InputError where a file is malformed or a run lacks a query of `qrels`.
    """
    right: dict[str, dict[str, int]] = {}
    for place, line in enumerate(_lines(qrels), 1):
        query, track, grade = parse_qrel(line, f"{qrels}:{place}")
        if grade:
            right.setdefault(query, {})[track] = grade
    if not right:
        raise InputError(f"{qrels} has no relevant track; expected `query_id 0 track_id grade`")
    first, second = (per_query(parse_run(_lines(run), run), right, run) for run in (one, other))
    rng = np.random.default_rng(seed)
    return {
        "queries": len(right),
        "runs": [one, other],
        "figures": {
            name: {
                "one": float(first[name].mean()),
                "other": float(second[name].mean()),
                **metrics.paired_difference(first[name], second[name], rng),
            }
            for name in FIGURES
        },
    }


def per_query(
    run: Mapping[str, Sequence[str]], right: Mapping[str, Mapping[str, int]], name: str
) -> dict[str, NDArray[np.float64]]:
    """Each of FIGURES for every query in the order of `right`, [Q]."""
    rows = []
    for query, answers in right.items():
        if query not in run:
            raise InputError(f"{name} has no line of query {query!r}, which the qrels have")
        gains = np.array([answers.get(track, 0) for track in run[query]], np.float64)
        hits = np.flatnonzero(gains)
        first = hits[0] + 1 if hits.size else np.inf
        precisions = np.arange(1, len(hits) + 1) / (hits + 1)
        ideal = np.sort(np.array(list(answers.values()), np.float64))[::-1]
        ndcg = _dcg(gains[:DEPTH]) / _dcg(ideal[:DEPTH])
        rows.append((first <= 1, first <= DEPTH, 1 / first, precisions.sum() / len(answers), ndcg))
    return dict(zip(FIGURES, np.array(rows, np.float64).T, strict=True))


def _dcg(gains: NDArray[np.float64]) -> float:
    return float((gains / np.log2(np.arange(2, len(gains) + 2))).sum())


def _lines(uri: str) -> list[str]:
    if not storage.exists(uri):
        raise InputError(f"there is nothing at {uri}; expected a TREC file")
    return [line for line in storage.read_bytes(uri).decode().splitlines() if line.strip()]
