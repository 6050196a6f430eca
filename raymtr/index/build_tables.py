"""Parquet -> the three LanceDB tables of one build, and their indices.

A build is written completely under its own table names, and is not read before it is promoted,
so the live build is not disturbed. The rows are loaded one partition after the other, and the
windows one shard at a time, because a large catalog does not fit into memory. The indices are
created when all rows are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.db import DBConnection
from lancedb.index import FTS, Bitmap, BTree, IvfRq, IvfSq, LabelList
from lancedb.table import Table

from raymtr import text
from raymtr.columns import plain_table
from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.index.build import KINDS, VectorIndex, table_name
from raymtr.index.conditions import filterable_type
from raymtr.index.track_rows import ARTIST_KEY, ARTIST_KEYS, SHADOW, SIMILAR_KEYS, TITLE_KEY
from raymtr.names import name_key, spoken_name
from raymtr.track import with_artists

VECTORS_PER_PARTITION = 4096
# Trigrams. Among 9,313 titles they found a name with one letter missing in 0.99 of cases, LanceDB's
# fuzzy match over words in 0.79. Among 186,000 names they found it in 0.97 of 400 cases, whether
# queried with all its trigrams or with its twelve rarest.
NAMES_INDEX = FTS(
    base_tokenizer="ngram",
    ngram_min_length=3,
    ngram_max_length=3,
    stem=False,
    remove_stop_words=False,
)
SCALAR_INDICES: dict[str, dict[str, BTree | Bitmap | LabelList | FTS]] = {
    "tracks": {
        "track_id": BTree(),
        "year": BTree(),
        "duration": BTree(),
        "artist": BTree(),
        "artists": LabelList(),
        "split": Bitmap(),
        "dataset": Bitmap(),
        "tags": LabelList(),
        TITLE_KEY: BTree(),
        ARTIST_KEY: BTree(),
        ARTIST_KEYS: LabelList(),
        SIMILAR_KEYS: LabelList(),
        "names": NAMES_INDEX,
        "words": FTS(stem=True),
    },
    "vectors": {
        "track_id": BTree(),
        "year": BTree(),
        "duration": BTree(),
        "artist": BTree(),
        "artists": LabelList(),
        "split": Bitmap(),
        "dataset": Bitmap(),
        "tags": LabelList(),
    },
    "windows": {"track_id": BTree()},
}


def tracks_table(catalog: pa.Table, captions: pa.Table | None) -> pa.Table:
    """The catalog's rows in plain types, with the columns that name and word searches use."""
    catalog = with_artists(plain_table(catalog))  # an older version may have other types
    wanted = ["track_id", "title", "artist", "artists", "album", "tags", "similar_artists"]
    rows = catalog.select(wanted)
    by_track: dict[str, list[str]] = {}
    for row in captions.select(["track_id", "caption"]).to_pylist() if captions is not None else ():
        by_track.setdefault(row["track_id"], []).append(row["caption"] or "")
    shadows: dict[str, list[Any]] = {name: [] for name in SHADOW}
    for row in rows.to_pylist():
        sentences = [*by_track.get(row["track_id"], ()), text.tags_sentence(row["tags"] or ())]
        artists = row["artists"] or []
        names = [row["title"], row["artist"], *artists[1:], row["album"]]
        if row["artist"] and all(name in row["artist"] for name in artists):
            names = [row["title"], row["artist"], row["album"]]
        shadows["words"].append(". ".join(filter(None, sentences)))
        shadows["names"].append(" ".join(spoken_name(name) for name in names if name))
        shadows[TITLE_KEY].append(name_key(row["title"]))
        shadows[ARTIST_KEY].append(name_key(row["artist"]))
        shadows[ARTIST_KEYS].append(list(filter(None, map(name_key, artists))))
        shadows[SIMILAR_KEYS].append([name_key(name) for name in row["similar_artists"] or ()])
    for name, values in shadows.items():
        kind = pa.list_(pa.string()) if name in (ARTIST_KEYS, SIMILAR_KEYS) else pa.string()
        catalog = catalog.append_column(name, pa.array(values, kind))
    return catalog


def with_lengths(catalog: pa.Table, shards: EmbeddingStore | None) -> pa.Table:
    """`catalog` with the decoded `duration` where it is known; a scan only estimates it."""
    if shards is None:
        return catalog
    lengths = shards.lengths()
    place = pc.index_in(catalog["track_id"], value_set=lengths["track_id"])
    seconds = pc.coalesce(lengths["seconds"].take(place), catalog["duration"])
    return catalog.set_column(catalog.column_names.index("duration"), "duration", seconds)


def vectors_table(
    tracks: pa.Table, embedded: pa.Table, fingerprint: str, *, first: int = 0
) -> pa.Table:
    """One row per track of `tracks` that has a vector, in the same order, with filter columns.

    Their `row_index` counts up from `first`.
    """
    place = pc.index_in(tracks["track_id"], value_set=embedded["track_id"])
    copied = [f.name for f in tracks.schema if f.name not in SHADOW and filterable_type(f.type)]
    tracks = tracks.filter(pc.is_valid(place)).select(copied)
    vectors = embedded["vector"].take(pc.drop_null(place))
    columns = {name: tracks[name] for name in tracks.column_names}
    columns["row_index"] = pa.array(np.arange(first, first + len(tracks), dtype=np.int64))
    columns["fingerprint"] = pa.array([fingerprint] * len(tracks), pa.string())
    return pa.table(columns | {"vector": _half(vectors)})


