"""All vectors of a build in memory: the exact search of a small catalog."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import numpy as np
from lancedb.table import Table

from raymtr.embeddings.store import matrix_of
from raymtr.index.filters import Filter
from raymtr.index.full_text import Ranked
from raymtr.index.track_rows import read_rows
from raymtr.vectors import unit


class InMemoryVectors:
    """Ids and unit vectors, float32 [N, D], of a `vectors` table, in the order of `row_index`."""

    def __init__(self, table: Table) -> None:
        self._table = table
        rows = table.to_arrow().select(["row_index", "track_id", "vector"]).sort_by("row_index")
        self.ids: list[str] = rows["track_id"].to_pylist()
        self.matrix = unit(matrix_of(rows["vector"]))
        self._row_index = rows["row_index"].to_numpy()  # increasing; deleted tracks leave gaps

    def nearest(self, vector: np.ndarray, limit: int, where: Filter | None) -> Ranked:
        """The tracks nearest to a unit vector [D] by cosine, best first; ties in table order."""
        scores = self.matrix @ vector
        rows = np.arange(len(self.ids))
        if where is not None:
            found = read_rows(self._table, where.sql(), ["row_index"])
            rows = np.searchsorted(self._row_index, np.sort(found["row_index"].to_numpy()))
            scores = scores[rows]
        best = np.arange(len(rows))
        if limit < len(rows):
            best = np.argpartition(-scores, limit - 1)[:limit]
        best = best[np.lexsort((best, -scores[best]))]
        return [(self.ids[rows[i]], float(scores[i])) for i in best]

    def of_tracks(self, ids: Iterable[str]) -> dict[str, np.ndarray]:
        """The vectors [D] of these tracks, by id; a track without one is absent."""
        rows = self._row_of
        return {i: self.matrix[rows[i]] for i in ids if i in rows}

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {track_id: row for row, track_id in enumerate(self.ids)}
