"""Published tables changed under a reader: it sees all of a change or none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, find_embeddings
from raymtr.errors import InputError, UnusableError
from raymtr.index import changes
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.build_tables import tracks_table
from raymtr.index.changes import all_builds, delete_rows, known_ids, sweep, upsert_rows
from raymtr.index.filters import parse_filter
from raymtr.index.publish import kept_builds, live_build, publish, roll_back
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

pytestmark = pytest.mark.slow

DIM = 16
COUNT = 600
FRESH = ["n0", "n1", "t0003"]  # two that are new, one that is changed
SEARCH = SearchSpec()


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    return unit(rng.standard_normal((count, DIM)))


def catalog_row(track_id: str, **more: object) -> dict:
    row = {"track_id": track_id, "uri": f"/{track_id}.wav", "title": f"Tune {track_id}"}
    return row | {"artist": "Ada", "tags": ["calm"], "year": 1990} | more


@pytest.fixture(scope="module", params=["exact", "ivf_rq"])
def made(
    request: pytest.FixtureRequest, make_workspace: Callable, commit_vectors: Callable
) -> Workspace:
    rng = np.random.default_rng(0)
    ids = [f"t{n:04}" for n in range(COUNT)]
    workspace: Workspace = make_workspace([catalog_row(track_id) for track_id in ids])
    commit_vectors(workspace, {i: unit_rows(rng, 2) for i in ids})
    commit_vectors(workspace, {i: unit_rows(rng, 3) for i in FRESH[:2]})
    build(workspace, request.param)
    assert live_build(workspace).index.kind == request.param
    return workspace


@pytest.fixture
def workspace(made: Workspace, tmp_path: Path) -> Workspace:
    """A copy to be changed."""
    shutil.copytree(made.root, tmp_path / "w")
    return Workspace.open(str(tmp_path / "w"))


@pytest.fixture
def far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """LanceDB tells times of the machine's own zone."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


def build(workspace: Workspace, kind: str) -> None:
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    below = 10**6 if kind == "exact" else 1
    publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec(exact_below=below))


def fresh_rows() -> pa.Table:
    rows = [catalog_row(i, title=f"Fresh {i}", tags=["loud"], year=2020) for i in FRESH]
    return tracks_table(check_tracks(pa.Table.from_pylist(rows)), None)


def revisions(build: Build) -> int:
    """How many a small change makes: rows first, then indices, where there is a vector index."""
    return 1 if build.index.kind == "exact" else 2


def table_of(workspace: Workspace) -> TrackTable:
    return TrackTable(workspace.db, live_build(workspace))


def ids_of(table: TrackTable, kind: str) -> list[str]:
    return [i for batch in table.stream(kind, ["track_id"]) for i in batch["track_id"].to_pylist()]


def assert_fresh(table: TrackTable, shards: EmbeddingStore) -> None:
    """All of fresh_rows is found, by its vector, a filter, its words, its name and its windows."""
    assert {i: row["title"] for i, row in table.rows(FRESH).items()} == {
        i: f"Fresh {i}" for i in FRESH
    }
    vectors = dict(
        zip(*(column.to_pylist() for column in shards.read_tracks().columns), strict=True)
    )
    found = table.nearest(np.array(vectors["n1"], np.float32), limit=1)
    assert found[0][0] == "n1" and found[0][1] == pytest.approx(1, abs=2e-3)
    where = parse_filter("year = 2020", table.filterable)
    assert {i for i, _ in table.nearest(np.ones(DIM, np.float32) / 4, limit=9, where=where)} == set(
        FRESH
    )
    assert {i for i, _ in table.match_words("loud", limit=9)} == set(FRESH)
    assert table.match_names("fresh n0", limit=1)[0][0] == "n0"
    assert len(table.windows(["n0"])) == 3 and len(table.windows(["t0003"])) == 2


def everything(table: TrackTable) -> Iterator[object]:
    """What a reader can ask, as plain values."""
    query = np.ones(DIM, np.float32) / 4
    yield table.nearest(query, limit=5)
    yield table.nearest(query, limit=5, where=parse_filter("year = 2020", table.filterable))
    yield sorted(table.match_names("fresh n0", limit=9))
    yield table.match_words("loud", limit=9)
    yield table.rows(FRESH, ["title", "year"])
    yield sorted(table.vectors(FRESH))
    yield len(table.windows(FRESH))
    yield [len(ids_of(table, kind)) for kind in KINDS]
    yield table.sample(COUNT * 2, np.random.default_rng(0))[0]


