"""A check that weights are finite, made before any are saved.

A loss reflects the weights before its update. An update with too high a rate shows only in the next
loss, and after the last step there is none. So the weights are checked by their norm. It is NaN if
one weight is. It is infinite once the sum of squares exceeds float32, long before any weight is
infinite.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from raymtr.errors import UnusableError


@torch.no_grad()
def weights_norm(weights: Iterable[Tensor]) -> float:
    """The Euclidean norm of all weights; for sharded weights, every worker must call it."""
    total: Any = torch.nn.utils.get_total_norm([weight.detach() for weight in weights])
    return float(total.full_tensor() if hasattr(total, "full_tensor") else total)


def require_finite(value: float, what: str, cure: str) -> None:
    """Raise UnusableError (no retry helps) where `value`, a loss or a norm, is not finite."""
    if not math.isfinite(value):
        raise UnusableError(f"{what} became {value}{cure}")
