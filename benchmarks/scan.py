"""The cost of a scan against peers, and of a rescan after retagging or moving files.

    python benchmarks/scan.py [--files 10000] [--rounds 3]

The folder is generated: ten formats, two seconds each, every file with its own title and its own
audio. Contestants take turns within each round. Figures are the CPU and wall time of this process.
The peers are the minimum that a scan could do (walk, open, read 64 KiB) and tinytag, if installed
by `pip install tinytag`, with as many threads. tinytag computes no digest of the audio. Then 1,000
files get another title and 1,000 others another folder. The next scan must keep every id and every
digest, and its cost is given as a ratio to a first scan of the same files.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
from alternate import alternate, least_and_median

from jobs.scan_catalog import scan_catalog
from raymtr import storage
from raymtr.catalog.file_tags import READERS
from raymtr.recipes import laptop
from raymtr.workspace import Workspace

SECONDS, RATE = 2.0, 48_000
TITLE = "The title of piece 000000"
# suffix -> container, codec
FORMATS = {
    ".mp3": ("mp3", "libmp3lame"),
    ".flac": ("flac", "flac"),
    ".ogg": ("ogg", "vorbis"),
    ".opus": ("ogg", "libopus"),
    ".m4a": ("ipod", "aac"),
    ".wav": ("wav", "pcm_s16le"),
    ".aiff": ("aiff", "pcm_s16be"),
    ".wma": ("asf", "wmav2"),
    ".mka": ("matroska", "libopus"),
    ".aac": ("adts", "aac"),
}
SHARES = {".mp3": 10, ".flac": 5, ".m4a": 3, ".ogg": 2, ".opus": 2}  # one of each of the others
CHANGED = 1_000


def one_of(suffix: str, rng: np.random.Generator) -> bytes:
    """A tagged clip of noise."""
    container, codec = FORMATS[suffix]
    file = io.BytesIO()
    options = {"write_id3v2": "1"} if container == "aiff" else {}
    with av.open(file, "w", format=container, options=options) as output:
        tags = {"title": TITLE, "artist": "An artist", "album": "An album", "genre": "Rock"}
        output.metadata.update(tags | {"date": "1999"})
        experimental = {"strict": "experimental"} if codec == "vorbis" else None
        stream = output.add_stream(codec, rate=RATE, layout="stereo", options=experimental)
        stream.bit_rate = 128_000
        noise = rng.integers(-9_000, 9_000, (1, int(2 * SECONDS * RATE)), dtype=np.int16)
        frame = av.AudioFrame.from_ndarray(noise, "s16", "stereo")
        frame.sample_rate, frame.pts = RATE, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def with_own(made: bytes, suffix: str, number: int) -> bytes:
    """The clip with its own title and audio: some bytes of each are changed."""
    data = bytearray(made.replace(TITLE.encode(), f"{TITLE[:-6]}{number:06}".encode()))
    at = len(data) - 300  # in the last frame or page of audio
    if suffix == ".flac":
        at = 26  # the MD5 of its samples
    elif suffix == ".m4a":
        at = data.find(b"mdat") + 64
    elif suffix == ".mka":  # after the first cluster's header
        at = data.find(b"\x1fC\xb6u") + 64
    data[at : at + 8] = number.to_bytes(8, "big")
    return bytes(data)


def make_folder(root: Path, count: int) -> None:
    """`count` files in albums of twelve."""
    rng = np.random.default_rng(5)
    samples = {suffix: one_of(suffix, rng) for suffix in FORMATS}
    row = [suffix for suffix in FORMATS for _ in range(SHARES.get(suffix, 1))]
    for number in range(count):
        suffix = row[number % len(row)]
        path = root / f"album {number // 12:05}" / f"{number % 12 + 1:02} piece {number}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(with_own(samples[suffix], suffix, number))


def scan(root: Path, workspace: Path) -> dict[str, int]:
    """A scan by raymtr; its counts of files."""
    opened = Workspace.open(str(workspace), create=True)
    counts: dict[str, int] = scan_catalog(opened, laptop(), str(root))["files"]
    return counts


def first_scan(root: Path) -> None:
    """A scan into a new workspace."""
    with tempfile.TemporaryDirectory() as folder:
        scan(root, Path(folder) / "workspace")


def walk_and_read(root: Path) -> None:
    """The minimum that a reader of files does."""

    def read(path: str) -> int:
        with open(path, "rb", buffering=0) as file:
            return len(file.read(64 << 10))

    paths = [os.path.join(top, name) for top, _, names in os.walk(root) for name in names]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, paths))


def by_tinytag(root: Path) -> None:
    """Tags and length of each file by the library."""
    from tinytag import TinyTag, TinyTagException

    def read(path: str) -> str | None:
        try:
            return TinyTag.get(path).title
        except TinyTagException:
            return None

    paths = [os.path.join(top, name) for top, _, names in os.walk(root) for name in names]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, paths))


def cpu_s() -> float:
    """CPU seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def sounds(workspace: Path) -> pa.Table:
    """What must not change: the ids, each with the digest of its audio."""
    tracks = storage.read_tables(
        Workspace.open(str(workspace)).tracks, ("track_id", "audio_digest")
    )
    return tracks.sort_by("track_id")


