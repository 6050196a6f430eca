"""The rows of the three LanceDB tables of one build, and the choice of its vector index.

Pure functions of Arrow tables, except for the windows, which are read one shard at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import text
from raymtr.columns import plain_table
from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.index.build import VectorIndex
from raymtr.index.conditions import filterable_type
from raymtr.index.track_rows import ARTIST_KEY, ARTIST_KEYS, SEARCH_COLUMNS, SIMILAR_KEYS, TITLE_KEY
from raymtr.names import name_key, spoken_name
from raymtr.track import with_artists

VECTORS_PER_PARTITION = 4096


def tracks_table(catalog: pa.Table, captions: pa.Table | None) -> pa.Table:
    """The catalog's rows in plain types, with the columns for search (SEARCH_COLUMNS)."""
    catalog = with_artists(plain_table(catalog))  # an older version may have other types
    columns = ["track_id", "title", "artist", "artists", "album", "tags", "similar_artists"]
    rows = catalog.select(columns)
    by_track: dict[str, list[str]] = {}
    for row in captions.select(["track_id", "caption"]).to_pylist() if captions is not None else ():
        by_track.setdefault(row["track_id"], []).append(row["caption"] or "")
    added: dict[str, list[Any]] = {name: [] for name in SEARCH_COLUMNS}
    for row in rows.to_pylist():
        sentences = [*by_track.get(row["track_id"], ()), text.tags_sentence(row["tags"] or ())]
        artists = row["artists"] or []
        names = [row["title"], row["artist"], *artists[1:], row["album"]]
        if row["artist"] and all(name in row["artist"] for name in artists):
            names = [row["title"], row["artist"], row["album"]]
        added["words"].append(". ".join(filter(None, sentences)))
        added["names"].append(" ".join(spoken_name(name) for name in names if name))
        added[TITLE_KEY].append(name_key(row["title"]))
        added[ARTIST_KEY].append(name_key(row["artist"]))
        added[ARTIST_KEYS].append(list(filter(None, map(name_key, artists))))
        added[SIMILAR_KEYS].append([name_key(name) for name in row["similar_artists"] or ()])
    for name, values in added.items():
        kind = pa.list_(pa.string()) if name in (ARTIST_KEYS, SIMILAR_KEYS) else pa.string()
        catalog = catalog.append_column(name, pa.array(values, kind))
    return catalog


def with_lengths(catalog: pa.Table, shards: EmbeddingStore | None) -> pa.Table:
    """`catalog` with the duration that `embed` decoded, if known; a scan only estimates it."""
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
    copied = [
        f.name for f in tracks.schema if f.name not in SEARCH_COLUMNS and filterable_type(f.type)
    ]
    tracks = tracks.filter(pc.is_valid(place)).select(copied)
    vectors = embedded["vector"].take(pc.drop_null(place))
    columns = {name: tracks[name] for name in tracks.column_names}
    columns["row_index"] = pa.array(np.arange(first, first + len(tracks), dtype=np.int64))
    columns["fingerprint"] = pa.array([fingerprint] * len(tracks), pa.string())
    return pa.table(columns | {"vector": _half(vectors)})


def window_batches(shards: EmbeddingStore | None, excluded: pa.Array) -> Iterator[pa.RecordBatch]:
    """All windows except those of the `excluded` track ids, float16, shard by shard."""
    for table in shards.window_tables() if shards else ():
        if len(excluded):
            table = table.filter(pc.invert(pc.is_in(table["track_id"], value_set=excluded)))
        yield from windows_table(table).to_batches()


def windows_table(windows: pa.Table) -> pa.Table:
    """Rows of `EmbeddingStore.window_tables` in the types of the table: float16 vectors."""
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
        + ("8-bit scalars, as the dimension is not a multiple of 8" if dim % 8 else "5-bit RaBitQ")
    )
    return VectorIndex(kind=quantised, why=why, partitions=partitions)  # type: ignore[arg-type]


def _half(vectors: pa.ChunkedArray) -> pa.FixedSizeListArray:
    matrix = matrix_of(vectors).astype(np.float16)
    return pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), matrix.shape[1])
