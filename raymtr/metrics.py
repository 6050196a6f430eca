"""Retrieval metrics: pure functions of a score matrix and its relevance.

Rows are always queries and columns the pool: `scores` [Q, N], higher is better, and `relevance`
[Q, N], bool or graded (0: wrong). So text-to-audio scores are texts by tracks; the other direction
is the transpose. If both directions would have the same shape, the function's name has the
direction.

Ties are counted pessimistically: a wrong answer ranks before a right one with the same score, a
lower grade before a higher. So a model that gives everything one score gets the worst rank, not a
lucky one. Only `roc_aucs` counts a tie as half, by its definition.

Every function that needs right answers refuses a query without one, and scores that are NaN,
because both would change an average silently.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BOOTSTRAP_VALUES = 1 << 20  # values drawn at a time; limits the memory, not the result


def _checked(scores: ArrayLike, relevance: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 [Q, N]. Raises ValueError for bad shapes, NaN, or a query without answer."""
    score, grade = np.asarray(scores, np.float64), _grades(relevance)
    if score.shape != grade.shape:
        raise ValueError(f"scores are {score.shape}, relevance is {grade.shape}: they must agree")
    if np.isnan(score).any():
        raise ValueError(f"{int(np.isnan(score).any(axis=1).sum())} queries have scores of NaN")
    return score, grade


def _grades(relevance: ArrayLike) -> Floats:
    grade = np.asarray(relevance, np.float64)
    if grade.ndim != 2 or not grade.size:
        raise ValueError(f"relevance is [queries, pool] and not empty, got {grade.shape}")
    if not np.all(grade >= 0):  # NaN fails too
        raise ValueError("relevance is grades of 0 or more")
    lost = np.flatnonzero(~(grade > 0).any(axis=1))
    if lost.size:
        raise ValueError(f"{lost.size} queries have no right answer; the first is row {lost[0]}")
    return grade


def pessimistic_order(scores: ArrayLike, relevance: ArrayLike) -> Ints:
    """Column indices, best first, [Q, N]; for equal scores, the lower grade first."""
    return _order(*_checked(scores, relevance))


def first_right_ranks(scores: ArrayLike, relevance: ArrayLike) -> Ints:
    """Rank of each query's first right answer, [Q]; the best rank is 1."""
    score, grade = _checked(scores, relevance)
    best = np.where(grade > 0, score, -np.inf).max(axis=1, keepdims=True)
    before = (score >= best) & (grade == 0)
    return np.asarray(before.sum(axis=1) + 1)


def text_to_audio_recall_at(scores: ArrayLike, relevance: ArrayLike, *, k: int) -> float:
    """Share of texts with any right track among the first `k`; rows are texts.

    With one right answer per query, as for captions, this is the usual R@k.
    """
    _check_k(k)
    return float((first_right_ranks(scores, relevance) <= k).mean())


def median_rank(scores: ArrayLike, relevance: ArrayLike) -> float:
    """Median over queries of the first right answer's rank, counted from 1.

    TTMR++ counts from 0: its MedR is one less.
    """
    return float(np.median(first_right_ranks(scores, relevance)))


def mean_reciprocal_rank(scores: ArrayLike, relevance: ArrayLike) -> float:
    """Mean over queries of 1 / rank of the first right answer."""
    return float((1.0 / first_right_ranks(scores, relevance)).mean())


def average_precisions(scores: ArrayLike, relevance: ArrayLike, *, k: int | None = None) -> Floats:
    """AP of each query, [Q], over the first `k` ranks (None: all); their mean is mAP@k.

    The sum of the precisions at each right answer within `k`, over min(right answers, k). So a
    perfect ranking has 1 at any `k`. (trec_eval's `map_cut` divides by all right answers.)
    """
    score, grade = _checked(scores, relevance)
    depth = score.shape[1] if k is None else min(_check_k(k), score.shape[1])
    hit = _in_order(score, grade)[:, :depth] > 0
    precision = hit.cumsum(axis=1) / np.arange(1, depth + 1)
    possible = np.minimum((grade > 0).sum(axis=1), depth)
    return np.asarray((precision * hit).sum(axis=1) / possible)


def ndcgs_at(scores: ArrayLike, relevance: ArrayLike, *, k: int) -> Floats:
    """nDCG of each query's first `k` ranks, [Q].

    The gain is the grade itself and the discount is log2(rank + 1), as in trec_eval's `ndcg_cut`
    (Järvelin and Kekäläinen 2002).
    """
    score, grade = _checked(scores, relevance)
    return _dcg(_in_order(score, grade)[:, : _check_k(k)]) / _ideal_dcg(grade, k)


def roc_aucs(scores: ArrayLike, relevance: ArrayLike) -> Floats:
    """Area under each query's ROC curve, [Q]; a tie counts half (Mann-Whitney U).

    Also raises ValueError if every track is right, because then there is no curve.
    """
    score, grade = _checked(scores, relevance)
    right = grade > 0
    positives, negatives = right.sum(axis=1), (~right).sum(axis=1)
    if not negatives.all():
        raise ValueError(f"{int((negatives == 0).sum())} queries have no wrong answer")
    areas = np.empty(len(score))
    for row, (values, mine) in enumerate(zip(score, right, strict=True)):
        wrong = np.sort(values[~mine])
        below = np.searchsorted(wrong, values[mine], side="left")
        at_most = np.searchsorted(wrong, values[mine], side="right")
        areas[row] = (below + at_most).sum() / 2
    return np.asarray(areas / (positives * negatives))


