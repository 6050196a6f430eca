"""Builds a playlist from one track to another in which neighbours sound alike.

The path is the great circle between the two tracks' vectors, cut into equal angles. A straight line
would move too fast in its middle, where points are not of unit length. At each cut, the unused
track nearest to the cut, to the previous track and to the next cut is chosen. The previous track
and the next cut have equal weight, because the previous track alone would pull the path back to the
start. No track repeats. Trade-off: the path is greedy, not the optimal chain. It costs one
nearest-neighbour search per step at any catalog size.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from raymtr.errors import InputError
from raymtr.index.filters import Filter
from raymtr.index.full_text import Ranked
from raymtr.index.track_table import TrackTable
from raymtr.search.contract import MOST_HITS
from raymtr.search.request import check_ids

COMPARED = 20  # unused tracks compared at each cut


def path_between(
    table: TrackTable, start: str, end: str, *, count: int = 12, where: Filter | None = None
) -> Ranked:
    """Up to `count` tracks from `start` to `end`, both included, with their cosine to `start`.

    `where` applies to the tracks between them. Fewer tracks are returned if the catalog has no
    more. Raises InputError for an unknown track, a track without audio, or a count outside 2 to
    100.
    """
    if isinstance(count, bool) or not isinstance(count, int) or not 2 <= count <= MOST_HITS:
        raise InputError(f"a playlist has 2 to {MOST_HITS} tracks, got {count!r}")
    check_ids([start, end], table)
    if start == end:
        raise InputError("a playlist between two tracks needs two different ones")
    ends = table.vectors([start, end])
    first, last = ends[start], ends[end]
    taken = {start: first}
    before = first
    cuts = [on_the_way(first, last, step / (count - 1)) for step in range(count)]
    for waypoint, after in pairwise(cuts[1:]):
        limit = len(taken) + 1 + COMPARED
        near = table.nearest(waypoint, limit=limit, where=where)
        free = [track_id for track_id, _ in near if track_id not in taken and track_id != end]
        if not free:
            break
        vectors = table.vectors(free)
        towards = 2 * waypoint + before + after
        chosen = free[int(np.argmax([vectors[track_id] @ towards for track_id in free]))]
        before = taken[chosen] = vectors[chosen]
    taken[end] = last
    return [(track_id, float(vector @ first)) for track_id, vector in taken.items()]


def on_the_way(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    """The unit vector [D] at `share` of the angle from `start` to `end` (slerp, Shoemake 1985)."""
    angle = float(np.arccos(np.clip(start @ end, -1.0, 1.0)))
    if np.sin(angle) < 1e-6:  # equal or opposite vectors: the shortest arc is not unique
        return start
    mixed = np.sin((1 - share) * angle) * start + np.sin(share * angle) * end
    return np.asarray(mixed / np.sin(angle), np.float32)
