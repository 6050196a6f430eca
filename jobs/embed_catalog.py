"""`raymtr embed`: catalog + audio + a model -> one vector per track and one per window.

The pipeline is in `jobs.embed_pipeline`: decode on CPUs, embed in actors that keep the model, and
return the small results to the driver, which is the only writer (see raymtr.embeddings.store). A
large catalog has a driver for each partition (see jobs.partitions). If the job is killed and run
again, it continues with the tracks that no committed shard contains.

Ray's own checkpoint is not used. It covers one `write_parquet`, and a track here becomes rows of
three tables that must appear together. Trade-off: the ids and URIs of the catalog pass through the
driver, some hundred bytes per track.
"""

from __future__ import annotations

import argparse
import functools
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, final

import pyarrow.compute as pc

from jobs.cluster import require_gpus, start_ray
from jobs.embed_pipeline import EmbedAnswer, embed_alone, embed_and_tag
from jobs.partitions import (
    Work,
    Worked,
    count_tracks,
    partitions_of,
    work_through_catalog,
)
from jobs.shard_rows import UNKNOWN_S, add_retry, fewest_actors, read_catalog
from jobs.tagging import Tagged, close_tags, open_tags, tag_tracks
from raymtr import storage
from raymtr.embeddings.kept_model import identify, keep_model, open_store
from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError
from raymtr.model.identity import CONFIG, Identity
from raymtr.mulap.marker import is_mulap
from raymtr.partitions import has_audio
from raymtr.recipes import DEFAULT_MODEL
from raymtr.specs import Settings
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model
    from raymtr.mulap.backbone import Backbone

LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr embed --workspace w --model towers-or-name"


@final
class EmbedPlan(TypedDict):
    """What a run would do."""

    tracks: int
    done: int
    skipped: int
    hours: float
    tracks_of_unknown_length: int
    disk_mb: float
    fingerprint: str


