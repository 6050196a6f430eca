"""Indexes the committed tables of a build, in segments that are committed together.

A segment is the index of one column over a group of fragments. Building a segment is a unit of work
for any process. Its memory grows with the rows of the group, so the memory limit bounds the rows.
All segments of the vector index share their centroids and their rotation (RaBitQ), so they are
searched as one index. Full-text scores do not depend on the segments: LanceDB counts words over all
of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import lance
from lance.dataset import Index, LanceDataset
from lance.indices import IndicesBuilder
from lance.lance import indices

from raymtr.index.build import KINDS, VectorIndex
from raymtr.index.fragments import table_uri
from raymtr.index.track_rows import ARTIST_KEY, ARTIST_KEYS, SIMILAR_KEYS, TITLE_KEY
from raymtr.index.work import Mapper

# LanceDB's default k-means uses twice the vectors per centroid and five times the iterations. For a
# million vectors it took 55 CPU-s instead of 34; recall@10 of text queries was 0.9972 instead of
# 0.9967.
SAMPLE_RATE, ITERATIONS = 128, 10
RABITQ_BITS = 5
MIB_PER_GB = 1e9 / 2**20


@dataclass(frozen=True)
class ColumnIndex:
    """The type and the options of an index of one column, as Lance names them."""

    type: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of various types


BTREE, BITMAP, LABELS = ColumnIndex("BTREE"), ColumnIndex("BITMAP"), ColumnIndex("LABEL_LIST")
WORDS = ColumnIndex("INVERTED", {"stem": True, "with_position": False})
# Trigrams. Among 9,313 titles they found a name with one letter missing in 0.99 of cases, LanceDB's
# fuzzy match over words in 0.79. Among 186,000 names they found it in 0.97 of 400 cases, whether
# queried with all its trigrams or with its twelve rarest.
NAMES = ColumnIndex(
    "INVERTED",
    {
        "base_tokenizer": "ngram",
        "min_ngram_length": 3,
        "max_ngram_length": 3,
        "stem": False,
        "remove_stop_words": False,
        "with_position": False,
    },
)
FILTERED = {
    "track_id": BTREE,
    "year": BTREE,
    "duration": BTREE,
    "artist": BTREE,
    "artists": LABELS,
    "split": BITMAP,
    "dataset": BITMAP,
    "tags": LABELS,
}
NAMED = {TITLE_KEY: BTREE, ARTIST_KEY: BTREE, ARTIST_KEYS: LABELS, SIMILAR_KEYS: LABELS}
INDICES: dict[str, dict[str, ColumnIndex]] = {
    "tracks": {**FILTERED, **NAMED, "names": NAMES, "words": WORDS},
    "vectors": FILTERED,
    "windows": {"track_id": BTREE},
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits on the work of one process, and the number of processes."""

    rows: int  # most rows of a segment, unless one fragment has more
    memory_gb: float  # of one process
    workers: int  # a vector index has at least a segment per worker, so that all are busy


@dataclass(frozen=True, kw_only=True)
class IndexSegment:
    """One segment to build: an index of a column of a table version, over some fragments."""

    uri: str
    version: int
    column: str
    index: ColumnIndex
    fragments: Sequence[int]


def create_indices(
    folder: str, build: str, vectors: VectorIndex, *, limits: Limits, mapper: Mapper
) -> dict[str, int]:
    """Index the tables of a build. Returns the final version of each."""
    tables = {kind: lance.dataset(table_uri(folder, kind, build)) for kind in KINDS}
    work: dict[tuple[str, str], list[IndexSegment]] = {}
    if vectors.kind != "exact":
        config = trained_index(tables["vectors"], vectors)
        rows = min(limits.rows, _rows_of_a_worker(tables["vectors"], limits.workers))
        work["vectors", "vector"] = _segments(tables["vectors"], "vector", config, rows)
    for kind, table in tables.items():
        for column, index in INDICES[kind].items():
            config = _bounded(index, limits.memory_gb)
            if table.get_fragments():
                work[kind, column] = _segments(table, column, config, limits.rows)
            else:  # Lance cannot build a segment of a bitmap index without rows
                name = _index_name(column)
                table.create_scalar_index(column, config.type, name=name, **config.options)
    done = iter(mapper(build_segment, [one for segments in work.values() for one in segments]))
    for (kind, column), segments in work.items():
        built = [next(done) for _ in segments]
        tables[kind].commit_existing_index_segments(_index_name(column), column, built)
    return {kind: table.version for kind, table in tables.items()}


def build_segment(work: IndexSegment) -> Index:
    """Write one segment; it is not used before it is committed."""
    table = lance.dataset(work.uri, version=work.version)
    return table.create_index_uncommitted(
        work.column,
        work.index.type,
        name=_index_name(work.column),
        fragment_ids=list(work.fragments),
        **work.index.options,
    )


def trained_index(table: LanceDataset, index: VectorIndex) -> ColumnIndex:
    """The options of `index` (not an exact one), with centroids trained on a sample.

    All segments share the centroids and the rotation. The sample has SAMPLE_RATE vectors for each
    centroid, at any size of the table.
    """
    sample_rate = min(SAMPLE_RATE, table.count_rows() // index.partitions)
    model = IndicesBuilder(table, "vector").train_ivf(
        index.partitions, distance_type="cosine", sample_rate=sample_rate, max_iters=ITERATIONS
    )
    options = {
        "metric": "cosine",
        "num_partitions": index.partitions,
        "ivf_centroids": model.centroids,
    }
    if index.kind == "ivf_sq":
        return ColumnIndex("IVF_SQ", options)
    dim = table.schema.field("vector").type.list_size
    rotation = indices.build_rq_model(dim, RABITQ_BITS)
    return ColumnIndex("IVF_RQ", options | {"num_bits": RABITQ_BITS, "rabitq_model": rotation})


def _segments(
    table: LanceDataset, column: str, index: ColumnIndex, rows: int
) -> list[IndexSegment]:
    """The segments of one column: its fragments, in order, in groups of at most `rows` rows."""
    groups: list[list[int]] = [[]]
    group_rows = 0
    for fragment in table.get_fragments():
        fragment_rows = fragment.count_rows()
        if groups[-1] and group_rows + fragment_rows > rows:
            groups.append([])
            group_rows = 0
        groups[-1].append(fragment.fragment_id)
        group_rows += fragment_rows
    return [
        IndexSegment(
            uri=table.uri, version=table.version, column=column, index=index, fragments=group
        )
        for group in groups
    ]


def _rows_of_a_worker(table: LanceDataset, workers: int) -> int:
    """One worker's share of the rows, plus half a fragment, because fragments are not divided."""
    largest = max((one.count_rows() for one in table.get_fragments()), default=0)
    return int(table.count_rows()) // workers + largest // 2


def _bounded(index: ColumnIndex, memory_gb: float) -> ColumnIndex:
    """`index`; a full-text index uses at most half of the memory before it writes to disk."""
    if index.type != "INVERTED":
        return index
    limit = {"memory_limit": int(memory_gb / 2 * MIB_PER_GB)}
    return ColumnIndex(index.type, {**index.options, **limit})


def _index_name(column: str) -> str:
    """The name of a column's index, as LanceDB chooses it."""
    return f"{column}_idx"
