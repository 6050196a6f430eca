"""The arena's figures: means by kind of query, and two recipes compared query by query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from arena_data import LEVELS

from raymtr import metrics
from raymtr.evaluation.benchmarks import Benchmark

FIGURES = ("r_at_10", "ndcg_at_10")
DRAWS = 2_000  # of the bootstrap over kinds
AS_MADE = next(iter(LEVELS))
Answers = dict[tuple[str, str, str], np.ndarray]  # (pool, level, figure) -> [queries]


@dataclass(frozen=True)
class Pool:
    """One pool's queries by kind, and each recipe's figures."""

    name: str
    kinds: np.ndarray  # [queries]
    answers: dict[str, list[Answers]]

    def figures(self, recipe: str, figure: str) -> np.ndarray:
        """Each query's mean over the seeds, [queries]."""
        seeds = np.stack([one[self.name, AS_MADE, figure] for one in self.answers[recipe]])
        mean: np.ndarray = seeds.mean(axis=0)
        return mean

    def spread(self, difference: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
        """95 % interval of the mean over kinds of [queries], queries drawn within each kind."""
        parts = [difference[self.kinds == kind] for kind in dict.fromkeys(self.kinds)]
        drawn = [
            part[rng.integers(0, len(part), (DRAWS, len(part)))].mean(axis=1) for part in parts
        ]
        low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
        return float(low), float(high)


def report(asked: dict[str, Benchmark], answers: dict[str, list[Answers]]) -> None:
    """Print each recipe's means by kind of query, and ours against the published, paired."""
    rng = np.random.default_rng(0)
    for name, benchmark in asked.items():
        pool = Pool(name, np.array([query.kind for query in benchmark.queries]), answers)
        print(f"\n{name}: {len(benchmark.pool)} tracks, {len(pool.kinds)} queries, text to audio")
        for figure in FIGURES:
            values = {recipe: pool.figures(recipe, figure) for recipe in answers}
            for kind in benchmark.kinds():
                here = pool.kinds == kind
                print(f"{figure:11}{kind:15}{here.sum():5}  {_line(values, here, rng)}")
            print(f"{figure:11}{'mean of kinds':15}{'':5}  {_mean_line(values, pool, rng)}")
        print_above_chance(pool, benchmark, rng)
        print_levels(pool)


def _line(values: dict[str, np.ndarray], here: np.ndarray, rng: np.random.Generator) -> str:
    shown = "  ".join(f"{name} {every[here].mean():.3f}" for name, every in values.items())
    difference = metrics.paired_difference(values["published"][here], values["ours"][here], rng)
    interval = "{difference:+.3f} [{low:+.3f}, {high:+.3f}] p {p:.3f}".format(**difference)
    return f"{shown}  ours - published {interval}"


def _mean_line(values: dict[str, np.ndarray], pool: Pool, rng: np.random.Generator) -> str:
    kinds = list(dict.fromkeys(pool.kinds))
    means = {
        name: float(np.mean([every[pool.kinds == kind].mean() for kind in kinds]))
        for name, every in values.items()
    }
    low, high = pool.spread(values["ours"] - values["published"], rng)
    shown = "  ".join(f"{name} {mean:.3f}" for name, mean in means.items())
    gain = means["ours"] / max(means["published"], 1e-9)
    difference = means["ours"] - means["published"]
    return (
        f"{shown}  ours - published {difference:+.3f} [{low:+.3f}, {high:+.3f}], {gain:.2f} times"
    )


def print_above_chance(pool: Pool, benchmark: Benchmark, rng: np.random.Generator) -> None:
    """R@10 less that of a random ranking, with 95 % intervals over the queries, by kind."""
    right = [len(benchmark.right[query.query_id]) for query in benchmark.queries]
    luck = metrics.chance_recall_at(len(benchmark.pool), right, k=10)
    for kind in (*benchmark.kinds(), "mean of kinds"):
        here = np.ones(len(luck), bool) if kind == "mean of kinds" else pool.kinds == kind
        part = Pool(pool.name, pool.kinds[here], {})
        shown = []
        for recipe in pool.answers:
            above = (pool.figures(recipe, "r_at_10") - luck)[here]
            mean = np.mean([above[part.kinds == one].mean() for one in set(part.kinds)])
            low, high = part.spread(above, rng)
            shown.append(f"{recipe} {mean:+.3f} [{low:+.3f}, {high:+.3f}]")
        print(f"{'vs chance':11}{kind:15}{here.sum():5}  {'  '.join(shown)}")


def print_levels(pool: Pool) -> None:
    """R@10 of the first seed over all queries, at each level of the test files."""
    for recipe, (first, *_) in pool.answers.items():
        means = (f"{level} {first[pool.name, level, 'r_at_10'].mean():.3f}" for level in LEVELS)
        print(f"level      {recipe:15}       {', '.join(means)}")
