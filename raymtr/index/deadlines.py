"""Registry of running LanceDB calls: reports overdue ones, and calls whose tables are gone.

Such a call runs outside of Python and cannot be stopped: one that never returns keeps its thread,
and maybe a core, until the process ends. So each call is registered while it runs, and the owner of
the process checks `overdue_calls` and ends the process. The registry is one per process, not one
per table: a stuck call blocks the process even if its table has been opened again since.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from raymtr.errors import InputError, UnusableError

DEADLINE_S = 30.0  # a call takes milliseconds; a second at 10^7 tracks on a busy machine


class LostTableError(UnusableError):
    """The opened tables no longer exist; the tables of the live build do."""


@dataclass(frozen=True)
class PendingCall:
    """A running call: its name, and its start time (`time.monotonic`)."""

    what: str
    since_s: float


_under_way: dict[int, PendingCall] = {}
_lock = threading.Lock()


@contextmanager
def tracked_call(what: str) -> Iterator[None]:
    """Register one call into LanceDB. Raises LostTableError if a file of the table is gone."""
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
    """Calls that have run longer than `deadline_s`: name -> seconds.

    Of several calls with one name the longest is reported. Empty for a healthy process.
    """
    now = time.monotonic()
    with _lock:
        calls = sorted(_under_way.values(), key=lambda call: -call.since_s)
    return {c.what: now - c.since_s for c in calls if now - c.since_s > deadline_s}
