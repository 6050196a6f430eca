"""float32 that means float32, on any device, whatever the process has set.

torch lets a GPU's convolutions drop 13 of float32's 23 bits (TF32) unless it is told not to, lets
anybody in the process allow the same for matrix products, and on a CPU even bfloat16. A vector
made so is another vector under the same fingerprint. The switches belong to the process, so they
are held for as long as any thread is inside, and given back by the last one out.

Only the switches for one kind of operation are used. They outrank those for a whole backend, and
torch refuses to read the older `allow_tf32` once somebody has used these.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

Undo = Sequence[Callable[[], None]]
_lock = threading.Lock()
_inside = 0
_undo: Undo = ()


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32 and no bfloat16 in float32's place, and the same kernels each time."""
    global _inside, _undo
    with _lock:
        _inside += 1
        if _inside == 1:
            _undo = _set()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                for undo in _undo:
                    undo()


def _set() -> Undo:
    """Set every switch; what gives them back."""
    backends: Any = torch.backends
    wanted: list[tuple[Any, str, Any]] = [
        (backends.cudnn.conv, "fp32_precision", "ieee"),
        (backends.cuda.matmul, "fp32_precision", "ieee"),
        (backends.mkldnn.conv, "fp32_precision", "ieee"),
        (backends.mkldnn.matmul, "fp32_precision", "ieee"),
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),  # a timing would choose the kernel
    ]
    undo = [partial(setattr, where, name, getattr(where, name)) for where, name, _ in wanted]
    for where, name, value in wanted:
        setattr(where, name, value)
    return undo
