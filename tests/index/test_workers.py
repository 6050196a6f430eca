"""A build that worker processes write and index is the build of one process."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from jobs.build_index import parts_to_read
from raymtr.embeddings.store import find_embeddings
from raymtr.errors import InputError, UnusableError
from raymtr.index import build_tables
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.build_tables import choose_index, tracks_table
from raymtr.index.changes import upsert_rows
from raymtr.index.filters import parse_filter
from raymtr.index.fragments import Partition, WrittenRows, commit_tables, write_partition
from raymtr.index.publish import live_build, publish, roll_back
from raymtr.index.segments import FILTERED, Limits, create_indices
from raymtr.index.track_table import TrackTable
from raymtr.index.work import Item, Mapper, Result, in_this_process
from raymtr.specs import SearchSpec
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace
from tests.builders import divide

pytestmark = pytest.mark.slow

COUNT, DIM, PARTITIONS, WORKERS = 400, 16, 4, 2
FRESH = "n0"  # embedded, but not in the catalog yet
SEARCH = SearchSpec(exact_below=1, index_workers=WORKERS)


class Processes:
    """A mapper to other processes of this machine."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        return list(self._pool.map(work, items))


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        yield Processes(pool)


def catalog_row(track_id: str, number: int) -> dict:
    tags = ["calm"] if number % 2 else ["loud", f"mood {number % 7}"]
    row = {"track_id": track_id, "uri": f"/{track_id}.wav", "title": f"Tune {number}"}
    return row | {"artist": f"Ada {number % 9}", "tags": tags, "year": 1950 + number % 70}


