"""Lists the audio files of a folder, each with an id and a title.

An id is a hash of the path below the root, so moving the root keeps it. It does not depend on the
content, so two copies are two tracks. Only names are read here, so that listing 10^6 files takes
seconds. `file_tags` opens the files, where a job can distribute the work.

Links are followed, because git-annex and shared album folders consist of them, but only to places
not walked yet, so that a loop or a link beside its target lists nothing twice. Names that begin
with exactly one dot are hidden; "...Baby One More Time" begins with three. Folders in which systems
keep deleted files or older states are left out by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from urllib.parse import quote_from_bytes

import pyarrow as pa
from pyarrow import fs

from raymtr import storage
from raymtr.audio import SUFFIXES
from raymtr.errors import UnusableError
from raymtr.plain_text import from_bytes, one_line

# "01 Title", "1-01 Title", "7. Title", "12 - Title"; but "99 Luftballons", "24-7", "1999" stay.
_TRACK_NUMBER = re.compile(
    r"^(?:\d{1,2}-\d{2}\s+|\d{1,3}\s*[-.)]+(?:\s+|(?=\D))|0\d{1,2}\s+)(?=.*\w)"
)


@dataclass
class Listing:
    """The content of a folder."""

    files: pa.Table  # track_id, uri, title from the file name; in the order of the paths
    skipped: Counter[str] = field(default_factory=Counter)  # number of files left out, by suffix
    unreadable: list[dict[str, str | None]] = field(default_factory=list)  # dead letters of folders
    skip_folders: tuple[str, ...] = ()  # patterns of names, in lower case

    def skips(self, folder: str) -> bool:
        """Whether a folder of this name is left out."""
        return any(fnmatchcase(folder.lower(), pattern) for pattern in self.skip_folders)


def list_audio(source: str, skip_folders: Sequence[str] = ()) -> Listing:
    """The audio files below the folder `source`, local or in an object store.

    Folders whose names match a pattern of `skip_folders` are left out and counted. Raises
    UnusableError if the folder itself cannot be read.
    """
    patterns = tuple(pattern.lower() for pattern in skip_folders)
    listing = Listing(files=pa.table({}), skip_folders=patterns)
    if storage.is_remote(source):
        filesystem, path = storage.open_filesystem(source.rstrip("/"))
        root, below = source.rstrip("/"), _walk_store(filesystem, path, listing)
        uris = [f"{root}/{path}" for path in below]
    else:
        root = os.path.abspath(storage.local_path(source))
        below = _walk(root, listing)
        uris = [local_uri(os.path.join(root, path)) for path in below]
    listing.files = _files(below, uris)
    return listing


def one_file(source: str) -> Listing:
    """A listing of one audio file; its id is the same as in a listing of its folder."""
    path = source if storage.is_remote(source) else os.path.abspath(storage.local_path(source))
    uri = path if storage.is_remote(source) else local_uri(path)
    return Listing(files=_files([os.path.basename(path)], [uri]))


def _files(below: list[str], uris: list[str]) -> pa.Table:
    titles = [title_of(path) for path in below]
    columns = {"track_id": path_ids(below), "uri": uris, "title": titles}
    return pa.table(columns, schema=pa.schema([(name, pa.string()) for name in columns]))


def is_audio(name: str) -> bool:
    """Whether a file's suffix is one of audio."""
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _hidden(name: str) -> bool:
    return name.startswith(".") and not name.startswith("..")


def _walk(root: str, listing: Listing) -> list[str]:
    """Paths below `root` of its audio files, sorted by their bytes."""
    walked, folders, found = [os.path.realpath(root)], [""], list[str]()
    links: list[str] = []
    while folders or links:
        if folders:
            _look(root, folders.pop(), listing, folders=folders, links=links, found=found)
            continue
        links.sort(reverse=True)  # real folders go first, so a link never lists their files
        link = links.pop()
        target = os.path.realpath(os.path.join(root, link))
        if os.path.isdir(target):
            if listing.skips(os.path.basename(link)):
                listing.skipped[f"folder {_shown(os.path.basename(link))}"] += 1
            elif not _held(walked, target) and not any(_inside(top, target) for top in walked):
                walked.append(target)
                folders.append(link)
        elif not is_audio(link):
            listing.skipped[_shown_suffix(link)] += 1
        elif not (os.path.exists(target) and is_audio(target) and _held(walked, target)):
            found.append(link)
    return sorted(found, key=os.fsencode)


