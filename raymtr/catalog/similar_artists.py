"""Joins an artist graph onto tracks: the similar artists of each artist, most similar first.

A graph is a table `artist, similar_artist`, with an optional score. Published graphs list only the
nearest artists of each artist. The relation itself has no direction (Last.fm's score is symmetric,
and OLGA's graph is undirected), so every pair counts for both artists: a popular artist is then
near the artists that list it. Pairs are ordered by score; without scores an artist's own list comes
first, in its order.

Names are matched by `artist_key` and keep the graph's spelling. Python handles each distinct name
once. Edges and tracks, up to 10^7 of them, stay integer columns that are joined by index and sorted
in one go.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr.catalog.tabular import read_rows
from raymtr.catalog.text_cells import trimmed
from raymtr.errors import InputError
from raymtr.track import artist_key, fit_column

SCORES = ("score", "cosine", "similarity", "weight")  # accepted names of the score column
MOST = 50  # similar artists of one track
TAKE_ROWS = 100_000  # tracks joined in one step: the limit of an Arrow list of texts is 2 GiB


@dataclass(frozen=True)
class Matched:
    """How many artists a graph covers."""

    artists: int  # in the catalog
    found: int  # of them, those for which the graph has a similar artist


def read_graph(uri: str) -> pa.Table:
    """The edges in a TSV, CSV, JSON lines or Parquet file: artist, similar_artist, score.

    Without a score column all scores are 0. Raises InputError for missing columns, scores that are
    not numbers, and a graph without edges.
    """
    rows = read_rows(uri)
    missing = {"artist", "similar_artist"} - set(rows.table.column_names)
    if missing:
        raise InputError(
            f"artist graph {uri} has no column {' and no '.join(sorted(missing))}; expected "
            f"artist, similar_artist; columns seen: {', '.join(rows.table.column_names)}"
        )
    score = next((name for name in SCORES if name in rows.table.column_names), None)
    columns = {
        name: trimmed(fit_column(rows.table[name], pa.field(name, pa.string()), place=rows.place))
        for name in ("artist", "similar_artist")
    }
    columns["score"] = pa.chunked_array([np.zeros(len(rows.table))])
    if score:
        cells = rows.table[score] if rows.typed else trimmed(rows.table[score])
        numbers = fit_column(cells, pa.field(score, pa.float64()), place=rows.place)
        unknown = pc.is_null(numbers, nan_is_null=True)
        columns["score"] = pc.if_else(unknown, -np.inf, numbers)  # the edge counts, but comes last
    edges = pa.table(columns).drop_null()
    if len(edges) == 0:
        raise InputError(f"artist graph {uri} has no edges; expected a row for each pair")
    return edges


def join_similar_artists(tracks: pa.Table, graph: pa.Table) -> tuple[pa.Table, Matched]:
    """`tracks` with `similar_artists` from the graph; artists it lacks keep their value."""
    keys, spelled, pairs = _keyed(graph)
    artists = tracks["artist"].combine_chunks().dictionary_encode()
    catalog = pa.array([artist_key(name) for name in artists.dictionary.to_pylist()], pa.string())
    known = pc.index_in(catalog, keys)  # the catalog's artists -> their index in `keys`, or null
    nearest = _nearest(pairs.filter(pc.is_in(pairs["artist"], value_set=known)))
    lists = _lists(nearest, spelled)
    rows = known.take(artists.indices)
    column, chunks = tracks["similar_artists"], []
    for start in range(0, len(tracks), TAKE_ROWS):
        had = pa.concat_arrays(column.slice(start, TAKE_ROWS).chunks)
        chunks.append(pc.coalesce(lists.take(rows.slice(start, TAKE_ROWS)), had))
    at = tracks.column_names.index("similar_artists")
    joined = tracks.set_column(at, "similar_artists", pa.chunked_array(chunks, column.type))
    found = pc.sum(lists.is_valid().take(pc.unique(known.drop_null()))).as_py() or 0
    return joined, Matched(artists=pc.count_distinct(catalog).as_py(), found=found)


def _keyed(graph: pa.Table) -> tuple[pa.Array, pa.Array, pa.Table]:
    """The graph's names by key, one spelling per key, and its pairs.

    Pairs: artist and similar (indices into the keys), score; as listed, then all reversed.
    """
    both = pa.chunked_array([*graph["artist"].chunks, *graph["similar_artist"].chunks])
    # Encoded before chunks are combined: the limit of an Arrow array of texts is 2 GiB.
    names = both.dictionary_encode().unify_dictionaries().combine_chunks()
    keys = pa.array([artist_key(name) for name in names.dictionary.to_pylist()]).dictionary_encode()
    _, first = np.unique(keys.indices.to_numpy(), return_index=True)  # the first spelling
    places = keys.indices.take(names.indices).to_numpy()
    left, right = places[: len(graph)], places[len(graph) :]
    pairs = pa.table(
        {
            "artist": np.concatenate([left, right]),
            "similar": np.concatenate([right, left]),
            "score": np.tile(graph["score"].to_numpy(), 2),
        }
    )
    pairs = pairs.filter(pc.not_equal(pairs["artist"], pairs["similar"]))
    return keys.dictionary, names.dictionary.take(pa.array(first)), pairs


def _nearest(pairs: pa.Table) -> pa.Table:
    """Each pair once, grouped by artist, most similar first, ties in their original order."""
    artist, similar = pairs["artist"].to_numpy(), pairs["similar"].to_numpy()
    order = np.argsort(-pairs["score"].to_numpy(), kind="stable")
    small = artist.astype(np.min_scalar_type(artist.max(initial=0)))  # 16 bits sort far faster
    order = order[np.argsort(small[order], kind="stable")]
    pair = artist[order].astype(np.int64) << 32 | similar[order]
    _, first = np.unique(pair, return_index=True)
    return pairs.take(order[np.sort(first)])


def _lists(nearest: pa.Table, spelled: pa.Array) -> pa.Array:
    """For each key the spellings of its nearest, at most MOST; null if it has none."""
    artist = nearest["artist"].to_numpy()
    counts = np.bincount(artist, minlength=len(spelled))
    rank = np.arange(len(artist)) - (np.cumsum(counts) - counts)[artist]
    similar = nearest["similar"].filter(pa.array(rank < MOST)).combine_chunks()
    counts = np.minimum(counts, MOST)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(
        pa.array(offsets), spelled.take(similar), mask=pa.array(counts == 0)
    )