@pytest.fixture
def workspace(
    make_workspace: Callable, commit_vectors: Callable, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    """A catalog in PARTITIONS, some tracks without audio, published once by this process."""
    monkeypatch.setattr(build_tables, "VECTORS_PER_PARTITION", 60)
    rng = np.random.default_rng(0)
    rows = [catalog_row(f"t{n:04}", n) for n in range(COUNT)]
    workspace: Workspace = make_workspace([row | {"uri": None} for row in rows[:5]] + rows[5:])
    ids = [row["track_id"] for row in rows[5:]] + [FRESH]
    commit_vectors(workspace, {i: unit(rng.standard_normal((2, DIM))) for i in ids})
    build(workspace, in_this_process, SearchSpec(exact_below=1))
    divide(workspace, PARTITIONS)
    return workspace


def build(workspace: Workspace, mapper: Mapper, search: SearchSpec = SEARCH) -> Build:
    shards = find_embeddings(workspace)
    return publish(
        workspace, parts_to_read(workspace, shards), shards, search=search, mapper=mapper
    )


def rows_of(workspace: Workspace, build: Build) -> dict[str, list[dict]]:
    """The rows of each table without the order of loading."""
    db = lancedb.connect(workspace.db)
    rows = {}
    for kind in KINDS:
        held = db.open_table(table_name(kind, build.name)).to_arrow()
        held = held.select([name for name in held.column_names if name != "row_index"])
        rows[kind] = held.sort_by([(name, "ascending") for name in held.column_names[:2]])
    return {kind: held.to_pylist() for kind, held in rows.items()}


def answers(table: TrackTable) -> Iterator[object]:
    """What a reader asks of indices, as values without the order of loading."""
    filters = ("year = 1990", "tags has 'calm'", "artist = 'Ada 3'")
    for where in (None, *(parse_filter(text, table.filterable) for text in filters)):
        yield sorted(table.match_words("loud mood", limit=COUNT, where=where))
        yield sorted(table.match_names("tune 11", limit=COUNT, where=where))
        yield table.matching(where)
        if where is not None:  # by an exact scan of the few rows that match
            yield sorted(table.nearest(np.ones(DIM, np.float32) / 4, limit=20, where=where))
    yield sorted(row["track_id"] for row in table.named(["ada 3"]))
    yield dict(table.column_values.counts["tags"])


def segments(workspace: Workspace, build: str, kind: str) -> dict[str, tuple[int, int]]:
    """The segments and the rows of each index of a table, by column."""
    table = lancedb.connect(workspace.db).open_table(table_name(kind, build))
    return {
        index.columns[0]: (index.num_segments, index.num_unindexed_rows)
        for index in table.list_indices()
    }


def test_workers_give_the_rows_and_hits_of_one_process(
    workspace: Workspace, processes: Processes
) -> None:
    one, other = live_build(workspace), build(workspace, processes)
    assert other.rows == one.rows == {"tracks": 400, "vectors": 395, "windows": 790}
    assert rows_of(workspace, other) == rows_of(workspace, one)
    assert segments(workspace, one.name, "vectors")["vector"] == (1, 0)
    assert segments(workspace, other.name, "vectors")["vector"] == (WORKERS, 0)
    assert other.index.kind == one.index.kind == "ivf_rq" and other.index.partitions == 7
    assert other.trial and min(other.trial.recall.values()) >= SEARCH.target_recall
    assert len(other.trial.recall) == 2
    tables = [TrackTable(workspace.db, each) for each in (one, other)]
    for ours, theirs in zip(*map(answers, tables), strict=True):
        assert theirs == ours
    ids, matrix = tables[1].all_vectors()
    queries = unit(np.random.default_rng(1).standard_normal((20, DIM)))
    for query in queries:
        best = np.argsort(-(matrix @ query))[:10]
        found = {track_id for track_id, _ in tables[1].nearest(query, limit=10)}
        assert len(found & {ids[row] for row in best}) >= 9


def test_an_upsert_and_a_rollback_after_workers(workspace: Workspace, processes: Processes) -> None:
    one, other = live_build(workspace), build(workspace, processes)
    fresh = check_tracks(pa.Table.from_pylist([catalog_row(FRESH, 990)]))
    changed = upsert_rows(
        workspace, tracks_table(fresh, None), find_embeddings(workspace), search=SEARCH
    )
    assert changed.name == other.name and changed.rows["tracks"] == COUNT + 1
    table = TrackTable(workspace.db, changed)
    vector = table.vectors([FRESH])[FRESH]
    assert table.nearest(vector, limit=1)[0][0] == FRESH
    assert table.match_names("tune 990", limit=1)[0][0] == FRESH
    assert table.matching(parse_filter("title = 'Tune 990'", table.filterable)) == {FRESH}
    assert table.unindexed_rows() == 0 and len(table.windows([FRESH])) == 2
    assert roll_back(workspace) == one
    assert not TrackTable(workspace.db, live_build(workspace)).rows([FRESH])


def write_and_die(part: Partition) -> dict[str, WrittenRows]:
    write_partition(part)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("a killed process went on")


def test_a_worker_killed_before_the_commit_leaves_nothing_visible(workspace: Workspace) -> None:
    before = live_build(workspace)

    def die(work: Callable, items: Sequence) -> list:
        assert work is write_partition
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                return list(pool.map(write_and_die, items))
            finally:
                [name] = {item.build for item in items}
                assert any(Path(workspace.db, f"tracks_{name}.lance", "data").iterdir())
                with pytest.raises(ValueError, match="not found"):
                    lancedb.connect(workspace.db).open_table(table_name("tracks", name))

    with pytest.raises(UnusableError, match="the previous build stays live"):
        build(workspace, die)
    assert live_build(workspace) == before
    tables = lancedb.connect(workspace.db).list_tables().tables
    assert sorted(tables) == sorted(table_name(kind, before.name) for kind in KINDS)


def test_a_small_memory_gives_more_segments(workspace: Workspace) -> None:
    shards, name = find_embeddings(workspace), "000002"
    sources = zip(parts_to_read(workspace, shards), shards.parts(), strict=True)
    parts = [
        Partition(folder=workspace.db, build=name, number=number, tracks=read, shards=store)
        for number, (read, store) in enumerate(sources)
    ]
    commit_tables(workspace.db, name, in_this_process(write_partition, parts))
    limits = Limits(rows=COUNT // 2, memory_gb=2, workers=1)
    index = choose_index(0, DIM, exact_below=1)
    versions = create_indices(workspace.db, name, index, limits=limits, mapper=in_this_process)
    found = segments(workspace, name, "tracks")
    assert set(FILTERED) | {"names", "words"} <= set(found)
    assert all(unindexed == 0 and count in (2, 3) for count, unindexed in found.values())
    table = lancedb.connect(workspace.db).open_table(table_name("tracks", name))
    assert versions["tracks"] == table.version


def test_partitions_of_different_columns_are_told_apart(workspace: Workspace) -> None:
    shards = find_embeddings(workspace)
    parts: list = parts_to_read(workspace, shards)
    parts[2] = partial(without_year, parts[2])
    with pytest.raises(InputError, match="partition 2 of tracks has the columns"):
        publish(workspace, parts, shards, search=SEARCH)


def without_year(read: Callable[[], pa.Table]) -> pa.Table:
    return read().drop_columns(["year"])
