"""Console output of a verb: a live line on a terminal, plain lines in a log.

Ray prints the output of its processes, each line with the name and number of the process. Only
raymtr's own lines are useful here, since failures are raised as exceptions. The other lines stay in
Ray's log files unless `--verbose` is given.
"""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from raymtr.plain_text import printable
from raymtr.progress import heard

LOG = logging.getLogger("raymtr")
LOGGED_EVERY_S = 5.0  # interval of live lines that cannot be drawn in place
CLEARED = "\r\x1b[K"
EVENT = ":event_summary:"  # of Ray's autoscaler: why something waits
LEVEL_LINE = b"Set ray log level from environment variable"


class Printable(logging.Formatter):
    """Removes control characters, because lines may quote user text that controls a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        """The line without control characters."""
        return printable(super().format(record))


class Console(logging.StreamHandler[TextIO]):
    """Draws live records in place if `terminal`, else prints one every LOGGED_EVERY_S seconds."""

    def __init__(self, stream: TextIO, *, terminal: bool) -> None:
        super().__init__(stream)
        self.setFormatter(Printable("%(message)s"))
        self._terminal, self._drawn = terminal, False
        self._logged: dict[str, float] = {}  # live name -> time of its last line

    def emit(self, record: logging.LogRecord) -> None:
        """Draws or prints one record."""
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
    """Sends raymtr's log to stderr, and with `verbose` all other logs too."""
    root = logging.getLogger()
    if not root.handlers:  # a test runner has its own
        root.addHandler(Console(sys.stderr, terminal=sys.stderr.isatty()))
    for handler in root.handlers:
        handler.setFormatter(Printable("%(message)s"))
    root.setLevel(logging.INFO if verbose else logging.WARNING)
    LOG.setLevel(logging.DEBUG if verbose else logging.INFO)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def is_verbose() -> bool:
    """Whether the user gave `--verbose`."""
    return LOG.isEnabledFor(logging.DEBUG)


@contextmanager
def without_level_line() -> Iterator[None]:
    """Drops the line in which Ray's C++ part says that it obeys RAY_BACKEND_LOG_LEVEL.

    It bypasses `sys.stderr` and comes before the level applies. What else is written to file
    descriptor 2 comes when the block ends.
    """
    with tempfile.TemporaryFile() as written:
        stderr = os.dup(2)
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            for line in written:
                if LEVEL_LINE not in line:
                    os.write(2, line)


def log_workers() -> None:
    """From now on, prints raymtr's log lines from Ray's processes and drops their other lines.

    Ray has no public way to select lines, or to print one without its prefix. The dispatcher is
    private; this was tested with Ray 2.60.
    """
    from ray._private import ray_logging

    dispatcher = ray_logging.global_worker_stdstream_dispatcher
    dispatcher.remove_handler("ray_print_logs")
    dispatcher.remove_handler("raymtr")
    dispatcher.add_handler("raymtr", _hear)


def _hear(data: dict[str, Any]) -> None:
    """Logs raymtr's lines from a batch that one of Ray's processes wrote."""
    for line in data.get("lines", ()):
        if (record := heard(line)) and LOG.isEnabledFor(record.levelno):
            LOG.handle(record)
        elif EVENT in line:
            LOG.warning("Ray: %s", line.partition(EVENT)[2])
