"""Opens a track's bytes as a seekable file, from any source; defines the error of a bad track.

A local file is opened by path once, and never by a decoder, so neither its name nor its suffix can
mislead a decoder. A file in an object store is read once, as a whole. Only regular files are
opened: a folder, a socket or a FIFO in a music folder must not hang a job. Limitations: there is no
streaming from an object store, and no memory mapping, because a file that shrinks while it is
mapped would kill the process.
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

Source = str | bytes | os.PathLike[str]  # a local path, a URI, or the bytes of a file


class AudioError(Exception):
    """A file without usable samples. `code` is stable; `reason` is a message for people.

    Codes: missing, unreadable, unreachable (a store that does not answer), too_large (checked
    before reading); empty, not_audio, encrypted, too_long, truncated (shorter than it states),
    bad_samples (NaN, infinite or absurd values), silent.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(code, reason)
        self.code, self.reason = code, reason

    def __str__(self) -> str:
        return f"{self.code}: {self.reason}"


@contextlib.contextmanager
def opened(source: Source, max_mb: float | None = None) -> Iterator[BinaryIO]:
    """The source as a seekable file. Every failure to read it raises an AudioError."""
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
    except UnusableError as error:  # an unreachable bucket is a bad row, it must not stop the job
        raise AudioError("unreachable", str(error)) from error
    except InputError as error:  # an unknown kind of URI is a bad row, it must not stop the job
        raise AudioError("unreadable", str(error)) from error


def _open(source: str | bytes, max_mb: float | None) -> BinaryIO:
    if isinstance(source, bytes):
        _check_size(len(source), max_mb)
        return io.BytesIO(source)
    if storage.is_remote(source):
        if max_mb is not None:  # a small request may avoid a large one
            filesystem, path = storage.open_filesystem(source)
            _check_size(filesystem.get_file_info(path).size or 0, max_mb)
        data = storage.read_bytes(source)
        _check_size(len(data), max_mb)
        return io.BytesIO(data)
    path = storage.local_path(source)
    try:
        info = os.stat(path)  # before opening, because opening a FIFO waits for its writer
    except ValueError as error:  # a NUL, or a character that no file name can have
        raise AudioError("missing", f"there is no file {source!r}") from error
    if not stat.S_ISREG(info.st_mode):
        raise AudioError("not_audio", f"{source!r} is not a regular file")
    _check_size(info.st_size, max_mb)
    return open(path, "rb", buffering=0)  # unbuffered: libsndfile shares the file's position


def _check_size(size: int, max_mb: float | None) -> None:
    if max_mb is not None and size > max_mb * 1e6:
        raise AudioError("too_large", f"it has {size / 1e6:.1f} MB, at most {max_mb:g} MB are read")
