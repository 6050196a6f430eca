"""The work of an `embed` that is killed half-way and repeated, against an uninterrupted one.

    python benchmarks/embed_killed.py [--clips 3000] [--music FOLDER]

Target: at most 1.10 times the work, without start-up. The job and all of its processes, including
Ray's, get SIGKILL at once, as in the loss of a node, as soon as half of the tracks are in shards.
Then the same command runs again. Work is the CPU time of the process tree. Start-up is that of a
job over four tracks. Clips, towers and the CPU measurement are those of embed_job.py.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from embed_job import JOB, SAVE_MODEL, SHARED_MUSIC, find_clips, make_workspace, run_python

from raymtr.embeddings.store import find_embeddings, matrix_of
from raymtr.workspace import Workspace

TARGET = 1.10
FEW = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=3_000)
    parser.add_argument("--music", type=Path, default=SHARED_MUSIC, help="a folder of .ogg clips")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measure(Path(scratch), arguments.clips, arguments.music)


def measure(folder: Path, count: int, music: Path) -> None:
    clips, model = find_clips(folder, music), str(folder / "model")
    run_python(SAVE_MODEL, model)
    few, whole, half = (
        make_workspace(folder / name, clips, n)
        for name, n in (("few", FEW), ("whole", count), ("half", count))
    )

    def run(name: str, workspace: Workspace, until: float = float("inf")) -> float:
        def enough() -> bool:
            return embedded(workspace) >= until

        cpu, wall = run_python(JOB, workspace.root, model, kill_when=enough)
        done = embedded(workspace)
        print(f"{name}: {cpu:.1f} CPU s, {wall:.1f} s, {done} of {count} in shards", flush=True)
        return cpu

    start = run("four tracks", few)
    never = run("never killed", whole)
    first = run("killed", half, until=count / 2)
    assert embedded(half) < count, "it was killed too late"
    second = run("and run again", half)
    assert embedded(half) == embedded(whole) == count
    assert np.array_equal(*map(vectors_of, (half, whole))), "the vectors differ"
    work = (first + second - 2 * start) / (never - start)
    verdict = "met" if work <= TARGET else "MISS"
    print(f"{verdict} {work:.3f} of the work of an uninterrupted run, target {TARGET}")


def embedded(workspace: Workspace) -> int:
    """Number of tracks in shards, for a running or an ended job."""
    shards = Path(workspace.root).glob("embeddings/*/tracks/*.parquet")
    return sum(pq.read_metadata(shard).num_rows for shard in shards)


def vectors_of(workspace: Workspace) -> np.ndarray:
    return matrix_of(find_embeddings(workspace).read_tracks().sort_by("track_id")["vector"])


if __name__ == "__main__":
    main()
