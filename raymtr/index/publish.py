"""The index as steps nobody can catch half-way: load, build, gate, promote, keep, roll back.

`db/live.json` is the one pointer: the record of the build that serves. Every build that passed
its gate keeps its record under `db/builds/`, so going back is writing an older record to the
pointer again. A build that fails its gate is dropped and the pointer stays; a job killed on the
way leaves tables without a record, which the next one drops.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.index import build_tables
from raymtr.index.shards import Shards, matrix_of
from raymtr.index.track_table import KINDS, Build, TrackTable, table_name
from raymtr.index.tune import PROBED, draw_probes, tune_index
from raymtr.specs import SearchSpec, from_dict, to_dict
from raymtr.workspace import Workspace

UNIT_TOLERANCE = 2e-3  # of a vector's length; rounding to float16 takes up to 5e-4


def live_build(workspace: Workspace) -> Build:
    """The build that serves. Raises InputError where nothing was published yet."""
    pointer = f"{workspace.db}/live.json"
    if not storage.exists(pointer):
        raise InputError(f"nothing to search in {workspace.root} yet; run `raymtr index` first")
    return from_dict(Build, storage.read_json(pointer))


def kept_builds(workspace: Workspace) -> list[Build]:
    """Every build that can serve, oldest first."""
    folder = f"{workspace.db}/builds"
    names = storage.list_files(folder, suffix=".json")
    return [from_dict(Build, storage.read_json(f"{folder}/{name}")) for name in names]


def publish(
    workspace: Workspace, tracks: pa.Table, shards: Shards | None, *, search: SearchSpec
) -> Build:
    """Make tables of `tracks` (build_tables.tracks_table) and their vectors, and let them serve.

    Raises UnusableError, leaving the build that serves alone, where the gate finds a fault.
    """
    db = lancedb.connect(workspace.db)
    name = _next_name(db, workspace)
    try:
        build = _make(db, name, tracks, shards, search=search)
        if build.index.kind != "exact" and shards:
            probes = draw_probes(TrackTable(workspace.db, build), shards)
            build = tune_index(workspace.db, build, probes, target=search.target_recall)
        faults = find_faults(workspace, build, target_recall=search.target_recall)
    except (OSError, RuntimeError, ValueError) as error:  # LanceDB's, a full disk's among them
        faults = [str(error).strip().splitlines()[0]]
    if faults:
        _drop_tables(db, name)
        raise UnusableError(
            f"the new index was not published: {'; '.join(faults)}; what served before still does"
        )
    write_record(workspace, build)
    put_live(workspace, build)
    drop_old(workspace, keep=search.keep_versions)
    return build


def roll_back(workspace: Workspace) -> Build:
    """Let the build before the live one serve again. Raises InputError where none is kept."""
    live = live_build(workspace)
    older = [build for build in kept_builds(workspace) if build.name < live.name]
    if not older:
        raise InputError(f"no build older than {live.name} is kept: nothing to roll back to")
    put_live(workspace, older[-1])
    return older[-1]


def write_record(workspace: Workspace, build: Build) -> None:
    """Keep the record of a build that passed its gate, or was changed."""
    storage.write_json(_record(workspace, build), to_dict(build))


def put_live(workspace: Workspace, build: Build) -> None:
    """Let a build serve: one atomic write."""
    storage.write_json(f"{workspace.db}/live.json", to_dict(build))


def drop_old(workspace: Workspace, *, keep: int) -> None:
    """Keep the newest `keep` builds and the live one; drop the others and all unfinished tables."""
    db = lancedb.connect(workspace.db)
    builds, live = kept_builds(workspace), live_build(workspace)
    kept = {build.name for build in builds[-keep:]} | {live.name}
    for build in builds:
        if build.name not in kept:
            storage.delete(_record(workspace, build))
    for name in {table.rpartition("_")[2] for table in _table_names(db)} - kept:
        _drop_tables(db, name)


def find_faults(workspace: Workspace, build: Build, *, target_recall: float) -> list[str]:
    """The gate: what is wrong with a finished build, in words; [] for a good one."""
    db = lancedb.connect(workspace.db)
    tables = {kind: db.open_table(table_name(kind, build.name)) for kind in KINDS}
    faults = find_row_faults(tables, build.rows)
    for kind in ("vectors", "windows"):
        wrong = _wrong_vectors(tables[kind], build.rows[kind])
        if wrong:
            faults.append(f"{wrong} vectors in {kind} are not of length 1")
    return faults + find_recall_faults(build, target_recall=target_recall)


def find_recall_faults(build: Build, *, target_recall: float) -> list[str]:
    """The part of the gate that asks what an index found, when it was tried."""
    return [
        f"recall@{PROBED} on {kind} queries is {recall:.3f} with {build.index.nprobes} of "
        f"{build.index.partitions} partitions, below search.target_recall={target_recall}"
        for kind, recall in (build.trial.recall.items() if build.trial else ())
        if recall < target_recall
    ]


def find_row_faults(tables: Mapping[str, Any], rows: Mapping[str, int]) -> list[str]:
    """The part of the gate that counts: rows as expected in each table, no track twice."""
    faults = []
    for kind, table in tables.items():
        if table.count_rows() != rows[kind]:
            faults.append(f"{kind} has {table.count_rows()} rows, {rows[kind]} were read")
    for kind in ("tracks", "vectors"):
        ids = tables[kind].search().select(["track_id"]).limit(rows[kind] + 1).to_arrow()
        twice = len(ids) - pc.count_distinct(ids["track_id"]).as_py()
        if twice:
            faults.append(f"{twice} track ids stand more than once in {kind}")
    return faults


def count_not_unit(vectors: pa.ChunkedArray) -> int:
    """How many vectors of a column are not of length 1, or not even numbers."""
    lengths = np.linalg.norm(matrix_of(vectors).astype(np.float32), axis=1)
    return int((~(np.abs(lengths - 1.0) <= UNIT_TOLERANCE)).sum())


def _make(
    db: Any, name: str, tracks: pa.Table, shards: Shards | None, *, search: SearchSpec
) -> Build:
    """Load and index the tables of a new build; nobody reads them yet."""
    made_by = shards.made_by if shards else None
    dim = made_by.dim if made_by else 1  # a list of some size, of which there will be none
    embedded = shards.read_tracks() if shards else build_tables.no_vectors(dim)
    vectors = build_tables.vectors_table(tracks, embedded, made_by.fingerprint if made_by else "")
    counted = _Counted(build_tables.window_batches(shards, vectors["track_id"]))
    windows = pa.RecordBatchReader.from_batches(build_tables.window_schema(dim), counted)
    index = build_tables.choose_index(len(vectors), dim, exact_below=search.exact_below)
    data = {"tracks": tracks, "vectors": vectors, "windows": windows}
    versions = build_tables.create_tables(db, name, data, index)
    return Build(
        name=name,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
        made_by=made_by,
        rows={"tracks": len(tracks), "vectors": len(vectors), "windows": counted.rows},
        versions=versions,
        index=index,
    )


class _Counted:
    """Record batches passing by, and how many rows they had."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches, self.rows = batches, 0

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for batch in self._batches:
            self.rows += len(batch)
            yield batch


def _wrong_vectors(table: Any, rows: int) -> int:
    wrong = 0
    for batch in table.search().select(["vector"]).limit(rows + 1).to_batches():
        wrong += count_not_unit(pa.chunked_array([batch["vector"]]))
    return wrong


def _next_name(db: Any, workspace: Workspace) -> str:
    used = {name.rpartition("_")[2] for name in _table_names(db)}
    used |= {build.name for build in kept_builds(workspace)}
    return f"{max(map(int, used), default=0) + 1:06d}"


def _table_names(db: Any) -> list[str]:
    names: list[str] = []
    page = db.list_tables()
    names += page.tables
    while page.page_token:
        page = db.list_tables(page_token=page.page_token)
        names += page.tables
    return names


def _drop_tables(db: Any, build: str) -> None:
    present = set(_table_names(db))
    for kind in KINDS:
        if table_name(kind, build) in present:
            db.drop_table(table_name(kind, build))


def _record(workspace: Workspace, build: Build) -> str:
    return f"{workspace.db}/builds/{build.name}.json"
