"""Bounds on decoding a catalog's files in a job: size, length and time."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from raymtr import storage
from raymtr.audio.source import AudioError
from raymtr.specs import EmbedSpec

HUNG = "timeout"  # the code of a track whose decoder did not return
_SETTINGS = {"too_long": "embed.max_track_s", "too_large": "embed.max_file_mb"}


class DecodeGuard:
    """Context manager around the decoding of each track. Created once per task.

    Only the end of its process stops a decoder that loops in C. So if decoding takes longer than
    `max_decode_s`, the guard writes a marker and ends this process. Ray retries the task, which
    finds the marker and gives the track an error. A child process per track would do the same, but
    would copy the samples. A decoder that hangs while it holds the GIL is not detected.
    """

    def __init__(self, embed: EmbedSpec, markers: str) -> None:
        """`markers` is the folder with one file per track whose decoder hung."""
        self.max_s, self.max_mb = embed.max_track_s, embed.max_file_mb
        self._limit_s, self._markers = embed.max_decode_s, markers
        self._hung = frozenset(storage.list_files(markers))

    @contextmanager
    def __call__(self, track_id: str) -> Iterator[None]:
        """Raises AudioError: that of the block, or `timeout` if the decoder hung before."""
        marker = marker_of(track_id)
        if marker in self._hung:
            setting = f"embed.max_decode_s={self._limit_s:g}"
            raise AudioError(HUNG, f"the decoder was not done after {setting} s")
        timer = threading.Timer(self._limit_s, self._give_up, [marker])
        timer.daemon = True
        timer.start()
        try:
            yield
        except AudioError as error:
            setting = _SETTINGS.get(error.code, "")
            if not setting:
                raise
            reason = f"{error.reason}; the setting {setting} allows more"
            raise AudioError(error.code, reason) from error
        finally:
            timer.cancel()

    def _give_up(self, marker: str) -> None:
        storage.write_bytes(f"{self._markers}/{marker}", b"")
        os._exit(1)


def marker_of(track_id: str) -> str:
    """The name of the file that marks a track whose decoder hung."""
    return hashlib.sha256(track_id.encode()).hexdigest()[:32]
