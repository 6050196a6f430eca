"""`raymtr index --upsert` and `--delete`: adds, replaces and deletes tracks of published builds.

An upsert reads what a full `index` reads: the catalog's rows, updated with the manifest's cells,
and the vectors of `embed`. Both verbs therefore agree about a track. A delete starts with the
catalog, because no later job can restore a track that is not in the catalog.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TypedDict, final

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.audio_cache import forget_audio
from raymtr.catalog.manifest import read_manifest
from raymtr.catalog.splits import assign_splits
from raymtr.catalog.summary import with_digests, with_file_versions
from raymtr.catalog.tabular import SUFFIXES
from raymtr.columns import plain_table
from raymtr.embeddings.store import EmbeddingStore, all_embeddings, find_embeddings
from raymtr.errors import InputError
from raymtr.index.build import Build
from raymtr.index.build_tables import tracks_table, with_lengths
from raymtr.index.changes import all_builds, delete_rows, known_ids, sweep, upsert_rows
from raymtr.index.publish import live_build
from raymtr.index.sharded_table import open_table
from raymtr.ownership import RUN, index_lock
from raymtr.specs import Settings
from raymtr.tagging.columns import with_attributes
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

NAMED = 5  # ids in a message
DELETED_WHEN = (
    "searches that open from now on do not find them, and serving replicas within "
    "serve.pointer_every_s; a rollback does not bring them back; older versions of the tables go "
    "with the first `raymtr index` of any kind two hours from now, and their bytes with the builds "
    "that hold them, search.keep_versions full `raymtr index` later"
)


class ChangedBuild(TypedDict):
    """The live build after a change, with the rows of each table."""

    table_version: str
    fingerprint: str | None
    tracks: int
    vectors: int
    windows: int
    seconds: float


@final
class UpsertAnswer(ChangedBuild):
    """How many tracks were added, and how many replaced."""

    added: int
    changed: int


@final
class DeleteAnswer(ChangedBuild):
    """How many tracks were deleted; ids that were not known; models whose vectors remain."""

    deleted: int
    unknown: list[str]
    vectors_left_in: list[str]
    when: str


def upsert_tracks(workspace: Workspace, settings: Settings, source: str) -> UpsertAnswer:
    """Adds the tracks of a manifest to the live build and the catalog, or replaces them there.

    An empty cell keeps the catalog's value. Raises InputError if a track has no vector of the live
    build's model, or if nothing is published.
    """
    started = time.monotonic()
    with index_lock(workspace):
        live = live_build(workspace)
        sweep(workspace)
        catalog = storage.read_tables(workspace.tracks)
        if catalog is None:
            raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
        catalog = plain_table(catalog)
        manifest = read_manifest(source, like=catalog.schema)
        manifest = with_digests(with_file_versions(manifest), catalog)
        ids, changed = merge_manifest(catalog, manifest)
        rows = changed.filter(pc.is_in(changed["track_id"], value_set=ids))
        shards = find_embeddings(workspace, live.fingerprint) if live.made_by else None
        refuse_without_vector(rows, shards)
        before = known_ids(workspace, ids.to_pylist(), [live])
        captions = captions_of(workspace, ids)
        have = open_table(workspace.db, live).filterable.names
        heard = with_attributes(rows, workspace, among=have)
        table = tracks_table(with_lengths(heard, shards), captions)
        build = upsert_rows(workspace, table, shards, search=settings.search)
        if not changed.equals(catalog):
            storage.replace_tables(workspace.tracks, changed)
    return {
        "added": len(ids) - len(before),
        "changed": len(before),
        **_changed_build(build, started),
    }


def delete_tracks(workspace: Workspace, source: str) -> DeleteAnswer:
    """Deletes the tracks of a manifest or of a list of ids from the workspace.

    This deletes their rows in the catalog, captions and duplicates, in every kept build, in the
    embeddings of every model and in `heard/`, and their cached audio. Embeddings of a model whose
    `embed` is running are kept, and the answer names the model. Raises InputError if no id is
    known.
    """
    started = time.monotonic()
    with index_lock(workspace):
        live_build(workspace)
        sweep(workspace)
        wanted = read_ids(source)
        catalog = storage.read_tables(workspace.tracks, ["track_id"])
        known = known_ids(workspace, wanted, all_builds(workspace))
        known |= set(catalog["track_id"].to_pylist() if catalog else ()) & set(wanted)
        ids = [track_id for track_id in wanted if track_id in known]
        if not ids:
            raise InputError(
                f"none of the {len(wanted)} tracks of {source} is in the catalog, {_some(wanted)}"
            )
        for folder in (
            workspace.tracks,
            f"{workspace.catalog}/dead_letter",
            workspace.captions,
            f"{workspace.captions}/dead_letter",
            workspace.duplicates,
        ):
            forget_rows(folder, ids)
        build = delete_rows(workspace, ids)
        busy = forget_vectors(workspace, ids)
        forget_audio(workspace.audio_cache, ids)
    unknown = [track_id for track_id in wanted if track_id not in known]
    return {
        "deleted": len(ids),
        "unknown": unknown,
        "vectors_left_in": busy,
        "when": DELETED_WHEN,
        **_changed_build(build, started),
    }


def merge_manifest(catalog: pa.Table, manifest: pa.Table) -> tuple[pa.Array, pa.Table]:
    """The manifest's ids, and the catalog with the manifest's tracks and cells merged in.

    Raises InputError if a column's type differs from the catalog's.
    """
    ids = manifest["track_id"].combine_chunks()
    among = pc.is_in(catalog["track_id"], value_set=ids)
    known = {row["track_id"]: row for row in catalog.filter(among).to_pylist()}
    rows = []
    for row in manifest.to_pylist():
        before = known.get(row["track_id"], {})
        given = {name: value for name, value in row.items() if value is not None}
        if given.get("artist", before.get("artist")) != before.get("artist"):
            before["split"] = None  # the split depends on the artist
        if given.get("file_version", before.get("file_version")) != before.get("file_version"):
            before["audio_digest"] = None  # the digest of the previous file
        rows.append(before | given)
    try:
        schema = pa.unify_schemas([catalog.schema, manifest.schema], promote_options="permissive")
        parts = [catalog.filter(pc.invert(among)), pa.Table.from_pylist(rows, schema)]
        merged = pa.concat_tables(parts, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InputError(f"the manifest does not fit the catalog: {error}") from error
    return ids, assign_splits(check_tracks(merged))


def refuse_without_vector(rows: pa.Table, shards: EmbeddingStore | None) -> None:
    """Raises InputError that names tracks with audio whose vector is missing or of other audio."""
    heard = rows.filter(pc.is_valid(rows["uri"]))
    if shards is None:
        if len(heard):
            raise InputError(
                f"the live tables have words only, but {len(heard)} of the tracks have audio; run "
                "`raymtr embed`, then `raymtr index`"
            )
        return
    ids = heard["track_id"].combine_chunks()
    embedded = shards.of_tracks(ids)[0]["track_id"]
    stale = pc.is_in(ids, value_set=shards.changed(heard))
    missing = ids.filter(pc.or_(stale, pc.invert(pc.is_in(ids, value_set=embedded)))).to_pylist()
    if missing:
        raise InputError(
            f"{len(missing)} of {len(rows)} tracks have no vector of model "
            f"{shards.made_by.fingerprint} for their audio as it is now, {_some(missing)}; run "
            "`raymtr scan` and `raymtr embed` first"
        )


def captions_of(workspace: Workspace, ids: pa.Array) -> pa.Table | None:
    """`track_id, caption` of these tracks."""
    captions = storage.read_tables(workspace.captions, ["track_id", "caption"])
    return captions and captions.filter(pc.is_in(captions["track_id"], value_set=ids))


def read_ids(source: str) -> list[str]:
    """The track ids of a manifest, or of a text file with one id per line."""
    if not storage.exists(source):
        raise InputError(
            f"there is nothing at {source}; expected a manifest, or a file of track ids"
        )
    filesystem, path = storage.open_filesystem(source)
    if source.lower().endswith(SUFFIXES) or not filesystem.get_file_info(path).is_file:
        ids: list[str] = read_manifest(source)["track_id"].to_pylist()
    else:
        try:
            text = storage.read_bytes(source).decode()
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not text: expected a track id in each line") from error
        ids = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not ids:
        raise InputError(f"{source} is empty: expected a manifest, or a track id in each line")
    return ids


def forget_rows(folder: str, ids: Sequence[str]) -> None:
    """Rewrites the Parquet files of a folder that contain any of these tracks, without them."""
    gone = pa.array(ids, pa.string())
    for name in storage.list_files(folder, suffix=".parquet"):
        table = storage.read_table(f"{folder}/{name}")
        kept = table.filter(pc.invert(pc.is_in(table["track_id"], value_set=gone)))
        if len(kept) < len(table):
            storage.write_table(f"{folder}/{name}", kept)


def forget_vectors(workspace: Workspace, ids: Sequence[str]) -> list[str]:
    """Removes these tracks from all finished embeddings, and from what was heard.

    Returns models whose `embed` is running, and the taggers' name where `tag` is.

    The order in which the embeddings finished is preserved, because the last one is the one to
    publish.
    """
    stores = all_embeddings(workspace)
    if storage.exists(f"{workspace.heard}/{RUN}"):
        stores.append(EmbeddingStore.open(workspace.heard))
    busy = []
    for shards in stores:
        if not shards.complete:
            busy.append(shards.made_by.fingerprint)
            continue
        shards.take()
        shards.forget(pa.chunked_array([pa.array(ids, pa.string())]))
        shards.release()
    return busy


def _changed_build(build: Build, started: float) -> ChangedBuild:
    return {
        "table_version": build.table_version,
        "fingerprint": build.fingerprint,
        "tracks": build.rows["tracks"],
        "vectors": build.rows["vectors"],
        "windows": build.rows["windows"],
        "seconds": round(time.monotonic() - started, 3),
    }


def _some(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > NAMED else ""
    return f"among them {', '.join(ids[:NAMED])}{more}"


def describe(answer: UpsertAnswer | DeleteAnswer) -> str:
    """The answer as text."""
    if "deleted" in answer:
        done = f"{answer['deleted']} tracks deleted"
    else:
        done = f"{answer['added']} tracks added, {answer['changed']} changed"
    lines = [
        f"{done}: {answer['table_version']} serves {answer['tracks']} tracks, "
        f"{answer['vectors']} vectors, {answer['windows']} windows; {answer['seconds']:.1f} s"
    ]
    if "deleted" in answer:
        if answer["unknown"]:
            lines.append(f"{len(answer['unknown'])} were not known, {_some(answer['unknown'])}")
        if answer["vectors_left_in"]:
            models = ", ".join(answer["vectors_left_in"])
            lines.append(
                f"an unfinished `embed` still has vectors of {models}: delete again after it"
            )
        lines.append(answer["when"])
    return "\n".join(lines)
