"""Cache of a frozen audio tower's features, computed once for each window of a training.

A frozen tower is most of a step's cost and gives the same features for the same window. Windows are
identified by a hash of their samples, so they need no names. They are computed one at a time, so a
row has the same bits whatever else is in its batch. A resumed run then has the weights of an
uninterrupted one. Limitation: no clips from anywhere in a track, because they would never repeat.
The loop draws the windows that indexing cuts instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from raymtr.model.exact import exact_float32

MOST = 100_000  # windows kept, 1.4 GB; the features of further windows are computed at each draw


class FeatureCache:
    """Waves [B, samples] -> features [B, width], cached by the wave's samples."""

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self._compute = compute
        self._known: dict[bytes, Tensor] = {}

    @torch.no_grad()
    def __call__(self, waves: Tensor) -> Tensor:
        """Return one row for each wave, on the waves' device."""
        rows = []
        for wave in waves:
            name = hashlib.blake2b(wave.cpu().numpy().data, digest_size=16).digest()
            row = self._known.get(name)
            if row is None:
                with exact_float32(), torch.autocast(waves.device.type, enabled=False):
                    row = self._compute(wave[None])[0]
                if len(self._known) < MOST:
                    self._known[name] = row
            rows.append(row)
        return torch.stack(rows)
