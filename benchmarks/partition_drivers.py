"""What a driver of `embed` costs, apart from audio and model, and its memory.

    python benchmarks/partition_drivers.py [--tracks 4000] [--before TREE] [--ids 100000 1000000]

The pipeline has the job's two stages, with ready windows in place of decoding and a model that does
nothing. `--before` is another checkout to compare with, such as one before partitions. Targets: a
fifth of its CPU a track; 1.8 times the tracks/s with two drivers on two cores; memory of each
process within 20 % from the smaller to the larger number of `--ids`.

A driver's CPU is that of its process alone. It is the slope between a quarter of the tracks and
all, so the start of Ray is not in it. For memory, the catalog is split and the first partition is
opened, each in a separate process, by the functions that coordinator and driver call.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from raymtr import storage
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

TARGET_CPU, TARGET_SPEED, TARGET_MEMORY = 5.0, 1.8, 1.2
REPOSITORY = Path(__file__).resolve().parents[1]
TRACK_S, DIM = 30.0, 128

DRIVER = """
import json, sys, time
from dataclasses import replace
import numpy as np
import pyarrow as pa
import ray
from raymtr import storage
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.settings import load_settings
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace
from jobs.cluster import start_local
from jobs.shard_rows import actor_cores, commit_results, fewest_actors, read_catalog

DIM, WINDOWS = 128, 3
root, drivers = sys.argv[1], int(sys.argv[2])
start_local(num_cpus=2, object_store_memory=300 << 20, log_to_driver=False)

def ready(batch):
    samples = pa.array([bytes(WINDOWS * 2000)] * len(batch), pa.large_binary())
    return batch.append_column("samples", samples)

class Nothing:
    def __call__(self, batch):
        count, dim = len(batch), DIM
        vectors = np.zeros((count, WINDOWS, dim), np.float32)
        vectors[..., 0] = 1
        def lists(values, width):
            offsets = np.arange(count + 1, dtype=np.int32) * width
            return pa.ListArray.from_arrays(offsets, pa.array(values.reshape(-1)))
        starts = np.tile(np.arange(WINDOWS) * 10.0, count)
        columns = {name: batch[name] for name in ("track_id", "uri", "file_version")}
        columns |= {
            "audio_digest": pa.nulls(count, pa.string()),
            "seconds": np.full(count, 30.0),
            "starts_s": lists(starts, WINDOWS), "ends_s": lists(starts + 10, WINDOWS),
            "vector": lists(vectors[:, 0], dim), "windows": lists(vectors, WINDOWS * dim),
            "code": pa.nulls(count, pa.string()), "reason": pa.nulls(count, pa.string()),
        }
        table = pa.table(columns, schema=EMBEDDED_SCHEMA)
        return table.append_column("replica", pa.array(["one"] * count))

def pipeline(tracks, shards, embed):
    try:
        from jobs.shard_rows import tracks_per_block
        size = tracks_per_block(tracks, 10.0, embed)
    except ImportError:
        size = embed.tracks_per_block
    columns = tracks.select(["track_id", "uri", "file_version"])
    return (
        ray.data.from_arrow(columns)
        .repartition(target_num_rows_per_block=size)
        .map_batches(ready, batch_size=None, batch_format="pyarrow", num_cpus=0.2)
        .map_batches(
            Nothing, batch_size=None, batch_format="pyarrow", num_cpus=0.3,
            compute=ray.data.ActorPoolStrategy(size=1),
        )
    )

workspace = Workspace.open(root)
made_by = ModelRef(fingerprint="nothing", precision="fp32", dim=DIM)
shards = EmbeddingStore(workspace.embeddings("nothing"), made_by)
embed = replace(load_settings("ttmrpp").embed, use_gpu=False, actors=max(1, drivers))
began, busy = time.monotonic(), time.process_time()
if drivers:
    from jobs.partitions import Work, work_through_catalog
    embed = replace(embed, drivers=drivers, partitions=0 if drivers == 1 else drivers)
    def run(left, shards, embed):
        return commit_results(pipeline(left, shards, embed), shards, total=len(left), actors=1)

    work = Work(what="embed", shards=shards, run=run, embed=embed)
    work_through_catalog(workspace, work)
else:
    shards.take()
    left = shards.remaining(read_catalog(workspace))
    commit_results(pipeline(left, shards, embed), shards, total=len(left), actors=1)
    shards.release()
