"""Adds, changes and deletes tracks in published tables while searchers read them.

A searcher reads the table versions that its build's record names. A change is atomic for readers:
it writes new versions of the same tables, updates the indices, checks the result, and only then
writes a record that names the new versions. LanceDB moves partitions in the process, so an index
with new vectors is tuned and measured again. A job killed midway leaves versions that no record
names; the next change first restores the recorded versions.

Updating the indices of a large build takes a minute. Rows that no index covers are found too, by
scanning. So a small change is published twice: as soon as its rows are written, and again with
its indices.

A delete applies to every kept build, so that a rollback cannot restore the rows. An upsert applies
to the live build only. Versions that no record names are removed an hour after they were replaced,
by the next change (`sweep`); a searcher opened before the change can read that long.

Limitation: the bytes of a deleted row stay in data files, unreferenced, until its build is dropped.
LanceDB rewrites a file only when a tenth of its rows is deleted.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb.table import Table

from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.errors import InputError, UnusableError
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.build_tables import vectors_table, windows_table
from raymtr.index.conditions import sql_among
from raymtr.index.gate import count_not_unit, find_recall_faults, find_row_faults
from raymtr.index.publish import kept_builds, live_build, put_live, write_record
from raymtr.index.track_rows import ADDED, read_rows
from raymtr.index.track_table import TrackTable
from raymtr.index.tune import PROBES, draw_probes, tune_index
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
READER_GRACE = timedelta(hours=1)  # how long a searcher may read versions that were replaced
NEVER = timedelta(days=36_500)
MOST_PASSES = 5  # of LanceDB's optimize, which leaves some work to a second pass
IDS_AT_ONCE = 5_000  # per condition
SMALL = 1_000  # tracks of a change that is published before its indices; 10,000 slow searches down

Tables = dict[str, Table]


def upsert_rows(
    workspace: Workspace, tracks: pa.Table, shards: EmbeddingStore | None, *, search: SearchSpec
) -> Build:
    """Insert or replace `tracks` (build_tables.tracks_table) and their vectors in the live build.

    All rows of each track are replaced. `shards` are of the live build's model. Raises InputError
    if the tables lack a column of `tracks`, UnusableError if the result fails the checks; then the
    previous state still serves.
    """
    live = live_build(workspace)
    tables = _open(workspace, live)
    ids = tracks["track_id"].combine_chunks()
    rows = {"tracks": fit_rows(tracks, tables["tracks"].schema)}
    if shards is not None:
        embedded, windows = shards.of_tracks(ids)
        vectors = vectors_table(rows["tracks"], embedded, shards.made_by.fingerprint)
        filtered = tables["vectors"].schema.names  # an older version copied fewer types there
        vectors = vectors.select([name for name in vectors.column_names if name in filtered])
        first = _next_row_index(tables["vectors"])
        place = vectors.column_names.index("row_index")
        numbers = pa.array(np.arange(first, first + len(vectors), dtype=np.int64))
        rows["vectors"] = vectors.set_column(place, "row_index", numbers)
        wanted = pc.is_in(windows["track_id"], value_set=rows["vectors"]["track_id"])
        rows["windows"] = windows_table(windows.filter(wanted))
        if wrong := sum(count_not_unit(rows[kind]["vector"]) for kind in ("vectors", "windows")):
            raise UnusableError(f"{wrong} of the new vectors are not of length 1: embed them again")

    def change() -> None:
        for kind, table in tables.items():
            _delete(table, ids.to_pylist())
            if kind in rows and len(rows[kind]):
                table.add(fit_rows(rows[kind], table.schema))

    counts = {
        kind: table.count_rows() - _count(table, ids.to_pylist()) + len(rows.get(kind, ()))
        for kind, table in tables.items()
    }

    def tune(changed: Build) -> tuple[Build, list[str]]:
        if changed.index.kind == "exact" or shards is None or not len(rows["vectors"]):
            return changed, []
        probes = draw_probes(TrackTable(workspace.db, changed), shards)
        new = matrix_of(rows["vectors"]["vector"][:PROBES]).astype(np.float32)
        probes = replace(probes, vectors={**probes.vectors, "new": new})
        changed = replace(changed, trial=None)  # the old trial measured the old partitions
        changed = tune_index(workspace.db, changed, probes, target=search.target_recall)
        return changed, find_recall_faults(changed, target_recall=search.target_recall)

    return _apply(workspace, live, tables, change, counts, touched=len(ids), tune=tune)


def delete_rows(workspace: Workspace, ids: list[str]) -> Build:
    """Delete tracks from every kept build, from the live one last. Returns the live build.

    Raises UnusableError if a result fails the checks; then the previous state still serves.
    """
    live = live_build(workspace)
    for build in all_builds(workspace):
        tables = _open(workspace, build)
        gone = {kind: _count(table, ids) for kind, table in tables.items()}
        if not any(gone.values()):
            continue

        def change(tables: Tables = tables) -> None:
            for table in tables.values():
                _delete(table, ids)

        counts = {kind: table.count_rows() - gone[kind] for kind, table in tables.items()}
        changed = _apply(workspace, build, tables, change, counts, touched=len(ids))
        live = changed if build.name == live.name else live
    return live


def sweep(workspace: Workspace) -> int:
    """Remove versions of kept builds that were replaced READER_GRACE ago. Returns how many."""
    removed, now = 0, datetime.now(UTC)
    for build in all_builds(workspace):
        if build.changed_at is None:
            continue
        if now - datetime.fromisoformat(build.changed_at) < READER_GRACE:
            continue
        try:
            tables = _open(workspace, build)
        except UnusableError as error:  # only a warning: the cure, a full index, sweeps first
            LOG.warning("%s", error)
            continue
        for kind, table in tables.items():
            # Clean-up is certain to keep only the newest version. So that must be the recorded one,
            # and no pending work may create another.
            recorded = table.version == build.versions[kind]
            if not recorded or _optimize(table) != build.versions[kind]:
                continue
            versions = {version["version"]: version for version in table.list_versions()}
            if len(versions) > 1:
                made = versions[build.versions[kind]]["timestamp"].astimezone(UTC)
                table.optimize(cleanup_older_than=now - made + timedelta(milliseconds=1))
                removed += len(versions) - len(table.list_versions())
    return removed


def all_builds(workspace: Workspace) -> list[Build]:
    """All kept builds. The live one is last, with the record that the pointer holds."""
    live = live_build(workspace)
    return [build for build in kept_builds(workspace) if build.name != live.name] + [live]


def known_ids(workspace: Workspace, ids: list[str], builds: Iterable[Build]) -> set[str]:
    """The ids among `ids` that are in any of `builds`."""
    found: set[str] = set()
    for build in builds:
        table = _open(workspace, build)["tracks"]
        for some in _chunks(ids):
            found |= set(
                read_rows(table, sql_among("track_id", some), ["track_id"])["track_id"].to_pylist()
            )
    return found


def fit_rows(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """`rows` with the columns of `schema`; missing ones are null.

    Raises InputError for a column that the tables lack, or a value that does not fit their type.
    """
    new = [name for name in rows.column_names if name not in schema.names and name not in ADDED]
    if new and any(rows[name].null_count < len(rows) for name in new):
        raise InputError(
            f"column {new[0]!r} is not in the live tables, which have {', '.join(schema.names)}; "
            "`raymtr index` builds tables that have it"
        )
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(len(rows), field.type))
            continue
        try:
            columns.append(rows[field.name].cast(field.type))
        except pa.ArrowInvalid as error:
            raise InputError(
                f"column {field.name!r} is {field.type} in the live tables: {error}"
            ) from error
    return pa.table(columns, schema=schema)


def _apply(
    workspace: Workspace,
    build: Build,
    tables: Tables,
    change: Callable[[], None],
    counts: dict[str, int],
    *,
    touched: int,
    tune: Callable[[Build], tuple[Build, list[str]]] | None = None,
) -> Build:
    """Run `change`, update the indices, check the result and publish it in the build's record.

    `touched` is the number of changed tracks; `tune` returns the tuned build and its faults.
    """
    served = build
    try:
        change()
        faults = find_row_faults(tables, counts)
        if not faults and build.index.kind != "exact" and touched <= SMALL:
            served = _serve(workspace, _next_revision(build, tables, counts))
        if not faults:
            for table in tables.values():
                _optimize(table)
            changed = _next_revision(served, tables, counts)
            faults = find_row_faults(tables, counts)
        if tune and not faults:
            changed, faults = tune(changed)
    except (OSError, RuntimeError, ValueError) as error:  # raised by LanceDB, also on a full disk
        faults = [str(error).strip().splitlines()[0]]
    if faults:
        what = "was not changed and still serves"
        if served is not build:
            what = "serves the change, but its indices were not brought up to it"
        raise UnusableError(
            f"build {build.name} {what}: {'; '.join(faults)}; `raymtr index` builds tables anew"
        )
    return _serve(workspace, changed)


def _next_revision(build: Build, tables: Tables, counts: dict[str, int]) -> Build:
    """`build` with the current versions of its tables and one revision more."""
    return replace(
        build,
        rows=counts,
        versions={kind: table.version for kind, table in tables.items()},
        revision=build.revision + 1,
        changed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _serve(workspace: Workspace, build: Build) -> Build:
    """Write `build` to its record, and to the live pointer if it is the live build."""
    write_record(workspace, build)
    if build.name == live_build(workspace).name:
        put_live(workspace, build)
    return build


def _open(workspace: Workspace, build: Build) -> Tables:
    """The tables of a build for writing, restored to the versions that its record names."""
    db = lancedb.connect(workspace.db)
    tables = {}
    for kind in KINDS:
        name = table_name(kind, build.name)
        try:
            table = db.open_table(name)
            if table.version != build.versions[kind]:
                table.checkout(build.versions[kind])
                table.restore()
        except (ValueError, RuntimeError, OSError) as error:
            raise UnusableError(
                f"table {name} of a kept build cannot be opened ({error}); run `raymtr index`"
            ) from error
        tables[kind] = table
    return tables


def _optimize(table: Table) -> int:
    """Merge files and update indices until nothing is left to do. Returns the final version."""
    for _ in range(MOST_PASSES):
        before = table.version
        table.optimize(cleanup_older_than=NEVER)
        if table.version == before:
            break
    return int(table.version)


def _next_row_index(vectors: Table) -> int:
    numbers = read_rows(vectors, None, ["row_index"])["row_index"]
    return int(pc.max(numbers).as_py() or 0) + 1


def _delete(table: Table, ids: list[str]) -> None:
    for some in _chunks(ids):
        table.delete(sql_among("track_id", some))


def _count(table: Table, ids: list[str]) -> int:
    return sum(table.count_rows(sql_among("track_id", some)) for some in _chunks(ids))


def _chunks(ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), IDS_AT_ONCE):
        yield ids[start : start + IDS_AT_ONCE]
