"""`raymtr index`: embeddings + catalog + captions -> a published LanceDB build.

The whole catalog is built into new tables, checked, and made live by replacing one pointer
(raymtr.index.publish). Searchers see the old build until then. Ray is not used: one writer loads a
million tracks in seconds, and two writers would duplicate rows.
"""

from __future__ import annotations

import argparse
import time
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
from raymtr.ownership import index_lock
from raymtr.specs import Settings
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


IndexAnswer = PublishedBuild | PlannedIndex | change_index.UpsertAnswer | change_index.DeleteAnswer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `index`."""
    parser.add_argument(
        "--model", metavar="FINGERPRINT", help="whose embeddings; else the last that finished"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rollback", action="store_true", help="let the build before serve again")
    what.add_argument(
        "--explain", action="store_true", help="say which index is chosen and why; build nothing"
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
        catalog, shards, left_out = read_inputs(workspace, fingerprint)
        captions = storage.read_tables(workspace.captions, ["track_id", "caption"])
        if live_or_none(workspace):
            sweep(workspace)
        rows = tracks_table(with_lengths(with_attributes(catalog, workspace), shards), captions)
        build = publish(workspace, rows, shards, search=settings.search)
    return {
        **_published(build, workspace),
        "left_out": left_out,
        "seconds": round(time.monotonic() - started, 3),
    }


def explain_index(
    workspace: Workspace, settings: Settings, *, fingerprint: str | None = None
) -> PlannedIndex:
    """The index that `build_index` would choose, and why."""
    catalog, shards, _ = read_inputs(workspace, fingerprint)
    vectors = len(catalog) - catalog["uri"].null_count
    dim = shards.made_by.dim if shards else 0
    index = choose_index(vectors, dim, exact_below=settings.search.exact_below)
    return {"vectors": vectors, "dim": dim, "index": to_dict(index)}


def read_inputs(
    workspace: Workspace, fingerprint: str | None
) -> tuple[pa.Table, EmbeddingStore | None, int]:
    """The tracks to publish, the shards of their vectors, and the count of tracks without one."""
    catalog = storage.read_tables(workspace.tracks)
    if catalog is None or not len(catalog):
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    without_audio = pc.is_null(catalog["uri"])
    if fingerprint is None and pc.all(without_audio).as_py():
        return catalog, None, 0
    shards = find_embeddings(workspace, fingerprint)
    embedded = shards.read_tracks()["track_id"]
    ready = pc.or_(without_audio, pc.is_in(catalog["track_id"], value_set=embedded))
    chosen = catalog.filter(ready)
    if not len(chosen):
        raise InputError(
            f"none of the {len(catalog)} tracks has a vector of model "
            f"{shards.made_by.fingerprint}; see {shards.folder}/dead_letter"
        )
    return chosen, shards, len(catalog) - len(chosen)


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
            f"tried with {trial['probes']}: recall@10 {recall}, {trial['p50_ms']:.1f} ms a query "
            f"at {index['nprobes']} partitions probed, refine {index['refine']}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
