"""A disk cache of decoded audio, for audio that is read more than once.

Reading a clip from it takes a fiftieth of the time of a seek in an MP3. The cache consists of int16
`.npy` files; a clip reads only its own bytes. Files are written atomically, so many workers may
fill the same track at once. int16 halves the disk space, and its rounding error is 96 dB below full
scale: a sample x is stored as round(32767 * x), clipped at +-32767, and divided by 32767 when read.
Folders are named by decoding version and sample rate, so a new decoder never reads old samples.
Files are read, not memory-mapped: for one clip a map costs more (a fault per page, a header parsed
by numpy).

A track of a minute or less is one file. A longer track whose length the caller knows is decoded and
stored in separate blocks of BLOCK_S, which takes a fifth of the work on a cache miss. A clip's
samples never depend on the content of the cache: a block is always decoded by the same seek, never
cut from a full decode, which differs in the last bit.

The folder has a budget. The first files stay; once it is full, other audio is decoded each time it
is drawn. Training draws in shuffled rounds, so this fixed part is read once per round; evicting the
oldest file would remove each one just before its turn. `make_room` removes files that no track of a
new run needs.

Limitations: no object stores, no values beyond full scale. Deleting the folder is safe at any time.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

import numpy as np

from raymtr import storage
from raymtr.audio import DECODING, clip_start, decode, decode_span, loop_to, window_start
from raymtr.errors import InputError, UnusableError
from raymtr.tower_specs import AudioSpec

LOG = logging.getLogger("raymtr")

BLOCK_S = 20  # block length of long tracks; a seek costs as much as decoding six seconds
WHOLE_S = 60  # a track up to this length is one file
LEDGER = "used"  # file with the number of bytes in the folder; its writers lock it
LEFT_FREE = 2 << 30  # bytes of the disk to leave free, for checkpoints and other programs
_FULL_SCALE = np.float32(32767)


class AudioCache:
    """Tracks as int16 under `folder`. Raises InputError if that is not a local folder."""

    def __init__(self, folder: str, spec: AudioSpec, *, budget: int | None = None) -> None:
        """`budget` is the most bytes the folder may hold; None: no limit, 0: store nothing."""
        if storage.is_remote(folder):
            raise InputError(
                f"the audio cache is read at random, so it needs a local folder, got {folder!r}; "
                "set one on each machine's own disk"
            )
        self.spec, self.budget = spec, budget
        self._root = os.path.abspath(storage.local_path(folder))
        self.folder = os.path.join(self._root, f"{DECODING}-{spec.sample_rate}")
        self._said = False

    def fill(
        self, key: str, uri: str, *, max_s: float | None = None, max_mb: float | None = None
    ) -> int:
        """Decode the track unless it is cached; `key` is the track's `cache_key`.

        Returns its number of samples. A long track is not stored. Raises AudioError.
        """
        try:
            with open(self._path(key), "rb", buffering=0) as file:
                return _length(file)
        except FileNotFoundError:
            samples = decode(uri, self.spec, max_s=max_s, max_mb=max_mb).samples
        if len(samples) <= WHOLE_S * self.spec.sample_rate:
            self._keep(self._path(key), _to_int16(samples))
        return len(samples)

    def clip(
        self,
        key: str,
        uri: str,
        rng: np.random.Generator,
        *,
        samples: int | None = None,
        max_s: float | None = None,
        out: np.ndarray | None = None,
        anywhere: bool = True,
    ) -> np.ndarray:
        """A random clip, float32 [window_samples], at the position that `audio.random_clip` draws.

        Unless it may start `anywhere`, it is one of the windows that indexing cuts. It is written
        into `out` if given. `samples` is the result of `fill` for the track; without it a long
        track is decoded and stored whole. Raises AudioError.
        """
        draw, window = rng.random(), self.spec.window_samples
        start_of = clip_start if anywhere else window_start
        if samples is None or samples <= WHOLE_S * self.spec.sample_rate:
            stored = self._samples(
                self._path(key),
                lambda: decode(uri, self.spec, max_s=max_s).samples,
                lambda total: start_of(total, window, draw),
            )
        else:
            start, size = start_of(samples, window, draw), BLOCK_S * self.spec.sample_rate
            blocks = range(start // size, -(-(start + window) // size))
            stored = np.concatenate([self._block(key, uri, n, start - n * size) for n in blocks])
        clip: np.ndarray = np.divide(
            loop_to(stored, window), _FULL_SCALE, out=out, dtype=np.float32
        )
        return clip

    def make_room(self, keys: Collection[str], *, need: int) -> None:
        """Count the cached bytes; delete files of other keys if `need` bytes of `keys` do not fit.

        The oldest files are deleted first. Files of `keys` are deleted only if the budget was
        lowered. A process that reads a deleted file can finish, and decodes it the next time.
        """
        if self.budget is None or not os.path.isdir(self._root):
            return
        wanted = {quote(key, safe="") for key in keys}
        with self._ledger() as ledger:
            files = sorted(self._files())
            keep = [file for file in files if _key_of(file[2]) in wanted]
            others = [file for file in files if _key_of(file[2]) not in wanted]
            own_bytes = sum(size for _, size, _ in keep)
            used = own_bytes + sum(size for _, size, _ in others)
            room = self.budget - max(0, min(need, self.budget) - own_bytes)
            for group, most in ((others, room), (keep, self.budget)):
                for _, size, path in group:
                    if used > most:
                        with suppress(FileNotFoundError):
                            os.unlink(path)
                        used -= size
            ledger(used)

    def _block(self, key: str, uri: str, number: int, first: int) -> np.ndarray:
        """int16 samples of the window that starts at `first` in one block of a long track."""
        return self._samples(
            self._path(key, f"@{number}"),
            lambda: decode_span(uri, self.spec, start_s=number * BLOCK_S, length_s=BLOCK_S),
            lambda total: first,
        )

    def _samples(
        self, path: str, decoded: Callable[[], np.ndarray], start: Callable[[int], int]
    ) -> np.ndarray:
        """int16 samples of the window at `start` in a file; a missing file is decoded and stored.

        `start` gets the file's number of samples and may return a negative index.
        """
        try:
            with open(path, "rb", buffering=0) as file:
                total = _length(file)
                first = start(total)
                last = min(total, first + self.spec.window_samples)
                file.seek(2 * (max(0, first) - total), os.SEEK_END)
                return np.frombuffer(file.read(2 * max(0, last - max(0, first))), np.int16)
        except FileNotFoundError:
            samples = _to_int16(decoded())
        self._keep(path, samples)
        first = start(len(samples))
        return samples[max(0, first) : max(0, first + self.spec.window_samples)]

    def _keep(self, path: str, samples: np.ndarray) -> None:
        """Write a file, if there is room. A write error is logged once, and training continues."""
        file = io.BytesIO()
        np.save(file, samples)
        try:
            if self._has_room(file.tell()):
                storage.write_bytes(path, file.getvalue())
        except (OSError, UnusableError) as error:
            self._say(f"{error}: audio that is not in it is decoded at each draw")

    def _has_room(self, size: int) -> bool:
        """Whether `size` more bytes fit; if so, count them."""
        if not self.budget:
            return self.budget is None
        os.makedirs(self._root, exist_ok=True)
        if shutil.disk_usage(self._root).free - size < LEFT_FREE:
            self._say(
                f"its disk has {LEFT_FREE >> 30} GiB left, which are reserved for other programs"
            )
            return False
        with self._ledger() as ledger:
            used = ledger()
            if used + size > self.budget:
                self._say(
                    f"its {self.budget / 2**30:.3g} GiB are full; other audio is decoded again"
                )
                return False
            ledger(used + size)
        return True

    @contextmanager
    def _ledger(self) -> Iterator[Callable[..., int]]:
        """The locked byte count: call it to read, or with a number to write."""
        with open(os.path.join(self._root, LEDGER), "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # the kernel frees it if this process is killed

            def ledger(used: int | None = None) -> int:
                if used is None:
                    file.seek(0)
                    text = file.read()
                    return (
                        int(text) if text.isdigit() else sum(size for _, size, _ in self._files())
                    )
                file.truncate(0)
                file.write(b"%d" % used)
                file.flush()
                return used

            yield ledger

    def _files(self) -> Iterator[tuple[float, int, str]]:
        """(modification time, bytes, path) of all files, of all decoding versions."""
        for folder, _, names in os.walk(self._root):
            for name in names:
                if folder != self._root:
                    with suppress(FileNotFoundError):
                        info = os.stat(path := os.path.join(folder, name))
                        yield info.st_mtime, info.st_size, path

    def _say(self, what: str) -> None:
        if not self._said:
            LOG.info("audio cache %s: %s", self._root, what)
        self._said = True

    def _path(self, key: str, block: str = "") -> str:
        return os.path.join(self.folder, f"{quote(key, safe='')}{block}.npy")


def cache_key(track: Mapping[str, Any]) -> str:
    """The name of a track's audio as scanned; a replaced file gets another name."""
    version = track["file_version"] or track["uri"]
    return f"{track['track_id']}-{hashlib.sha256(version.encode()).hexdigest()[:12]}"


def forget_audio(folder: str, ids: Iterable[str]) -> None:
    """Delete the audio of these tracks, of all versions, from the cache in `folder`."""
    gone = {quote(track_id, safe="") for track_id in ids}
    for version in storage.list_folders(folder):
        for name in storage.list_files(f"{folder}/{version}"):
            if _key_of(name).rpartition("-")[0] in gone:  # the rest of a `cache_key`
                storage.delete(f"{folder}/{version}/{name}")


def _to_int16(samples: np.ndarray) -> np.ndarray:
    scaled = samples * _FULL_SCALE
    return np.clip(np.rint(scaled, out=scaled), -_FULL_SCALE, _FULL_SCALE, out=scaled).astype(
        np.int16
    )


def _length(file: io.FileIO) -> int:
    """Samples in an opened `.npy` file of version 1.0."""
    header = 10 + int.from_bytes(file.read(10)[8:], "little")
    return (os.fstat(file.fileno()).st_size - header) // 2


def _key_of(path: str) -> str:
    """The quoted key in a file's path; for a half-written file it matches no key."""
    return os.path.basename(path).removesuffix(".npy").partition("@")[0]
