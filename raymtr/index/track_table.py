"""One published build of the index, opened for reading: who is near, who is named so, and where.

Three tables carry a build's name: `tracks` (all words about a track, its names in the forms people
type, never a vector), `vectors` (one per track that has audio, with copies of the columns filters
use, so that a filter runs where the search runs) and `windows` (where in the track). They never
change once published, so everything read here is of one version.

Nearest vectors come from an in-process matrix where the build says exact, else from the vector
index; the rest is asked of LanceDB at any size. Filters are evaluated by LanceDB in both cases, so
they mean the same: the exact path turns the rows it finds into a mask.

What this file does not know: models, queries in words, how lists are fused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt
from lancedb.expr import col, lit
from lancedb.query import FullTextOperator, MatchQuery

from raymtr.errors import UnusableError
from raymtr.index.filters import Filter
from raymtr.index.names import spoken_name
from raymtr.index.shards import MadeBy, matrix_of

Ranked = list[tuple[str, float]]  # track ids with their scores, best first
TextColumn = Literal["words", "names"]
KINDS = ("tracks", "vectors", "windows")

# Shadow columns of `tracks`; a catalog's own columns never begin with an underscore.
TITLE_KEY, ARTIST_KEY, SIMILAR_KEYS = "_title_key", "_artist_key", "_similar_keys"
SHADOW = ("words", "names", TITLE_KEY, ARTIST_KEY, SIMILAR_KEYS)
SCAN_BELOW = 2_000  # matching rows up to which a filtered search reads them all


@dataclass(frozen=True, kw_only=True)
class VectorIndex:
    """How nearest vectors are found; chosen when the build is made, kept with it."""

    kind: Literal["exact", "ivf_rq", "ivf_sq"]
    why: str
    partitions: int = 0
    nprobes: int = 0
    refine: int = 0


@dataclass(frozen=True, kw_only=True)
class Build:
    """The record of one build: its tables, what made its vectors, how it is searched."""

    name: str
    built_at: str  # UTC, ISO 8601
    made_by: MadeBy | None  # what made its vectors; None: a catalog of words without any
    rows: dict[str, int]  # of each table
    versions: dict[str, int]  # of each table
    index: VectorIndex

    @property
    def fingerprint(self) -> str | None:
        """The model whose vectors these are."""
        return self.made_by.fingerprint if self.made_by else None


class TrackTable:
    """The tables of `build` in the LanceDB database at `uri`."""

    def __init__(self, uri: str, build: Build) -> None:
        self.build = build
        self._db = lancedb.connect(uri)
        self._tracks, self._vectors, self._windows = (self._open(kind) for kind in KINDS)

    @property
    def filterable(self) -> pa.Schema:
        """The columns a filter may name."""
        return filterable(self._tracks.schema)

    @property
    def columns(self) -> list[str]:
        """The columns of a track as the catalog has them."""
        return [name for name in self._tracks.schema.names if name not in SHADOW]

    def nearest(self, vector: np.ndarray, *, limit: int, where: Filter | None = None) -> Ranked:
        """The tracks nearest to a unit vector [D] by cosine, best first."""
        if not self.build.rows["vectors"]:
            return []
        if self.build.index.kind == "exact":
            return self._nearest_exactly(vector, limit, where)
        return self._nearest_by_index(vector, limit, where)

    def match(
        self,
        text: str,
        column: TextColumn,
        *,
        limit: int,
        where: Filter | None = None,
        all_words: bool = False,
        typos: int = 0,
    ) -> Ranked:
        """Tracks whose `column` has words of `text`, by BM25; `typos` letters off each word."""
        operator = FullTextOperator.AND if all_words else FullTextOperator.OR
        text = spoken_name(text) if column == "names" else text
        query = self._tracks.search(MatchQuery(text, column, fuzziness=typos, operator=operator))
        if where is not None:
            query = query.where(where.sql(), prefilter=True)
        found = query.limit(limit).select(["track_id", "_score"]).to_arrow()
        return _ranked(found["track_id"], found["_score"])

    def named(self, keys: Iterable[str]) -> list[dict[str, Any]]:
        """Tracks whose title or artist has one of these `names.name_key`s, with both keys."""
        wanted = sorted(set(keys))
        condition = col(TITLE_KEY).isin(wanted) | col(ARTIST_KEY).isin(wanted)
        return self._named_rows(condition.to_sql()) if wanted else []

    def spelt_like(self, name: str, *, limit: int) -> list[dict[str, Any]]:
        """Tracks whose names share words with `name`, give or take some letters; as `named`."""
        found = self.match(name, "names", limit=limit, typos=2)
        return self._named_rows(_among([track_id for track_id, _ in found]))

    def similar_to(self, artist_key: str) -> dict[str, int]:
        """Tracks whose artist graph names this artist, and at which place of their lists."""
        condition = f"array_has({col(SIMILAR_KEYS).to_sql()}, {lit(artist_key).to_sql()})"
        found = self._all_rows(self._tracks, condition, ["track_id", SIMILAR_KEYS]).to_pylist()
        return {row["track_id"]: row[SIMILAR_KEYS].index(artist_key) for row in found}

    @cached_property
    def tags(self) -> frozenset[str]:
        """Every tag of the catalog, in its spoken form."""
        tags = self._all_rows(self._tracks, None, ["tags"])["tags"]
        return frozenset(spoken_name(tag) for tag in pc.list_flatten(tags).unique().to_pylist())

    def matching(self, where: Filter | None) -> set[str]:
        """Ids of all tracks a filter lets through."""
        sql = where.sql() if where is not None else None
        return set(self._all_rows(self._tracks, sql, ["track_id"])["track_id"].to_pylist())

    def rows(
        self, ids: Sequence[str], columns: Sequence[str] | None = None
    ) -> dict[str, dict[str, Any]]:
        """The catalog's columns of these tracks, by id; an unknown id is absent."""
        wanted = list(columns or self.columns)
        found = self._all_rows(self._tracks, _among(ids), ["track_id", *wanted])
        return {row["track_id"]: row for row in found.to_pylist()}

    def vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """The unit vectors [D] of these tracks, by id; a track without audio is absent."""
        found = self._all_rows(self._vectors, _among(ids), ["track_id", "vector"])
        if not len(found):
            return {}
        matrix = matrix_of(found["vector"]).astype(np.float32)
        return dict(zip(found["track_id"].to_pylist(), matrix, strict=True))

    def windows(self, ids: Sequence[str]) -> pa.Table:
        """`track_id, start_s, end_s, vector` of every window of these tracks."""
        wanted = ["track_id", "start_s", "end_s", "vector"]
        return self._all_rows(self._windows, _among(ids), wanted)

    def all_vectors(self) -> tuple[list[str], np.ndarray]:
        """All ids and their unit vectors, float32 [N, D], in the order of `row_index`."""
        rows = self._vectors.to_arrow().select(["row_index", "track_id", "vector"])
        rows = rows.sort_by("row_index")
        matrix = matrix_of(rows["vector"]).astype(np.float32)
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)  # undo the rounding to float16
        return rows["track_id"].to_pylist(), matrix

    @cached_property
    def _matrix(self) -> tuple[list[str], np.ndarray]:
        return self.all_vectors()

    def _named_rows(self, condition: str) -> list[dict[str, Any]]:
        columns = ["track_id", "title", "artist", TITLE_KEY, ARTIST_KEY]
        return list(self._all_rows(self._tracks, condition, columns).to_pylist())

    def _open(self, kind: str) -> Any:
        name = table_name(kind, self.build.name)
        try:
            table = self._db.open_table(name)
            table.checkout(self.build.versions[kind])
        except (ValueError, RuntimeError, OSError) as error:
            raise UnusableError(
                f"table {name} that the live pointer names cannot be opened ({error}); "
                "run `raymtr index` again, or `raymtr index --rollback`"
            ) from error
        return table

    def _nearest_exactly(self, vector: np.ndarray, limit: int, where: Filter | None) -> Ranked:
        ids, matrix = self._matrix
        scores = matrix @ vector
        rows = np.arange(len(ids))
        if where is not None:
            found = self._all_rows(self._vectors, where.sql(), ["row_index"])
            rows = np.sort(found["row_index"].to_numpy())
            scores = scores[rows]
        best = np.arange(len(rows))
        if limit < len(rows):
            best = np.argpartition(-scores, limit - 1)[:limit]
        best = best[np.lexsort((best, -scores[best]))]
        return [(ids[rows[i]], float(scores[i])) for i in best]

    def _nearest_by_index(self, vector: np.ndarray, limit: int, where: Filter | None) -> Ranked:
        index = self.build.index
        query = self._vectors.search(vector, vector_column_name="vector").distance_type("cosine")
        query = query.refine_factor(index.refine).limit(limit).select(["track_id", "_distance"])
        if where is None:
            query = query.nprobes(index.nprobes)
        else:
            sql = where.sql()
            query = query.where(sql, prefilter=True)
            if self._vectors.count_rows(sql) < SCAN_BELOW:
                query = query.bypass_vector_index()
            else:  # as many more partitions as it takes to fill the list
                query = query.minimum_nprobes(index.nprobes).maximum_nprobes(0)
        found = query.to_arrow()
        return _ranked(found["track_id"], [1.0 - d for d in found["_distance"].to_pylist()])

    def _all_rows(self, table: Any, condition: str | None, columns: list[str]) -> pa.Table:
        query = table.search()
        if condition is not None:
            query = query.where(condition, prefilter=True)
        chosen = list(dict.fromkeys(columns))
        return query.select(chosen).limit(max(table.count_rows(), 1)).to_arrow()


def table_name(kind: str, build: str) -> str:
    """The LanceDB table of one kind in one build."""
    return f"{kind}_{build}"


def filterable(schema: pa.Schema) -> pa.Schema:
    """The columns of `schema` a filter can name: text, numbers, truth values, lists of text."""
    fields = []
    for field in schema:
        kind = field.type.value_type if pt.is_list(field.type) else field.type
        plain = pt.is_string(kind) or pt.is_large_string(kind) or pt.is_boolean(kind)
        plain = plain or pt.is_integer(kind) or pt.is_floating(kind)
        if plain and field.name not in SHADOW:
            fields.append(field)
    return pa.schema(fields)


def _among(ids: Sequence[str]) -> str:
    return str(col("track_id").isin(list(ids)).to_sql()) if len(ids) else "false"


def _ranked(ids: pa.ChunkedArray, scores: Any) -> Ranked:
    values = scores.to_pylist() if isinstance(scores, pa.ChunkedArray) else scores
    return list(zip(ids.to_pylist(), values, strict=True))
