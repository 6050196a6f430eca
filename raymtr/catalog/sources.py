"""Known datasets: one small function each, from a row of the dataset to tracks.

Each dataset has its own table layout. It is converted to tracks once; from then on it is a catalog
like any other (write it as a Parquet manifest and scan that). Rows have the text of the file;
`check_tracks` converts it to types.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from raymtr.catalog.tabular import read_rows
from raymtr.catalog.text_cells import inferred
from raymtr.track import KNOWN, check_tracks

CLIP_S = 10.0  # length in seconds of the clips of real_music and midi


def real_music_tracks(folder: str) -> pa.Table:
    """The ten-second cuts of freely licensed recordings in `folder` (tracks.csv, clips/)."""
    return _tracks(os.path.join(folder, "tracks.csv"), _real_music_clips)


def midi_tracks(folder: str) -> pa.Table:
    """The rendered ten-second clips of MIDI files in `folder` (midi_tracks.csv, clips/)."""
    return _tracks(os.path.join(folder, "midi_tracks.csv"), _midi_clips)


def mtg_jamendo_tracks(folder: str) -> pa.Table:
    """MTG-Jamendo's titled tracks in `folder` (titled_catalogue.tsv): metadata without audio."""
    return _tracks(os.path.join(folder, "titled_catalogue.tsv"), _mtg_jamendo_track)


def _tracks(table: str, rows_of: Callable[[dict[str, str]], Iterator[dict[str, Any]]]) -> pa.Table:
    folder = os.path.dirname(os.path.abspath(table))
    rows = [track for row in read_rows(table).table.to_pylist() for track in rows_of(row)]
    for row in rows:
        if "uri" in row:
            row["uri"] = os.path.join(folder, row["uri"])
    tracks = pa.Table.from_pylist(rows)
    for position, field in enumerate(tracks.schema):
        if field.name not in KNOWN and pa.types.is_string(field.type):
            tracks = tracks.set_column(
                position, field.name, inferred(tracks.column(position), field.name)
            )
    return check_tracks(tracks)


def _clips(row: dict[str, str], track: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One track per clip of a recording, `clips/<track_id>_<i>.ogg`."""
    for clip in range(int(row["clips"])):
        name = f"{row['track_id']}_{clip}"
        clip_columns = {
            "track_id": name,
            "uri": f"clips/{name}.ogg",
            "duration": CLIP_S,
            "clip": clip,
        }
        yield clip_columns | {"recording": row["track_id"]} | track


def _real_music_clips(row: dict[str, str]) -> Iterator[dict[str, Any]]:
    extras = {name: row[name] or None for name in ("genre", "vocal", "language", "licence")}
    words = [*_list(row["tags"]), row["vocal"], row["language"]]
    yield from _clips(
        row,
        {
            "title": row["title"] or None,
            "artist": row["artist"] or None,
            "album": row["album"] or None,
            "year": row["year"] or None,
            "tags": _unique([row["genre"], *words]),
            "dataset": "real_music",
            **extras,
        },
    )


def _midi_clips(row: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Nottingham's composers are collectors' notes ("via PR"), so they are not used as artists."""
    extras = ("set", "composer", "category", "key", "meter", "bpm", "render_program", "licence")
    instruments = _list(row["instruments"])
    yield from _clips(
        row,
        {
            "title": row["title"] or None,
            "artist": None if row["set"] == "nottingham" else row["composer"] or None,
            "album": row["album"] or None,
            "tags": _unique(
                [*_list(row["category"]), *instruments, key_words(row["key"]), row["meter"]]
            ),
            "dataset": "midi",
            **{name: row[name] or None for name in extras},
            "instruments": instruments,
            "midi": os.path.join("src", row["file"]),
        },
    )


def key_words(key: str) -> str:
    """`G` -> `G major`, `Em` -> `E minor`; a key in words, or an empty one, stays."""
    if not key or key.endswith((" major", " minor")):
        return key
    return f"{key[:-1]} minor" if key.endswith("m") else f"{key} major"


def _mtg_jamendo_track(row: dict[str, str]) -> Iterator[dict[str, Any]]:
    genre, instrument, mood = (_list(row[name]) for name in ("genre", "instrument", "mood_theme"))
    yield {
        "track_id": row["track_id"],
        "title": _bare(row["title"]),
        "artist": _bare(row["artist"]),
        "album": row["album_id"] or None,
        "duration": row["duration"] or None,
        "tags": _unique([*genre, *instrument, *mood]),
        "dataset": "mtg_jamendo",
        "artist_id": row["artist_id"],
        "genre": genre,
        "instrument": instrument,
        "mood": mood,
        "licence": row["licence"],
    }


def _bare(name: str) -> str | None:
    """A name without the unbalanced quotes that a broken export left in a cell."""
    if '""' in name or name.count('"') % 2:
        name = name.replace('""', '"').removeprefix('"').removesuffix('"')
    return name.strip() or None


def _list(cell: str) -> list[str]:
    return [part.strip() for part in cell.split(",") if part.strip()]


def _unique(words: list[str]) -> list[str] | None:
    return list(dict.fromkeys(word for word in words if word)) or None
