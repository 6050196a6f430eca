"""The map of the search page: tracks on the two main axes of their vectors."""

from __future__ import annotations

import numpy as np

from raymtr.index.track_table import TrackTable
from serve.messages import MapPoint, TrackMap

ON_THE_MAP = 3_000


def draw_map(table: TrackTable) -> TrackMap:
    """Up to ON_THE_MAP tracks, at places in [-1, 1]; none where there are too few vectors."""
    if table.build.rows["vectors"] < 3:
        return {"points": []}
    ids, vectors = table.sample(ON_THE_MAP, np.random.default_rng(0))
    centred = vectors - vectors.mean(axis=0)
    # The main axes from the small D x D side: no work is quadratic in the number of tracks.
    _, axes = np.linalg.eigh(centred.T @ centred)
    places = centred @ axes[:, -2:][:, ::-1]
    places /= np.maximum(np.abs(places).max(axis=0), 1e-9)
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
        for i, (x, y) in zip(ids, places, strict=True)
    ]
    return {"points": points}
