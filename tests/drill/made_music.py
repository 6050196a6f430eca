"""The rows of a made catalog: four sounds, nine artists, and a graph among them."""

from __future__ import annotations

from typing import Any

TRACKS, UNLISTED = 600, 40  # in the catalog; embedded besides, for an upsert to add
SOUNDS = ["slow piano ballad", "heavy metal guitars", "techno beat", "jazz trumpet"]
ARTISTS = [f"{first} {last}" for first in ("Ada", "Bo", "Cy") for last in ("Lark", "Wren", "Swift")]


def row_of(number: int) -> dict[str, Any]:
    """The catalog's row of a track; those with one number modulo 4 sound alike."""
    return {
        "track_id": f"t{number:04}",
        "uri": f"/t{number:04}.wav",
        "title": f"Tune {number}",
        "artist": ARTISTS[number % 9],
        "album": f"Album {number % 30}",
        "year": 1960 + number % 60,
        "duration": 20.0,
        "tags": [SOUNDS[number % 4].split()[-1], "even" if number % 2 == 0 else "odd"],
        "similar_artists": [ARTISTS[(number + 1) % 9], ARTISTS[(number + 4) % 9]],
    }
