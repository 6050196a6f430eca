"""Cache of a frozen tower's features, computed once for each window or sentence of a training.

A frozen tower is most of a step's cost and gives the same features for the same input. Inputs are
identified by a hash of their content, so they need no names. They are computed one at a time, so a
row has the same bits whatever else is in its batch. A resumed run then has the weights of an
uninterrupted one. Limitation: only what repeats is worth caching. So over frozen towers the
training draws the windows that indexing cuts, and a limited number of sentences for each track
(training.batches).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from raymtr.model.exact import exact_float32

MOST = 100_000  # rows kept, 0.7 GB of musicnn's; the features of further ones are computed anew


class FeatureCache:
    """Inputs of a frozen tower -> its features [B, width], cached by the input's content."""

    def __init__(self, tower: Callable[[Tensor], Tensor]) -> None:
        """`tower` maps one input as a batch of one, [1, n], to its features [1, width]."""
        self._tower = tower
        self._known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, inputs: Iterable[Tensor]) -> Tensor:
        """Return one float32 row for each input [n], on the inputs' device."""
        return torch.stack([self._row(one) for one in inputs])

    def _row(self, one: Tensor) -> Tensor:
        name = hashlib.blake2b(one.cpu().numpy().tobytes(), digest_size=16).digest()
        row = self._known.get(name)
        if row is None:
            with exact_float32(), torch.autocast(one.device.type, enabled=False):
                row = self._tower(one[None])[0]
            if len(self._known) < MOST:
                self._known[name] = row
        return row
