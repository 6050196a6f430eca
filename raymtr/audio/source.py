"""A track's bytes as one seekable file, from wherever they are; and the error of a bad track.

A local file is opened by path once and never by a decoder, so neither its name nor its suffix can
mislead one. What lies in an object store is read once, whole. Only regular files are opened: a
folder, a socket or a FIFO in a folder of music must not hang a job. Given up: streaming from an
object store, and memory mapping, because a file that shrinks meanwhile would kill the process.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO

from raymtr import storage
from raymtr.errors import InputError, UnusableError

Source = str | bytes | os.PathLike[str]  # a local path or a URI; or the bytes of a file


class AudioError(Exception):
    """A file that gives no samples. `code` is stable, `reason` is a sentence for a person.

    Codes: missing, unreadable, unreachable (a store that does not answer), too_large (before
    reading); empty, not_audio, encrypted, too_long, truncated (shorter than it states), bad_samples
    (NaN, infinite or absurd values), silent.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@contextlib.contextmanager
def opened(source: Source, max_mb: float | None = None) -> Iterator[BinaryIO]:
    """The source as a seekable file; every way in which it cannot be read is an AudioError."""
    source = os.fspath(source)
    try:
        with _open(source, max_mb) as file:
            yield file
    except (FileNotFoundError, NotADirectoryError) as error:
        raise AudioError("missing", f"there is no file {source!r}") from error
    except OSError as error:
        what = repr(source) if isinstance(source, str) else "the bytes given"
        away = isinstance(source, str) and storage.is_remote(source)
        code = "unreachable" if away else "unreadable"
        raise AudioError(code, f"cannot read {what}: {error.strerror or error}") from error
    except UnusableError as error:  # one bucket that is away is a bad row, not a dead job
        raise AudioError("unreachable", str(error)) from error
    except InputError as error:  # a URI of an unknown kind is a bad row, not a dead job
        raise AudioError("unreadable", str(error)) from error


def _open(source: str | bytes, max_mb: float | None) -> BinaryIO:
    if isinstance(source, bytes):
        _check_size(len(source), max_mb)
        return io.BytesIO(source)
    if storage.is_remote(source):
        if max_mb is not None:  # one small request spares a large one
            filesystem, path = storage.open_filesystem(source)
            _check_size(filesystem.get_file_info(path).size or 0, max_mb)
        data = storage.read_bytes(source)
        _check_size(len(data), max_mb)
        return io.BytesIO(data)
    path = storage.local_path(source)
    try:
        info = os.stat(path)  # before opening: a FIFO would wait for its writer
    except ValueError as error:  # a NUL, or a character no file name can hold
        raise AudioError("missing", f"there is no file {source!r}") from error
    if not stat.S_ISREG(info.st_mode):
        raise AudioError("not_audio", f"{source!r} is no regular file")
    _check_size(info.st_size, max_mb)
    return open(path, "rb", buffering=0)  # unbuffered: libsndfile shares the file's position


def _check_size(size: int, max_mb: float | None) -> None:
    if max_mb is not None and size > max_mb * 1e6:
        raise AudioError("too_large", f"it has {size / 1e6:.1f} MB, at most {max_mb:g} MB are read")