SKIPPED_ALL: EmbedAnswer = {
    "skipped": 0,
    "embedded": 0,
    "failed": 0,
    "error_rate": 0.0,
    "errors": {},
    "new": 0,
    "fingerprint": None,
    "model": None,
    "replicas": 0,
    "seconds": 0.0,
    "also": None,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `embed`."""
    parser.add_argument(
        "--model",
        help=f"a model folder, or a name; else the newest finished run, or {DEFAULT_MODEL}",
    )
    parser.add_argument(
        "--output",
        choices=("vectors", "features"),
        default="vectors",
        help="features: the audio tower's output before its head, in float16 (default: vectors)",
    )
    parser.add_argument("--dry-run", action="store_true", help="count tracks, hours and disk only")
    add_retry(parser)
    parser.add_argument(
        "--also",
        metavar="tags,attributes",
        default="",
        help="do the work of `raymtr tag` in the same pass over the audio",
    )


def run(
    arguments: argparse.Namespace, workspace: Workspace, settings: Settings
) -> EmbedAnswer | EmbedPlan:
    """The command-line entry point."""
    also = [part.strip() for part in arguments.also.split(",") if part.strip()]
    if also and sorted(also) != ["attributes", "tags"]:
        raise InputError(
            f"--also takes tags,attributes (a row of heard/ has both), got {arguments.also!r}"
        )
    if arguments.dry_run:
        return plan_embedding(workspace, settings, model=arguments.model, output=arguments.output)
    if arguments.output == "features":
        if also:
            raise InputError("--also goes with --output vectors; run `raymtr tag` instead")
        from jobs.embed_features import embed_features  # torch

        return embed_features(workspace, settings, model=arguments.model, retry=arguments.retry)
    return embed_catalog(
        workspace, settings, model=arguments.model, retry=arguments.retry, tag=bool(also)
    )


def embed_catalog(
    workspace: Workspace,
    settings: Settings,
    *,
    model: str | None = None,
    retry: Sequence[str] = (),
    tag: bool = False,
) -> EmbedAnswer:
    """Embeds every track of the catalog that has audio and no vector of this model yet.

    A track whose file has changed counts as new. `retry` names dead-letter codes whose tracks are
    retried. With `tag`, tags and attributes are computed in the same pass. A catalog without audio
    needs no model: all its tracks are skipped. The job starts with `embed.min_actors` replicas, or
    all, and adds more as nodes join. Raises InputError if there is no catalog or no model,
    UnusableError if GPUs are requested and absent, or taggers are missing.
    """
    started = time.monotonic()
    if not has_audio(workspace.tracks):
        return {**SKIPPED_ALL, "skipped": count_tracks(workspace)}
    if settings.embed.use_gpu:  # before anything is changed
        start_ray()
        require_gpus(math.ceil(fewest_actors(settings.embed) * settings.embed.gpu_share))
    source = choose_model(workspace, model)
    loaded = identify(source, settings.embed.precision)
    shards = open_store(workspace, loaded)
    if not storage.exists(f"{shards.model_folder}/{CONFIG}"):
        keep_model(source, loaded, shards.model_folder)
    LOG.info("embedding with model %s", loaded.fingerprint)
    embed = functools.partial(embed_alone, spec=loaded.spec.audio)
    work = Work(what="embed", shards=shards, run=embed, embed=settings.embed, retry=tuple(retry))
    tagged: Tagged | None = None
    if tag:
        worked, tagged = _embed_and_tag(workspace, work, loaded.spec.audio)
    else:
        worked = work_through_catalog(workspace, work)
    return {
        **worked,
        "fingerprint": loaded.fingerprint,
        "model": shards.model_folder,
        "seconds": round(time.monotonic() - started, 3),
        "also": tagged,
    }


def _embed_and_tag(workspace: Workspace, work: Work, spec: AudioSpec) -> tuple[Worked, Tagged]:
    """Embeds and tags in the same pass; then tags the tracks that had been embedded before."""
    if (count := partitions_of(workspace, work)) > 1:
        raise InputError(
            f"--also needs a catalog of one partition, this one has {count}: "
            "run `raymtr embed`, then `raymtr tag`"
        )
    catalog = read_catalog(workspace)
    tags, untagged = open_tags(workspace, catalog, work.retry)
    both = functools.partial(embed_and_tag, spec=spec, tags=tags, untagged=untagged)
    worked = work_through_catalog(workspace, replace(work, run=both))
    if len(rest := tags.remaining(catalog)):
        start_ray()
        tag_tracks(rest, tags, work.embed)
    tagged, error_rate = close_tags(tags, workspace, catalog)
    worked["error_rate"] = max(worked["error_rate"], error_rate)
    return worked, tagged


def choose_model(workspace: Workspace, model: str | None) -> str:
    """Path or name of the requested model, else of the newest run's, else DEFAULT_MODEL."""
    if model and is_mulap(source := workspace.trained(model)):
        raise InputError(
            f"{source} is a MuLaP model, which has no joint space to embed into; add --output "
            "features, or name two towers"
        )
    if model:
        return workspace.trained(model)
    if newest := workspace.newest_model():
        return newest
    LOG.info("no model is named and no run has finished here; using %s", DEFAULT_MODEL)
    return workspace.model(DEFAULT_MODEL)


def plan_embedding(
    workspace: Workspace,
    settings: Settings,
    *,
    model: str | None = None,
    output: str = "vectors",
) -> EmbedPlan:
    """What `embed` would do, without running it: tracks, hours of audio and bytes to write."""
    catalog = read_catalog(workspace)
    loaded: Identity | Model | Backbone
    if output == "features":
        from jobs.embed_features import named_source
        from raymtr.mulap.backbone import open_backbone
        from raymtr.mulap.store import open_features

        loaded = open_backbone(named_source(workspace, model))
        shards: EmbeddingStore = open_features(workspace, loaded)
    else:
        loaded = identify(choose_model(workspace, model), settings.embed.precision)
        shards = open_store(workspace, loaded)
    spec, number_bytes = loaded.spec, 2 if output == "features" else 4
    left = shards.remaining(catalog)
    unknown = left["duration"].null_count
    seconds = (pc.sum(left["duration"]).as_py() or 0.0) + unknown * UNKNOWN_S
    windows = seconds / spec.audio.window_s + len(left)
    return {
        "tracks": len(left),
        "done": len(catalog) - len(left) - catalog["uri"].null_count,
        "skipped": catalog["uri"].null_count,
        "hours": round(seconds / 3600, 2),
        "tracks_of_unknown_length": unknown,
        "disk_mb": round((windows + len(left)) * spec.dim * number_bytes / 1e6, 1),
        "fingerprint": loaded.fingerprint,
    }


def describe(answer: EmbedAnswer | EmbedPlan) -> str:
    """The answer as text."""
    if "hours" in answer:
        guess = answer["tracks_of_unknown_length"]
        return (
            f"to embed: {answer['tracks']} tracks, {answer['hours']} hours"
            + (f" ({guess} of unknown length, taken as {UNKNOWN_S:.0f} s)" if guess else "")
            + f", {answer['disk_mb']} MB; done: {answer['done']}, without audio: "
            f"{answer['skipped']}; model {answer['fingerprint']}"
        )
    lines = [
        f"{answer['embedded']} tracks embedded ({answer['new']} tried now), {answer['failed']} "
        f"failed, {answer['skipped']} without audio skipped; {answer['seconds']:.1f} s, "
        f"{answer['replicas']} replicas; model {answer['fingerprint']}"
    ]
    lines += [f"  {count} x {code}" for code, count in answer["errors"].items()]
    if also := answer["also"]:
        lines.append(f"{also['tagged']} tracks tagged and measured, {also['not_tagged']} failed")
        lines += [f"for review: {also['review']}"] if also["review"] else []
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
