"""Publishes a build of the index atomically: load, index, check, promote, keep, roll back.

`db/live.json` is the only pointer; it contains the record of the live build. Every build that
passed the checks has a record under `db/builds/`, which names the build that was live before it. A
rollback writes that earlier record to the pointer again; a build that was rolled back is never a
predecessor. A build that fails the checks is dropped and the pointer does not change. A job killed
midway leaves tables without a record, which the next job drops.

Readers follow the pointer within seconds, but some are in the middle of a search. So the previous
build is kept for a grace period, even if search.keep_versions is exceeded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import lancedb
from lancedb.db import DBConnection

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError, UnusableError
from raymtr.index.build import Build, build_of
from raymtr.index.calibrate import calibrate
from raymtr.index.column_values import drop_values
from raymtr.index.fragments import TracksSource
from raymtr.index.gate import find_faults
from raymtr.index.make_build import make_build
from raymtr.index.sharded_table import open_table
from raymtr.index.track_table import keep_column_values
from raymtr.index.tune import draw_trial_queries, tune_index
from raymtr.index.work import Mapper, in_this_process
from raymtr.specs import SearchSpec
from raymtr.validation import from_dict, to_dict
from raymtr.workspace import Workspace

GRACE = timedelta(minutes=10)  # how long a reader may use a build after another became live


def live_build(workspace: Workspace) -> Build:
    """The live build. Raises InputError if nothing was published yet."""
    workspace.require_live()
    return from_dict(Build, storage.read_json(workspace.live_pointer))


def live_or_none(workspace: Workspace) -> Build | None:
    """The live build; None if nothing was published yet."""
    return live_build(workspace) if storage.exists(workspace.live_pointer) else None


def kept_builds(workspace: Workspace) -> list[Build]:
    """All kept builds, oldest first; each passed its checks."""
    folder = f"{workspace.db}/builds"
    names = storage.list_files(folder, suffix=".json")
    return [from_dict(Build, storage.read_json(f"{folder}/{name}")) for name in names]


def publish(
    workspace: Workspace,
    tracks: Sequence[TracksSource],
    shards: EmbeddingStore | None,
    *,
    search: SearchSpec,
    mapper: Mapper = in_this_process,
) -> Build:
    """Build tables of tracks and their vectors, and make them live.

    `tracks` has one element per partition of `shards`, in order. `mapper` runs the writing and
    indexing of partitions, in this process or in workers.

    Raises UnusableError if the checks find a fault. Raises InputError if there are vectors, but
    none of them belongs to a track. In both cases the live build stays as it is.
    """
    db = lancedb.connect(workspace.db)
    name = _next_name(db, workspace)
    previous = live_or_none(workspace)
    if previous:
        drop_old(workspace, keep=search.keep_versions)  # frees disk: grace periods may be over
    try:
        build = make_build(workspace, name, tracks, shards, search=search, mapper=mapper)
        build = replace(build, after=previous.name if previous else None)
        if shards:
            build = _tuned(workspace, build, shards, target=search.target_recall)
        faults = [
            f"{part.name}: {fault}" if build.shards else fault
            for part in build.parts()
            for fault in find_faults(workspace, part, target_recall=search.target_recall)
        ]
        if not faults:
            mapper(partial(keep_column_values, workspace.db), build.parts())
            if shards:
                measured = calibrate(open_table(workspace.db, build), shards)
                build = replace(build, calibration=measured)
    except InputError:
        _drop_tables(db, name)
        raise
    except (OSError, RuntimeError, ValueError) as error:  # raised by LanceDB, also on a full disk
        faults = [str(error).strip().splitlines()[0]]
    if faults:
        _drop_tables(db, name)
        raise UnusableError(
            f"the new index was not published: {'; '.join(faults)}; the previous build stays live"
        )
    write_record(workspace, build)
    put_live(workspace, build)
    drop_old(workspace, keep=search.keep_versions)
    return build


def roll_back(workspace: Workspace) -> Build:
    """Make the build that was live before the current one live again.

    Raises InputError if it is not kept.
    """
    live = live_build(workspace)
    previous = _predecessor(live, {build.name: build for build in kept_builds(workspace)})
    if previous is None:
        raise InputError(
            f"no build that was live before {live.name} is kept: nothing to roll back to"
        )
    build = replace(previous, retired_at=None)
    write_record(workspace, build)
    put_live(workspace, build)
    return build


def write_record(workspace: Workspace, build: Build) -> None:
    """Write the record of a build, after its checks or a change."""
    storage.write_json(_record(workspace, build), to_dict(build))


def put_live(workspace: Workspace, build: Build) -> None:
    """Make a build live by one atomic write; first record when the previous one was retired."""
    previous = live_or_none(workspace)
    if previous and previous.name != build.name:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_record(workspace, replace(previous, retired_at=now))
    storage.write_json(workspace.live_pointer, to_dict(build))


def drop_old(workspace: Workspace, *, keep: int) -> None:
    """Drop old builds and all unfinished tables.

    Kept are the live build and its predecessors for a rollback, `keep` builds in total, and builds
    in their grace period.
    """
    db = lancedb.connect(workspace.db)
    builds = {build.name: build for build in kept_builds(workspace)}
    kept = {build.name for build in builds.values() if _in_grace(build)}
    current: Build | None = live_build(workspace)
    for _ in range(keep):
        if current is not None:
            kept.add(current.name)
            current = _predecessor(current, builds)
    for name in builds.keys() - kept:
        storage.delete(_record(workspace, builds[name]))
    for name in set(map(build_of, _table_names(db))) - kept:
        _drop_tables(db, name)
    drop_values(workspace.db, lambda table, version: build_of(f"_{table}") in kept)


def _predecessor(build: Build, kept: Mapping[str, Build]) -> Build | None:
    """The kept build that was live before this one; older records lack it, so numbers decide."""
    if build.after is not None:
        return kept.get(build.after)
    older = [name for name in kept if name < build.name]
    return kept[max(older)] if older else None


def _in_grace(build: Build) -> bool:
    if build.retired_at is None:
        return False
    return datetime.now(UTC) - datetime.fromisoformat(build.retired_at) < GRACE


def _tuned(workspace: Workspace, build: Build, shards: EmbeddingStore, *, target: float) -> Build:
    """`build` with its vector indices tuned, all with the same queries."""
    if all(part.index.kind == "exact" for part in build.parts()):
        return build
    queries = draw_trial_queries(open_table(workspace.db, build), shards)
    return build.with_parts(
        [
            part
            if part.index.kind == "exact"
            else tune_index(workspace.db, part, queries, target=target)
            for part in build.parts()
        ]
    )


def _next_name(db: DBConnection, workspace: Workspace) -> str:
    used = set(map(build_of, _table_names(db)))
    used |= {build.name for build in kept_builds(workspace)}
    return f"{max(map(int, used), default=0) + 1:06d}"


def _table_names(db: DBConnection) -> list[str]:
    names: list[str] = []
    page = db.list_tables()
    names += page.tables
    while page.page_token:
        page = db.list_tables(page_token=page.page_token)
        names += page.tables
    return names


def _drop_tables(db: DBConnection, build: str) -> None:
    for name in _table_names(db):
        if build_of(name) == build:
            db.drop_table(name)


def _record(workspace: Workspace, build: Build) -> str:
    return f"{workspace.db}/builds/{build.name}.json"
