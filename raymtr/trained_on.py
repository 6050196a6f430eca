"""What a model was trained on: an exact record beside its weights, eight bytes for each name.

Figures over what a model has learnt by heart say how well it remembers, not how well it finds. So
training writes the names of all it drew from, each as a 64-bit hash: small, sorted, and no list of
somebody's files. A track has two names, its id and its sound, for a catalog may be scanned anew
under other ids; a pair of tags and caption has its clip and its words. Among a thousand million
names a new one passes for one of them with a chance of 5e-11.

The record is no part of a fingerprint. A model without one is older, or made elsewhere: what it was
trained on is unknown, and has to be said to be.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from raymtr import storage
from raymtr.errors import UnusableError

RECORD = "trained_on.npy"  # in the folder of a model or a captioner; uint64, sorted
Record = NDArray[np.uint64]


def track_names(track_id: str, audio_digest: str | None) -> list[str]:
    """What a track is known by: its id, and its coded audio where that has been read."""
    return [f"track {track_id}", *([f"sound {audio_digest}"] if audio_digest else [])]


def pair_names(clip: str, tags: Iterable[str], caption: str) -> list[str]:
    """What a pair of tags and caption is known by: its clip, and its words whatever their case."""
    words = "\0".join([*sorted({tag.casefold() for tag in tags}), "", caption.casefold()])
    return [f"clip {clip}", f"words {words}"]


def record_of(names: Iterable[str]) -> Record:
    """The record of these names."""
    return np.unique(np.fromiter(map(_hash, names), np.uint64))


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def known(record: Record, things: Iterable[Sequence[str]]) -> NDArray[np.bool_]:
    """Whether any name of each thing is in the record, bool [things]."""
    listed = [list(names) for names in things]
    hashes = np.fromiter((_hash(name) for names in listed for name in names), np.uint64)
    owner = np.repeat(np.arange(len(listed)), [len(names) for names in listed])
    found = np.zeros(len(listed), bool)
    found[owner[np.isin(hashes, record)]] = True
    return found


def to_bytes(record: Record) -> bytes:
    """The record as the file RECORD holds it."""
    sink = io.BytesIO()
    np.save(sink, record)
    return sink.getvalue()


def read_record(folder: str) -> Record | None:
    """The record of the model in `folder` (path or URI); None where it has none.

    Raises UnusableError where the file is damaged.
    """
    file = f"{folder}/{RECORD}"
    if not storage.exists(file):
        return None
    try:
        record = np.load(io.BytesIO(storage.read_bytes(file)), allow_pickle=False)
        if record.dtype != np.uint64 or record.ndim != 1:
            raise ValueError(f"{record.dtype} {list(record.shape)}, not uint64 [n]")
    except (OSError, ValueError, EOFError) as error:
        raise UnusableError(
            f"{file} is damaged ({error}); without that file the model's training is unknown"
        ) from error
    return np.sort(record)
