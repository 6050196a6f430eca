"""A playlist from one track to another: each step sounds like its neighbours.

The way is the great circle between the two tracks' vectors, cut into equal angles: the straight
line would hurry through its middle, where vectors of unit length do not lie. At every cut the
track is taken that lies near it, and near the one taken before as much as the cut that follows:
the one before alone would hold the way back. Each track once. What was given up: the best of all
chains. This one costs a nearest-neighbour search a step at any size.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from raymtr.errors import InputError
from raymtr.index.filters import Filter
from raymtr.index.track_table import Ranked, TrackTable
from raymtr.search.request import MOST_HITS, check_ids

NEAREST_LOOKED_AT = 20  # free tracks around each cut


def path_between(
    table: TrackTable, start: str, end: str, *, count: int = 12, where: Filter | None = None
) -> Ranked:
    """Up to `count` tracks from `start` to `end`, both among them, with their cosine to `start`.

    `where` holds for those between. Fewer come back where the catalog has no more. Raises
    InputError for an unknown track, one without audio, or a count that is not 2 to 100.
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
        limit = len(taken) + 1 + NEAREST_LOOKED_AT
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
    if np.sin(angle) < 1e-6:  # the same or opposite: no arc is shorter than another
        return start
    mixed = np.sin((1 - share) * angle) * start + np.sin(share * angle) * end
    return np.asarray(mixed / np.sin(angle), np.float32)
