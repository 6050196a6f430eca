from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest

from raymtr import partitions, storage
from raymtr.partitions import (
    has_audio,
    partition_count,
    partition_names,
    partition_of,
    split_table,
)

SCHEMA = pa.schema([pa.field(name, pa.string()) for name in ("track_id", "uri", "audio_digest")])


def write_catalog(folder: Path, rows: int, *, uri: str | None = "/music.mp3") -> str:
    ids = [f"t{n:05}" for n in range(rows)]
    table = pa.table(
        {"track_id": ids, "uri": pa.array([uri] * rows, pa.string()), "year": [1] * rows}
    )
    storage.replace_tables(str(folder / "tracks"), table)
    return str(folder / "tracks")


def test_the_number_of_partitions_grows_with_the_catalog() -> None:
    most = partitions.PARTITION_TRACKS
    assert [partition_count(n) for n in (1, most, most + 1, 3 * most, 10**8)] == [1, 1, 2, 4, 512]


def test_a_track_stays_in_its_partition() -> None:
    """The numbers are on storage, in the names of shards."""
    ids = pa.chunked_array([["a", "b"], ["track-00001", "ü"]])
    assert partition_of(ids, 8).tolist() == [3, 1, 6, 5]


def test_each_track_is_in_one_part_and_all_columns_come_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partitions, "ROWS_AT_ONCE", 40)
    monkeypatch.setattr(storage, "PART_ROWS", 60)
    catalog = write_catalog(tmp_path, 1_000)
    parts = split_table(catalog, str(tmp_path / "cache"), SCHEMA, 4)
    tables = [storage.read_table(part.file) for part in parts]
    assert [part.name for part in parts] == partition_names(4)
    assert [part.rows for part in parts] == [len(table) for table in tables]
    assert all(table.schema.equals(SCHEMA) for table in tables)
    ids = [track_id for table in tables for track_id in table["track_id"].to_pylist()]
    assert sorted(ids) == [f"t{n:05}" for n in range(1_000)]
    for number, table in enumerate(tables):
        assert set(partition_of(table["track_id"], 4)) == {number}


def test_a_catalog_is_split_again_only_when_it_has_changed(tmp_path: Path) -> None:
    catalog, cache = write_catalog(tmp_path, 100), str(tmp_path / "cache")
    first = split_table(catalog, cache, SCHEMA, 2)
    written = [os.stat(part.file).st_mtime_ns for part in first]
    assert split_table(catalog, cache, SCHEMA, 2) == first
    assert [os.stat(part.file).st_mtime_ns for part in first] == written
    storage.replace_tables(catalog, storage.read_tables(catalog))  # other files, same tracks
    assert split_table(catalog, cache, SCHEMA, 2) == first
    write_catalog(tmp_path, 101)
    second = split_table(catalog, cache, SCHEMA, 2)
    changed = [one.digest != other.digest for one, other in zip(first, second, strict=True)]
    assert sorted(changed) == [False, True], "the partition without the new track is known"


def test_a_catalog_without_audio_is_known(tmp_path: Path) -> None:
    assert not has_audio(write_catalog(tmp_path, 10, uri=None))
    assert has_audio(write_catalog(tmp_path, 10))
