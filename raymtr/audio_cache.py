"""Decoded audio on disk, for whatever is read more than once: a fiftieth of an MP3's seek.

One int16 `.npy` file a track, of which a clip reads only its own bytes; files appear whole or not
at all, so many workers may fill the same track at once. int16, because it halves the disk and its
rounding lies 96 dB below full scale: a sample x is kept as round(32767 * x), clipped at +-32767,
and read back divided by 32767. Folders are named by decoding and sample rate, so a new decoder
never reads old samples. Plain reads, not memory maps: for one clip a map costs more (a fault per
page, a header parsed by numpy).

Given up: object stores, values beyond full scale, and a limit of size; deleting the folder at any
time is safe.
"""

from __future__ import annotations

import io
import os
from urllib.parse import quote

import numpy as np

from raymtr import storage
from raymtr.audio import DECODING, clip_start, decode, loop_to
from raymtr.errors import InputError
from raymtr.specs import AudioSpec

_FULL_SCALE = np.float32(32767)


class AudioCache:
    """Whole tracks as int16 under `folder`. Raises InputError where that is no local folder."""

    def __init__(self, folder: str, spec: AudioSpec) -> None:
        if storage.is_remote(folder):
            raise InputError(
                f"the audio cache is read at random, so it needs a local folder, got {folder!r}; "
                "set one on each machine's own disk"
            )
        self.spec = spec
        local = os.path.abspath(storage.local_path(folder))
        self.folder = os.path.join(local, f"{DECODING}-{spec.sample_rate}")

    def fill(self, key: str, uri: str, *, max_s: float | None = None) -> None:
        """Decode the track unless it is here already, under a name for its audio as it is now.

        Raises AudioError, and UnusableError where the disk refuses.
        """
        path = self._path(key)
        if os.path.exists(path):
            return
        samples = decode(uri, self.spec, max_s=max_s).samples * _FULL_SCALE
        np.clip(np.rint(samples, out=samples), -_FULL_SCALE, _FULL_SCALE, out=samples)
        file = io.BytesIO()
        np.save(file, samples.astype(np.int16))
        storage.write_bytes(path, file.getvalue())

    def clip(
        self,
        key: str,
        uri: str,
        rng: np.random.Generator,
        *,
        max_s: float | None = None,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        """A random clip, float32 [window_samples], where `audio.random_clip` would take it.

        Written into `out` where that is given. Fills the cache first where the track is absent,
        and may raise what `fill` raises.
        """
        draw = rng.random()
        try:
            stored = self._read(key, draw)
        except FileNotFoundError:
            self.fill(key, uri, max_s=max_s)
            stored = self._read(key, draw)
        whole = loop_to(stored, self.spec.window_samples)
        clip: np.ndarray = np.divide(whole, _FULL_SCALE, out=out, dtype=np.float32)
        return clip

    def _read(self, key: str, draw: float) -> np.ndarray:
        """int16 [at most window_samples] of a stored track."""
        with open(self._path(key), "rb", buffering=0) as file:
            header = 10 + int.from_bytes(file.read(10)[8:], "little")  # .npy, version 1.0
            total = (os.fstat(file.fileno()).st_size - header) // 2
            file.seek(header + 2 * clip_start(total, self.spec.window_samples, draw))
            return np.frombuffer(file.read(2 * self.spec.window_samples), np.int16)

    def _path(self, key: str) -> str:
        return os.path.join(self.folder, f"{quote(key, safe='')}.npy")