def bootstrap_interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    bounds: tuple[float, float] | None = None,
    level: float = 0.95,
    draws: int = 1000,
) -> tuple[float, float]:
    """Percentile interval of the mean of `values` [Q], by the Bayesian bootstrap (Rubin 1981).

    It estimates how the figure varies with other queries of the same kind, not with other tracks in
    the pool. If values cannot leave `bounds`, half a query is added at each bound: three queries
    that are all right are weak evidence, but [1, 1] would claim certainty. For values of 0 and 1
    this is Jeffreys' interval of a proportion.
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or not sample.size or np.isnan(sample).any():
        raise ValueError("a bootstrap needs one number per query, none of them NaN")
    rows = max(1, BOOTSTRAP_VALUES // sample.size)
    means = []
    for first in range(0, draws, rows):
        count = min(rows, draws - first)
        weights = rng.standard_exponential((count, sample.size))
        sums, total = weights @ sample, weights.sum(axis=1)
        if bounds is not None:
            imagined = rng.standard_gamma(0.5, (count, 2))
            sums, total = sums + imagined @ np.array(bounds), total + imagined.sum(axis=1)
        means.append(sums / total)
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_difference(
    one: ArrayLike, other: ArrayLike, rng: np.random.Generator, *, draws: int = 10_000
) -> dict[str, float]:
    """Mean of `other` - `one` over the same queries [Q], its 95 % interval, and a p-value.

    The interval is a Bayesian bootstrap over queries. The p-value is the two-sided randomisation
    test: the share of random swaps of the two systems within queries that give a mean difference at
    least as large (Smucker et al. 2007). It is never 0, because the systems as they are count too.
    """
    first, second = np.asarray(one, np.float64), np.asarray(other, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"a paired test needs the same queries, got {first.shape}, {second.shape}")
    difference = second - first
    low, high = bootstrap_interval(difference, rng)
    mean, reached = abs(float(difference.mean())), 0
    rows = max(1, BOOTSTRAP_VALUES // difference.size)
    for start in range(0, draws, rows):
        signs = rng.integers(0, 2, (min(rows, draws - start), difference.size)) * 2 - 1
        reached += int((np.abs(signs @ difference) / difference.size >= mean - 1e-12).sum())
    return {
        "difference": float(difference.mean()),
        "low": low,
        "high": high,
        "p": (reached + 1) / (draws + 1),
    }


def chance_recall_at(pool: int, right: ArrayLike, *, k: int) -> Floats:
    """R@k of a random ranking of `pool` tracks with `right` [Q] right answers, in closed form.

    One minus the hypergeometric probability of none: 1 - C(pool - right, k) / C(pool, k).
    """
    _check_k(k)
    answers = np.asarray(right, np.float64)
    if np.any(answers < 1) or np.any(answers > pool):
        raise ValueError(f"right answers are between 1 and the pool's {pool}")
    places = np.arange(min(k, pool))
    missed = np.clip(pool - answers[..., None] - places, 0, None) / (pool - places)
    return np.asarray(1.0 - missed.prod(axis=-1))


def chance_median_rank(pool: int, right: ArrayLike) -> int:
    """The smallest k at which a random ranking answers half of these queries."""
    low, high = 1, pool
    while low < high:
        middle = (low + high) // 2
        if chance_recall_at(pool, right, k=middle).mean() >= 0.5:
            high = middle
        else:
            low = middle + 1
    return low


def random_ndcgs_at(
    relevance: ArrayLike, *, k: int, rng: np.random.Generator, draws: int = 1000
) -> Floats:
    """Mean nDCG@k of `draws` random rankings of all queries, [draws].

    A figure is better than chance only above its 95th percentile.
    """
    grade = _grades(relevance)
    depth = min(_check_k(k), grade.shape[1])
    ideal = _ideal_dcg(grade, k)
    total = np.zeros(draws)
    for row, best in zip(grade, ideal, strict=True):
        total += _dcg(row[_random_places(len(row), depth, rng, draws)]) / best
    return total / len(grade)


def _random_places(size: int, count: int, rng: np.random.Generator, draws: int) -> Ints:
    """`count` distinct indices below `size` in random order, [draws, count].

    Each is drawn among the remaining indices, then moved past those taken. This is cheaper than
    `draws` shuffles of the whole pool and has the same distribution.
    """
    chosen = np.empty((draws, count), np.int64)
    for nth in range(count):
        place = rng.integers(size - nth, size=draws)
        for taken in np.sort(chosen[:, :nth], axis=1).T:
            place += place >= taken
        chosen[:, nth] = place
    return chosen


def _order(score: Floats, grade: Floats) -> Ints:
    return np.asarray(np.lexsort((grade, -score), axis=-1))


def _in_order(score: Floats, grade: Floats) -> Floats:
    """Grades in order of decreasing score, [Q, N]."""
    return np.take_along_axis(grade, _order(score, grade), axis=1)


def _dcg(gains: Floats) -> Floats:
    """Sum of discounted gains over the last axis."""
    return np.asarray((gains / np.log2(np.arange(2, gains.shape[-1] + 2))).sum(axis=-1))


def _ideal_dcg(grade: Floats, k: int) -> Floats:
    return _dcg(-np.sort(-grade, axis=1)[:, :k])


def _check_k(k: int) -> int:
    if k < 1:
        raise ValueError(f"k counts places from 1, got {k}")
    return k
