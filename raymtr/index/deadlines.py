"""Calls into LanceDB while they run: which are late, and which lost the tables under them.

Such a call runs outside of Python and cannot be stopped: one that never comes back keeps its
thread, and maybe a core, until the process ends. So each is written down while it runs, and whoever
owns the process asks `overdue` and ends it. One list for the process and not one a table: a stuck
call holds the process whichever table it was made on, however often that has been opened since.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from raymtr.errors import InputError, UnusableError

DEADLINE_S = 30.0  # a call takes milliseconds; at 10^7 tracks and on a busy machine a second


class LostTableError(UnusableError):
    """The tables that were opened are no longer there; those that serve now are."""


@dataclass(frozen=True)
class PendingCall:
    """A call under way: what it asks, and since when (`time.monotonic`)."""

    what: str
    since_s: float


_under_way: dict[int, PendingCall] = {}
_lock = threading.Lock()


@contextmanager
def tracked_call(what: str) -> Iterator[None]:
    """Around one call into LanceDB. Raises LostTableError where a file of the table is gone."""
    call = PendingCall(what, time.monotonic())
    with _lock:
        _under_way[id(call)] = call
    try:
        yield
    except (InputError, UnusableError):
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if "not found" not in str(error).lower():
            raise
        raise LostTableError(
            f"{what}: a file of these tables is gone, for others took their place; open the "
            "workspace again"
        ) from error
    finally:
        with _lock:
            del _under_way[id(call)]


def overdue_calls(deadline_s: float = DEADLINE_S) -> dict[str, float]:
    """The calls that have run longer than `deadline_s`, by name: for how many seconds.

    Of two of one name the longer is told. An empty answer is a healthy process.
    """
    now = time.monotonic()
    with _lock:
        calls = sorted(_under_way.values(), key=lambda call: -call.since_s)
    return {c.what: now - c.since_s for c in calls if now - c.since_s > deadline_s}
