"""Cache of a frozen tower's features, computed once for each window or sentence of a training.

A frozen tower is most of a step's cost and gives the same features for the same input. Inputs are
identified by a hash of their content, so they need no names. They are computed one at a time, so a
row has the same bits whatever else is in its batch. A resumed run then has the weights of an
uninterrupted one. On a CPU each core computes its own rows, because cores that share the operations
of one row mostly wait for each other. Limitation: only repeated inputs are worth caching. So with
frozen towers the training draws the windows that indexing cuts, and a limited number of sentences
per track (training.batches).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from raymtr.model.exact import exact_float32, without_autocast

MOST = 100_000  # rows kept, 0.7 GB of musicnn's; the features of further ones are computed anew


class FeatureCache:
    """Inputs of a frozen tower -> its features [B, width], cached by the input's content."""

    def __init__(self, tower: Callable[[Tensor], Tensor]) -> None:
        """`tower` maps one input as a batch of one, [1, n], to its features [1, width]."""
        self._tower = tower
        self._known: dict[bytes, Tensor] = {}

    def __call__(self, inputs: Iterable[Tensor]) -> Tensor:
        """Return one float32 row for each input [n], on the inputs' device."""
        named = [(_name(one), one) for one in inputs]
        new = {name: one for name, one in named if name not in self._known}
        rows = dict(zip(new, self._computed(list(new.values())), strict=True))
        found = torch.stack(
            [rows[name] if name in rows else self._known[name] for name, _ in named]
        )
        self._known |= list(rows.items())[: MOST - len(self._known)]
        return found

    def _computed(self, inputs: list[Tensor]) -> list[Tensor]:
        """The features of each input, [width] each; one thread of the process computes a row."""
        threads = torch.get_num_threads()
        if threads == 1 or len(inputs) < 2 or inputs[0].device.type != "cpu":
            return [self._row(one) for one in inputs]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            rows = list(pool.map(self._row, inputs))
        torch.set_num_threads(threads)  # the pool's setting is also the default of new threads
        return rows

    @torch.no_grad()
    def _row(self, one: Tensor) -> Tensor:
        with exact_float32(), without_autocast(one.device.type):
            return self._tower(one[None])[0]


def _name(one: Tensor) -> bytes:
    return hashlib.blake2b(one.cpu().numpy().tobytes(), digest_size=16).digest()
