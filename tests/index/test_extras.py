"""Every kind of extra column, from somebody's Parquet to a filter and a whole record."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raymtr import storage
from raymtr.catalog.manifest import read_manifest
from raymtr.embeddings.store import find_embeddings
from raymtr.errors import InputError
from raymtr.index import build_tables
from raymtr.index.build_tables import tracks_table
from raymtr.index.changes import upsert_rows
from raymtr.index.filters import parse_filter
from raymtr.index.publish import live_build, publish
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

EXTRAS: dict[str, tuple[pa.Array, str | None]] = {  # a column, and a filter that finds the first
    "bpm": (pa.array([120.0, float("nan"), float("inf")]), "bpm > 100"),
    "seen": (pa.array([dt.datetime(2020, 1, 2), None, None]), "seen < '2021-01-01'"),
    "zoned": (
        pa.array([dt.datetime(2020, 1, 2), None, None], pa.timestamp("ns", "Europe/Berlin")),
        "zoned = '2020-01-02T01:00:00+01:00'",
    ),
    "day": (pa.array([dt.date(2020, 1, 2), None, None]), "day = '2020-01-02'"),
    "price": (pa.array([decimal.Decimal("1.10"), None, None]), "price = 1.1"),
    "mbid": (
        pa.array([b"0" * 16, None, None], pa.uuid()),
        "mbid = '30303030-3030-3030-3030-303030303030'",
    ),
    "length": (pa.array([dt.timedelta(seconds=3), None, None]), "length = 3"),
    "at": (pa.array([dt.time(1, 2), None, None]), "at contains '01:02'"),
    "meta": (pa.array([{"a": 1, "b": ["x"]}, None, None]), None),
    "attrs": (pa.array([[("k", 1)], None, None], pa.map_(pa.string(), pa.int64())), None),
    "text": (pa.array([b"x", None, None]), "text = 'x'"),
    "moods": (pa.array([["x"], [], None], pa.large_list(pa.large_string())), "moods has 'x'"),
    "pair": (pa.array([["x", "y"], None, None], pa.list_(pa.string(), 2)), "pair has 'y'"),
    "nothing": (pa.array([[], [], None]), None),
    "ints": (pa.array([[1, 2], [3], None]), "ints has 2"),
    "floats": (pa.array([[1.5], [2.5], None]), "floats has 1.5"),
    "people": (pa.array([[{"name": "x", "w": 1}], [], None]), None),
    "plays": (pa.array([2**64 - 1, None, 1], pa.uint64()), "plays > 9223372036854775808"),
    "half": (pa.array([1.5, None, 2], pa.float16()), "half < 1.75"),
    "views": (pa.array([{"a": "x"}] * 3, pa.struct([("a", pa.string_view())])), None),
    "kind": (pa.array([1, 2, 2]).dictionary_encode(), "kind = 1.0"),
    "live": (pa.array([True, None, False]), "live = true"),
    "spaced name": (pa.array(["x", "y", None]), "`spaced name` = 'x'"),
    'quo"te': (pa.array([1, 2, 3]), '`quo"te` < 2'),
    "sl/ash": (pa.array([1, 2, 3]), "`sl/ash` <= 1.5"),
    "ann\u00e9e": (pa.array([1, 2, 3]), "ann\u00e9e = 1"),
    "Select": (pa.array([1, 2, 3]), "Select = 1"),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> TrackTable:
    """A catalog of words with all of them, from Parquet to a build that serves."""
    folder = tmp_path_factory.mktemp("extras")
    columns: dict[str, Any] = {"track_id": ["a", "b", "c"], "title": ["One", "Two", "Three"]}
    columns |= {name: column for name, (column, _) in EXTRAS.items()}
    pq.write_table(pa.table(columns), folder / "m.parquet")
    return TrackTable(*publish_manifest(folder, folder / "m.parquet"))


def publish_manifest(folder: Path, manifest: Path) -> tuple[str, Any]:
    workspace = Workspace.open(str(folder / "w"), create=True)
    storage.replace_tables(workspace.tracks, read_manifest(str(manifest)))
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    publish(workspace, [tracks], None, search=SearchSpec())
    return workspace.db, live_build(workspace)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, (_, where) in EXTRAS.items() if where])
def test_a_plain_extra_is_filtered_on(table: TrackTable, name: str) -> None:
    where = parse_filter(str(EXTRAS[name][1]), table.filterable)
    assert table.matching(where) == {"a"}
    null = parse_filter(f"`{name}` is null", table.filterable)
    assert "a" not in table.matching(null)


def test_an_unknown_number_is_null_for_filters(table: TrackTable) -> None:
    assert table.matching(parse_filter("bpm is null", table.filterable)) == {"b", "c"}


@pytest.mark.parametrize("name", ["meta", "attrs", "people", "views"])
def test_an_extra_that_no_filter_knows_is_named_with_its_type(table: TrackTable, name: str) -> None:
    with pytest.raises(InputError, match=rf"column '{name}' is .*struct<.*; filters support text"):
        parse_filter(f"{name} = 'x'", table.filterable)


def test_a_whole_record_is_plain(table: TrackTable) -> None:
    record = table.rows(["a"])["a"]
    assert set(EXTRAS) < set(record)
    assert json.dumps(record, allow_nan=False, default=dt.date.isoformat)
    assert record["meta"] == {"a": 1, "b": ["x"]} and record["attrs"] == [{"key": "k", "value": 1}]


def test_a_catalog_of_an_earlier_version_is_published_with_plain_columns(
    make_workspace: Callable,
) -> None:
    """It holds what its scan let through: views, categories, numbers that are none."""
    workspace = make_workspace([{"track_id": i, "title": i} for i in "abc"])
    catalog = storage.read_tables(workspace.tracks)
    for name in ("bpm", "moods", "zoned", "half", "nothing"):
        catalog = catalog.append_column(name, EXTRAS[name][0])
    build = publish(workspace, [tracks_table(catalog, None)], None, search=SearchSpec())
    table = TrackTable(workspace.db, build)
    where = parse_filter("bpm > 100 and moods has 'x'", table.filterable)
    assert table.matching(where) == {"a"}


@pytest.mark.slow
def test_a_build_of_an_earlier_version_is_filtered_and_changed(
    make_workspace: Callable, commit_vectors: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It copied no dates beside its vectors, so filters do not know these until the next index."""
    rows = [{"track_id": i, "uri": f"/{i}.wav", "day": dt.date(2020, 1, 2), "n": 1} for i in "ab"]
    workspace = make_workspace(rows)
    commit_vectors(workspace, {i: np.eye(4, dtype=np.float32)[:1] for i in "ab"})
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    shards = find_embeddings(workspace)
    with monkeypatch.context() as patched:
        patched.setattr(build_tables, "filterable_type", lambda kind: not pa.types.is_date(kind))
        old = publish(workspace, [tracks], shards, search=SearchSpec())
    changed = upsert_rows(workspace, tracks.slice(0, 1), shards, search=SearchSpec())
    table = TrackTable(workspace.db, changed)
    assert changed.name == old.name and set(table.vectors(["a", "b"])) == {"a", "b"}
    assert table.rows(["a"])["a"]["day"] == dt.date(2020, 1, 2)
    with pytest.raises(InputError, match="unknown column 'day'"):
        parse_filter("day > '2019-01-01'", table.filterable)
    new = TrackTable(workspace.db, publish(workspace, [tracks], shards, search=SearchSpec()))
    where = parse_filter("day > '2019-01-01' and n = 1", new.filterable)
    found = new.nearest(np.eye(4, dtype=np.float32)[0], limit=5, where=where)
    assert {track_id for track_id, _ in found} == {"a", "b"} == new.matching(where)
