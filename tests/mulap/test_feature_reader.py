"""Features of a few tracks out of many shards: the right rows, read from few row groups."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymtr.embeddings.rewrite import partition_shards
from raymtr.embeddings.store import EMBEDDED_SCHEMA, ModelRef
from raymtr.errors import UnusableError
from raymtr.mulap import feature_reader
from raymtr.mulap.store import FeatureStore

DIM, TRACKS, SHARDS = 4, 60, 3


def windows_of(number: int) -> np.ndarray:
    """One to seven windows; the track's number is their first value."""
    rows = np.arange((number % 7 + 1) * DIM, dtype=np.float32).reshape(-1, DIM)
    rows[:, 0] = number
    return rows


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeatureStore]:
    store = FeatureStore(
        str(tmp_path / "features"), ModelRef(fingerprint="0" * 12, precision="fp32", dim=DIM)
    )
    store.window_rows = 8  # type: ignore[misc]  # so that tracks cross row groups
    store.take()
    for shard in range(SHARDS):
        rows = []
        for number in range(shard, TRACKS, SHARDS):
            windows = windows_of(number)
            starts = np.arange(len(windows), dtype=float)
            rows.append(
                {"track_id": f"t{number}", "uri": f"/{number}", "seconds": float(len(windows))}
                | {"starts_s": starts, "ends_s": starts + 1, "vector": windows.mean(0)}
                | {"windows": windows.ravel()}
            )
        store.commit(pa.Table.from_pylist(rows, EMBEDDED_SCHEMA))
    yield store
    store.release()


def check(store: FeatureStore) -> None:
    ids = ["t59", "absent", "t0", "t6", "t7", "t13", "t59"]
    found = store.reader().read(ids)
    assert set(found) == set(ids) - {"absent"}
    for name, rows in found.items():
        np.testing.assert_array_equal(rows, windows_of(int(name[1:])))
        assert rows.dtype == np.float32
    everything = store.reader().read([f"t{number}" for number in range(TRACKS)])
    assert len(everything) == TRACKS and store.reader().read([]) == {}


def test_features_are_those_that_were_stored(store: FeatureStore) -> None:
    check(store)


def test_equal_hashes_of_ids_mix_no_tracks(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_reader, "HASHES", 5)
    check(store)


def test_partitions_are_read_too(store: FeatureStore) -> None:
    partition_shards(store, 2)
    store.note(partitions=2)
    check(store)


def test_features_that_were_changed_since_are_not_mixed(store: FeatureStore) -> None:
    reader = store.reader()
    reader.read(["t0"])
    store.forget(pa.chunked_array([["t0"]]))
    with pytest.raises(UnusableError, match="was changed while it was in use"):
        reader.read(["t3", "t57"])
    assert store.reader().read(["t57"])["t57"].tolist() == windows_of(57).tolist()


def test_only_the_row_groups_of_a_track_are_read(
    store: FeatureStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    read = pq.ParquetFile.read_row_groups

    def counted(file: pq.ParquetFile, numbers: list[int], **options: object) -> pa.Table:
        groups.extend(numbers)
        return read(file, numbers, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    reader = store.reader()
    np.testing.assert_array_equal(reader.read(["t30"])["t30"], windows_of(30))
    assert 1 <= len(groups) <= 2
