"""Exact float32 on any device, under any precision settings of the process.

By default torch lets a GPU's convolutions drop 13 of float32's 23 mantissa bits (TF32). Other code
in the process may allow the same for matrix products, and on a CPU even bfloat16. The resulting
vector would differ under the same fingerprint. The settings are global to the process. So they are
changed when the first thread enters, and restored when the last one leaves.

Only the settings per kind of operation are used. They override those of a whole backend. Once they
are used, torch refuses to read the older `allow_tf32`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch

Undo = Sequence[Callable[[], None]]
_lock = threading.Lock()
_inside = 0
_undo: Undo = ()


@contextmanager
def exact_float32() -> Iterator[None]:
    """Disable TF32 and bfloat16 in place of float32, and use deterministic kernels."""
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


def without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Turns autocast off in this thread, for float32 results; a no-op where it is off already.

    A thread that leaves its outermost autocast context also clears the cast weights of all other
    threads. A training step that runs meanwhile then casts a shared weight twice and rounds its
    gradient in another place. So a thread without autocast must not enter a context.
    """
    if torch.is_autocast_enabled(device_type):
        return torch.autocast(device_type, enabled=False)
    return nullcontext()


def _set() -> Undo:
    """Change every setting; return the functions that restore them."""
    backends: Any = torch.backends
    wanted: list[tuple[Any, str, Any]] = [
        (backends.cudnn.conv, "fp32_precision", "ieee"),
        (backends.cuda.matmul, "fp32_precision", "ieee"),
        (backends.mkldnn.conv, "fp32_precision", "ieee"),
        (backends.mkldnn.matmul, "fp32_precision", "ieee"),
        (backends.cudnn, "deterministic", True),
        (backends.cudnn, "benchmark", False),  # benchmarking would choose the kernel by a timing
    ]
    undo = [partial(setattr, where, name, getattr(where, name)) for where, name, _ in wanted]
    for where, name, value in wanted:
        setattr(where, name, value)
    return undo
