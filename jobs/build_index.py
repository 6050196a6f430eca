"""`raymtr index`: embeddings + catalog + captions -> a published LanceDB build.

The whole catalog is built into new tables, checked, and made live by replacing one pointer
(raymtr.index.publish). Searchers see the old build until then. This process writes and indexes one
partition after the other, or hands them to Ray tasks (`search.index_workers`); it alone commits.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NotRequired, TypedDict, final

import pyarrow as pa
import pyarrow.compute as pc

from jobs import change_index
from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, find_embeddings
from raymtr.errors import InputError
from raymtr.index.build import Build
from raymtr.index.build_tables import choose_index, tracks_table, with_lengths
from raymtr.index.changes import sweep
from raymtr.index.publish import kept_builds, live_build, live_or_none, publish, roll_back
from raymtr.index.work import Mapper, in_this_process
from raymtr.ownership import index_lock
from raymtr.partitions import count_rows, has_audio, partition_count, read_schema, split_table
from raymtr.specs import SearchSpec, Settings
from raymtr.tagging.columns import with_attributes
from raymtr.validation import to_dict
from raymtr.workspace import Workspace

EXAMPLE = "raymtr index --workspace w"


@final
class PublishedBuild(TypedDict):
    """The build that was published or made live again."""

    build: str
    built_at: str
    fingerprint: str | None
    tracks: int
    vectors: int
    windows: int
    index: dict[str, Any]  # of VectorIndex
    trial: dict[str, Any] | None  # of Trial
    live: str
    kept: list[str]
    left_out: NotRequired[int]  # tracks without a vector
    seconds: NotRequired[float]


@final
class PlannedIndex(TypedDict):
    """The index that a build would get."""

    vectors: int
    dim: int
    index: dict[str, Any]  # of VectorIndex


CAPTIONS = pa.schema([("track_id", pa.string()), ("caption", pa.string())])

IndexAnswer = PublishedBuild | PlannedIndex | change_index.UpsertAnswer | change_index.DeleteAnswer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `index`."""
    parser.add_argument(
        "--model", metavar="FINGERPRINT", help="whose embeddings; else the last that finished"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="make the previous build live again")
    what.add_argument(
        "--explain", action="store_true", help="print the chosen index and why; build nothing"
    )
    what.add_argument(
        "--upsert",
        metavar="MANIFEST",
        help="add these tracks to the live build, or replace them there; they must be embedded",
    )
    what.add_argument(
        "--delete",
        metavar="MANIFEST-OR-IDS",
        help="take these tracks (a manifest, or a file with an id in each line) out of the "
        f"workspace until they are scanned again: {change_index.DELETED_WHEN}",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> IndexAnswer:
    """The command-line entry point."""
    if arguments.rollback:
        with index_lock(workspace):
            return _published(roll_back(workspace), workspace)
    if arguments.upsert:
        return change_index.upsert_tracks(workspace, settings, arguments.upsert)
    if arguments.delete:
        return change_index.delete_tracks(workspace, arguments.delete)
    if arguments.explain:
        return explain_index(workspace, settings, fingerprint=arguments.model)
    return build_index(workspace, settings, fingerprint=arguments.model)


def build_index(
    workspace: Workspace, settings: Settings, *, fingerprint: str | None = None
) -> PublishedBuild:
    """Publishes the catalog with the vectors of one model.

    A track with audio but without a vector (not embedded yet, or failed) is left out and counted. A
    track without audio is included. Raises InputError if there is nothing to publish.
    """
    started = time.monotonic()
    with index_lock(workspace):  # locks before reading: a track deleted meanwhile must stay deleted
        shards = vectors_to_index(workspace, fingerprint)
        if live_or_none(workspace):
            sweep(workspace)
        parts = parts_to_read(workspace, shards)
        search = settings.search
        mapper = _mapper(search, len(parts))
        build = publish(workspace, parts, shards, search=search, mapper=mapper)
        tracks = count_rows(workspace.tracks)
    return {
        **_published(build, workspace),
        "left_out": tracks - build.rows["tracks"],
        "seconds": round(time.monotonic() - started, 3),
    }


def _mapper(search: SearchSpec, parts: int) -> Mapper:
    if search.index_workers == 1 or parts == 1:
        return in_this_process
    from jobs.index_workers import RayTasks  # only here, because Ray takes seconds to load

    return RayTasks(search.index_workers, memory_gb=search.index_memory_gb)


def explain_index(
    workspace: Workspace, settings: Settings, *, fingerprint: str | None = None
) -> PlannedIndex:
    """The index that `build_index` would choose, and why."""
    shards = vectors_to_index(workspace, fingerprint)
    tracks = (read() for read in parts_to_read(workspace, shards))
    vectors = sum(len(part) - part["uri"].null_count for part in tracks)
    dim = shards.made_by.dim if shards else 0
    index = choose_index(vectors, dim, exact_below=settings.search.exact_below)
    return {"vectors": vectors, "dim": dim, "index": to_dict(index)}


def vectors_to_index(workspace: Workspace, fingerprint: str | None) -> EmbeddingStore | None:
    """The shards whose vectors are to be published; None for a catalog without audio.

    Raises InputError if there is no catalog, or no vectors of the model.
    """
    if not count_rows(workspace.tracks):
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    if fingerprint is None and not has_audio(workspace.tracks):
        return None
    return find_embeddings(workspace, fingerprint)


def parts_to_read(
    workspace: Workspace, shards: EmbeddingStore | None
) -> list[Callable[[], pa.Table]]:
    """What reads the tracks to publish (`read_part`), one for each partition of `shards`.

    A catalog of several partitions is split into files first, unless it was before.
    """
    tracks = count_rows(workspace.tracks)
    stores = shards.parts() if shards else [None] * partition_count(tracks)
    count = len(stores)
    if count == 1:
        return [partial(read_part, workspace, stores[0], None)]
    cache = workspace.index_parts
    schema = read_schema(workspace.tracks)
    catalogs = split_table(workspace.tracks, f"{cache}/tracks", schema, count)
    captions = split_table(workspace.captions, f"{cache}/captions", CAPTIONS, count)
    return [
        partial(read_part, workspace, store, (one.file, other.file))
        for store, one, other in zip(stores, catalogs, captions, strict=True)
    ]


def read_part(
    workspace: Workspace, store: EmbeddingStore | None, files: tuple[str, str] | None
) -> pa.Table:
    """The tracks of one partition that can be published (build_tables.tracks_table).

    `files` are its catalog and its captions; None: the whole workspace is one partition.
    """
    catalog, captions = _read_catalog(workspace, files)
    if store:
        embedded = pc.is_in(catalog["track_id"], value_set=store.read_tracks()["track_id"])
        catalog = catalog.filter(pc.or_(pc.is_null(catalog["uri"]), embedded))
    partition = store.partition if store else ""
    catalog = with_attributes(catalog, workspace, partition=partition)
    return tracks_table(with_lengths(catalog, store), captions)


def _read_catalog(
    workspace: Workspace, files: tuple[str, str] | None
) -> tuple[pa.Table, pa.Table | None]:
    if files is not None:
        return storage.read_table(files[0]), storage.read_table(files[1])
    captions = storage.read_tables(workspace.captions, CAPTIONS.names)
    return storage.read_tables(workspace.tracks), captions


def _published(build: Build, workspace: Workspace) -> PublishedBuild:
    return {
        "build": build.name,
        "built_at": build.built_at,
        "fingerprint": build.fingerprint,
        "tracks": build.rows["tracks"],
        "vectors": build.rows["vectors"],
        "windows": build.rows["windows"],
        "index": to_dict(build.index),
        "trial": to_dict(build.trial) if build.trial else None,
        "live": live_build(workspace).name,
        "kept": [kept.name for kept in kept_builds(workspace)],
    }


def describe(answer: IndexAnswer) -> str:
    """The answer as text."""
    if "index" not in answer:
        return change_index.describe(answer)
    index = answer["index"]
    lines = []
    if "build" in answer:
        lines.append(
            f"build {answer['build']} serves: {answer['tracks']} tracks, {answer['vectors']} "
            f"vectors, {answer['windows']} windows; model {answer['fingerprint'] or 'none'}; "
            f"kept: {', '.join(answer['kept'])}"
        )
        if answer.get("left_out"):
            lines.append(f"{answer['left_out']} tracks have no vector and are left out")
    lines.append(f"index {index['kind']}: {index['why']}")
    if "build" in answer and (trial := answer["trial"]):
        recall = ", ".join(f"{kind} {share:.3f}" for kind, share in trial["recall"].items())
        lines.append(
            f"tried with {trial['probes']}: recall@10 {recall}, {trial['p50_ms']:.1f} ms per query "
            f"at {index['nprobes']} partitions probed, refine {index['refine']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
