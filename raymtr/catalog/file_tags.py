"""Reads the tags of audio files: title, artists, album, year, seconds, genres.

Nothing is decoded. A file without readable tags is still a track, titled by its file name; the
decoder later decides whether it is audio. Only a file that is empty or cannot be opened becomes an
error row. `raymtr.audio` reads the tags of each format. This file decides which of them are a
track's title or year, and which are not, as common players do.

Files are opened from threads, because most of the time is spent waiting for disks and object
stores.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa

from raymtr import audio, storage
from raymtr.errors import InputError, UnusableError
from raymtr.plain_text import one_line
from raymtr.track import SCHEMA, split_artists

TAGGED = pa.schema(
    [
        *SCHEMA,
        pa.field("named_by_tag", pa.bool_()),
        pa.field("code", pa.string()),
        pa.field("reason", pa.string()),
    ]
)
READERS = 16  # threads
AT_ONCE = 8  # files per task of a thread: one task costs half as much as reading a file
FEWEST_BYTES = 10  # a second of audio has more, even silence in FLAC; else the header is wrong

Words = list[dict[str, list[str]]]  # of each tag of a file, the most trusted first

# Tag names of each fact, the one that players show first.
_TITLE = ("TITLE",)
_ARTIST = ("ARTIST", "ALBUMARTIST", "ALBUM ARTIST", "ALBUM_ARTIST", "PERFORMER")
_ARTISTS = ("ARTISTS",)
_ALBUM = ("ALBUM",)
_DATES = ("DATE", "YEAR", "ORIGINALDATE", "ORIGINALYEAR", "ORIGINAL YEAR")
_GENRE = ("GENRE",)
_YEAR = re.compile(r"(?<!\d)([12]\d{3})(?:\d{4})?(?!\d)")  # 1999, 1999-05-01, 05/1999, 19990501
_GENRE_ENDS = re.compile(r"[;|\x00]")
_GENRE_PARTS = re.compile(r"[/,]")
# Genres that contain a separator: Apple's, and Discogs' "Folk, World, & Country".
_ONE_GENRE = re.compile(r"singer\s*/\s*songwriter|.*,\s*(?:&|and)\s.*", re.IGNORECASE)


def read_tags(files: pa.Table) -> pa.Table:
    """`files` (track_id, uri, title from the file name) as tracks, in the same order.

    Three more columns: `named_by_tag` says whether the title comes from a tag and not from the file
    name; `code` and `reason` are null unless a file is empty or unreadable.
    """
    listed = files.to_pylist()
    some = [listed[start : start + AT_ONCE] for start in range(0, len(listed), AT_ONCE)]
    with ThreadPoolExecutor(READERS) as pool:
        rows = [row for part in pool.map(_read_some, some) for row in part]
    return pa.Table.from_pylist(rows, schema=TAGGED)


def digests_of(uris: Iterable[str]) -> Iterator[str | None]:
    """The audio digest of each local or remote file; None if it cannot be read."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(_digest, uris)


def _read_some(files: list[dict[str, str]]) -> list[dict[str, Any]]:
    return [_read_file(file) for file in files]


def _read_file(file: dict[str, str]) -> dict[str, Any]:
    try:
        stream, size, version = _open(file["uri"])
    except FileNotFoundError:
        return file | {"code": "missing", "reason": "a link to a file that is not there"}
    except UnusableError as error:
        return file | {"code": "unreachable", "reason": str(error)}
    except (OSError, InputError) as error:
        return file | {"code": "unreadable", "reason": f"cannot be opened: {error}"}
    with stream:
        if size == 0:
            return file | {"code": "empty", "reason": "the file has no bytes"}
        found = audio.describe(stream)
    row: dict[str, Any] = read_words(found.words)
    row |= {"track_id": file["track_id"], "uri": file["uri"]}
    row |= {"file_version": version, "audio_digest": found.digest}
    row["named_by_tag"] = row["title"] is not None
    row["title"] = row["title"] or file["title"]
    if found.seconds is not None and 0.0 < found.seconds < size / FEWEST_BYTES:
        row["duration"] = found.seconds
    return row


def _digest(uri: str) -> str | None:
    try:
        stream, _, _ = _open(uri)
    except (OSError, InputError, UnusableError):
        return None
    with stream:
        return audio.describe(stream).digest


def _open(uri: str) -> tuple[BinaryIO, int, str | None]:
    """The file at `uri`, its size in bytes, and its version (None for an object store).

    Raises OSError. A pipe is refused, because it would block.
    """
    if storage.is_remote(uri):
        filesystem, path = storage.open_filesystem(uri)
        remote = filesystem.open_input_file(path)
        return io.BufferedReader(remote), int(remote.size()), None
    path = storage.local_path(uri)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    return open(path, "rb", buffering=0), status.st_size, version_of(status)


def version_of(status: os.stat_result) -> str:
    """The version of a local file: its size and modification time, without its path.

    Moving a folder keeps it; replacing a file changes it.
    """
    return f"{status.st_size}-{status.st_mtime_ns}"


def read_words(words: Words) -> dict[str, Any]:
    """The columns of a track from the tags of a file; missing ones are null."""
    shown = _values(words, _ARTIST)
    listed = _values(words, _ARTISTS)
    artists = [name for text in listed or shown for name in split_artists(text)]
    titles, albums = _values(words, _TITLE), _values(words, _ALBUM)
    return {
        "title": titles[0] if titles else None,
        "artist": "; ".join(shown or listed) or None,
        "artists": list(dict.fromkeys(artists)) or None,
        "album": albums[0] if albums else None,
        "year": _year(words),
        "tags": _genres(_values(words, _GENRE)),
    }


def _values(words: Words, names: Iterable[str]) -> list[str]:
    """The values of the first of `names` that any tag has, from the most trusted tag that has it.

    Values of question marks alone are ignored: their writer could not encode the text.
    """
    for name in names:
        for fields in words:
            if name not in fields:
                continue
            lines = [one_line(text) for text in fields[name]]
            if found := [line for line in lines if line and line.strip("? ")]:
                return list(dict.fromkeys(found))
    return []


def _year(words: Words) -> int | None:
    """The first valid year, in the order of _DATES; `0000` and `'69` are not valid."""
    texts = (text for name in _DATES for fields in words for text in fields.get(name, ()))
    return next((int(found[1]) for text in texts if (found := _YEAR.search(text))), None)


def _genres(texts: Iterable[str]) -> list[str] | None:
    """Genres split apart (`Rock; Pop/Rap`), in order, without repetitions, ignoring case."""
    genres: dict[str, str] = {}
    for text in texts:
        for part in _GENRE_ENDS.split(text):
            is_one = _ONE_GENRE.fullmatch(part.strip())
            for piece in [part] if is_one else _GENRE_PARTS.split(part):
                if genre := one_line(piece):
                    genres.setdefault(genre.casefold(), genre)
    return list(genres.values()) or None
