"""The values of a table's columns are kept with it, and equal those that a scan finds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from builders import publish_catalog

from raymtr import storage
from raymtr.embeddings.store import find_embeddings
from raymtr.index import changes, column_values
from raymtr.index.build_tables import tracks_table
from raymtr.index.changes import delete_rows, sweep, upsert_rows
from raymtr.index.column_values import ColumnValues
from raymtr.index.publish import live_build
from raymtr.index.sharded_table import open_table
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

SHARDED = SearchSpec(shards=3)


def catalog_row(number: int, **more: object) -> dict:
    return {
        "track_id": f"t{number:03}",
        "uri": f"/{number}.wav",
        "title": "夜に駆ける" if number == 7 else f"Tune {number}",
        "artist": "Ada",
        "tags": ["calm", f"mood {number % 3}"],
        "genre": "folk" if number % 2 else "jazz",
        "comment": f"take {number}",
        "mood_index": number,
    } | more


@pytest.fixture
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    rng = np.random.default_rng(0)
    rows = [catalog_row(number) for number in range(60)]
    made: Workspace = make_workspace(rows)
    commit_vectors(made, {row["track_id"]: unit(rng.standard_normal((1, 8))) for row in rows})
    return made


def kept_files(workspace: Workspace) -> list[str]:
    return storage.list_files(f"{workspace.db}/values")


@pytest.mark.parametrize("search", [SearchSpec(), SHARDED])
def test_a_published_table_is_not_scanned(
    workspace: Workspace, search: SearchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_values, "MOST_VALUES", 20)
    publish_catalog(workspace, search=search)
    build = live_build(workspace)
    assert len(kept_files(workspace)) == len(build.parts())
    scanned = [TrackTable(workspace.db, part)._scanned_values() for part in build.parts()]
    monkeypatch.setattr(TrackTable, "_scanned_values", None)
    values = open_table(workspace.db, build).column_values
    assert values == ColumnValues.merged(scanned)
    assert values.counts["tags"] == {"calm": 60, "mood 0": 20, "mood 1": 20, "mood 2": 20}
    assert values.counts["genre"] == {"folk": 30, "jazz": 30}
    assert values.tags == {"tags": values.counts["tags"]}
    assert values.other_scripts == {"title": frozenset(["夜に駆ける"])}
    assert {"comment", "mood_index", "tags"} <= values.filled and "album" not in values.filled
    assert "comment" not in values.counts  # no category: every track has its own


def test_an_older_build_without_the_file_is_scanned(workspace: Workspace) -> None:
    publish_catalog(workspace)
    kept = open_table(workspace.db, live_build(workspace)).column_values
    storage.delete(f"{workspace.db}/values")
    assert open_table(workspace.db, live_build(workspace)).column_values == kept


def test_values_follow_changes_and_old_ones_go(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_catalog(workspace)
    first = live_build(workspace)
    row = catalog_row(5, genre="ska", tags=["new"])
    rows = tracks_table(check_tracks(pa.Table.from_pylist([row])), None)
    upsert_rows(workspace, rows, find_embeddings(workspace), search=SearchSpec())
    delete_rows(workspace, ["t007"])
    build = live_build(workspace)
    values = ColumnValues.read(workspace.db, build)
    assert values is not None
    assert values.counts["genre"] == {"folk": 28, "jazz": 30, "ska": 1}
    assert values.counts["tags"]["new"] == 1 and values.other_scripts == {}
    assert ColumnValues.read(workspace.db, first) is not None  # for readers of before
    monkeypatch.setattr(changes, "READER_GRACE", timedelta(0))
    monkeypatch.setattr(changes, "LONGEST_CHANGE", timedelta(0))
    sweep(workspace)
    assert ColumnValues.read(workspace.db, first) is None
    assert ColumnValues.read(workspace.db, build) == values
    for _ in range(4):
        publish_catalog(workspace)
    wanted = {one.name for one in changes.all_builds(workspace)}
    assert {file.partition("-")[0] for file in kept_files(workspace)} == wanted


def test_a_column_with_too_many_values_in_one_shard_has_none_in_the_table() -> None:
    few = ColumnValues(frozenset(["genre"]), {"genre": {"folk": 2}}, {})
    many = ColumnValues(frozenset(["genre"]), {}, {})
    empty = ColumnValues(frozenset(), {}, {})
    assert ColumnValues.merged([few, many]).counts == {}
    assert ColumnValues.merged([few, empty, few]).counts == {"genre": {"folk": 4}}
