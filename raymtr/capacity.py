"""Estimates what a catalog of a given size needs: machines, memory, disk, time, search quality.

Plain arithmetic on measured constants, each with its source; MEASURED is their only place. The
machine this runs on is not examined, because a plan is for other machines.

Measurements of time end at 3 x 10^6 tracks, those of CPU, memory and disk at 10^7. Beyond that, the
same growth is assumed: bytes grow linearly, and building has a quadratic part, because every vector
is compared with every centroid and the number of centroids grows with the table. The memory of a
build does not grow beyond 10^6 tracks, because partitions are loaded one by one. Latency is
overestimated if a larger table needs a smaller share of its partitions. A plan states this beside
its figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypedDict

from raymtr.errors import InputError
from raymtr.partitions import partition_count

MOST_TRACKS = 10**12
MOST_DIM = 100_000
MOST_HOURS = 10**6  # 114 years
MOST_MINUTES = 10**5  # per track
SLOW_MS = 200.0  # query latency at the 95th percentile that people notice
SIZES = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([kmb]?)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Measured constants, and the source of each."""

    date: str = "2026-11-22"
    machine: str = (
        "2 quiet cores of an AMD EPYC, family 26 (2 cores of an Intel Xeon at 2.5 GHz, shared with "
        "others, took up to 3.5 times as long)"
    )

    # benchmarks/decoding.py: 24 core-ms for a 30 s stereo MP3 at 128 kb/s, mixed and resampled.
    decode_core_s_per_audio_s: float = 0.024 / 30.0
    # The same: one 20 s block of a four-minute MP3 by seek, as training decodes on a miss of its
    # cache (raymtr.audio_cache), took 0.92 to 1.06 times as long as that file.
    block_s: float = 20.0
    block_core_s: float = 0.024
    whole_s: float = 60.0  # a track up to this length is decoded whole
    decoded_bytes_per_s: float = 2 * 22_050.0  # int16
    # Arithmetic, not a measurement: 29.4 GFLOP per window of 10 s (ModifiedResNet-50 of width 64)
    # on an H200; memory traffic is expected to limit it to 4,000 to 7,000 windows per second.
    window_s: float = 10.0
    windows_per_gpu_s: float = 4_000.0
    # benchmarks/audio_tower.py on a busy EPYC of family 25: core-seconds of such a window in
    # float32; 0.153 with bfloat16 instructions.
    encode_core_s: float = 0.276

    # One network of musicnn on a window of 3 s, on a busy EPYC of family 25: 48 to 53 core-ms. Of a
    # GPU nothing is known; its 2.9 GFLOP take at most as long as a ResNet's window.
    musicnn_window_s: float = 3.0
    musicnn_core_s: float = 0.05

    # benchmarks/index_scale.py --tracks 1000000, 128 dimensions, one window per track, mean of two
    # runs; the quadratic and constant parts also from runs of 3,000,000 and 250,000.
    tracks: int = 1_000_000
    most_tracks: int = 3_000_000
    dim: int = 128
    build_s: float = 55.5  # the linear part
    build_core_s: float = 69.0
    centroids_s: float = 9.2  # the quadratic part
    centroids_core_s: float = 17.0
    build_peak_gb: float = 3.13
    recall: Mapping[str, float] = field(default_factory=lambda: {"audio": 0.9977, "text": 0.9969})
    p95_ms: Mapping[str, float] = field(default_factory=lambda: {"audio": 6.5, "text": 6.1})
    fixed_p95_ms: float = 4.2  # the constant part
    query_core_ms: Mapping[str, float] = field(default_factory=lambda: {"audio": 4.5, "text": 4.1})
    fixed_core_ms: float = 2.5
    exact_core_ms: float = 28.4  # numpy over float32 in memory

    # The same benchmark at 50,000 tracks (exact), with 1 and with 6 windows per track.
    exact_build_s_per_track: float = 1.35 / 50_000
    exact_build_core_s_per_track: float = 1.35 / 50_000
    # Peak memory of a build: the constant part, with an index and without; bytes per track; and
    # without an index, bytes per number of a vector (60,000 tracks of 128 dimensions took 0.61 GB,
    # of 1,024 1.87). With an index, the rest of the peak at 10^6 tracks is divided by its numbers:
    # 250,000 tracks of 512 dimensions took 2.97, planned 2.97. Larger catalogs are loaded in
    # partitions: 10^6 tracks took 2.9, 10^7 took 2.97.
    build_base_gb: float = 1.09
    exact_build_base_gb: float = 0.45
    build_track_bytes: float = 213.0
    exact_build_number_bytes: float = 23.4
    window_core_s: float = 6.4e-6  # to load and check a window; on the Xeon
    base_gb: float = 0.24  # a Python process with LanceDB that has opened the tables
    words_bytes: float = 160.0  # per track in `tracks`, indices included
    row_bytes: float = 64.0  # per track in `vectors`, besides its vector
    window_row_bytes: float = 6.0  # per window in `windows`, besides its vector
    shard_track_bytes: float = 128.0  # per track in embeddings/, besides its vectors
    shard_number_bytes: float = 3.72  # a float32 in compressed Parquet
    # LanceDB, IvfRq of 5 bits at 10^6 x 128: 103 MB.
    index_bytes_per_number: float = 103.0 / 128
    # A replica that serves 50,000 and 150,000 tracks by exact search, besides its matrix.
    held_bytes: float = 1_680.0  # per track: words, names and ids in Python and Arrow


