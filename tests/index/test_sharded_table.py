"""A build in table shards answers, and changes, as the same build in one piece does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from builders import divide, publish_catalog

from jobs.build_index import parts_to_read
from raymtr.embeddings.store import find_embeddings
from raymtr.errors import InputError, UnusableError
from raymtr.index import build_tables, publish
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.build_tables import tracks_table
from raymtr.index.changes import delete_rows, known_ids, upsert_rows
from raymtr.index.filters import parse_filter
from raymtr.index.publish import live_build, roll_back
from raymtr.index.sharded_table import ShardedTable, open_table
from raymtr.index.track_table import TrackTable
from raymtr.partitions import partition_of_track
from raymtr.specs import SearchSpec
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

pytestmark = pytest.mark.slow

COUNT, DIM, SHARDS = 300, 16, 4
SHARDED = SearchSpec(shards=SHARDS)
FILTERS = ("year = 1990", "tags has 'calm'", "artist = 'Ada 3'")


def catalog_row(number: int) -> dict:
    return {
        "track_id": f"t{number:04}",
        "uri": f"/{number}.wav" if number % 10 else None,
        "title": f"Tune {number}",
        "artist": f"Ada {number % 9}",
        "album": f"Album {number // 6}",
        "tags": ["calm"] if number % 2 else ["loud", f"mood {number % 7}"],
        "year": 1950 + number % 70,
        "similar_artists": [f"Ada {(number + 1) % 9}"],
    }


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    """One piece is published first, then the same tracks in SHARDS table shards."""
    rng = np.random.default_rng(0)
    rows = list(map(catalog_row, range(COUNT)))
    workspace: Workspace = make_workspace(rows)
    ids = [row["track_id"] for row in rows if row["uri"]]
    commit_vectors(workspace, {i: unit(rng.standard_normal((2, DIM))) for i in ids})
    publish_catalog(workspace)
    publish_catalog(workspace, search=SHARDED)
    return workspace


@pytest.fixture(scope="module")
def tables(workspace: Workspace) -> tuple[TrackTable, TrackTable]:
    one, sharded = publish.kept_builds(workspace)
    return open_table(workspace.db, one), open_table(workspace.db, sharded)


def test_the_record_has_a_build_for_each_shard(workspace: Workspace) -> None:
    one, build = publish.kept_builds(workspace)
    assert build == live_build(workspace) and not one.shards
    assert build.rows == one.rows and len(build.shards) == SHARDS
    for number, part in enumerate(build.shards):
        ids = TrackTable(workspace.db, part).matching(None)
        assert {partition_of_track(track_id, SHARDS) for track_id in ids} == {number}
        assert part.rows["tracks"] == len(ids) and part.rows["windows"]
    held = {name for name in lancedb.connect(workspace.db).list_tables().tables if "-" in name}
    assert held == {table_name(kind, part.name) for kind in KINDS for part in build.shards}


def test_shards_answer_as_one_table_does(tables: tuple[TrackTable, TrackTable]) -> None:
    one, sharded = tables
    assert isinstance(sharded, ShardedTable) and not isinstance(one, ShardedTable)
    rng = np.random.default_rng(1)
    for where in (None, *(parse_filter(text, one.filterable) for text in FILTERS)):
        for vector in unit(rng.standard_normal((5, DIM))).astype(np.float32):
            exact, found = (t.nearest(vector, limit=20, where=where) for t in tables)
            assert [i for i, _ in found] == [i for i, _ in exact]
            np.testing.assert_allclose([s for _, s in found], [s for _, s in exact], atol=1e-6)
        for look_up in (
            lambda t, where=where: {
                i for i, _ in t.match_words("loud mood", limit=999, where=where)
            },
            lambda t, where=where: {i for i, _ in t.match_names("tune 11", limit=999, where=where)},
            lambda t, where=where: {
                i for i, _ in t.match_weighted({"mood": 2.0}, limit=999, where=where)
            },
            lambda t, where=where: (t.matching(where), t.count(where)),
        ):
            assert look_up(sharded) == look_up(one)
    ids = [f"t{n:04}" for n in range(0, 40, 3)] + ["absent"]
    assert sharded.rows(ids) == one.rows(ids) and sharded.rows([]) == {}
    assert sharded.filterable.equals(one.filterable) and sharded.columns == one.columns
    mine, other = sharded.vectors(ids), one.vectors(ids)
    assert mine.keys() == other.keys() and all((mine[i] == other[i]).all() for i in mine)
    order = [("track_id", "ascending"), ("start_s", "ascending")]
    assert sharded.windows(ids).sort_by(order).equals(one.windows(ids).sort_by(order))
    assert len(sharded.windows([])) == 0
    assert {r["track_id"] for r in sharded.named(["ada3"])} == {
        r["track_id"] for r in one.named(["ada3"])
    }
    assert sharded.similar_to("ada3") == one.similar_to("ada3")
    assert sharded.spelt_like("aad tune 123", limit=1) == one.spelt_like("aad tune 123", limit=1)
    assert (sharded.tags, sharded.tag_words) == (one.tags, one.tag_words)
    assert sharded.column_values == one.column_values
    assert "year" in one.column_values.filled and "duration" not in one.column_values.filled
    assert sorted(sharded.all_vectors()[0]) == sorted(one.all_vectors()[0])
    streamed = [i for some, _ in sharded.stream_vectors() for i in some]
    assert sorted(streamed) == sorted(one.all_vectors()[0])
    drawn, vectors = sharded.sample(50, rng)
    assert len(set(drawn)) == 50 and vectors.shape == (50, DIM)
    assert sharded.missing == () and sharded.present() is sharded
    assert sharded.unindexed_rows() == 0


def test_every_public_look_up_goes_to_the_shards() -> None:
    of_one = {"match_names", "spelt_like", "tags", "tag_words"}  # made of look-ups that do
    public = {name for name in vars(TrackTable) if not name.startswith("_")}
    assert public - of_one <= vars(ShardedTable).keys()


def test_partitions_and_shards_need_not_match(
    make_workspace: Callable, commit_vectors: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 partitions in 6 shards, with vector indices: each is tuned, and all rows arrive once."""
    monkeypatch.setattr(build_tables, "VECTORS_PER_PARTITION", 60)
    rng = np.random.default_rng(0)
    rows = [catalog_row(n) | {"uri": f"/{n}.wav"} for n in range(1_200)]
    workspace: Workspace = make_workspace(rows)
    vectors = unit(rng.standard_normal((len(rows), DIM)))
    commit_vectors(workspace, {row["track_id"]: vectors[n : n + 1] for n, row in enumerate(rows)})
    divide(workspace, 4)
    shards = find_embeddings(workspace)
    search = SearchSpec(exact_below=1, shards=6)
    build = publish.publish(workspace, parts_to_read(workspace, shards), shards, search=search)
    assert build.rows == {"tracks": 1_200, "vectors": 1_200, "windows": 1_200}
    assert {part.index.kind for part in build.shards} == {"ivf_rq"}
    assert build.trial and min(build.trial.recall.values()) >= 0.99
    table = open_table(workspace.db, build)
    matrix, found = vectors.astype(np.float32), 0
    for query in matrix[:20]:
        exact = np.argsort(-(matrix @ query))[:10]
        wanted = {rows[place]["track_id"] for place in exact}
        found += len(wanted & {i for i, _ in table.nearest(query, limit=10)})
    assert found / 200 >= 0.99


