"""One published build of the index, opened for reading: vector, full-text and name search.

A build has three tables. `tracks` has all texts about a track and its names in normalised forms,
and no vectors. `vectors` has one row per track with audio, with copies of the columns that filters
use, so that filter and search run on one table. `windows` has the vectors of a track's windows. The
build's record names a version of each. Versions never change, so all reads here see one snapshot.

Nearest vectors come from an in-process matrix if the build's index is exact, else from the vector
index. Full-text search uses LanceDB at any size. LanceDB evaluates filters in both cases, so their
semantics are the same: the exact search only scores the rows that LanceDB returns.

This file does not depend on models, on query parsing, or on the fusion of ranked lists.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import cast

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.query import BooleanQuery, FullTextQuery, LanceVectorQueryBuilder, Occur
from lancedb.table import LanceTable, Table

from raymtr.embeddings.store import matrix_of
from raymtr.errors import UnusableError
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.column_values import ColumnValues
from raymtr.index.conditions import filterable_type, sql_among, sql_column
from raymtr.index.deadlines import tracked_call
from raymtr.index.exact_vectors import InMemoryVectors
from raymtr.index.filters import Filter
from raymtr.index.full_text import Ranked, best_matches, contains, names_with
from raymtr.index.track_rows import (
    NAMED_COLUMNS,
    SEARCH_COLUMNS,
    SIMILAR_KEYS,
    InMemoryRows,
    LanceRows,
    NamedRow,
    Row,
    read_rows,
)
from raymtr.index.trigrams import SAMPLED, TrigramCounts, any_of, trigrams
from raymtr.names import spoken_name
from raymtr.track import split_artists
from raymtr.vectors import unit

FEW_TRIGRAMS, MANY_TRIGRAMS = 4, 12  # per query, for names that contain words, for misspelt names
CACHED_COUNTS = 1_024  # filters whose number of matching rows is cached
SCAN_BELOW = 2_000  # rows; a filtered search with fewer matches scans them all


class TrackTable:
    """The tables of `build` in the LanceDB database at `uri`."""

    def __init__(self, uri: str, build: Build, session: lancedb.Session | None = None) -> None:
        """Tables of one `session` share its caches; without one the table has LanceDB's default."""
        self.build = build
        self._uri, self._db = uri, lancedb.connect(uri, session=session)
        self._tracks, self._vectors, self._windows = (self._open(kind) for kind in KINDS)
        # Counts can be cached because a table version never changes.
        self._count = functools.lru_cache(CACHED_COUNTS)(self._vectors.count_rows)

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the table shards that are left out; () for a table without shards."""
        return ()

    def present(self, lost: Collection[int] = ()) -> TrackTable:
        """The table without the shards that do not answer now; see `sharded_table`."""
        return self

    def warm(self) -> None:
        """Loads the vectors or their index, and some rows, so that the first search is not slow."""
        if self.build.made_by is not None:
            for index in self._vectors.list_indices():
                if index.columns == ["vector"]:
                    cast(LanceTable, self._vectors).prewarm_index(index.name)
            self.nearest(np.ones(self.build.made_by.dim, np.float32), limit=1)
        self.match_words("warm piano", limit=1)
        self.rows(["warm"])

    @cached_property
    def filterable(self) -> pa.Schema:
        """The columns a filter may name, and, for error messages, those of unsupported types."""
        names = self._vectors.schema.names  # an older version copied fewer types there
        return pa.schema(
            field
            for field in self._tracks.schema
            if field.name not in SEARCH_COLUMNS
            and (field.name in names or not filterable_type(field.type))
        )

    @cached_property
    def columns(self) -> list[str]:
        """The catalog's columns of a track."""
        return [name for name in self._tracks.schema.names if name not in SEARCH_COLUMNS]

    @tracked_call("nearest tracks")
    def nearest(self, vector: np.ndarray, *, limit: int, where: Filter | None = None) -> Ranked:
        """The tracks nearest to a unit vector [D] by cosine, best first."""
        if not self.build.rows["vectors"]:
            return []
        if self.build.index.kind == "exact":
            return self._exact.nearest(vector, limit, where)
        return self._nearest_by_index(vector, limit, where)

    @tracked_call("tracks by words")
    def match_words(self, text: str, *, limit: int, where: Filter | None = None) -> Ranked:
        """Tracks whose captions and tags share words with `text`, by BM25; ties in table order."""
        return best_matches(self._tracks, contains(text, "words"), limit, where)

    @tracked_call("tracks by words")
    def match_weighted(
        self, weights: Mapping[str, float], *, limit: int, where: Filter | None = None
    ) -> Ranked:
        """Tracks whose captions and tags have any of these words, each boosted by its weight."""
        terms: list[tuple[Occur, FullTextQuery]] = [
            (Occur.SHOULD, contains(word, "words", boost)) for word, boost in weights.items()
        ]
        return best_matches(self._tracks, BooleanQuery(terms), limit, where) if terms else []

    def match_names(self, text: str, *, limit: int, where: Filter | None = None) -> Ranked:
        """Tracks whose title, artist and album contain all words of `text`, by BM25.

        A match must have a few of the trigrams within words. Trigrams across words ("e 12") only
        raise the score of tracks that have the words in this order. Words under three letters have
        no trigram of their own. A query of only such words ("go go") requires the trigrams across
        them, so the words must be in this order. A query of fewer than three non-ASCII characters,
        which is a whole word in some scripts, is looked up by a scan of all names.
        """
        name = spoken_name(text)
        within = set().union(*map(trigrams, name.split())) or trigrams(name)
        counts = self.trigram_counts
        return self.match_trigrams(
            name.split(),
            must=counts.rarest(within, FEW_TRIGRAMS),
            also=counts.rarest(trigrams(name) - within, FEW_TRIGRAMS),
            limit=limit,
            where=where,
        )

    @tracked_call("tracks by names")
    def match_trigrams(
        self,
        words: Sequence[str],
        *,
        must: Sequence[str],
        also: Sequence[str],
        limit: int,
        where: Filter | None,
    ) -> Ranked:
        """Tracks whose names contain all `words`, looked up by their trigrams; see match_names.

        All trigrams in `must` are required; those in `also` only raise the score. Without `must`,
        ASCII words have no match.
        """
        if not must:
            ascii_only = all(word.isascii() for word in words)
            return [] if ascii_only else names_with(self._tracks, words, limit, where)
        terms: list[tuple[Occur, FullTextQuery]] = [
            (Occur.MUST, contains(t, "names")) for t in must
        ]
        if also:
            terms.append((Occur.SHOULD, contains(any_of(also), "names")))
        return best_matches(self._tracks, BooleanQuery(terms), limit, where, names=words)

    @tracked_call("tracks of a name")
    def named(self, keys: Iterable[str]) -> list[NamedRow]:
        """NAMED_COLUMNS of the tracks whose title or artist has one of these `names.name_key`s."""
        return self._rows.by_name(keys)

    def spelt_like(self, name: str, *, limit: int) -> list[NamedRow]:
        """NAMED_COLUMNS of the tracks whose names share most of the rarest trigrams of `name`."""
        rarest = self.trigram_counts.rarest(trigrams(spoken_name(name)), MANY_TRIGRAMS)
        found = self.share_trigrams(rarest, limit=limit) if rarest else []
        rows = self.rows([track_id for track_id, _ in found], NAMED_COLUMNS)
        return [cast(NamedRow, rows[track_id]) for track_id, _ in found]

    @tracked_call("names spelt alike")
    def share_trigrams(self, some: Sequence[str], *, limit: int) -> Ranked:
        """The tracks whose names share the most of these trigrams."""
        return best_matches(self._tracks, contains(any_of(some), "names"), limit, None)

    @tracked_call("the artist graph")
    def similar_to(self, artist_key: str) -> dict[str, int]:
        """Tracks whose similar artists include this one: id -> its position in that list."""
        rows = self._rows.by_similar(artist_key)
        return {row["track_id"]: row[SIMILAR_KEYS].index(artist_key) for row in rows}

    @cached_property
    @tracked_call("values of the columns")
    def column_values(self) -> ColumnValues:
        """Tags, categories and names in other scripts: as kept with the table, or by a scan."""
        kept = ColumnValues.read(self._uri, self.build)
        return self._scanned_values() if kept is None else kept

    def _scanned_values(self) -> ColumnValues:
        filled = [
            name
            for name in self.filterable.names
            if self._tracks.count_rows(f"{sql_column(name)} IS NOT NULL")
        ]
        return ColumnValues.collect(
            self._tracks.schema, filled, lambda name: self.stream("tracks", [name])
        )

    @cached_property
    def tags(self) -> frozenset[str]:
        """All tags of the catalog, normalised by `names.spoken_name`."""
        return frozenset(map(spoken_name, self.column_values.counts.get("tags", ())))

    @cached_property
    def tag_words(self) -> frozenset[str]:
        """All words of tags."""
        return frozenset(word for tag in self.tags for word in tag.split())

    @tracked_call("tracks of a filter")
    def matching(self, where: Filter | None) -> set[str]:
        """Ids of all tracks that match a filter; None matches all tracks."""
        if where is None:
            return set(self._rows.column("track_id").to_pylist())
        return set(read_rows(self._tracks, where.sql(), ["track_id"])["track_id"].to_pylist())

    @tracked_call("tracks of a filter")
    def count(self, where: Filter | None) -> int:
        """How many tracks match a filter; None matches all tracks."""
        return int(self._tracks.count_rows(None if where is None else where.sql()))

    @tracked_call("rows of tracks")
    def rows(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> dict[str, Row]:
        """The catalog's columns of these tracks, by id; an unknown id is absent.

        If an older build has no `artists`, they are split from `artist`, as `scan` does.
        """
        selected = ["track_id", *(columns or [*self.columns, "artists"])]
        rows = self._rows.by_id(ids, selected)
        if "artists" in selected:
            for row in rows:
                row.setdefault("artists", split_artists(row.get("artist") or "") or None)
        return {row["track_id"]: row for row in rows}

    @tracked_call("vectors of tracks")
    def vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """The unit vectors, float32 [D], of these tracks, by id; absent without audio."""
        if self.build.index.kind == "exact":
            return self._exact.of_tracks(ids)
        if not ids:
            return {}
        found = read_rows(self._vectors, sql_among("track_id", ids), ["track_id", "vector"])
        if not len(found):
            return {}
        matrix = matrix_of(found["vector"]).astype(np.float32)
        return dict(zip(found["track_id"].to_pylist(), matrix, strict=True))

    @tracked_call("windows of tracks")
    def windows(self, ids: Sequence[str]) -> pa.Table:
        """`track_id, start_s, end_s, vector` of all windows of these tracks."""
        columns = ["track_id", "start_s", "end_s", "vector"]
        return read_rows(self._windows, sql_among("track_id", ids), columns)

    @tracked_call("all vectors")
    def all_vectors(self) -> tuple[list[str], np.ndarray]:
        """All ids and their unit vectors, float32 [N, D], in the order of `row_index`."""
        exact = self.build.index.kind == "exact"
        found = self._exact if exact else InMemoryVectors(self._vectors)
        return found.ids, found.matrix

    @tracked_call("a sample of vectors")
    def sample(self, count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
        """Up to `count` tracks drawn at random: their ids and vectors, float32 [count, D]."""
        drawn = sorted(rng.permutation(self.build.rows["vectors"])[:count].tolist())
        found = self._vectors.take_offsets(drawn).select(["track_id", "vector"]).to_arrow()
        return found["track_id"].to_pylist(), unit(matrix_of(found["vector"]))

    def stream_vectors(self) -> Iterator[tuple[list[str], np.ndarray]]:
        """All ids with their unit vectors, float32 [n, D], one batch of rows at a time."""
        for batch in self.stream("vectors", ["track_id", "vector"]):
            matrix = matrix_of(pa.chunked_array([batch["vector"]]))
            yield batch["track_id"].to_pylist(), unit(matrix)

    def stream(self, kind: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Some columns of all rows of the table `kind` (of KINDS), in batches, in any order."""
        table = {"tracks": self._tracks, "vectors": self._vectors, "windows": self._windows}[kind]
        rows = table.search().select(list(columns)).limit(self.build.rows[kind] + 1)
        yield from rows.to_batches()

    @tracked_call("statistics of the index")
    def unindexed_rows(self) -> int:
        """Number of vectors that the vector index does not cover; 0 for an exact index."""
        if self.build.index.kind == "exact":
            return 0
        stats = [self._vectors.index_stats(index.name) for index in self._vectors.list_indices()]
        return max((s.num_unindexed_rows for s in stats if s and s.distance_type), default=0)

    @cached_property
    @tracked_call("a sample of names")
    def trigram_counts(self) -> TrigramCounts:
        """The trigrams of the names of sampled tracks."""
        total = self.build.rows["tracks"]
        rows = np.unique(np.linspace(0, total - 1, min(total, SAMPLED)).astype(int)).tolist()
        names = self._tracks.take_offsets(rows).select(["names"]).to_arrow()["names"]
        return TrigramCounts(name for name in names.to_pylist() if name)

    @cached_property
    @tracked_call("all vectors")
    def _exact(self) -> InMemoryVectors:
        return InMemoryVectors(self._vectors)

    @cached_property
    def _rows(self) -> LanceRows | InMemoryRows:
        exact = self.build.index.kind == "exact"
        return InMemoryRows(self._tracks.to_arrow()) if exact else LanceRows(self._tracks)

    def _open(self, kind: str) -> Table:
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

    def _nearest_by_index(self, vector: np.ndarray, limit: int, where: Filter | None) -> Ranked:
        index = self.build.index
        query = self._vectors.search(vector, vector_column_name="vector")
        query = cast(LanceVectorQueryBuilder, query).distance_type("cosine")
        query = query.refine_factor(index.refine).limit(limit).select(["track_id", "_distance"])
        if where is None:
            query = query.nprobes(index.nprobes)
        else:
            sql = where.sql()
            query = query.where(sql, prefilter=True)
            if self._count(sql) < SCAN_BELOW:
                query = query.bypass_vector_index()
            else:  # LanceDB probes further partitions until the list is full
                query = query.minimum_nprobes(index.nprobes).maximum_nprobes(0)
        found = query.to_arrow()
        return _ranked(found["track_id"], [1.0 - d for d in found["_distance"].to_pylist()])


def keep_column_values(uri: str, build: Build) -> None:
    """Collect the values of the columns of a table, which has no shards, and keep them with it."""
    TrackTable(uri, build)._scanned_values().write(uri, build)


def _ranked(ids: pa.ChunkedArray, scores: pa.ChunkedArray | Sequence[float]) -> Ranked:
    values = scores.to_pylist() if isinstance(scores, pa.ChunkedArray) else scores
    return list(zip(ids.to_pylist(), values, strict=True))
