"""Summary figures of a catalog, and file versions and digests of its tracks."""

from __future__ import annotations

import logging
import os
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.catalog.file_tags import digests_of, version_of
from raymtr.track import extras_of

LOG = logging.getLogger("raymtr")

TOP_TAGS = 10
LOOK_FOR = 1_000  # files of a manifest whose existence is checked, to warn early of a wrong root


class CatalogSummary(TypedDict):
    """What a catalog has."""

    tracks: int
    with_audio: int
    artists: int
    hours: float  # of tracks with a known duration
    tags: dict[str, int]  # the most frequent
    extras: dict[str, str]  # column -> type
    splits: dict[str, int]
    errors: int
    error_rate: float


class MissingAudio(TypedDict):
    """How many of the first local files are absent."""

    looked_for: int
    absent: int
    example: str | None


def summarize(tracks: pa.Table, *, errors: int) -> CatalogSummary:
    """Counts of checked `tracks`, and of the `errors`, the rows that gave no track."""
    tags = pc.value_counts(pc.list_flatten(tracks["tags"])).to_pylist()
    tags = sorted(tags, key=lambda tag: (-tag["counts"], tag["values"]))[:TOP_TAGS]
    splits = pc.value_counts(tracks["split"]).to_pylist()
    seconds = pc.sum(tracks["duration"]).as_py() or 0.0
    return {
        "tracks": len(tracks),
        "with_audio": pc.count(tracks["uri"]).as_py(),
        "artists": pc.count_distinct(pc.list_flatten(tracks["artists"])).as_py(),
        "hours": round(seconds / 3600, 3),
        "tags": {tag["values"]: tag["counts"] for tag in tags},
        "extras": {name: str(tracks.schema.field(name).type) for name in extras_of(tracks)},
        "splits": {split["values"]: split["counts"] for split in splits},
        "errors": errors,
        "error_rate": errors / max(len(tracks) + errors, 1),
    }


def with_file_versions(tracks: pa.Table) -> pa.Table:
    """`tracks` with the `file_version` of every local file that exists and has no version yet.

    A folder's files got theirs when they were opened. An object store needs one request per file,
    so for those only a manifest's own column is used.
    """
    versions = [
        given or (_version(storage.local_path(uri)) if uri and not storage.is_remote(uri) else None)
        for uri, given in zip(
            tracks["uri"].to_pylist(), tracks["file_version"].to_pylist(), strict=True
        )
    ]
    place = tracks.column_names.index("file_version")
    return tracks.set_column(place, "file_version", pa.array(versions, pa.string()))


def with_digests(tracks: pa.Table, before: pa.Table | None) -> pa.Table:
    """`tracks` of a manifest with the `audio_digest` of files that changed since `before`.

    Unchanged files keep the digest of the catalog `before`. A first scan opens no file: `embed`
    does, and stores their digests.
    """
    if before is None:
        return tracks
    was = {row["track_id"]: row for row in before.to_pylist()}
    digests: list[str | None] = tracks["audio_digest"].to_pylist()
    to_read = []
    for place, row in enumerate(tracks.select(["track_id", "uri", "file_version"]).to_pylist()):
        old = was.get(row["track_id"])
        if old is None or digests[place] or row["file_version"] is None:
            continue
        if old["file_version"] == row["file_version"]:
            digests[place] = old.get("audio_digest")
        elif not storage.is_remote(row["uri"]):
            to_read.append(place)
    uris = tracks["uri"].take(pa.array(to_read, pa.int64())).to_pylist()
    for place, digest in zip(to_read, digests_of(uris), strict=True):
        digests[place] = digest
    at = tracks.column_names.index("audio_digest")
    return tracks.set_column(at, "audio_digest", pa.array(digests, pa.string()))


def _version(path: str) -> str | None:
    try:
        return version_of(os.stat(path))
    except OSError:
        return None


def missing_audio(tracks: pa.Table) -> MissingAudio:
    """How many of the catalog's first local files are absent. Embedding checks all of them."""
    uris = tracks["uri"].drop_null().slice(0, LOOK_FOR).to_pylist()
    local = [uri for uri in uris if not storage.is_remote(uri)]
    absent = [uri for uri in local if not os.path.exists(storage.local_path(uri))]
    if absent:
        LOG.warning("%d of %d audio files are absent, as %s", len(absent), len(local), absent[0])
    return {"looked_for": len(local), "absent": len(absent), "example": next(iter(absent), None)}