def manifest(workspace: Workspace, *rows: dict) -> Build:
    tracks = tracks_table(check_tracks(pa.Table.from_pylist(list(rows))), None)
    return upsert_rows(workspace, tracks, find_embeddings(workspace), search=SHARDED)


def test_changes_go_to_the_shards_of_their_tracks(
    make_workspace: Callable, commit_vectors: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "GRACE", timedelta(0))
    rng = np.random.default_rng(0)
    rows = list(map(catalog_row, range(60)))
    workspace: Workspace = make_workspace(rows)
    ids = [f"t{n:04}" for n in range(64)]
    commit_vectors(workspace, {i: unit(rng.standard_normal((2, DIM))) for i in ids})
    before = publish_catalog(workspace, search=SHARDED)
    reader = open_table(workspace.db, before)

    new = [catalog_row(n) | {"uri": f"/{n}.wav"} for n in range(60, 64)]
    changed = manifest(workspace, *new, rows[1] | {"title": "Another"})
    assert changed == live_build(workspace) and changed.revision == 1
    assert changed.rows["tracks"] == 64 == sum(part.rows["tracks"] for part in changed.shards)
    table = open_table(workspace.db, changed)
    assert table.rows(ids)["t0001"]["title"] == "Another" and len(table.rows(ids)) == 64
    query = table.vectors(["t0063"])["t0063"]
    assert table.nearest(query, limit=1)[0][0] == "t0063"
    assert len(reader.rows(ids)) == 60, "a reader of the build before still reads it"

    deleted = delete_rows(workspace, ["t0000", "t0063", "absent"])
    assert deleted.revision == 2 and deleted.rows["tracks"] == 62
    assert known_ids(workspace, ["t0000", "t0062"], [deleted]) == {"t0062"}
    assert "t0063" not in open_table(workspace.db, deleted).matching(None)

    other = publish_catalog(workspace, search=SearchSpec(keep_versions=1))  # in one piece again
    assert not other.shards
    with pytest.raises(InputError, match="nothing to roll back"):
        roll_back(workspace)
    assert not [name for name in lancedb.connect(workspace.db).list_tables().tables if "-" in name]


def test_a_rollback_takes_all_shards_back(workspace: Workspace) -> None:
    one, sharded = publish.kept_builds(workspace)
    assert roll_back(workspace).name == one.name
    publish.put_live(workspace, sharded)
    assert live_build(workspace) == sharded


def test_what_cannot_be_sharded_or_opened_is_said(
    workspace: Workspace, make_workspace: Callable
) -> None:
    with pytest.raises(InputError, match=r"shards is at least 1, got 0"):
        SearchSpec(shards=0)
    few = make_workspace([catalog_row(n) | {"uri": None} for n in range(5)])
    with pytest.raises(InputError, match=r"search.shards=4 leaves shard \d without any of the 5"):
        publish_catalog(few, search=SHARDED)
    with pytest.raises(InputError, match=r"search.shards=100000 is more than the 5 tracks"):
        publish_catalog(few, search=SearchSpec(shards=100_000))
    assert publish.live_or_none(few) is None
    before = live_build(workspace)
    lost = table_name("vectors", before.shards[2].name)
    Path(f"{workspace.db}/{lost}.lance").rename(f"{workspace.root}/aside")
    with pytest.raises(UnusableError, match=f"table {lost} that the live pointer names cannot be"):
        open_table(workspace.db, before)
    Path(f"{workspace.root}/aside").rename(f"{workspace.db}/{lost}.lance")
    assert open_table(workspace.db, before).count(None) == COUNT
