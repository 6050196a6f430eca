"""Peak memory of this process and all its descendants, by proportional set size.

Ray's workers share one object store; resident memory would count it once per process. PSS divides
each shared page among its users, so the sum is the actual usage. If the system has no PSS (macOS),
unique memory is summed instead.
"""

from __future__ import annotations

import threading
from types import TracebackType

import psutil


def tree_bytes() -> int:
    """Current memory of this process and all its descendants, bytes."""
    here = psutil.Process()
    total = 0
    for process in [here, *here.children(recursive=True)]:
        try:
            memory = process.memory_full_info()
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        total += getattr(memory, "pss", memory.uss)
    return total


class MemoryWatch:
    """Samples the process tree in a thread while the `with` block runs."""

    def __init__(self, *, every_s: float = 2.0) -> None:
        self.peak_bytes = 0
        self._every_s = every_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @property
    def peak_gib(self) -> float:
        """The highest sum seen, GiB."""
        return self.peak_bytes / 2**30

    def _watch(self) -> None:
        while not self._stop.is_set():
            self.peak_bytes = max(self.peak_bytes, tree_bytes())
            self._stop.wait(self._every_s)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, tree_bytes())
