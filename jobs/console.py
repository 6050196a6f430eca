"""What a person sees while a verb runs: a live line on a terminal, plain lines in a log.

Ray prints what its processes write, each line under the name and number of the process. Of that
only what raymtr itself says is of use here (a failure comes back as an exception), so the other
lines stay in Ray's own files unless `--verbose` asks for all of them.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import time
from typing import Any, TextIO

from raymtr.plain_text import printable
from raymtr.progress import heard

LOG = logging.getLogger("raymtr")
LOGGED_EVERY_S = 5.0  # a live line, where it cannot be drawn in place
CLEARED = "\r\x1b[K"
EVENT = ":event_summary:"  # of Ray's autoscaler: why something waits


class Printable(logging.Formatter):
    """Lines may quote a user's text, and that must not steer the terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without control characters."""
        return printable(super().format(record))


class Console(logging.StreamHandler[TextIO]):
    """Draws live records in place where `terminal`, else prints one in LOGGED_EVERY_S seconds."""

    def __init__(self, stream: TextIO, *, terminal: bool) -> None:
        super().__init__(stream)
        self.setFormatter(Printable("%(message)s"))
        self._terminal, self._drawn = terminal, False
        self._logged: dict[str, float] = {}  # live name -> when one was printed

    def emit(self, record: logging.LogRecord) -> None:
        """Draw or print one record."""
        live = getattr(record, "live", None)
        if live and self._terminal:
            width = shutil.get_terminal_size().columns - 1
            self._write(CLEARED + self.format(record)[:width])
            self._drawn = True
        elif not live or self._is_due(live):
            self._write(CLEARED * self._drawn + self.format(record) + "\n")
            self._drawn = False

    def _is_due(self, live: str) -> bool:
        now = time.monotonic()
        if now - self._logged.get(live, float("-inf")) < LOGGED_EVERY_S:
            return False
        self._logged[live] = now
        return True

    def _write(self, text: str) -> None:
        self.stream.write(text)
        self.stream.flush()


def set_up_console(*, verbose: bool) -> None:
    """Send raymtr's log to stderr, and with `verbose` everything else that is logged too."""
    root = logging.getLogger()
    if not root.handlers:  # a test's runner has its own
        root.addHandler(Console(sys.stderr, terminal=sys.stderr.isatty()))
    for handler in root.handlers:
        handler.setFormatter(Printable("%(message)s"))
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def is_verbose() -> bool:
    """Whether the user asked for everything."""
    return LOG.isEnabledFor(logging.DEBUG)


def hear_workers() -> None:
    """From now on print what raymtr says in Ray's processes, and drop their other lines.

    Ray has no public way to choose lines, or to print one without its prefix. The dispatcher is
    private; this was tried with Ray 2.60.
    """
    from ray._private import ray_logging

    dispatcher = ray_logging.global_worker_stdstream_dispatcher
    dispatcher.remove_handler("ray_print_logs")
    dispatcher.remove_handler("raymtr")
    dispatcher.add_handler("raymtr", _hear)


def _hear(data: dict[str, Any]) -> None:
    """Log a batch of lines that one of Ray's processes wrote, as far as they are raymtr's."""
    for line in data.get("lines", ()):
        if (record := heard(line)) and LOG.isEnabledFor(record.levelno):
            LOG.handle(record)
        elif EVENT in line:
            LOG.warning("Ray: %s", line.partition(EVENT)[2])
