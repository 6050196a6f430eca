"""Ranked lists whose figures can be checked by eye."""

import math

import numpy as np
import pytest

from raymtr import metrics
from raymtr.evaluation.benchmarks import Benchmark, Query
from raymtr.evaluation.quality import chance, measure, rank_pool

POOL = tuple(f"t{n}" for n in range(20))


@pytest.fixture
def benchmark():
    queries = [
        Query(query_id=f"{kind}{n}", kind=kind, text=f"{kind} {n}", sentence=f"{kind} {n}")
        for kind, count in (("caption", 2), ("tag", 1))
        for n in range(count)
    ]
    right = {"caption0": {"t0": 1}, "caption1": {"t7": 1}, "tag0": {"t1": 2, "t2": 1, "t3": 1}}
    return Benchmark(pool=POOL, queries=tuple(queries), right=right)


def test_figures_by_hand(benchmark):
    run = {
        "caption0": ["t5", "t0", "t1"],  # right at 2
        "caption1": ["t9", "t8"],  # right answer not named: behind all, at 20
        "tag0": ["t3", "t9", "t1"],  # right at 1 and 3 of three
    }
    figures, intervals = measure(benchmark, run, np.random.default_rng(0))
    caption, tag = figures["caption"], figures["tag"]
    assert (caption["queries"], caption["r_at_1"], caption["r_at_5"]) == (2, 0.0, 0.5)
    assert caption["median_rank"] == 11.0
    assert caption["mrr"] == pytest.approx((1 / 2 + 1 / 20) / 2)
    assert caption["ndcg_at_10"] == pytest.approx((1 / math.log2(3)) / 2)
    assert tag["r_at_1"] == 1.0 and tag["median_rank"] == 1.0
    assert tag["map_at_10"] == pytest.approx((1 + 2 / 3) / 3)
    ideal = 2 + 1 / math.log2(3) + 1 / 2
    assert tag["ndcg_at_10"] == pytest.approx((1 + 2 / 2) / ideal)
    # One right query, and one right of two: the intervals say how little is known.
    assert intervals["tag"]["r_at_1"] == pytest.approx([0.15, 1.0], abs=0.1)
    assert intervals["caption"]["r_at_5"] == pytest.approx([0.06, 0.94], abs=0.05)
    assert "median_rank" not in intervals["caption"]


def test_an_empty_answer_is_the_worst_answer(benchmark):
    figures, _ = measure(
        benchmark, {q.query_id: [] for q in benchmark.queries}, np.random.default_rng(0)
    )
    assert figures["caption"]["median_rank"] == 20 and figures["caption"]["r_at_10"] == 0
    assert figures["tag"]["median_rank"] == 18 and figures["tag"]["ndcg_at_10"] == 0


def test_scores_become_ranked_lists_of_the_whole_pool(benchmark):
    scores = np.zeros((2, 20))
    scores[0, 3], scores[1, 7] = 0.9, 0.5
    run = rank_pool(benchmark, benchmark.of_kind("caption"), scores)
    assert run["caption0"][0] == "t3" and run["caption0"][-1] == "t0"  # tied, so last
    assert run["caption1"][0] == "t7" and sorted(run["caption1"]) == sorted(POOL)


@pytest.mark.parametrize(
    ("ranked", "words"),
    [(["t1", "x9"], "'x9' is ranked, but not in the pool"), (["t1", "t1"], "ranks a track twice")],
)
def test_a_list_that_cannot_be_is_rejected(benchmark, ranked, words):
    run = {q.query_id: ranked for q in benchmark.queries}
    with pytest.raises(ValueError, match=words):
        measure(benchmark, run, np.random.default_rng(0))
    with pytest.raises(ValueError, match="'tag0' has no ranked list"):
        measure(benchmark, {"caption0": [], "caption1": []}, np.random.default_rng(0))


def test_chance_is_what_random_rankings_earn(benchmark):
    levels = chance(benchmark, np.random.default_rng(0))
    assert levels["caption"]["r_at_10"] == pytest.approx(0.5)
    assert levels["caption"]["median_rank"] == 10
    assert levels["tag"]["r_at_5"] == pytest.approx(1 - math.comb(17, 5) / math.comb(20, 5))
    scores = np.random.default_rng(1).random((5000, 20))
    ndcgs = metrics.ndcgs_at(scores, np.tile(benchmark.grades("tag0"), (5000, 1)), k=10)
    assert levels["tag"]["ndcg_at_10"] == pytest.approx(ndcgs.mean(), abs=0.03)
    assert levels["tag"]["ndcg_at_10_p95"] == pytest.approx(np.quantile(ndcgs, 0.95), abs=0.08)
    assert levels["tag"]["ndcg_at_10_p95"] > levels["tag"]["ndcg_at_10"] + 0.2
