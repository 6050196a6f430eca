"""Record of a model's training data beside its weights: a 64-bit hash of each name.

Metrics on training data measure memory, not retrieval. So training stores the names of everything
it drew from, each as a 64-bit hash: small, sorted, and without file names. A track has two names,
its id and its audio digest, because a catalog may be scanned again under other ids. A pair of tags
and caption has its clip and its words. Among 10^9 names, a new one matches by chance with a
probability of 5e-11.

The record is not part of a fingerprint. A model without one is older or from elsewhere: its
training data is unknown, and this must be reported.
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
    """The names of a track: its id, and its coded audio where its digest is known."""
    return [f"track {track_id}", *([f"sound {audio_digest}"] if audio_digest else [])]


def pair_names(clip: str, tags: Iterable[str], caption: str) -> list[str]:
    """The names of a pair of tags and caption: its clip, and its words without case."""
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
    """The record in the format of the file RECORD."""
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
