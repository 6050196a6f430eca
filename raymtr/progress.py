"""Reports the progress of a long job: an updated line while it runs, one summary at its end.

It logs, and does not draw. A log record with the attribute `live` replaces the previous one of the
same name: the command line draws it in place on a terminal, and prints some of them in a log. A
process that Ray starts has no terminal. `speak_to_driver` formats its lines so that the driver
(`heard`) can distinguish them from other output of that process.
"""

from __future__ import annotations

import logging
import re
import sys
import time
from collections.abc import Callable
from typing import ClassVar

LOG = logging.getLogger("raymtr")
RENEWED_EVERY_S = 0.5

_SPOKEN = re.compile(r"raymtr (?P<level>[A-Z]+)(?: (?P<live>\S+))?: (?P<text>.*)")


class Progress:
    """Counts work up to `total` and logs progress, at most every `every_s` seconds."""

    latest: ClassVar[Progress | None] = None  # the last one of this process, read if it is stopped

    def __init__(
        self,
        what: str,
        total: int,
        *,
        unit: str,
        done: int = 0,
        every_s: float = RENEWED_EVERY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.unit = what, total, unit
        self.done = self._found_done = done  # the rate counts only this run's work
        self._every_s, self._clock = every_s, clock
        self._started = self._spoken = clock()
        Progress.latest = self

    def advance(self, count: int, note: str = "") -> None:
        """Record that `count` more are done; `note` is appended to the line if one is due."""
        ended = self.done >= self.total
        self.done += count
        now, note = self._clock(), f", {note}" if note else ""
        if self.done >= self.total and not ended:
            LOG.info("%s", self.summary(now) + note)
        elif now - self._spoken >= self._every_s and not ended:
            self._spoken = now
            LOG.info("%s", self.line(now) + note, extra={"live": self.what})

    def line(self, now: float) -> str:
        """The progress line: `embed 120/600 tracks, 14.2 tracks/s, 34 s left`."""
        rate = self._rate(now)
        left = f"{(self.total - self.done) / rate:.0f} s left" if rate else "no rate yet"
        return f"{self.what} {self.done}/{self.total} {self.unit}, {rate:.3g} {self.unit}/s, {left}"

    def summary(self, now: float) -> str:
        """The summary: `embed: 600 tracks in 42 s, 14.2 tracks/s`."""
        took = f"{self.done} {self.unit} in {now - self._started:.0f} s"
        return f"{self.what}: {took}, {self._rate(now):.3g} {self.unit}/s"

    def _rate(self, now: float) -> float:
        return (self.done - self._found_done) / max(now - self._started, 1e-9)


class _Spoken(logging.Formatter):
    """`raymtr INFO train: text` for a live record named train, `raymtr INFO: text` for others."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        live = getattr(record, "live", None)
        name = f"{record.levelname} {live}" if live else record.levelname
        return f"raymtr {name}: {' '.join(record.getMessage().split())}"


def speak_to_driver() -> None:
    """Call in a process that Ray started: logs to stderr in the form that `heard` reads."""
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train's workers print INFO
    LOG.setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Spoken())
    LOG.handlers[:], LOG.propagate = [handler], False


def heard(line: str) -> logging.LogRecord | None:
    """The record that a process with `speak_to_driver` wrote as `line`; None for other lines."""
    spoken = _SPOKEN.fullmatch(line.rstrip())
    if spoken is None:
        return None
    level = logging.getLevelNamesMapping().get(spoken["level"], logging.INFO)
    record = logging.LogRecord("raymtr", level, __file__, 0, spoken["text"], None, None)
    record.live = spoken["live"]
    return record
