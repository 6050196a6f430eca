"""Whether weights are still numbers that can be computed with: asked before any are saved.

A loss tells what the weights of before its update were. An update with too high a rate is seen
only in the next loss, and after the last step there is none. So the weights themselves are asked,
by their norm: it is no number if one of them is none, and infinite as soon as their squares are
more than float32 holds, long before they are infinite themselves.
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
    """The Euclidean norm of all weights together; of sharded ones on all workers, who all ask."""
    total: Any = torch.nn.utils.get_total_norm([weight.detach() for weight in weights])
    return float(total.full_tensor() if hasattr(total, "full_tensor") else total)


def require_finite(value: float, what: str, cure: str) -> None:
    """Raise UnusableError, which no retry cures, where `value` (loss, norm) is no finite number."""
    if not math.isfinite(value):
        raise UnusableError(f"{what} became {value}{cure}")