def test_an_upsert_adds_and_replaces_and_an_open_reader_sees_the_old(workspace: Workspace) -> None:
    before = live_build(workspace)
    unread, reader = TrackTable(workspace.db, before), TrackTable(workspace.db, before)
    old = list(everything(reader))
    after = upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH)
    if before.trial:  # LanceDB moves partitions, so what was tuned before is tuned again
        assert after.trial and set(after.trial.recall) == {"text", "audio", "new"}
        assert min(after.trial.recall.values()) >= SEARCH.target_recall
    assert list(everything(reader)) == old
    assert list(everything(unread)) == old  # opened before, asked after

    table = table_of(workspace)
    last = revisions(before)
    assert (after.name, after.table_version) == (before.name, f"{before.name}.{last}")
    assert live_build(workspace) == after == kept_builds(workspace)[-1]
    assert after.rows == {"tracks": COUNT + 2, "vectors": COUNT + 2, "windows": 2 * COUNT + 6}
    for kind in KINDS:
        ids = ids_of(table, kind)
        assert len(ids) == after.rows[kind]
        assert kind == "windows" or len(set(ids)) == len(ids), "nothing is doubled"
    assert_fresh(table, find_embeddings(workspace))
    assert table.unindexed_rows() == 0
    assert set(table.sample(COUNT * 2, np.random.default_rng(0))[0]) == set(
        ids_of(table, "vectors")
    )


