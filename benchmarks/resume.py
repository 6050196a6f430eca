"""The cost of `embed` over a catalog whose every track is embedded already.

    python benchmarks/resume.py [--tracks 1000000] [--shard-tracks 2048] [--keep FOLDER] [--s3]

Target at 10^7 tracks: under 60 s and 2 GiB; 15 GB of disk are needed. With `--s3` the workspace is
on an S3 server that answers each request 50 ms late, and at most 10 requests a partition are the
target. The server keeps all objects in its memory. Partitions and shards are
written as the job writes them, with vectors from a generator instead of audio; one in a hundred
tracks failed. Then the real command runs in a separate process. Seconds are from its start to its
end, including the imports of Python and torch and the model. Memory is the peak PSS of its process
tree.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from watched import run_watched

from jobs.shard_rows import COLUMNS, SHARD_TRACKS
from raymtr import audio, storage
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.embeddings.tables import SOURCES
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import build_towers
from raymtr.partitions import partition_count, split_table
from raymtr.recipes import laptop
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from delayed_s3 import DelayedS3

TARGET_S, TARGET_GIB = 60.0, 2.0
DELAY_S, MOST_REQUESTS = 0.05, 10  # of a request; requests per partition
FAILED_EVERY = 100  # tracks of a shard


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=1_000_000)
    parser.add_argument("--shard-tracks", type=int, default=SHARD_TRACKS)
    parser.add_argument("--keep", help="a folder for workspaces and model; else a temporary one")
    parser.add_argument("--s3", action="store_true", help="on an S3 server with 50 ms a request")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or scratch
        save_towers(build_towers(laptop().towers, seed=0), f"{folder}/model")
        model, size = f"{folder}/model", (arguments.tracks, arguments.shard_tracks)
        if not arguments.s3:
            return measure(f"{folder}/{arguments.tracks}", model, *size)
        from delayed_s3 import DelayedS3

        with DelayedS3(bucket="raymtr") as server:
            return measure(f"s3://raymtr/{arguments.tracks}", model, *size, server)


def measure(
    place: str, model: str, count: int, shard_tracks: int, server: DelayedS3 | None = None
) -> int:
    workspace = Workspace.open(place, create=True)
    began = time.monotonic()
    shards = make_finished(workspace, model, count, shard_tracks)
    print(f"{count:,} tracks in {shards} shards made in {time.monotonic() - began:.0f} s")
    if server:
        server.delay(DELAY_S)
    seconds, cpu_s, gib = resume(workspace, model, count)
    if server:
        requests, partitions = server.requests(), partition_count(count)
        share = sum(requests.values()) / partitions
        met = "met " if share <= MOST_REQUESTS else "MISS"
        print(
            f"{requests} with {DELAY_S * 1e3:.0f} ms each, {share:.1f} for each of {partitions} "
            f"partitions; {met} target {MOST_REQUESTS}"
        )
    met = "met " if seconds < TARGET_S and gib < TARGET_GIB else "MISS"
    print(
        f"{count:,} tracks: nothing left to do found in {seconds:.1f} s, {cpu_s:.1f} CPU-s, peak "
        f"{gib:.2f} GiB; {met} target under {TARGET_S:.0f} s and {TARGET_GIB:.0f} GiB"
    )
    return 0


def resume(workspace: Workspace, model: str, count: int) -> tuple[float, float, float]:
    """Seconds, CPU seconds, peak GiB of the command; its answer must show that nothing was done."""
    place = ("--workspace", workspace.root, "--model", model, "--max-error-rate", "1")
    said, seconds, cpu_s, peak = run_watched("embed", *place)
    assert said["new"] == 0 and said["failed"] > 0, said
    assert said["embedded"] + said["failed"] == count, said
    return seconds, cpu_s, peak


def make_finished(workspace: Workspace, folder: str, count: int, shard_tracks: int) -> int:
    """Writes a catalog and all its embeddings; returns the number of shards."""
    make_catalog(workspace, count)
    model = load_model(folder, audio_only=True)
    made_by = ModelRef(fingerprint=model.fingerprint, precision=model.precision, dim=model.spec.dim)
    shards = EmbeddingStore(workspace.embeddings(model.fingerprint), made_by)
    storage.copy_folder(folder, shards.model_folder, last="config.json")
    rng = np.random.default_rng(0)
    partitions = partition_count(count)
    shards.claim()
    shards.note(partitions=partitions)
    written = 0
    for part in split_table(workspace.tracks, workspace.catalog_parts, COLUMNS, partitions):
        mine = shards.part(part.name) if partitions > 1 else shards
        mine.take()
        catalog = storage.read_table(part.file)
        # Tracks finish in another order than in the catalog.
        sources = catalog.select(SOURCES).take(rng.permutation(len(catalog))).combine_chunks()
        for start in range(0, len(sources), shard_tracks):
            mine.commit(embedded(sources.slice(start, shard_tracks), made_by.dim, rng))
            written += 1
        worked = {**mine.account(catalog), "new": len(catalog), "replicas": 1}
        mine.release(catalog=part.digest, rules=audio.RULES, account=worked)
    shards.note(running=False)
    return written


def make_catalog(workspace: Workspace, count: int) -> None:
    """Ids, paths and file versions of the same length as a scan's."""
    for part, start in enumerate(range(0, count, storage.PART_ROWS)):
        numbers = range(start, min(start + storage.PART_ROWS, count))
        columns = {
            "track_id": [f"{n * 2_654_435_761 % 2**64:016x}" for n in numbers],
            "uri": [
                f"/music/Artist {n // 97}/Album {n // 11}/{n % 11:02} Song {n}.mp3" for n in numbers
            ],
            "file_version": [f"{5_000_000 + n}-17{n:017}" for n in numbers],
            "title": [f"Song {n}" for n in numbers],
            "artist": [f"Artist {n // 97}" for n in numbers],
        }
        rows = check_tracks(pa.table(columns))
        storage.write_table(f"{workspace.tracks}/part-{part:05}.parquet", rows)


def embedded(tracks: pa.Table, dim: int, rng: np.random.Generator) -> pa.Table:
    """EMBEDDED rows of `tracks`, one window each; some failed."""
    count = len(tracks)
    vectors = unit(rng.standard_normal((count, dim), dtype=np.float32))
    ones = np.arange(count + 1, dtype=np.int32)
    lists = pa.ListArray.from_arrays(ones * dim, vectors.reshape(-1))
    codes = ["undecodable" if row % FAILED_EVERY == 0 else None for row in range(count)]
    columns = {name: tracks[name].combine_chunks() for name in SOURCES} | {
        "audio_digest": pa.nulls(count, pa.string()),
        "seconds": np.full(count, 10.0),
        "starts_s": pa.ListArray.from_arrays(ones, np.zeros(count)),
        "ends_s": pa.ListArray.from_arrays(ones, np.full(count, 10.0)),
        "vector": lists,
        "windows": lists,
        "code": codes,
        "reason": codes,
    }
    return pa.table(columns, schema=EMBEDDED_SCHEMA)


if __name__ == "__main__":
    raise SystemExit(main())
