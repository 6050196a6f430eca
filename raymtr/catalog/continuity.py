"""The tracks of a new scan and those of the one before: which are the same.

An id is made of a path when a file is seen first; from then on it is the sound's. Captions, vectors
and other people's lists hang on it, so a file that was moved or renamed keeps it, and a new file
never gets the id that another one had. The sound is known by the digest of the coded audio;
catalogs of older scans have none, there the size and the time of change stand for it.
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
    """`tracks` of a folder, ids by path, with the ids that the catalog `before` had for them."""
    if before is None or not len(before):
        return tracks
    was, rows = _rows(before), _rows(tracks)
    found = _match(rows, was)
    taken, given = set(found.values()), {row["track_id"] for row in was}
    ids: list[str] = []
    for place, row in enumerate(rows):
        track_id = found.get(place) or str(row["track_id"])
        if place not in found:
            again = 1
            while track_id in given or track_id in taken:
                again += 1
                track_id = _hash(f"{row['track_id']} {again}")
            taken.add(track_id)
        ids.append(track_id)
    at = tracks.column_names.index("track_id")
    kept = tracks.set_column(at, tracks.schema.field("track_id"), [pa.array(ids, pa.string())])
    return kept.sort_by("track_id")


def _match(rows: list[Row], was: list[Row]) -> dict[int, str]:
    """Place of a new row -> the id it had."""
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

    for place, row in enumerate(rows):  # where it was, as it was
        for old in (by_uri.get(row["uri"]), by_id.get(row["track_id"])):
            if old is not None and is_same_sound(old, row) is not False and _at_home(old, row):
                take(place, old)
    for place, row in enumerate(rows):  # somewhere else, as it was; rather of the same name
        if place in found:
            continue
        moved = [old for key in _sounds(row) for old in elsewhere[key]]
        moved = [old for old in moved if old["track_id"] not in taken and is_same_sound(old, row)]
        if not row["audio_digest"]:  # size and time alone could be another's that is still there
            moved = [old for old in moved if old["uri"] not in here]
        take(place, min(moved, key=lambda old: _name(old) != _name(row), default=None))
    for place, row in enumerate(rows):  # where it was, another sound
        old = by_uri.get(row["uri"]) or by_id.get(row["track_id"])
        take(place, old if old and _at_home(old, row) else None)
    return found


def _at_home(old: Row, row: Row) -> bool:
    """Whether both stand in one place, of a folder that may have moved as a whole."""
    return old["uri"] == row["uri"] or (
        old["track_id"] == row["track_id"] and _name(old) == _name(row)
    )


def _name(row: Row) -> str:
    return os.path.basename(row["uri"] or "")


def _sounds(row: Row) -> list[tuple[str, str]]:
    """Under what a row is looked for elsewhere."""
    return [(kind, row[kind]) for kind in ("audio_digest", "file_version") if row[kind]]


def is_same_sound(old: Row, row: Row) -> bool | None:
    """By digests, else by versions; None where neither is known of both."""
    was, now = old["audio_digest"], row["audio_digest"]
    if was and now and was.partition("-")[0] == now.partition("-")[0]:  # made by one rule
        return bool(was == now)
    if old["file_version"] and row["file_version"]:
        return bool(old["file_version"] == row["file_version"])
    return None


def count_changes(tracks: pa.Table, before: pa.Table | None) -> dict[str, int]:
    """What became of the files: new, changed, retagged, moved, gone; and sounds that stand twice.

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