MEASURED = Measured()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """The size of a catalog, and the time available to embed and index it."""

    tracks: int
    hours: float
    minutes_per_track: float = 4.0
    dim: int = 128
    clips: int = 0  # clips that a training run draws
    cache_gib: float = 50.0  # decoded audio that a machine may store
    taggers: int = 0  # networks of musicnn that the audio tower has; 0: it is a ResNet


class TrainingPlan(TypedDict):
    """What training stores and decodes."""

    train_audio_gb: float  # of the whole catalog, decoded
    train_cache_gb: float  # of it, cached on each training machine
    train_decode_core_hours: float  # to check the catalog once, and for cache misses


class CapacityPlan(TrainingPlan):
    """What a catalog needs. Decimal gigabytes; hours are wall time."""

    windows: int
    audio_hours: float
    embed_hours: float  # the hours left for embedding after indexing
    gpus: int
    decode_cores: int  # in total, busy for all of `embed_hours`
    decode_gbit_s: float  # 16-bit samples from the decoders to the GPUs, all together
    partitions: int  # of the catalog; each has a driver
    encode_cores: int  # instead of the GPUs, in addition to `decode_cores`
    disk_gb: dict[str, float]  # embeddings, tracks, vectors, windows, index; all
    build_hours: float  # `raymtr index` on the measured machine
    build_core_hours: float
    build_memory_gb: float
    serving_memory_gb: float  # of one replica that serves all tables, without its model
    table_shards: int  # the fewest (search.shards) whose look-ups stay within SLOW_MS
    shard_memory_gb: float  # of one replica of such a shard
    recall_at_10: dict[str, float]  # by kind of query
    p95_ms: dict[str, float]  # of the vector search only, one query at a time
    query_core_ms: dict[str, float]
    notes: list[str]


def parse_size(text: str, name: str, *, most: int = MOST_TRACKS) -> int:
    """`100M` -> 100,000,000. Raises InputError unless it is a whole number from 1 to `most`."""
    match = _SIZE.fullmatch(text.strip().replace(",", "").replace("_", ""))
    size = float(match[1]) * SIZES[match[2].lower()] if match and len(text) < 40 else 0.0
    if not 1 <= size <= most or size != int(size):
        example = "250000, 250k, 100M or 1.5B" if most == MOST_TRACKS else "128 or 1k"
        raise InputError(
            f"{name} is a whole number from 1 to {_short(most)}, such as {example}; got {text!r}"
        )
    return int(size)


def _short(size: int) -> str:
    """A size in short form: 1000B for 10^12."""
    for letter in "bmk":
        if size % SIZES[letter] == 0:
            return f"{size // SIZES[letter]}{letter.upper()}"
    return str(size)


