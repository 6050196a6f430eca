"""Mixture: which tracks are in a step's batch, as a pure function of (seed, step).

TTMR++ picks the dataset first, by explicit weights, then the track (Doh et al., ICASSP 2024). Here
the datasets take turns deterministically. For every n, a dataset gets its share of the first n
draws to within a track or two. Inside a dataset the tracks are drawn in shuffled rounds, so none
repeats before all were drawn. Both are closed forms of the draw's number. So no state is saved to
resume, and workers agree without communication. Trade-off: draws are not independent; repeats
inside one batch would be false negatives of the loss.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from raymtr.errors import InputError

Rows = NDArray[np.int64]


class Mixture:
    """Draws rows of a track table by dataset weights."""

    def __init__(
        self, datasets: Sequence[str | None], weights: Mapping[str, float], *, seed: int
    ) -> None:
        """`datasets` names each row's source; an empty `weights` weighs all tracks equally.

        Raises InputError on a weight below zero, weights that are all zero, or a dataset without a
        track.
        """
        names = np.array([name or "" for name in datasets])
        if not weights:
            pools, shares = [np.arange(len(names))], [1.0]
        else:
            pools, shares = _weighted(names, weights)
        self._pools = pools
        left = 1.0 - np.cumsum([0.0, *shares[:-1]])
        self._share_of_rest = np.minimum(np.array(shares) / left, 1.0)
        self._share_of_rest[-1] = 1.0

        @functools.lru_cache(maxsize=2 * len(pools))  # a batch may span two rounds
        def shuffled(pool: int, nth: int) -> Rows:
            return np.random.default_rng([seed, pool, nth]).permutation(pools[pool])

        self._round = shuffled

    def draw(self, step: int, size: int) -> Rows:
        """The rows of batch `step`, int64 [size], in the order of the global batch."""
        return self.rows(np.arange(step * size, (step + 1) * size))

    def rows(self, draws: Rows) -> Rows:
        """The row of each draw, given the draw's number since the start of training."""
        chosen = np.empty(len(draws), np.int64)
        waiting, number = np.arange(len(draws)), draws
        for pool, share in enumerate(self._share_of_rest):
            before, after = _turns(number, share), _turns(number + 1, share)
            taken = after > before
            chosen[waiting[taken]] = self._tracks(pool, before[taken])
            waiting, number = waiting[~taken], (number - before)[~taken]
        return chosen

    def _tracks(self, pool: int, turns: Rows) -> Rows:
        """The row of each of the pool's turns: shuffled rounds, each through all its tracks."""
        size = len(self._pools[pool])
        rounds, places = np.divmod(turns, size)
        tracks = np.empty(len(turns), np.int64)
        for nth in np.unique(rounds):
            tracks[rounds == nth] = self._round(pool, int(nth))[places[rounds == nth]]
        return tracks


def _turns(draws: Rows, share: float) -> Rows:
    """How many of the first `draws` go to a dataset of this share; each draw adds 0 or 1."""
    return np.floor(draws * share + 0.5).astype(np.int64) if share < 1 else draws


def _weighted(
    names: NDArray[np.str_], weights: Mapping[str, float]
) -> tuple[list[Rows], list[float]]:
    present = sorted(set(names.tolist()) - {""})
    wrong = {name: weight for name, weight in weights.items() if not weight >= 0}
    if wrong or not sum(weights.values()) > 0:
        raise InputError(
            f"train.mixture takes weights of at least 0, one of them above 0; got {dict(weights)}"
        )
    used = {name: weight for name, weight in weights.items() if weight > 0}
    lost = [name for name in used if name not in present]
    if lost:
        raise InputError(
            f"train.mixture names {', '.join(lost)}, but the catalog has no training track of "
            f"that dataset; its datasets: {', '.join(present) or 'none are named'}"
        )
    total = sum(used.values())
    return [np.flatnonzero(names == name) for name in used], [w / total for w in used.values()]