def _look(
    root: str,
    below: str,
    listing: Listing,
    *,
    folders: list[str],
    links: list[str],
    found: list[str],
) -> None:
    """Sort the entries of the folder `below` into folders, links and audio files."""
    place = os.path.join(root, below)
    try:
        with os.scandir(place) as entries:
            for entry in entries:
                path = os.path.join(below, entry.name)
                if _hidden(entry.name):
                    listing.skipped["hidden"] += 1
                elif entry.is_symlink():
                    links.append(path)
                elif entry.is_dir():
                    if listing.skips(entry.name):
                        listing.skipped[f"folder {_shown(entry.name)}"] += 1
                    else:
                        folders.append(path)
                elif is_audio(entry.name):
                    found.append(path)
                else:
                    listing.skipped[_shown_suffix(entry.name)] += 1
    except OSError as error:
        if not below:
            raise UnusableError(f"{root} cannot be read: {error.strerror}") from error
        reason = f"the folder cannot be read: {error.strerror}"
        row = {"track_id": None, "uri": local_uri(place), "code": "unreadable", "reason": reason}
        listing.unreadable.append(row)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _held(walked: list[str], path: str) -> bool:
    """Whether a walk covers `path`: it is inside a walked folder, and not under a hidden name."""
    return any(
        _inside(path, top) and not any(map(_hidden, os.path.relpath(path, top).split("/")))
        for top in walked
    )


def _walk_store(filesystem: fs.FileSystem, root: str, listing: Listing) -> list[str]:
    """Like `_walk`, for an object store's prefix, which has no links."""
    found = []
    for info in filesystem.get_file_info(fs.FileSelector(root, recursive=True)):
        path = info.path[len(root) :].lstrip("/")
        *folders, _ = path.split("/")
        if any(map(_hidden, path.split("/"))):
            listing.skipped["hidden"] += info.is_file
        elif skipped := next(filter(listing.skips, folders), None):
            listing.skipped[f"folder {skipped}"] += info.is_file
        elif info.is_file and is_audio(path):
            found.append(path)
        elif info.is_file:
            listing.skipped[_shown_suffix(path)] += 1
    return sorted(found, key=os.fsencode)


def path_ids(paths: Sequence[str]) -> list[str]:
    """A URL-safe id for each path below a root.

    File systems encode accents differently, so ids are hashes of the NFC form. If two paths differ
    only in that, the one that is not NFC gets the id of its exact bytes.
    """
    composed = [unicodedata.normalize("NFC", path) for path in paths]
    clash = {path for path, count in Counter(composed).items() if count > 1}
    return [
        _hash(path if same in clash else same) for path, same in zip(paths, composed, strict=True)
    ]


def _hash(path: str) -> str:
    return hashlib.blake2b(os.fsencode(path), digest_size=10).hexdigest()


def local_uri(path: str) -> str:
    """An absolute path unchanged; a `file://` URI if its bytes are not UTF-8."""
    if _is_text(path):
        return path
    return "file://" + quote_from_bytes(os.fsencode(path))


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _readable(name: str) -> str:
    """A file name as text, in the encoding it most likely has."""
    return name if _is_text(name) else from_bytes(os.fsencode(name))


def _shown(name: str) -> str:
    return one_line(_readable(name)) or "without a name"


def _shown_suffix(name: str) -> str:
    return one_line(_readable(_suffix(name))) or "no suffix"


def title_of(path: str) -> str:
    """The title from a file's name, without suffix, underscores and track number."""
    stem = _readable(os.path.splitext(os.path.basename(path))[0])
    title = one_line(stem.replace("_", " ")) or ""
    return _TRACK_NUMBER.sub("", title).strip() or title or stem
