"""Shards: the part of a job's result that one commit writes; its size, its age and its name."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable


class ShardLimit:
    """Tells when to close a shard: at `tracks` tracks, or `seconds` after the last one closed.

    `seconds` is the most work that a kill can cost. The first shard closes at once, so that a job
    shows early that it works.
    """

    def __init__(self, *, tracks: int, seconds: float) -> None:
        self._tracks, self._seconds = tracks, seconds
        self._count, self._closed = 0, float("-inf")

    def add(self, tracks: int) -> bool:
        """Count the tracks that join the open shard; whether it is due to be closed."""
        self._count += tracks
        return self._count >= self._tracks or time.monotonic() - self._closed >= self._seconds

    def close(self) -> None:
        """Begin the next shard."""
        self._count, self._closed = 0, time.monotonic()


def shard_name(ids: Iterable[str]) -> str:
    """The name of the shard of these tracks, in any order: 16 hex digits."""
    return hashlib.sha256("\n".join(sorted(ids)).encode()).hexdigest()[:16]
