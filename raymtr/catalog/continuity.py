"""Matches the tracks of a new scan with those of the previous one, so that ids stay stable.

The first scan of a file derives its id from the path. From then on the id belongs to the audio.
Captions, vectors and external lists refer to it. So a file that was moved or renamed keeps its id,
and a new file never gets the id of another one. The digest of the coded audio identifies the audio.
Catalogs of older scans have no digest; for them size and modification time are used.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from typing import Any

import pyarrow as pa

SEEN = ("track_id", "uri", "file_version", "audio_digest")
Row = dict[str, Any]


def keep_ids(tracks: pa.Table, before: pa.Table | None) -> pa.Table:
    """`tracks` of a folder, whose ids come from paths, with the ids they have in `before`."""
    if before is None or not len(before):
        return tracks
    was, rows = _rows(before), _rows(tracks)
    found = _match(rows, was)
    taken, given = set(found.values()), {row["track_id"] for row in was}
    ids: list[str] = []
    for place, row in enumerate(rows):
        track_id = found.get(place) or str(row["track_id"])
        if place not in found:
            attempt = 1
            while track_id in given or track_id in taken:
                attempt += 1
                track_id = _hash(f"{row['track_id']} {attempt}")
            taken.add(track_id)
        ids.append(track_id)
    at = tracks.column_names.index("track_id")
    kept = tracks.set_column(at, tracks.schema.field("track_id"), [pa.array(ids, pa.string())])
    return kept.sort_by("track_id")


def _match(rows: list[Row], was: list[Row]) -> dict[int, str]:
    """Index of a new row -> the id it had before."""
    by_uri = {row["uri"]: row for row in was if row["uri"]}
    by_id = {row["track_id"]: row for row in was}
    elsewhere: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in was:
        for key in _sounds(row):
            elsewhere[key].append(row)
    here = {row["uri"] for row in rows}
    found: dict[int, str] = {}
    taken: set[str] = set()

    def take(place: int, row: Row | None) -> None:
        if row is not None and row["track_id"] not in taken and place not in found:
            found[place] = row["track_id"]
            taken.add(row["track_id"])

    for place, row in enumerate(rows):  # same place, same audio
        for old in (by_uri.get(row["uri"]), by_id.get(row["track_id"])):
            if old is not None and is_same_sound(old, row) is not False and _at_home(old, row):
                take(place, old)
    for place, row in enumerate(rows):  # other place, same audio; prefers the same file name
        if place in found:
            continue
        moved = [old for key in _sounds(row) for old in elsewhere[key]]
        moved = [old for old in moved if old["track_id"] not in taken and is_same_sound(old, row)]
        if not row["audio_digest"]:  # size and time alone may match a file that is still there
            moved = [old for old in moved if old["uri"] not in here]
        take(place, min(moved, key=lambda old: _name(old) != _name(row), default=None))
    for place, row in enumerate(rows):  # same place, other audio
        old = by_uri.get(row["uri"]) or by_id.get(row["track_id"])
        take(place, old if old and _at_home(old, row) else None)
    return found


def _at_home(old: Row, row: Row) -> bool:
    """Whether both are in the same place, relative to a folder that may have moved as a whole."""
    return old["uri"] == row["uri"] or (
        old["track_id"] == row["track_id"] and _name(old) == _name(row)
    )


def _name(row: Row) -> str:
    return os.path.basename(row["uri"] or "")


def _sounds(row: Row) -> list[tuple[str, str]]:
    """The keys by which a row is looked up in other places."""
    return [(kind, row[kind]) for kind in ("audio_digest", "file_version") if row[kind]]


def is_same_sound(old: Row, row: Row) -> bool | None:
    """Compare digests, else file versions; None if neither is known for both."""
    was, now = old["audio_digest"], row["audio_digest"]
    if was and now and was.partition("-")[0] == now.partition("-")[0]:  # same digest version
        return bool(was == now)
    if old["file_version"] and row["file_version"]:
        return bool(old["file_version"] == row["file_version"])
    return None


def count_changes(tracks: pa.Table, before: pa.Table | None) -> dict[str, int]:
    """Counts of files: new, changed, retagged, moved, gone; and copies of the same audio.

    A file that was moved and retagged counts as moved.
    """
    was = {row["track_id"]: row for row in _rows(before)} if before is not None else {}
    counts = dict.fromkeys(("new", "changed", "retagged", "moved", "gone", "copies"), 0)
    sounds: set[str | None] = set()
    for row in _rows(tracks):
        old = was.pop(row["track_id"], None)
        counts["copies"] += row["audio_digest"] is not None and row["audio_digest"] in sounds
        sounds.add(row["audio_digest"])
        if old is None:
            counts["new"] += 1
        elif is_same_sound(old, row) is False:
            counts["changed"] += 1
        elif old["uri"] != row["uri"]:
            counts["moved"] += 1
        elif old["file_version"] and old["file_version"] != row["file_version"]:
            counts["retagged"] += 1
    return counts | {"gone": len(was)}


def _rows(table: pa.Table) -> list[Row]:
    columns = [name for name in SEEN if name in table.column_names]
    return [dict.fromkeys(SEEN) | row for row in table.select(columns).to_pylist()]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
