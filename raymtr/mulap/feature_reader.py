"""Reads the stored features of a few tracks out of many, as re-ranking needs them.

The place of every track is kept in memory, 16 bytes each, so a read touches only the row groups of
its tracks. Places are found at the first read of a partition, from the ids alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.errors import UnusableError
from raymtr.partitions import partition_of

HASHES = 2**32  # of track ids; two ids may share one, so a read compares the ids too


@dataclass(frozen=True)
class Places:
    """Where the windows of a partition's tracks are, sorted by the hash of the track id."""

    files: list[str]
    hashes: np.ndarray  # uint32 [N]
    file: np.ndarray  # uint32 [N], an index of `files`
    first: np.ndarray  # uint32 [N], the first row
    count: np.ndarray  # uint32 [N], the number of rows

    def find(self, hashes: np.ndarray) -> np.ndarray:
        """The indices of all tracks with one of these hashes [M]."""
        hashes = np.unique(hashes)
        ends = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        ranges = [np.arange(first, last) for first, last in zip(*ends, strict=True)]
        return np.concatenate([np.empty(0, np.intp), *ranges])


class FeatureReader:
    """Features of tracks by id. Threads may share it."""

    def __init__(self, store: EmbeddingStore) -> None:
        """Nothing is read yet. Tracks that are stored later are not found."""
        self._parts = store.parts()
        self._places: dict[int, Places] = {}
        self._lock = Lock()

    def read(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Features float32 [W, D] of these tracks, in order of time; others are left out.

        Raises UnusableError where the features were changed since their places were found.
        """
        wanted, found = pa.array(ids, pa.string()), dict[str, np.ndarray]()
        numbers = partition_of(pa.chunked_array([wanted]), len(self._parts))
        for number in np.unique(numbers).tolist():
            here = wanted.filter(pa.array(numbers == number))
            names = set(here.to_pylist())
            places = self._places_of(number)
            rows = places.find(_hashes(here))
            for file in np.unique(places.file[rows]).tolist():
                of_file = rows[places.file[rows] == file]
                spans = zip(places.first[of_file], places.count[of_file], strict=True)
                for table in _read_rows(places.files[file], [(int(a), int(n)) for a, n in spans]):
                    owners = table["track_id"].unique().to_pylist()
                    if len(owners) != 1:
                        raise UnusableError(f"{places.files[file]} was changed while it was in use")
                    if owners[0] in names:
                        found[owners[0]] = matrix_of(table["vector"]).astype(np.float32)
        return found

    def _places_of(self, number: int) -> Places:
        with self._lock:
            if number not in self._places:
                self._places[number] = _find_places(self._parts[number])
            return self._places[number]


def _find_places(store: EmbeddingStore) -> Places:
    files = [store.file("windows", name) for name in sorted(store.names("tracks"))]
    columns: list[list[np.ndarray]] = [[], [], [], []]
    for number, file in enumerate(files):
        ids = storage.read_table(file, ["track_id"])["track_id"].combine_chunks()
        if not len(ids):
            continue
        new = pc.not_equal(ids.slice(1), ids.slice(0, len(ids) - 1)).to_numpy(zero_copy_only=False)
        firsts = np.flatnonzero(np.r_[True, new])
        counts = np.diff(np.r_[firsts, len(ids)])
        of_file = np.full(len(firsts), number)
        for column, values in zip(
            columns, (_hashes(ids.take(pa.array(firsts))), of_file, firsts, counts), strict=True
        ):
            column.append(values.astype(np.uint32))
    joined = [np.concatenate([np.empty(0, np.uint32), *column]) for column in columns]
    order = np.argsort(joined[0], kind="stable")
    return Places(files, *(column[order] for column in joined))


def _hashes(ids: pa.Array) -> np.ndarray:
    return partition_of(pa.chunked_array([ids]), HASHES).astype(np.uint32)


def _read_rows(uri: str, spans: Sequence[tuple[int, int]]) -> Iterator[pa.Table]:
    """`track_id, vector` of each span (first row, number of rows); reads only its row groups."""
    filesystem, path = storage.open_filesystem(uri)
    with filesystem.open_input_file(path) as source:
        file = pq.ParquetFile(source)
        sizes = [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)]
        starts = np.r_[0, np.cumsum(sizes)]
        if max(first + count for first, count in spans) > starts[-1]:
            raise UnusableError(f"{uri} was changed while it was in use")
        needed = sorted(
            {
                group
                for first, count in spans
                for group in range(
                    int(np.searchsorted(starts, first, side="right")) - 1,
                    int(np.searchsorted(starts, first + count, side="left")),
                )
            }
        )
        table = file.read_row_groups(needed, columns=["track_id", "vector"])
    # The rows of the needed groups lie one after another in `table`.
    offsets = dict(zip(needed, np.r_[0, np.cumsum([sizes[n] for n in needed])], strict=False))
    for first, count in spans:
        group = int(np.searchsorted(starts, first, side="right")) - 1
        yield table.slice(int(offsets[group] + first - starts[group]), count)