def parse_positive(text: str, name: str, *, most: float) -> float:
    """`7.5` -> 7.5. Raises InputError unless it is a number above 0, up to `most`."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= most:
        raise InputError(
            f"{name} is a number above 0 and at most {most:,}, such as 4 or 7.5; got {text!r}"
        )
    return value


def plan_capacity(wanted: Wanted, *, exact: bool, measured: Measured = MEASURED) -> CapacityPlan:
    """What `wanted` needs, with exact search or an index (index.build_tables.choose_index).

    Raises InputError if the hours are not even enough to build the index.
    """
    m, tracks, dim = measured, wanted.tracks, wanted.dim
    audio_s = tracks * wanted.minutes_per_track * 60.0
    window_s = m.musicnn_window_s if wanted.taggers else m.window_s
    encode_core_s = wanted.taggers * m.musicnn_core_s or m.encode_core_s
    windows = tracks * max(1, math.ceil(wanted.minutes_per_track * 60.0 / window_s - 1e-9))
    build_s, build_core_s = _build(tracks, windows, dim, exact, m)
    embed_s = wanted.hours * 3600.0 - build_s
    if embed_s <= 0:
        raise InputError(
            f"--hours {wanted.hours:g} is too short: indexing {tracks:,} tracks alone takes "
            f"{build_s / 3600:.3g} hours"
        )
    grown = tracks * dim / (m.tracks * m.dim)
    if exact:
        query_core_ms = dict.fromkeys(m.recall, m.exact_core_ms * grown)
        p95_ms, recall = dict(query_core_ms), dict.fromkeys(m.recall, 1.0)
    else:
        query_core_ms = _grow(m.query_core_ms, grown, m.fixed_core_ms)
        p95_ms, recall = _grow(m.p95_ms, grown, m.fixed_p95_ms), dict(m.recall)
    fixed_ms = 0.0 if exact else m.fixed_p95_ms
    shards = max(1, math.ceil((max(p95_ms.values()) - fixed_ms) / (SLOW_MS - fixed_ms)))
    return {
        "windows": windows,
        "audio_hours": audio_s / 3600.0,
        "embed_hours": embed_s / 3600.0,
        "gpus": math.ceil(windows / m.windows_per_gpu_s / embed_s),
        "decode_cores": math.ceil(audio_s * m.decode_core_s_per_audio_s / embed_s),
        "decode_gbit_s": audio_s * m.decoded_bytes_per_s * 8 / 1e9 / embed_s,
        "partitions": partition_count(tracks),
        "encode_cores": math.ceil(windows * encode_core_s / embed_s),
        "disk_gb": _disk_gb(tracks, windows, dim, exact, m),
        **_training(wanted, m),
        "build_hours": build_s / 3600.0,
        "build_core_hours": build_core_s / 3600.0,
        "build_memory_gb": _build_gb(tracks if exact else min(tracks, m.tracks), dim, exact, m),
        "serving_memory_gb": _serving_gb(tracks, dim, exact, m),
        "table_shards": shards,
        "shard_memory_gb": _serving_gb(math.ceil(tracks / shards), dim, exact, m),
        "recall_at_10": recall,
        "p95_ms": p95_ms,
        "query_core_ms": query_core_ms,
        "notes": _notes(wanted, exact, shards, m),
    }


def _build(tracks: int, windows: int, dim: int, exact: bool, m: Measured) -> tuple[float, float]:
    """Wall and core seconds of `raymtr index`; windows beyond one per track are added."""
    more_s = (windows - tracks) * m.window_core_s
    if exact:
        wall_s, core_s = m.exact_build_s_per_track, m.exact_build_core_s_per_track
        return tracks * wall_s + more_s, tracks * core_s + more_s
    grown = tracks / m.tracks
    products = grown**2 * dim / m.dim  # vectors times centroids
    return (
        grown * m.build_s + products * m.centroids_s + more_s,
        grown * m.build_core_s + products * m.centroids_core_s + more_s,
    )


def _build_gb(tracks: int, dim: int, exact: bool, m: Measured) -> float:
    """Peak memory of `raymtr index` with all rows in memory; vectors are most of it."""
    words_gb = tracks * m.build_track_bytes / 1e9
    if exact:
        return m.exact_build_base_gb + words_gb + tracks * dim * m.exact_build_number_bytes / 1e9
    of_a_million = m.build_peak_gb - m.build_base_gb - m.tracks * m.build_track_bytes / 1e9
    return m.build_base_gb + words_gb + of_a_million * tracks * dim / (m.tracks * m.dim)


def tracks_within(memory_gb: float, dim: int, *, measured: Measured = MEASURED) -> int:
    """How many tracks one process indexes in this memory, with a vector index."""
    base_gb = measured.build_base_gb
    per_track_gb = (_build_gb(measured.tracks, dim, False, measured) - base_gb) / measured.tracks
    return max(1, int((memory_gb - base_gb) / per_track_gb))


def _grow(measured_ms: Mapping[str, float], grown: float, fixed_ms: float) -> dict[str, float]:
    """Milliseconds of a query on a table that is `grown` times as large; `fixed_ms` is constant."""
    return {kind: fixed_ms + (ms - fixed_ms) * grown for kind, ms in measured_ms.items()}


def _disk_gb(tracks: int, windows: int, dim: int, exact: bool, m: Measured) -> dict[str, float]:
    """Disk by part, for one build of the tables; `search.keep_versions` builds are kept."""
    shard_bytes = tracks * m.shard_track_bytes + (tracks + windows) * dim * m.shard_number_bytes
    parts = {
        "embeddings": shard_bytes,
        "tracks": tracks * m.words_bytes,
        "vectors": tracks * (m.row_bytes + 2 * dim),  # float16
        "windows": windows * (m.window_row_bytes + 2 * dim),
        "index": 0.0 if exact else tracks * dim * m.index_bytes_per_number,
    }
    return {name: size / 1e9 for name, size in (parts | {"all": sum(parts.values())}).items()}


def _training(wanted: Wanted, m: Measured) -> TrainingPlan:
    """What a training run stores on a machine's disk and decodes; one machine draws all clips."""
    track_s = wanted.minutes_per_track * 60.0
    audio_bytes = wanted.tracks * track_s * m.decoded_bytes_per_s
    kept_bytes = min(wanted.cache_gib * 2**30, audio_bytes)
    clip_core_s = track_s * m.decode_core_s_per_audio_s
    if track_s > m.whole_s:
        clip_core_s = (1 + m.window_s / m.block_s) * m.block_core_s  # blocks that a clip overlaps
    once_s = wanted.tracks * track_s * m.decode_core_s_per_audio_s
    again_s = wanted.clips * (1 - kept_bytes / audio_bytes) * clip_core_s
    return {
        "train_audio_gb": audio_bytes / 1e9,
        "train_cache_gb": kept_bytes / 1e9,
        "train_decode_core_hours": (once_s + again_s) / 3600.0,
    }


