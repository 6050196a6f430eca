"""`heard/review.csv`: tracks for a person to look through, in a spreadsheet.

Tracks without tags are listed with suggestions, and tracks with a genre that the taggers do not
detect with what they do.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from raymtr import storage
from raymtr.tagging.analysis import LABELS, PRESENT_FROM
from raymtr.tagging.store import TagStore
from raymtr.workspace import Workspace

SUGGESTED = 5  # labels in a row of the review
REVIEW = ["track_id", "title", "artist", "why", "owner", "heard"]


def write_review(workspace: Workspace, shards: TagStore) -> str | None:
    """Writes `heard/review.csv`, for a spreadsheet; None if no track was tagged."""
    heard = shards.read()
    if heard is None or not len(heard):
        return None
    named = ["track_id", "title", "artist", "tags"]
    owners = storage.read_tables(workspace.tracks, named)
    assert owners is not None, "tagging has read the catalog before"
    by_id = {row["track_id"]: row for row in owners.to_pylist()}
    lines = [row for track in heard.to_pylist() if (row := review_row(track, by_id))]
    text = io.StringIO()
    writer = csv.DictWriter(text, REVIEW)
    writer.writeheader()
    writer.writerows(lines)
    file = f"{shards.folder}/review.csv"
    storage.write_bytes(file, text.getvalue().encode("utf-8-sig"))  # the encoding Excel reads
    return file


def review_row(track: dict[str, Any], owners: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """A row of REVIEW if a track has no tags, or a known label that the taggers do not detect."""
    owner = owners.get(track["track_id"])
    if owner is None:
        return None
    tags = [tag.lower() for tag in owner["tags"] or ()]
    best = sorted(LABELS, key=lambda label: -track[label])[:SUGGESTED]
    suggestions = "; ".join(f"{label} {track[label]:.2f}" for label in best)
    row = {name: owner[name] for name in ("track_id", "title", "artist")} | {"heard": suggestions}
    if not tags:
        return row | {"why": "no tags", "owner": ""}
    unheard = [tag for tag in tags if tag in LABELS and track[tag] < PRESENT_FROM / 5]
    if unheard and max(track[label] for label in LABELS) >= PRESENT_FROM:
        return row | {"why": "not heard", "owner": "; ".join(unheard)}
    return None
