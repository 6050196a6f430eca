"""One progress line for every long piece of work: done, rate, time left.

It logs (stderr, by the command line's set-up) instead of drawing, so the same line reads well in
a terminal, in a cluster's log and in CI.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import ClassVar

LOG = logging.getLogger("raymtr")


class Progress:
    """Counts work towards `total` and logs a line at most every `every_s` seconds."""

    latest: ClassVar[Progress | None] = None  # how far this process came, should it be stopped

    def __init__(
        self,
        what: str,
        total: int,
        *,
        unit: str,
        done: int = 0,
        every_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self._found_done = done  # a resumed piece of work's rate is its own
        self._every_s, self._clock = every_s, clock
        self._started = self._spoken = clock()
        Progress.latest = self

    def advance(self, count: int, note: str = "") -> None:
        """`count` more are done; `note` is added to the line if one is due."""
        self.done += count
        now = self._clock()
        if now - self._spoken >= self._every_s or self.done >= self.total:
            self._spoken = now
            LOG.info("%s", self.line(now) + (f", {note}" if note else ""))

    def line(self, now: float) -> str:
        """`embed 120/600 tracks, 14.2 tracks/s, 34 s left`."""
        elapsed = max(now - self._started, 1e-9)
        rate = (self.done - self._found_done) / elapsed
        left = f"{(self.total - self.done) / rate:.0f} s left" if rate else "no rate yet"
        return f"{self.what} {self.done}/{self.total} {self.unit}, {rate:.3g} {self.unit}/s, {left}"
