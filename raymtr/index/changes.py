"""Adds, changes and deletes tracks in published tables while searchers read them.

A searcher reads the table versions that its build's record names. A change is atomic for readers:
it writes new versions of the same tables, updates the indices, checks the result, and only then
writes a record that names the new versions. LanceDB moves partitions in the process, so an index
with new vectors is tuned and measured again. A job killed midway leaves versions that no record
names; the next change first restores the recorded versions.

Updating the indices of a large build takes a minute. Until then LanceDB finds unindexed rows by a
scan. So a small change is published twice: as soon as its rows are written, and again with its
indices.

A delete applies to every kept build, so that a rollback cannot restore the rows. An upsert applies
to the live build only. A version stays for READER_GRACE after it was replaced, so that a searcher
opened before the change can go on; then the next change removes it (`sweep`), also where changes
come every minute.

Limitation: the bytes of a deleted row stay in data files, unreferenced, until its build is dropped.
LanceDB rewrites a file only when a tenth of its rows is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa

from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.errors import UnusableError
from raymtr.index.build import Build
from raymtr.index.column_values import drop_values
from raymtr.index.conditions import sql_among
from raymtr.index.gate import find_recall_faults, find_row_faults
from raymtr.index.publish import kept_builds, live_build, put_live, write_record
from raymtr.index.table_change import (
    Change,
    chunks,
    count_among,
    open_tables,
    optimize,
    upsert_change,
    warn_of_stray_bytes,
)
from raymtr.index.track_rows import read_rows
from raymtr.index.track_table import TrackTable, keep_column_values
from raymtr.index.tune import TRIAL_QUERIES, draw_trial_queries, tune_index
from raymtr.partitions import partition_of
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
READER_GRACE = timedelta(hours=1)  # how long a searcher may read versions that were replaced
LONGEST_CHANGE = timedelta(hours=1)  # from the writing of a version until a record names it
SMALL_CHANGE = 1_000  # most tracks to publish unindexed; 10,000 of them slow searches down


def upsert_rows(
    workspace: Workspace, tracks: pa.Table, shards: EmbeddingStore | None, *, search: SearchSpec
) -> Build:
    """Insert or replace `tracks` (build_tables.tracks_table) and their vectors in the live build.

    All rows of each track are replaced. `shards` are embeddings of the live build's model. Raises
    InputError if the tables lack a column of `tracks`. Raises UnusableError if the result fails the
    checks; the previous state then stays live.
    """
    live = live_build(workspace)
    parts = live.parts()
    numbers = partition_of(tracks["track_id"], len(parts))
    changes = [
        upsert_change(workspace, part, tracks.filter(pa.array(numbers == number)), shards)
        for number, part in enumerate(parts)
        if (numbers == number).any()
    ]

    def tune(changed: Build) -> tuple[Build, list[str]]:
        tuned, faults = {part.name: part for part in changed.parts()}, []
        for one in changes:
            part, vectors = tuned[one.part.name], one.rows.get("vectors", ())
            if shards is not None and len(vectors) and part.index.kind != "exact":
                part = tuned[part.name] = _tune(workspace, part, vectors, shards, search)
                faults += find_recall_faults(part, target_recall=search.target_recall)
        return changed.with_parts(list(tuned.values())), faults

    return _apply(workspace, live, changes, changed_tracks=len(tracks), tune=tune)


def _tune(
    workspace: Workspace, part: Build, rows: pa.Table, shards: EmbeddingStore, search: SearchSpec
) -> Build:
    """`part`, tuned and measured again with new vectors in `rows`."""
    queries = draw_trial_queries(TrackTable(workspace.db, part), shards)
    new = matrix_of(rows["vector"][:TRIAL_QUERIES]).astype(np.float32)
    queries = replace(queries, vectors={**queries.vectors, "new": new})
    part = replace(part, trial=None)  # the old trial measured the old partitions
    return tune_index(workspace.db, part, queries, target=search.target_recall)


def delete_rows(workspace: Workspace, ids: list[str]) -> Build:
    """Delete tracks from every kept build, from the live one last. Returns the live build.

    Raises UnusableError if a result fails the checks; that build then stays as it was.
    """
    live = live_build(workspace)
    for build in all_builds(workspace):
        changes = []
        for part in build.parts():
            tables = open_tables(workspace, part)
            deleted = {kind: count_among(table, ids) for kind, table in tables.items()}
            if any(deleted.values()):
                counts = {
                    kind: table.count_rows() - deleted[kind] for kind, table in tables.items()
                }
                changes.append(Change(part=part, tables=tables, counts=counts, ids=ids))
        if changes:
            changed = _apply(workspace, build, changes, changed_tracks=len(ids))
            live = changed if build.name == live.name else live
    return live


def sweep(workspace: Workspace) -> int:
    """Remove versions of kept builds that were replaced READER_GRACE ago. Returns how many.

    Logs a warning for a table of a changed build with many bytes that its newest version lacks.
    """
    removed, now = 0, datetime.now(UTC)
    for build in all_builds(workspace):
        if build.changed_at is None:
            continue
        try:
            removed += sum(_sweep_part(workspace, part, now) for part in build.parts())
        except UnusableError as error:  # only a warning, because the cure, `index`, sweeps first
            LOG.warning("%s", error)
    return removed


def _sweep_part(workspace: Workspace, part: Build, now: datetime) -> int:
    """Sweep one table shard, or a build without shards.

    The time at which a version was replaced is not kept. It is at most LONGEST_CHANGE after the
    next version was written. So the versions before the newest one of that age can go.
    """
    removed, kept = 0, set[int]()
    for kind, table in open_tables(workspace, part).items():
        versions = {one["version"]: one["timestamp"] for one in table.list_versions()}
        aged = [
            number
            for number, written_at in versions.items()
            if now - written_at.astimezone(UTC) >= READER_GRACE + LONGEST_CHANGE
        ]
        first = min(max(aged, default=0), part.versions[kind])
        if old := [number for number in versions if number < first]:
            table.to_lance().cleanup_old_versions(versions=old)
            removed += len(old)
        if kind == "tracks":
            kept = versions.keys() - set(old)
        warn_of_stray_bytes(table)
    drop_values(workspace.db, lambda table, version: table != part.name or version in kept)
    return removed


def all_builds(workspace: Workspace) -> list[Build]:
    """All kept builds. The live one is last, with the record that the live pointer contains."""
    live = live_build(workspace)
    return [build for build in kept_builds(workspace) if build.name != live.name] + [live]


def known_ids(workspace: Workspace, ids: list[str], builds: Iterable[Build]) -> set[str]:
    """The ids among `ids` that are in any of `builds`."""
    found: set[str] = set()
    for part in (part for build in builds for part in build.parts()):
        table = open_tables(workspace, part)["tracks"]
        for some in chunks(ids):
            found |= set(
                read_rows(table, sql_among("track_id", some), ["track_id"])["track_id"].to_pylist()
            )
    return found


def _apply(
    workspace: Workspace,
    build: Build,
    changes: Sequence[Change],
    *,
    changed_tracks: int,
    tune: Callable[[Build], tuple[Build, list[str]]] | None = None,
) -> Build:
    """Make `changes`, update the indices, check the result and publish it in the build's record.

    `touched` is the number of changed tracks; `tune` returns the tuned build and its faults.
    """
    current = build
    approximate = any(one.part.index.kind != "exact" for one in changes)
    try:
        for one in changes:
            one.write()
        faults = _row_faults(changes)
        if not faults and approximate and changed_tracks <= SMALL_CHANGE:
            current = _publish_change(workspace, _next_revision(build, changes))
        if not faults:
            for one in changes:
                for table in one.tables.values():
                    optimize(table)
            changed = _next_revision(current, changes)
            faults = _row_faults(changes)
        if tune and not faults:
            changed, faults = tune(changed)
        for part in changed.parts() if not faults else ():
            if part.name in {one.part.name for one in changes}:
                keep_column_values(workspace.db, part)
    except (OSError, RuntimeError, ValueError) as error:  # raised by LanceDB, also on a full disk
        faults = [str(error).strip().splitlines()[0]]
    if faults:
        state = "was not changed and stays as it was"
        if current is not build:
            state = "has the change, but its indices were not updated"
        raise UnusableError(
            f"build {build.name} {state}: {'; '.join(faults)}; `raymtr index` builds new tables"
        )
    return _publish_change(workspace, changed)


def _row_faults(changes: Iterable[Change]) -> list[str]:
    return [fault for one in changes for fault in find_row_faults(one.tables, one.counts)]


def _next_revision(build: Build, changes: Iterable[Change]) -> Build:
    """`build` with the current versions of its changed tables and the next revision number."""
    changed = {one.part.name: one.changed() for one in changes}
    return replace(
        build.with_parts([changed.get(part.name, part) for part in build.parts()]),
        revision=build.revision + 1,
        changed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _publish_change(workspace: Workspace, build: Build) -> Build:
    """Write `build` to its record, and to the live pointer if it is the live build."""
    write_record(workspace, build)
    if build.name == live_build(workspace).name:
        put_live(workspace, build)
    return build