print(json.dumps([time.process_time() - busy, time.monotonic() - began]))
"""
COORDINATOR_MEMORY = """
import resource, sys
from jobs.shard_rows import COLUMNS
from raymtr.partitions import partition_count, count_rows, split_table
from raymtr.workspace import Workspace
workspace = Workspace.open(sys.argv[1])
count = max(2, partition_count(count_rows(workspace.tracks)))
split_table(workspace.tracks, workspace.catalog_parts, COLUMNS, count)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""
DRIVER_MEMORY = """
import resource, sys
from jobs.shard_rows import COLUMNS
from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.partitions import partition_count, count_rows, split_table
from raymtr.workspace import Workspace
workspace = Workspace.open(sys.argv[1])
count = max(2, partition_count(count_rows(workspace.tracks)))
part = split_table(workspace.tracks, workspace.catalog_parts, COLUMNS, count)[0]
made_by = ModelRef(fingerprint="nothing", precision="fp32", dim=128)
mine = EmbeddingStore(workspace.embeddings("nothing"), made_by).part(part.name)
mine.take()
catalog = storage.read_table(part.file)
mine.adopt_digests(catalog)
mine.forget(mine.changed(catalog))
assert len(mine.remaining(catalog)) == part.rows
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--tracks", type=int, default=4_000)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--ids", type=int, nargs=2, default=[100_000, 1_000_000])
    parser.add_argument("--no-speed", action="store_true", help="memory alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not arguments.no_speed:
            measure_speed(Path(folder), arguments.tracks, arguments.before)
        measure_memory(Path(folder), arguments.ids)
    return 0


def measure_speed(folder: Path, tracks: int, before: Path | None) -> None:
    """CPU of the driver with one, and tracks/s with one and two."""
    trees = {"now": (REPOSITORY, 1)} | ({"before": (before, 0)} if before else {})
    cpu_ms = {}
    for name, (tree, drivers) in trees.items():
        few, many = (run(tree, folder, count, drivers) for count in (tracks // 4, tracks))
        cpu_ms[name] = 1e3 * (many[0] - few[0]) / (tracks - tracks // 4)
        print(f"{name}: {cpu_ms[name]:.3f} ms of the driver's CPU a track of {TRACK_S:.0f} s")
    if before:
        judge("CPU a track, before / now", cpu_ms["before"] / cpu_ms["now"], TARGET_CPU)
    rates = {}
    for drivers in (1, 2):
        few, many = (run(REPOSITORY, folder, count, drivers) for count in (tracks // 4, tracks))
        rates[drivers] = (tracks - tracks // 4) / (many[1] - few[1])
        print(f"{drivers} drivers: {rates[drivers]:.0f} tracks/s")
    judge("tracks/s, two drivers / one", rates[2] / rates[1], TARGET_SPEED)


def measure_memory(folder: Path, ids: list[int]) -> None:
    """Peak memory of coordinator and driver at two sizes of the catalog."""
    for name, code in (("coordinator", COORDINATOR_MEMORY), ("driver", DRIVER_MEMORY)):
        peaks = []
        for count in ids:
            workspace = make_catalog(folder / f"ids-{count}", count)
            peaks.append(float(run_python(REPOSITORY, code, workspace.root)))
            print(f"{name} at {count:,} ids: {peaks[-1]:.2f} GiB")
        judge(
            f"memory of the {name}, larger / smaller", peaks[1] / peaks[0], TARGET_MEMORY, most=True
        )


def judge(what: str, value: float, target: float, *, most: bool = False) -> None:
    """One line: a ratio, and whether it meets the target."""
    met = value <= target if most else value >= target
    bound = "at most" if most else "at least"
    print(f"{what}: {value:.2f}, target {bound} {target}: {'met' if met else 'MISS'}")


def run(tree: Path, folder: Path, tracks: int, drivers: int) -> list[float]:
    """CPU seconds of the driver and seconds of one run; a new workspace each time."""
    workspace = make_catalog(folder / f"{time.monotonic_ns()}", tracks)
    said: list[float] = json.loads(run_python(tree, DRIVER, workspace.root, str(drivers)))
    return said


def make_catalog(folder: Path, tracks: int) -> Workspace:
    """A catalog of tracks of TRACK_S, with UUIDs."""
    workspace = Workspace.open(str(folder), create=True)
    if storage.list_files(workspace.tracks):
        return workspace
    rng = np.random.default_rng(0)
    for part, start in enumerate(range(0, tracks, storage.PART_ROWS)):
        count = min(storage.PART_ROWS, tracks - start)
        ids = [f"{a:016x}{b:016x}" for a, b in rng.integers(0, 2**63, (count, 2)).tolist()]
        rows = pa.table(
            {
                "track_id": ids,
                "uri": [f"s3://music/{track_id[:3]}/{track_id}.mp3" for track_id in ids],
                "duration": np.full(count, TRACK_S),
            }
        )
        storage.write_table(f"{workspace.tracks}/part-{part:05}.parquet", check_tracks(rows))
    return workspace


def run_python(tree: Path, code: str, *arguments: str) -> str:
    """The last line that a program prints, run with the code of a checkout."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=tree,
    )
    return done.stdout.strip().splitlines()[-1]


if __name__ == "__main__":
    raise SystemExit(main())
