"""What an audio file says about itself: title, artist, album, year, seconds, genres.

Nothing is decoded, and a file without readable tags is still a track, by its name: whether it is
music is for the decoder to say. Only a file with nothing in it, or that cannot be opened, becomes
an error row. The parser is tinytag (MIT, pure Python); what it does not know (Matroska, WebM,
bare AAC) goes by its name.

Broken files send it through gigabytes four bytes at a time, so it reads through a `Ration`. Files
are opened from threads: most of the time goes into waiting for disks and object stores.
"""

from __future__ import annotations

import io
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

import pyarrow as pa
from tinytag import TinyTag, TinyTagException, UnsupportedFormatError

from raymtr import storage
from raymtr.errors import InputError
from raymtr.track import SCHEMA

TAGGED = pa.schema([*SCHEMA, pa.field("code", pa.string()), pa.field("reason", pa.string())])
READERS = 16  # threads
MOST_READS = 100_000  # an Ogg file has about 300 pages a minute, two reads each
MOST_BYTES = 64 << 20  # pictures are not read, text is short
FEWEST_BYTES = 10  # a second of audio has more, silence in FLAC included; else its header lies
_YEAR = re.compile(r"(?<!\d)([12]\d{3})(?:\d{4})?(?!\d)")  # 1999, 1999-05-01, 05/1999, 19990501
_GENRE_ENDS = re.compile(r"[;/|,\x00]")


def read_tags(files: pa.Table) -> pa.Table:
    """`files` (track_id, uri, title by the name) as tracks, in their order.

    Two columns more, `code` and `reason`, are null but where a file is empty or unreadable.
    """
    with ThreadPoolExecutor(READERS) as pool:
        rows = list(pool.map(_read_file, files.to_pylist()))
    return pa.Table.from_pylist(rows, schema=TAGGED)


def _read_file(file: dict[str, str]) -> dict[str, Any]:
    try:
        stream, size = _open(file["uri"])
    except FileNotFoundError:
        return file | {"code": "missing", "reason": "a link to a file that is not there"}
    except (OSError, InputError) as error:
        return file | {"code": "unreadable", "reason": f"cannot be opened: {error}"}
    with stream:
        if size == 0:
            return file | {"code": "empty", "reason": "the file has no bytes"}
        tag = _parse(stream, size, file["uri"])
    return file if tag is None else file | _words(tag, size, title=file["title"])


def _open(uri: str) -> tuple[BinaryIO, int]:
    """The file at `uri`, and its bytes. Raises OSError; a pipe would block, so it is refused."""
    if storage.is_remote(uri):
        filesystem, path = storage.open_filesystem(uri)
        remote = filesystem.open_input_file(path)
        return io.BufferedReader(remote), int(remote.size())
    path = storage.local_path(uri)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    return open(path, "rb"), status.st_size


class Ration:
    """A file that refuses to be read on and on, and never more at once than it holds."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size
        self._reads, self._bytes = MOST_READS, MOST_BYTES
        self.seek, self.tell = stream.seek, stream.tell

    def read(self, size: int) -> bytes:
        """At most `size` bytes. Raises OSError once the ration is used up."""
        size = min(size, self._size)
        self._reads -= 1
        self._bytes -= size
        if self._reads < 0 or self._bytes < 0:
            raise OSError("too much to read for tags")
        return self._stream.read(size)


def _parse(stream: BinaryIO, size: int, uri: str) -> TinyTag | None:
    """The file's tags: by content, else by suffix; without its seconds where they fail."""
    suffix = os.path.splitext(uri)[1].lower()
    # Bare AAC would be taken for MP3, and an Ogg file is read to its end for its seconds.
    untimed = suffix == ".aac" or (storage.is_remote(uri) and suffix in (".ogg", ".oga", ".opus"))
    for seconds in (False,) if untimed else (True, False):
        for name in (None, uri):
            stream.seek(0)
            try:
                return TinyTag.get(name, Ration(stream, size), duration=seconds)
            except UnsupportedFormatError:
                continue
            except (TinyTagException, OSError):
                break
    return None


def _words(tag: TinyTag, size: int, *, title: str) -> dict[str, Any]:
    return {
        "title": _line(tag.title) or title,
        "artist": _line(tag.artist) or _line(tag.albumartist),
        "album": _line(tag.album),
        "year": _year(tag.year),
        "duration": _seconds(tag, size),
        "tags": _genres([tag.genre, *tag.other.get("genre", ())]),
    }


def _line(text: str | None) -> str | None:
    """One line of clean text, or None."""
    clean = _mended(text or "").replace("\x00", " ").encode("utf-8", "replace").decode()
    return " ".join(unicodedata.normalize("NFC", clean).split()) or None


def _mended(text: str) -> str:
    """`BeyoncÃ©` -> `Beyoncé`: many writers put UTF-8 into tags that are declared Latin-1."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


def _year(text: str | None) -> int | None:
    found = _YEAR.search(text or "")
    return int(found[1]) if found else None


def _seconds(tag: TinyTag, size: int) -> float | None:
    """The duration its header states, unless the file has too few bytes for it."""
    seconds = tag.duration or 0.0
    if not 0.0 < seconds < size / FEWEST_BYTES:
        return None
    # What is stated without loss is known to the byte; a stream's WAV header says 2^32 bytes.
    if tag.is_lossless and seconds * (tag.bitrate or 0.0) * 1000 / 8 > 1.5 * size:
        return None
    return float(seconds)


def _genres(texts: Iterable[str | None]) -> list[str] | None:
    """Genres apart (`Rock; Pop/Rap`), in their order, none twice but for case."""
    genres: dict[str, str] = {}
    for text in texts:
        for part in _GENRE_ENDS.split(text or ""):
            genre = _line(part)
            if genre:
                genres.setdefault(genre.casefold(), genre)
    return list(genres.values()) or None
