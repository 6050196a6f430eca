"""Catalog -> captions: sentences about every track that has tags.

One pass of Ray Data over the tracks' ids and tags; the captions come home as one table, because
text is small (a million tracks' captions take less memory than one model) and one file can be
replaced in one step: a re-run that is killed leaves the captions that were there. Templates write
here; what they write depends on the track and the seed alone, so blocks may come in any order.
"""

from __future__ import annotations

import argparse
import functools
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from jobs.cluster import start_ray
from raymtr import storage
from raymtr.captions.templates import SCHEMA, caption_tracks
from raymtr.errors import InputError
from raymtr.specs import Settings
from raymtr.workspace import Workspace

EXAMPLE = "raymtr caption --workspace w --per-track 3"
PART = "part-00000.parquet"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """How many captions, and from which seed."""
    parser.add_argument("--per-track", type=int, default=3, help="captions a track (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other captions")


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The job as the command line asks for it."""
    return write_captions(workspace, settings, per_track=arguments.per_track, seed=arguments.seed)


def write_captions(
    workspace: Workspace, settings: Settings, *, per_track: int = 3, seed: int = 0
) -> dict[str, Any]:
    """Replace the workspace's captions; counts of tracks, captions and tracks without tags.

    Raises InputError where there is no catalog or `per_track` or `seed` is out of range.
    """
    if per_track < 1 or seed < 0:
        raise InputError(
            f"captions want --per-track of 1 or more and --seed of 0 or more; "
            f"got {per_track} and {seed}"
        )
    if not storage.list_files(workspace.tracks, suffix=".parquet"):
        raise InputError(f"no catalog in {workspace.root}; `raymtr scan` makes one")
    started = time.monotonic()
    start_ray()
    tracks = ray.data.read_parquet(workspace.tracks).select_columns(["track_id", "tags"])
    write = functools.partial(caption_tracks, per_track=per_track, seed=seed)
    written = tracks.map_batches(write, batch_format="pyarrow")
    parts = [
        part.cast(SCHEMA) for part in written.iter_batches(batch_format="pyarrow") if len(part)
    ]
    captions = pa.concat_tables([SCHEMA.empty_table(), *parts]).sort_by(
        [("track_id", "ascending"), ("caption", "ascending")]
    )
    storage.write_table(f"{workspace.captions}/{PART}", captions)
    for old in storage.list_files(workspace.captions, suffix=".parquet"):
        if old != PART:
            storage.delete(f"{workspace.captions}/{old}")
    captioned = pc.count_distinct(captions["track_id"]).as_py()
    total = tracks.count()
    return {
        "tracks": total,
        "captioned": captioned,
        "untagged": total - captioned,
        "captions": len(captions),
        "written": workspace.captions,
        "seconds": round(time.monotonic() - started, 3),
    }


def describe(answer: dict[str, Any]) -> str:
    """The answer in a line."""
    skipped = f", {answer['untagged']} without tags skipped" if answer["untagged"] else ""
    return (
        f"{answer['captions']} captions of {answer['captioned']} tracks{skipped} "
        f"in {answer['seconds']:.1f} s -> {answer['written']}"
    )


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
