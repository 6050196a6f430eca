"""The map of the search page: tracks on the two principal axes of their vectors."""

from __future__ import annotations

import numpy as np

from raymtr.index.track_table import TrackTable
from serve.messages import MapPoint, TrackMap

MOST_POINTS = 3_000  # tracks on the map, a random sample


def draw_map(table: TrackTable) -> TrackMap:
    """Up to MOST_POINTS tracks at positions in [-1, 1]; no points below 3 vectors."""
    if table.build.rows["vectors"] < 3:
        return {"points": []}
    ids, vectors = table.sample(MOST_POINTS, np.random.default_rng(0))
    centred = vectors - vectors.mean(axis=0)
    # Principal axes from the D x D covariance, so the cost is linear in the number of tracks.
    _, axes = np.linalg.eigh(centred.T @ centred)
    positions = centred @ axes[:, -2:][:, ::-1]
    positions /= np.maximum(np.abs(positions).max(axis=0), 1e-9)
    rows = table.rows(ids, ["title", "artist", "tags"])
    points = [
        MapPoint(
            track_id=i,
            x=round(float(x), 4),
            y=round(float(y), 4),
            title=rows[i]["title"],
            artist=rows[i]["artist"],
            tag=(rows[i]["tags"] or [None])[0],
        )
        for i, (x, y) in zip(ids, positions, strict=True)
    ]
    return {"points": points}
