"""Atomic reading and writing under a URI, in a local folder or an object store.

Every artefact of the system is a table or a small JSON document, so this file handles only those
two and listings. A write is atomic: locally through a renamed temporary file, in an object store
because a put is atomic. The content of the files is not interpreted here.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from raymtr.errors import InputError, UnusableError

PART_ROWS = 100_000  # rows per Parquet file of a table written in parts
AT_ONCE = 16  # small files that are read at the same time, as an object store answers late
CHUNK = 16 << 20  # bytes in memory while a file is copied


def is_remote(uri: str) -> bool:
    """Whether `uri` is in an object store rather than on a local file system."""
    return "://" in uri and not uri.startswith("file://")


def local_path(uri: str) -> str:
    """The local path of a path or `file://` URI (percent-encoded, so any file name fits)."""
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://"))) if "://" in uri else uri


def open_filesystem(uri: str) -> tuple[fs.FileSystem, str]:
    """The pyarrow file system of `uri`, and the path of `uri` within it."""
    if not is_remote(uri):
        return fs.LocalFileSystem(), os.path.abspath(local_path(uri))
    try:
        filesystem, path = fs.FileSystem.from_uri(_well_formed(uri))
    except (pa.ArrowInvalid, ValueError) as error:
        raise InputError(f"{uri!r} is not a folder or a known object store: {error}") from error
    except OSError as error:
        raise UnusableError(f"{uri} cannot be reached: {error}") from error
    return filesystem, path


def _well_formed(uri: str) -> str:
    """`uri` with characters that are invalid in a URI percent-encoded, as manifests list raw keys.

    What is encoded already does not change; a bare `%` is encoded.
    """
    bare = re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", uri)
    return quote(bare, safe=":/?#[]@!$&'()*+,;=%~")


def exists(uri: str) -> bool:
    """Whether a file or folder exists at `uri`."""
    filesystem, path = open_filesystem(uri)
    return bool(filesystem.get_file_info(path).type != fs.FileType.NotFound)


def modified_s(uri: str) -> float:
    """Time of the last write of the file at `uri`, in seconds since 1970."""
    filesystem, path = open_filesystem(uri)
    return float(filesystem.get_file_info(path).mtime_ns or 0) / 1e9


def list_files(uri: str, *, prefix: str = "", suffix: str = "") -> list[str]:
    """Sorted names directly under the folder `uri` with this start and end; [] where absent."""
    return [
        name
        for name, is_file in _entries(uri)
        if is_file and name.startswith(prefix) and name.endswith(suffix)
    ]


def list_folders(uri: str) -> list[str]:
    """Sorted names of the folders directly under `uri`; [] where absent."""
    return [name for name, is_file in _entries(uri) if not is_file]


def _entries(uri: str) -> list[tuple[str, bool]]:
    filesystem, path = open_filesystem(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True))
    return sorted((info.base_name, info.is_file) for info in found)


def read_bytes(uri: str) -> bytes:
    """The whole file at `uri`. Raises OSError where it cannot be read."""
    filesystem, path = open_filesystem(uri)
    with filesystem.open_input_stream(path, compression=None) as stream:
        return bytes(stream.read())


def write_bytes(uri: str, data: bytes) -> None:
    """Write `data` atomically, creating folders as needed."""
    filesystem, path = open_filesystem(uri)
    if not isinstance(filesystem, fs.LocalFileSystem):
        with filesystem.open_output_stream(path, compression=None) as stream:
            stream.write(data)
        return
    partial = f"{path}.{uuid.uuid4().hex[:8]}.partial"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(partial, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if os.path.exists(partial):
            os.unlink(partial)
        raise UnusableError(f"cannot write {path}: {error.strerror}") from error


def read_json(uri: str) -> Any:
    """The JSON document at `uri`."""
    return json.loads(read_bytes(uri))


def write_json(uri: str, document: object) -> None:
    """Write `document` as readable JSON, atomically."""
    text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes(uri, text.encode() + b"\n")


def write_table(uri: str, table: pa.Table, *, group_rows: int | None = None) -> None:
    """Write one Parquet file, atomically, in row groups of `group_rows` (None: pyarrow's size)."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", row_group_size=group_rows)
    write_bytes(uri, sink.getvalue().to_pybytes())


def read_table(uri: str, columns: Sequence[str] | None = None) -> pa.Table:
    """One Parquet file, or some of its columns."""
    filesystem, path = open_filesystem(uri)
    wanted = list(columns) if columns else None
    # With partitioning, a folder `year=1999` above the file would become a column.
    return pq.read_table(path, columns=wanted, filesystem=filesystem, partitioning=None)


def read_tables(
    uri: str, columns: Sequence[str] | None = None, *, prefix: str = ""
) -> pa.Table | None:
    """All Parquet files directly under the folder `uri` as one table; None where there are none.

    Files may have different extra columns; a column that a file lacks is null there. With `prefix`
    only the files whose names start with it are read.
    """
    filesystem, path = open_filesystem(uri)
    parts = []
    for name in list_files(uri, prefix=prefix, suffix=".parquet"):
        with pq.ParquetFile(f"{path}/{name}", filesystem=filesystem) as file:
            here = file.schema_arrow.names
            parts.append(file.read([c for c in columns if c in here] if columns else None))
    if not parts:
        return None
    table = pa.concat_tables(parts, promote_options="default")
    return table.select([c for c in columns if c in table.column_names]) if columns else table


def replace_tables(folder: str, table: pa.Table) -> None:
    """Replace the Parquet files of `folder` by `table`, in parts of PART_ROWS."""
    new = f"{folder}.new"
    delete(new)  # left by a killed job
    for part, start in enumerate(range(0, max(len(table), 1), PART_ROWS)):
        write_table(f"{new}/part-{part:05}.parquet", table.slice(start, PART_ROWS))
    replace_files(new, folder)


def replace_files(new: str, folder: str) -> None:
    """Move the files of the folder `new` into `folder`, then delete its other files and `new`.

    Each file is replaced atomically, one after another. Nothing changes before the first move.
    """
    filesystem, source = open_filesystem(new)
    target = open_filesystem(folder)[1]
    filesystem.create_dir(target, recursive=True)
    names = list_files(new)
    for name in names:
        filesystem.move(f"{source}/{name}", f"{target}/{name}")
    for name in list_files(folder):
        if name not in names:
            filesystem.delete_file(f"{target}/{name}")
    delete(new)


def copy_folder(source: str, target: str, *, last: str) -> None:
    """Copy all files below the folder `source`; a copy is complete once it has the file `last`."""
    filesystem, path = open_filesystem(source)
    found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    names = [info.path[len(path) :].lstrip("/") for info in found if info.is_file]
    for name in sorted(names, key=lambda name: (name == last, name)):
        _copy_file(f"{source}/{name}", f"{target}/{name}")


def _copy_file(source: str, target: str) -> None:
    """Copy a file of any size, chunk by chunk; a local copy is atomic."""
    filesystem, path = open_filesystem(target)
    local = isinstance(filesystem, fs.LocalFileSystem)
    place = f"{path}.{uuid.uuid4().hex[:8]}.partial" if local else path
    if local:
        os.makedirs(os.path.dirname(path), exist_ok=True)
    there, source = open_filesystem(source)
    try:
        with (
            there.open_input_stream(source, compression=None) as reader,
            filesystem.open_output_stream(place, compression=None) as writer,
        ):
            shutil.copyfileobj(reader, writer, CHUNK)
        if local:
            os.replace(place, path)
    except OSError as error:
        if local and os.path.exists(place):
            os.unlink(place)
        raise UnusableError(f"cannot copy {source} to {path}: {error}") from error


def local_copy(uri: str, *, last: str, wanted: Callable[[str], bool] = lambda name: True) -> str:
    """A local folder with the content of `uri`: itself, or a complete copy of an object store's.

    `last` is the file that the folder's writer writes last. Of the other files, those whose names
    are `wanted` are copied. A copy is below the temporary folder, named by the URI and the state of
    its files, so a replaced folder is downloaded again. Where several processes of a machine
    request it at once, one downloads and the others wait.

    Raises UnusableError where the folder has no `last`, changes meanwhile, or cannot be downloaded.
    """
    if not is_remote(uri):
        return os.path.abspath(local_path(uri))
    copies = copies_folder()
    try:
        files = files_below(uri, wanted)
        if last not in files:
            raise UnusableError(f"{uri} is incomplete: it has no {last}")

        def copy(partial: str) -> None:
            for name in files:
                _copy_file(f"{uri}/{name}", f"{partial}/{name}")
            if files_below(uri, wanted) != files:
                raise UnusableError(f"{uri} was changed while it was copied; run this again")

        state = hashlib.sha256(json.dumps([uri, files]).encode()).hexdigest()[:32]
        return make_once(os.path.join(copies, state), copy)
    except OSError as error:
        raise UnusableError(f"cannot copy {uri} to {copies}: {error}") from error


def copies_folder() -> str:
    """This user's local folder for copies of files from elsewhere; it may be deleted."""
    return os.path.join(tempfile.gettempdir(), f"raymtr-copies-{os.getuid()}")


def make_once(target: str, make: Callable[[str], None]) -> str:
    """The local folder `target`, made by `make(folder)` unless it exists.

    It appears complete or not at all. If several processes of a machine need it at once, one makes
    it and the others wait.
    """
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    with open(f"{target}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel if this process is killed
        if not os.path.isdir(target):
            partial = f"{target}.partial"
            shutil.rmtree(partial, ignore_errors=True)  # left by a killed process
            make(partial)
            os.rename(partial, target)
    return target


def files_below(
    uri: str, wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, list[int | None]]:
    """Files at any depth below the folder `uri`: name -> [bytes, time of the last write]."""
    filesystem, path = open_filesystem(uri)
    found = filesystem.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True))
    files = sorted((info.path[len(path) :].lstrip("/"), info) for info in found if info.is_file)
    return {name: [info.size, info.mtime_ns] for name, info in files if wanted(name)}


def delete(uri: str) -> None:
    """Remove the file or folder at `uri`, if there is one."""
    filesystem, path = open_filesystem(uri)
    kind = filesystem.get_file_info(path).type
    if kind == fs.FileType.Directory:
        filesystem.delete_dir(path)
    elif kind != fs.FileType.NotFound:
        filesystem.delete_file(path)
