"""Registry of running LanceDB calls: reports overdue calls, and calls whose tables were deleted.

A call runs in native code and cannot be stopped: one that never returns keeps its thread, and maybe
a core, until the process ends. So each call is registered while it runs. The owner of the process
checks `overdue_calls` and ends the process. There is one registry per process, not one per table: a
stuck call blocks the process even if its table has been opened again since.
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
    """The opened tables were deleted; the live build has other tables."""


@dataclass(frozen=True)
class PendingCall:
    """A running call: its name, and its start time (`time.monotonic`)."""

    what: str
    since_s: float


_running: dict[int, PendingCall] = {}
_lock = threading.Lock()


@contextmanager
def tracked_call(what: str) -> Iterator[None]:
    """Register one LanceDB call. Raises LostTableError if a file of the table was deleted."""
    call = PendingCall(what, time.monotonic())
    with _lock:
        _running[id(call)] = call
    try:
        yield
    except (InputError, UnusableError):
        raise
    except (OSError, RuntimeError, ValueError) as error:
        if "not found" not in str(error).lower():
            raise
        raise LostTableError(
            f"{what}: a file of these tables was deleted, because a newer build replaced them; "
            "open the workspace again"
        ) from error
    finally:
        with _lock:
            del _running[id(call)]


def overdue_calls(deadline_s: float = DEADLINE_S) -> dict[str, float]:
    """Calls that have run longer than `deadline_s`: name -> seconds.

    Of several calls with one name only the longest is reported. Empty if the process is healthy.
    """
    now = time.monotonic()
    with _lock:
        calls = sorted(_running.values(), key=lambda call: -call.since_s)
    return {c.what: now - c.since_s for c in calls if now - c.since_s > deadline_s}
