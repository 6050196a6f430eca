"""`raymtr caption`: catalog -> captions, for every track that has tags.

With a captioner (the workspace's, or the named one) a language model writes: see
`jobs.model_captions`. Without one the realiser, a grammar, writes all captions in one pass. The
result is one file, replaced in one step.

In both cases a track's captions depend only on the track, the settings and the seed.
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
from jobs.model_captions import CaptionCounts, ModelCaptions
from jobs.ray_calls import arrow_batches
from raymtr import storage
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.captions.writing.store import LETTERS, forget_unfinished
from raymtr.captions.writing.templates import SCHEMA, TRACK
from raymtr.errors import InputError
from raymtr.ownership import RUN
from raymtr.specs import Settings
from raymtr.workspace import Workspace

EXAMPLE = "raymtr caption --workspace w --per-track 3"
PART = "part-00000.parquet"
RANKED_AT_ONCE = 64  # tracks of one call of the ranking model


class CaptionAnswer(CaptionCounts):
    """The counts, where the captions are, and how long the run took."""

    written: str
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments: who writes, how many captions, and the seed."""
    parser.add_argument("--per-track", type=int, default=3, help="captions per track (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other captions")
    parser.add_argument(
        "--captioner", metavar="FOLDER", help="a fine-tuned captioner (default: the workspace's)"
    )
    parser.add_argument(
        "--engine",
        choices=("auto", "vllm", "transformers"),
        default="auto",
        help="what runs the captioner; auto: vLLM where it is installed",
    )
    parser.add_argument(
        "--rank",
        metavar="BASE",
        help="without a captioner: a language model that chooses among the realiser's captions "
        "(`smollm2`, a folder, a hub name)",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> CaptionAnswer:
    """The command-line entry point."""
    captioner = arguments.captioner
    files = storage.list_files(workspace.captioner)
    if captioner is None and any(name.startswith(("adapter", "captioner")) for name in files):
        captioner = workspace.captioner  # if it is incomplete, that is an error
    return write_captions(
        workspace,
        settings,
        per_track=arguments.per_track,
        seed=arguments.seed,
        captioner=captioner,
        engine=arguments.engine,
        rank=arguments.rank,
    )


def write_captions(
    workspace: Workspace,
    settings: Settings,
    *,
    per_track: int = 3,
    seed: int = 0,
    captioner: str | None = None,
    engine: str = "auto",
    model_tracks: int | None = None,
    rank: str | None = None,
) -> CaptionAnswer:
    """Replaces the workspace's captions, or finishes them; counts of captions by writer.

    With `model_tracks`, the captioner writes for that many tracks and the realiser for the others.
    `rank` is a base that ranks the realiser's captions, without a captioner.
    Raises InputError if there is no catalog or captioner, or `per_track` or `seed` is out of range;
    UnusableError if the engine or its GPU is missing or fails; LostError if the engine dies.
    """
    if per_track < 1 or seed < 0:
        raise InputError(
            f"captions need --per-track of 1 or more and --seed of 0 or more; "
            f"got {per_track} and {seed}"
        )
    if rank is not None and captioner is not None:
        raise InputError(
            f"--rank is for the realiser, but captions are written by {captioner}; leave one out"
        )
    if not storage.list_files(workspace.tracks, suffix=".parquet"):
        raise InputError(f"no catalog in {workspace.root}; run `raymtr scan` first")
    started = time.monotonic()
    if captioner is None:
        counts = write_realised(workspace, per_track=per_track, seed=seed, rank=rank)
    else:
        work = ModelCaptions(workspace, settings, captioner, engine)
        counts = work.write(per_track=per_track, seed=seed, model_tracks=model_tracks)
    seconds = round(time.monotonic() - started, 3)
    return {**counts, "written": workspace.captions, "seconds": seconds}


def write_realised(
    workspace: Workspace, *, per_track: int, seed: int, rank: str | None = None
) -> CaptionCounts:
    """Writes every tagged track's captions by the realiser, as one file; `rank` is a base."""
    from raymtr.captions.gguf_base import plain_base
    from raymtr.captions.writing.ranking import Ranker

    if rank is not None:
        plain_base(rank)  # raises where it cannot be read, before any cluster starts
    start_ray()
    tracks = ray.data.read_parquet(workspace.tracks).select_columns(TRACK)
    how: dict[str, Any] = {"per_track": per_track, "seed": seed}
    if rank is not None:
        written = tracks.map_batches(
            Ranker,
            fn_constructor_args=(rank,),
            fn_constructor_kwargs=how,
            batch_size=RANKED_AT_ONCE,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=1),
        )
    else:
        write = functools.partial(caption_tracks, **how)
        written = tracks.map_batches(write, batch_format="pyarrow")
    parts = [part.cast(SCHEMA) for part in arrow_batches(written) if len(part)]
    captions = pa.concat_tables([SCHEMA.empty_table(), *parts]).sort_by(
        [("track_id", "ascending"), ("caption", "ascending")]
    )
    storage.delete(f"{workspace.captions}/{RUN}")
    storage.write_table(f"{workspace.captions}/{PART}", captions)
    for old in storage.list_files(workspace.captions, suffix=".parquet"):
        if old != PART:
            storage.delete(f"{workspace.captions}/{old}")
    storage.delete(f"{workspace.captions}/{LETTERS}")
    forget_unfinished(workspace.captions)
    captioned = pc.count_distinct(captions["track_id"]).as_py()
    total = tracks.count()
    return {
        "tracks": total,
        "captioned": captioned,
        "untagged": total - captioned,
        "captions": len(captions),
        "by": {"realised": len(captions)},
        "failed": 0,
        "error_rate": 0.0,
    }


def describe(answer: CaptionAnswer) -> str:
    """The answer in one or two lines."""
    skipped = f", {answer['untagged']} without tags skipped" if answer["untagged"] else ""
    lines = [
        f"{answer['captions']} captions of {answer['captioned']} tracks{skipped} "
        f"in {answer['seconds']:.1f} s -> {answer['written']}"
    ]
    if "engine" in answer:
        by = ", ".join(f"{count} by {source}" for source, count in sorted(answer["by"].items()))
        lines.append(
            f"{by} ({answer['engine']}); coverage {answer['coverage']:.2f}, invention "
            f"{answer['invention']:.2f}"
        )
    if answer["failed"]:
        lines.append(f"{answer['failed']} tracks failed; see {answer['written']}/{LETTERS}")
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
