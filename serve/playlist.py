"""Tracks as a playlist file: extended M3U in UTF-8, or JSPF (xspf.org's JSON form)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from urllib.parse import quote

from serve.messages import PlaylistTrack

MEDIA_TYPES = {"m3u": "audio/x-mpegurl; charset=utf-8", "jspf": "application/json"}
SUFFIXES = {"m3u": "m3u8", "jspf": "jspf"}

Tracks = Sequence[PlaylistTrack]
Locate = Callable[[PlaylistTrack], str]


def write_playlist(form: str, tracks: Tracks, *, title: str, locate: Locate) -> str:
    """`tracks` as a file of `form` (m3u or jspf). `locate` returns the path or URL of a track."""
    return (_m3u if form == "m3u" else _jspf)(tracks, title, locate)


def _m3u(tracks: Tracks, title: str, locate: Locate) -> str:
    lines = ["#EXTM3U", f"#PLAYLIST:{_line(title)}"]
    for track in tracks:
        seconds = -1 if track["duration"] is None else round(track["duration"])
        name = " - ".join(filter(None, [track["artist"], track["title"] or track["track_id"]]))
        lines += [f"#EXTINF:{seconds},{_line(name)}", _place(locate(track))]
    return "\n".join(lines) + "\n"


def _jspf(tracks: Tracks, title: str, locate: Locate) -> str:
    entries = []
    for track in tracks:
        seconds = track["duration"]
        entry = {
            "location": [locate(track)],
            "title": track["title"] or track["track_id"],
            "creator": track["artist"],
            "album": track["album"],
            "duration": None if seconds is None else round(1e3 * seconds),  # milliseconds
        }
        entries.append({key: value for key, value in entry.items() if value is not None})
    return json.dumps({"playlist": {"title": title, "track": entries}}, ensure_ascii=False)


def _place(where: str) -> str:
    """The path or URL. A path with line breaks becomes a URI, because M3U has one path a line."""
    return f"file://{quote(where)}" if len(where.splitlines()) > 1 else where


def _line(text: str) -> str:
    """The text on one line, because a line break would start a new entry of the file."""
    return " ".join(text.split())