def test_a_small_change_to_a_large_build_serves_before_its_indices_do(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed then, it goes on serving, and the next change brings the indices up."""
    before = live_build(workspace)
    small = before.index.kind != "exact"

    def die(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(changes, "optimize", die)
        with pytest.raises(KeyboardInterrupt):
            upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH)
    live = live_build(workspace)
    assert live.revision == (1 if small else 0)
    if small:
        assert_fresh(table_of(workspace), find_embeddings(workspace))
        assert table_of(workspace).unindexed_rows() == len(FRESH)
    with monkeypatch.context() as patched:
        patched.setattr(changes, "SMALL_CHANGE", 0)
        after = upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH)
    assert after.revision == live.revision + 1
    assert_fresh(table_of(workspace), find_embeddings(workspace))
    assert table_of(workspace).unindexed_rows() == 0


def test_a_fault_of_the_indices_is_distinguished_from_a_change_rejected(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError("No space left on device")

    said = {"exact": "was not changed", "ivf_rq": "has the change, but its indices were not"}
    with monkeypatch.context() as patched:
        patched.setattr(changes, "optimize", fail)
        message = rf"{said[live_build(workspace).index.kind]}.*No space left"
        with pytest.raises(UnusableError, match=message):
            delete_rows(workspace, ["t0001"])
    gone = not table_of(workspace).rows(["t0001"])
    assert gone == (live_build(workspace).index.kind != "exact")


def test_a_track_that_lost_its_audio_keeps_its_words(workspace: Workspace) -> None:
    rows = tracks_table(check_tracks(pa.Table.from_pylist([catalog_row("n9", uri=None)])), None)
    upsert_rows(workspace, rows, find_embeddings(workspace), search=SEARCH)
    table = table_of(workspace)
    assert table.rows(["n9"]) and not table.vectors(["n9"]) and not len(table.windows(["n9"]))


def test_what_is_deleted_is_gone_everywhere_and_a_rollback_keeps_it_so(
    workspace: Workspace,
) -> None:
    kind = live_build(workspace).index.kind
    build(workspace, kind)
    reader = table_of(workspace)
    vector = reader.vectors(["t0007"])["t0007"]
    delete_rows(workspace, ["t0007", "t0599", "absent"])
    assert reader.nearest(vector, limit=1)[0][0] == "t0007", "a reader stays on what it opened"
    first, last = kept_builds(workspace)
    assert live_build(workspace) == last and first.revision == last.revision == revisions(last)
    for _ in range(2):  # the live build, then the one before
        table = table_of(workspace)
        assert table.build.rows == {
            "tracks": COUNT - 2,
            "vectors": COUNT - 2,
            "windows": 2 * COUNT - 4,
        }
        assert "t0007" not in {i for i, _ in table.nearest(vector, limit=COUNT)}
        where = parse_filter("year = 1990", table.filterable)
        ranked = table.nearest(vector, limit=COUNT, where=where)
        assert len(ranked) == COUNT - 2 and ranked == table.nearest(vector, limit=COUNT)
        assert "t0007" not in {i for i, _ in table.match_names("tune t0007", limit=COUNT)}
        assert "t0007" not in {i for i, _ in table.match_words("calm", limit=COUNT)}
        assert not table.rows(["t0007"]) and not table.vectors(["t0007"])
        assert not len(table.windows(["t0007"])) and not table.named(["tunet0007"])
        assert known_ids(workspace, ["t0007", "t0008"], all_builds(workspace)) == {"t0008"}
        if live_build(workspace) == last:
            assert roll_back(workspace) == first


def test_deleting_what_is_not_there_changes_nothing(workspace: Workspace) -> None:
    before = live_build(workspace)
    assert delete_rows(workspace, ["absent"]) == before == live_build(workspace)


def test_a_change_that_was_killed_is_undone_by_the_next(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = live_build(workspace)

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(changes, "find_row_faults", die)
        with pytest.raises(KeyboardInterrupt):
            upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH)
    assert live_build(workspace) == before
    assert len(ids_of(table_of(workspace), "tracks")) == COUNT
    after = delete_rows(workspace, ["t0000"])
    assert after.rows["tracks"] == COUNT - 1
    assert not set(FRESH[:2]) & set(ids_of(table_of(workspace), "tracks"))
    assert (
        upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH).rows[
            "tracks"
        ]
        == COUNT + 1
    )


def test_an_unsound_outcome_is_rejected_and_what_served_still_does(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = live_build(workspace)
    twice = pa.concat_tables([fresh_rows(), fresh_rows().slice(0, 1)])
    with pytest.raises(
        UnusableError, match="not changed and stays as it was: 1 track ids occur more than once"
    ):
        upsert_rows(workspace, twice, find_embeddings(workspace), search=SEARCH)
    assert live_build(workspace) == before and not table_of(workspace).rows(["n0"])
    with pytest.raises(InputError, match=r"column 'mood' is not in the live tables.*raymtr index"):
        rows = fresh_rows().append_column("mood", pa.array(["x"] * len(FRESH)))
        upsert_rows(workspace, rows, find_embeddings(workspace), search=SEARCH)


def let_versions_go_after(monkeypatch: pytest.MonkeyPatch, grace: timedelta) -> None:
    monkeypatch.setattr(changes, "READER_GRACE", grace)
    monkeypatch.setattr(changes, "LONGEST_CHANGE", timedelta(0))


def test_replaced_versions_go_after_their_grace_and_the_live_one_stays(
    workspace: Workspace, far_from_greenwich: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = TrackTable(workspace.db, live_build(workspace))
    live = delete_rows(workspace, ["t0001"])
    reader = table_of(workspace)
    time.sleep(0.01)
    assert sweep(workspace) == 0
    assert len(before.windows(["t0001"])) == 2
    let_versions_go_after(monkeypatch, timedelta(0))
    assert sweep(workspace) > 0
    table = lancedb.connect(workspace.db).open_table(table_name("windows", live.name))
    assert min(version["version"] for version in table.list_versions()) == live.versions["windows"]
    assert len(reader.windows(["t0002"])) == 2 and len(ids_of(reader, "tracks")) == COUNT - 1
    with pytest.raises((OSError, RuntimeError, ValueError)):
        TrackTable(workspace.db, before.build).windows(["t0001"])
    again = upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH)
    assert again.revision == 2 * revisions(again)


def test_versions_go_where_changes_never_pause(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_versions_go_after(monkeypatch, grace := timedelta(seconds=2))
    before = table_of(workspace)
    delete_rows(workspace, ["t0001"])
    middle = table_of(workspace)
    time.sleep(grace.total_seconds())
    delete_rows(workspace, ["t0002"])  # so the build never is without a change for that long
    assert sweep(workspace) > 0
    with pytest.raises((OSError, RuntimeError, ValueError)):
        TrackTable(workspace.db, before.build).windows(["t0001"])
    assert len(middle.windows(["t0002"])) == 2  # replaced just now


def test_a_table_with_many_stray_bytes_is_named(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live = delete_rows(workspace, ["t0001"])
    monkeypatch.setattr("raymtr.index.table_change.LEAST_STRAY", 50_000_000)
    sweep(workspace)
    assert not caplog.records
    orphan = f"{workspace.db}/{table_name('windows', live.name)}.lance/data/orphan.lance"
    storage.write_bytes(orphan, bytes(60_000_000))
    sweep(workspace)
    [record] = caplog.records
    assert record.message.startswith(f"table windows_{live.name} has 0.1 GB of files that its")


def test_after_an_upsert_too_the_live_version_stays(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [catalog_row(f"t{n:04}", title="Renamed") for n in range(100, 130)]
    tracks = tracks_table(check_tracks(pa.Table.from_pylist(rows)), None)
    live = upsert_rows(workspace, tracks, find_embeddings(workspace), search=SEARCH)
    let_versions_go_after(monkeypatch, timedelta(0))
    assert sweep(workspace) > 0
    assert sweep(workspace) == 0
    assert table_of(workspace).rows(["t0100"], ["title"])["t0100"]["title"] == "Renamed"
    assert len(ids_of(table_of(workspace), "windows")) == live.rows["windows"]
    again = upsert_rows(workspace, fresh_rows(), find_embeddings(workspace), search=SEARCH)
    assert again.revision == 2 * revisions(again)


def test_a_table_that_is_gone_is_named_with_its_cure(workspace: Workspace) -> None:
    live = live_build(workspace)
    storage.delete(f"{workspace.db}/{table_name('windows', live.name)}.lance")
    with pytest.raises(UnusableError, match=rf"windows_{live.name}.*run `raymtr index`"):
        delete_rows(workspace, ["t0001"])
    assert sweep(workspace) == 0
