"""Decoded audio on disk, for whatever is read more than once: a fiftieth of an MP3's seek.

int16 `.npy` files, of which a clip reads only its own bytes; files appear whole or not at all, so
many workers may fill the same track at once. int16, because it halves the disk and its rounding
lies 96 dB below full scale: a sample x is kept as round(32767 * x), clipped at +-32767, and read
back divided by 32767. Folders are named by decoding and sample rate, so a new decoder never reads
old samples. Plain reads, not memory maps: for one clip a map costs more (a fault per page, a header
parsed by numpy).

A track of a minute or less is one file. Of a longer one whose length the caller knows, blocks of
BLOCK_S are decoded and kept by themselves, a fifth of the work where a clip is not here. What a
clip holds never depends on what is kept: a block is always decoded by the same seek, and never cut
from a whole decode, whose last bit differs.

The folder has a budget. What comes first stays until it is full; the rest is decoded whenever it
is drawn. Training draws in shuffled rounds, so a fixed part is read once a round, where the oldest
file would always be thrown out just before its turn. `make_room` clears away what no track of a
new run needs.

Given up: object stores, values beyond full scale. Deleting the folder at any time is safe.
"""

from __future__ import annotations

import fcntl
import io
import logging
import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote

import numpy as np

from raymtr import storage
from raymtr.audio import DECODING, clip_start, decode, decode_span, loop_to, window_start
from raymtr.errors import InputError, UnusableError
from raymtr.specs import AudioSpec

LOG = logging.getLogger("raymtr")

BLOCK_S = 20  # of a long track: a seek costs as much as decoding six seconds
WHOLE_S = 60  # a track up to here is one file
LEDGER = "used"  # bytes in the folder, as its writers count them; its lock is theirs
LEFT_FREE = 2 << 30  # bytes of the disk, for checkpoints and for others
_FULL_SCALE = np.float32(32767)


class AudioCache:
    """Tracks as int16 under `folder`. Raises InputError where that is no local folder."""

    def __init__(self, folder: str, spec: AudioSpec, *, budget: int | None = None) -> None:
        """`budget` is how many bytes the folder may hold; None sets no limit, 0 keeps nothing."""
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
        """Decode the track unless it is here already, under a name for its audio as it is now.

        How many samples it has. A long one is not kept. Raises AudioError.
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
        """A random clip, float32 [window_samples], where `audio.random_clip` would take it.

        Or one of the windows that indexing cuts, unless it may lie `anywhere`. Written into `out`
        where that is given. `samples` is what `fill` said of the track: without it a long one is
        decoded and kept whole. Raises AudioError.
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
        """Count what is here; where `need` bytes of `keys` will not fit, drop what is of no key.

        The oldest go first; `keys` themselves only where the budget was lowered. Whoever reads a
        file that goes reads on, and decodes it the next time.
        """
        if self.budget is None or not os.path.isdir(self._root):
            return
        wanted = {quote(key, safe="") for key in keys}
        with self._ledger() as ledger:
            files = sorted(self._files())
            own = [file for file in files if _key_of(file[2]) in wanted]
            strangers = [file for file in files if _key_of(file[2]) not in wanted]
            held = sum(size for _, size, _ in own)
            used = held + sum(size for _, size, _ in strangers)
            room = self.budget - max(0, min(need, self.budget) - held)
            for group, most in ((strangers, room), (own, self.budget)):
                for _, size, path in group:
                    if used > most:
                        with suppress(FileNotFoundError):
                            os.unlink(path)
                        used -= size
            ledger(used)

    def _block(self, key: str, uri: str, number: int, first: int) -> np.ndarray:
        """int16 of one block of a long track: of the window that starts `first` samples into it."""
        return self._samples(
            self._path(key, f"@{number}"),
            lambda: decode_span(uri, self.spec, start_s=number * BLOCK_S, length_s=BLOCK_S),
            lambda total: first,
        )

    def _samples(
        self, path: str, decoded: Callable[[], np.ndarray], start: Callable[[int], int]
    ) -> np.ndarray:
        """int16 samples of a file, or of what would be in it: of the window that begins at `start`.

        `start` is asked with the file's length, and may lie before it.
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
        """Write a file, if there is room. A disk that refuses is said once; training goes on."""
        file = io.BytesIO()
        np.save(file, samples)
        try:
            if self._has_room(file.tell()):
                storage.write_bytes(path, file.getvalue())
        except (OSError, UnusableError) as error:
            self._say(f"{error}: what is not in it is decoded whenever it is drawn")

    def _has_room(self, size: int) -> bool:
        """Whether `size` bytes more fit; then they are counted."""
        if not self.budget:
            return self.budget is None
        os.makedirs(self._root, exist_ok=True)
        if shutil.disk_usage(self._root).free - size < LEFT_FREE:
            self._say(f"its disk has {LEFT_FREE >> 30} GiB left, which it leaves to others")
            return False
        with self._ledger() as ledger:
            used = ledger()
            if used + size > self.budget:
                self._say(f"it holds its {self.budget / 2**30:.3g} GiB; the rest is decoded anew")
                return False
            ledger(used + size)
        return True

    @contextmanager
    def _ledger(self) -> Iterator[Callable[..., int]]:
        """The count of bytes, locked: call it to read, or with a number to write."""
        with open(os.path.join(self._root, LEDGER), "a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # freed by the kernel, were this process killed

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
        """When written, bytes and path of each file, of every decoding."""
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
    """The quoted key in a file's path; of a half-written one that of nobody."""
    return os.path.basename(path).removesuffix(".npy").partition("@")[0]
