"""The cost of `embed` over a catalog whose every track is embedded already.

    python benchmarks/resume.py [--tracks 1000000] [--shard-tracks 2048] [--keep FOLDER]

Target at 10^6 tracks: under 60 s and 4 GiB. The shards are written as the job writes them, with
vectors from a generator instead of audio; one in a hundred tracks failed. Then the real command
runs in a separate process. Seconds are from its start to its end, including the imports of Python
and torch and the model. Memory is the peak PSS of its process tree. The cost of the tracks alone is
the slope to a tenth of the size, in the same run.
"""

from __future__ import annotations

import argparse
import tempfile
import time

import numpy as np
import pyarrow as pa
from watched import run_watched

from jobs.shard_rows import SHARD_TRACKS
from raymtr import storage
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.embeddings.tables import SOURCES
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import build_towers
from raymtr.recipes import laptop
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

TARGET_S, TARGET_GIB = 60.0, 4.0
TARGET_OF = 1_000_000  # tracks
FAILED_EVERY = 100  # tracks of a shard


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=TARGET_OF)
    parser.add_argument("--shard-tracks", type=int, default=SHARD_TRACKS)
    parser.add_argument("--keep", help="a folder for workspaces and model; else a temporary one")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or scratch
        save_towers(build_towers(laptop().towers, seed=0), f"{folder}/model")
        return measure(folder, arguments.tracks, arguments.shard_tracks)


def measure(folder: str, most: int, shard_tracks: int) -> int:
    taken = {}
    for count in (most // 10, most):
        workspace = Workspace.open(f"{folder}/{count}", create=True)
        began = time.monotonic()
        store = make_finished(workspace, f"{folder}/model", count, shard_tracks)
        print(f"{count:,} tracks in {store} shards made in {time.monotonic() - began:.0f} s")
        taken[count] = seconds, cpu_s, gib = resume(workspace, f"{folder}/model", count)
        print(
            f"{count:,} tracks: nothing left to do found in {seconds:.1f} s, {cpu_s:.1f} CPU-s, "
            f"peak {gib:.2f} GiB"
        )
    few, many = (np.array(figures) for figures in taken.values())
    _, cpu_s, gib = (many - few) * 1e6 / (most - most // 10)
    print(f"a million tracks alone: {cpu_s:.1f} CPU-s, {gib:.2f} GiB")
    met = many[0] < TARGET_S and many[2] < TARGET_GIB
    if most >= TARGET_OF:
        print(f"{'met ' if met else 'MISS'} target under {TARGET_S:.0f} s and {TARGET_GIB:.0f} GiB")
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
    catalog = made_catalog(count)
    storage.replace_tables(workspace.tracks, check_tracks(catalog))
    model = load_model(folder, audio_only=True)
    made_by = ModelRef(fingerprint=model.fingerprint, precision=model.precision, dim=model.spec.dim)
    shards = EmbeddingStore(workspace.embeddings(model.fingerprint), made_by)
    storage.copy_folder(folder, shards.model_folder, last="config.json")
    shards.take()
    rng = np.random.default_rng(0)
    # Tracks finish in another order than in the catalog.
    sources = catalog.select(SOURCES).take(rng.permutation(count)).combine_chunks()
    for start in range(0, count, shard_tracks):
        shards.commit(embedded(sources.slice(start, shard_tracks), made_by.dim, rng))
    shards.release()
    return -(-count // shard_tracks)


def made_catalog(count: int) -> pa.Table:
    """Ids, paths and file versions of the same length as a scan's."""
    numbers = range(count)
    columns = {
        "track_id": [f"{n * 2_654_435_761 % 2**64:016x}" for n in numbers],
        "uri": [
            f"/music/Artist {n // 97}/Album {n // 11}/{n % 11:02} Song {n}.mp3" for n in numbers
        ],
        "file_version": [f"{5_000_000 + n}-17{n:017}" for n in numbers],
        "title": [f"Song {n}" for n in numbers],
        "artist": [f"Artist {n // 97}" for n in numbers],
    }
    return pa.table(columns)


def embedded(tracks: pa.Table, dim: int, rng: np.random.Generator) -> pa.Table:
    """EMBEDDED rows of `tracks`, one window each; some failed."""
    count = len(tracks)
    vectors = unit(rng.standard_normal((count, dim), dtype=np.float32))
    ones = np.arange(count + 1, dtype=np.int32)
    lists = pa.ListArray.from_arrays(ones * dim, vectors.reshape(-1))
    codes = ["undecodable" if row % FAILED_EVERY == 0 else None for row in range(count)]
    columns = {name: tracks[name].combine_chunks() for name in SOURCES} | {
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