def _serving_gb(tracks: int, dim: int, exact: bool, m: Measured) -> float:
    """Memory of a replica: with exact search its matrix (float32) and words, else its index."""
    per_track = 4 * dim + m.held_bytes if exact else dim * m.index_bytes_per_number
    return m.base_gb + tracks * per_track / 1e9


def _notes(wanted: Wanted, exact: bool, shards: int, m: Measured) -> list[str]:
    resnet = f"windows of {m.window_s:g} s, a ResNet-50 of 29.4 GFLOP per window"
    musicnn = f"windows of {m.musicnn_window_s:g} s, {wanted.taggers} of musicnn's networks"
    notes = [
        f"measured on {m.date} on {m.machine}; GPU figures are arithmetic, not measured",
        f"audio assumed to be stereo MP3 of {wanted.minutes_per_track:g} minutes, "
        + (musicnn if wanted.taggers else resnet),
    ]
    if not exact and wanted.tracks > m.most_tracks:
        notes.append(
            f"beyond {m.most_tracks:,} tracks time is assumed to grow as it does up to there, and "
            "recall to stay, because the index is tuned to it: neither is measured"
        )
    if shards > 1:
        notes.append(
            f"one table of this size answers slowly: `raymtr index --set search.shards={shards}` "
            f"divides it, and an endpoint with shards={shards} serves each part by machines of "
            "its own"
        )
    return notes