def window_batches(shards: EmbeddingStore | None, unwanted: pa.Array) -> Iterator[pa.RecordBatch]:
    """All windows but those of the `unwanted` track ids, float16, shard by shard."""
    for table in shards.window_tables() if shards else ():
        if len(unwanted):
            table = table.filter(pc.invert(pc.is_in(table["track_id"], value_set=unwanted)))
        yield from windows_table(table).to_batches()


def windows_table(windows: pa.Table) -> pa.Table:
    """Rows of `EmbeddingStore.window_tables` in the form the table stores, float16."""
    return windows.set_column(3, "vector", _half(windows["vector"]))


def window_schema(dim: int) -> pa.Schema:
    """`track_id, start_s, end_s, vector`."""
    times = [pa.field(name, pa.float64()) for name in ("start_s", "end_s")]
    return pa.schema(
        [pa.field("track_id", pa.string()), *times, pa.field("vector", pa.list_(pa.float16(), dim))]
    )


def choose_index(vectors: int, dim: int, *, exact_below: int) -> VectorIndex:
    """Exact search below `exact_below` vectors, else an inverted file (IVF) of quantised vectors.

    Measured on text queries: 5-bit RaBitQ with a refine factor of 2 reached a recall of 0.997 at a
    million vectors. The number of partitions to probe is tuned on the finished table (index.tune).
    """
    if vectors < exact_below:
        why = (
            f"{vectors} vectors are fewer than search.exact_below={exact_below}: an in-memory "
            "matrix gives recall 1 for less work than any index"
        )
        return VectorIndex(kind="exact", why=why)
    partitions = max(1, round(vectors / VECTORS_PER_PARTITION))
    quantised = "ivf_sq" if dim % 8 else "ivf_rq"
    why = (
        f"{vectors} vectors reach search.exact_below={exact_below}: {partitions} partitions of "
        f"about {VECTORS_PER_PARTITION}, "
        + ("8-bit scalars, for the dimension is no multiple of 8" if dim % 8 else "5-bit RaBitQ")
    )
    return VectorIndex(kind=quantised, why=why, partitions=partitions)  # type: ignore[arg-type]


class Loader:
    """Loads the partitions of a build into its tables, and counts the rows that were read."""

    def __init__(self, db: DBConnection, build: str) -> None:
        self._db, self._build = db, build
        self._tables: dict[str, Table] = {}
        self.rows = dict.fromkeys(KINDS, 0)

    def add(self, tracks: pa.Table, shards: EmbeddingStore | None) -> None:
        """Load one partition: `tracks` (tracks_table), their vectors and windows."""
        made_by = shards.made_by if shards else None
        dim = made_by.dim if made_by else 1  # the column needs a size, though it will be empty
        embedded = shards.read_tracks() if shards else no_vectors(dim)
        fingerprint = made_by.fingerprint if made_by else ""
        vectors = vectors_table(tracks, embedded, fingerprint, first=self.rows["vectors"])
        known = pc.is_in(embedded["track_id"], value_set=vectors["track_id"])
        unwanted = embedded["track_id"].filter(pc.invert(known)).combine_chunks()
        windows = self._counted("windows", window_batches(shards, unwanted))
        for kind, table in (("tracks", tracks), ("vectors", vectors)):
            self._load(kind, table)
            self.rows[kind] += len(table)
        self._load("windows", pa.RecordBatchReader.from_batches(window_schema(dim), windows))

    def create_indices(self, index: VectorIndex) -> dict[str, int]:
        """Index the tables once all rows are loaded. Returns the final version of each."""
        for kind, table in self._tables.items():
            for column, config in SCALAR_INDICES[kind].items():
                table.create_index(column, config=config)
            if kind == "vectors" and index.kind != "exact":
                table.create_index("vector", config=vector_config(index))
        return {kind: table.version for kind, table in self._tables.items()}

    def _load(self, kind: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        if kind in self._tables:
            self._tables[kind].add(rows)
        else:
            self._tables[kind] = self._db.create_table(table_name(kind, self._build), data=rows)

    def _counted(self, kind: str, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            self.rows[kind] += len(batch)
            yield batch


def no_vectors(dim: int) -> pa.Table:
    """An empty table of `track_id, vector`."""
    fields = [pa.field("track_id", pa.string()), pa.field("vector", pa.list_(pa.float32(), dim))]
    return pa.schema(fields).empty_table()


def vector_config(index: VectorIndex) -> IvfRq | IvfSq:
    """LanceDB's configuration of `index`, which is not exact.

    LanceDB's default k-means uses twice the vectors per centroid and five times the iterations. For
    a million vectors it took 55 CPU-s instead of 34; recall@10 of text queries was 0.9972 instead
    of 0.9967.
    """
    config = IvfRq(num_bits=5) if index.kind == "ivf_rq" else IvfSq()
    return replace(
        config,
        distance_type="cosine",
        num_partitions=index.partitions,
        sample_rate=128,
        max_iterations=10,
    )


def _half(vectors: pa.ChunkedArray) -> pa.FixedSizeListArray:
    matrix = matrix_of(vectors).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