def retag(root: Path, count: int) -> None:
    """Gives the first `count` files other titles, as a tagger does: by rewriting the file."""
    for path in sorted(path for path in root.rglob("*") if path.is_file())[:count]:
        old = TITLE[:-6].encode()
        path.write_bytes(path.read_bytes().replace(old, old.upper()))


def move(root: Path, count: int) -> None:
    """Moves the last `count` files to another folder."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())[-count:]
    (root / "moved").mkdir()
    for path in paths:
        path.rename(root / "moved" / path.name)


def peers(root: Path) -> dict[str, Callable[[], object]]:
    """The contestants by name."""
    sides: dict[str, Callable[[], object]] = {
        "raymtr scan": lambda: first_scan(root),
        "walk and read 64 KiB": lambda: walk_and_read(root),
    }
    if importlib.util.find_spec("tinytag"):
        sides["walk and tinytag"] = lambda: by_tinytag(root)
    return sides


def compare(folder: Path, files: int, rounds: int) -> None:
    """Prints a first scan against the peers, then later scans against a first one."""
    root, workspace = folder / "music", folder / "workspace"
    make_folder(root, files)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    print(f"{files:,} files, {size / 1e9:.2f} GB; seconds: least and median")
    for what, clock in (("CPU", cpu_s), ("wall", time.perf_counter)):
        spent = alternate(peers(root), rounds=rounds, clock=clock)
        for name, seconds in spent.items():
            least, median = least_and_median(seconds)
            ratio = least / least_and_median(spent["raymtr scan"])[0]
            print(f"{what:5} {name:24} {least:8.2f} {median:8.2f}  {ratio:.2f}x of a scan")
    scan(root, workspace)
    before = sounds(workspace)
    changes: dict[str, Callable[[Path, int], None] | None]
    changes = {"as it was": None, "retagged": retag, "moved": move}
    print(f"\na scan after a change of {min(CHANGED, files // 3):,} files, against a first scan")
    for name, change in changes.items():
        if change:
            change(root, min(CHANGED, files // 3))
        first, second = [], []
        for _ in range(rounds + 1):
            first.append(cpu_of(lambda: first_scan(root)))
            shutil.copytree(workspace, folder / "again", dirs_exist_ok=True)
            second.append(cpu_of(lambda: scan(root, folder / "again")))
        ratio = min(second) / min(first)
        counts = scan(root, workspace)
        kept = sounds(workspace).equals(before)
        said = ", ".join(f"{key} {count:,}" for key, count in counts.items() if count)
        print(f"{name:12} {ratio:.2f}x CPU; {said or 'no change'}; every id and sound kept: {kept}")


def cpu_of(work: Callable[[], object]) -> float:
    """CPU seconds."""
    began = cpu_s()
    work()
    return cpu_s() - began


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), arguments.files, arguments.rounds)


if __name__ == "__main__":
    main()
