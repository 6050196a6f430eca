"""`raymtr embed`: catalog + audio + a model -> one vector per track and one per window.

The pipeline is in `embed_pipeline`: decode on CPUs, embed in actors that keep the model, and return
the small results to this driver, which is the only writer (see raymtr.embeddings.store). If the job
is killed and run again, it continues with the tracks that no committed shard contains.

Ray's own checkpoint is not used. It covers one `write_parquet`, and a track here becomes rows of
three tables that must appear together. Trade-off: the ids and URIs of the catalog pass through the
driver, some hundred bytes per track.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict, final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.cluster import require_gpus, start_ray
from jobs.shard_rows import (
    EmbedAnswer,
    add_retry,
    commit_results,
    fewest_actors,
    fit_actors,
    read_catalog,
    tracks_left,
)
from raymtr import storage
from raymtr.embeddings.embed_tracks import EmbedTracks, decode_tracks
from raymtr.embeddings.kept_model import identify, keep_model, open_store
from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError
from raymtr.model.identity import CONFIG, Identity
from raymtr.mulap.marker import is_mulap
from raymtr.recipes import DEFAULT_MODEL
from raymtr.specs import AudioSpec, EmbedSpec, Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

    from raymtr.model.model import Model
    from raymtr.mulap.backbone import Backbone


LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr embed --workspace w --model towers-or-name"

MOST_BLOCK_BYTES = 32 << 20  # decoded audio per actor call; a long track may exceed it


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
}
DRY_RUN_TRACK_S = 240.0  # assumed length of a track whose duration the catalog does not know


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
        help="features: what the audio tower hears before its head, in float16 (default: vectors)",
    )
    parser.add_argument("--dry-run", action="store_true", help="count tracks, hours and disk only")
    add_retry(parser)


def run(
    arguments: argparse.Namespace, workspace: Workspace, settings: Settings
) -> EmbedAnswer | EmbedPlan:
    """The command-line entry point."""
    if arguments.dry_run:
        return plan_embedding(workspace, settings, model=arguments.model, output=arguments.output)
    if arguments.output == "features":
        from jobs.embed_features import embed_features  # torch

        return embed_features(workspace, settings, model=arguments.model, retry=arguments.retry)
    return embed_catalog(workspace, settings, model=arguments.model, retry=arguments.retry)


def embed_catalog(
    workspace: Workspace,
    settings: Settings,
    *,
    model: str | None = None,
    retry: Sequence[str] = (),
) -> EmbedAnswer:
    """Embeds every track of the catalog that has audio and no vector of this model yet.

    A track whose file has changed counts as new. `retry` names dead-letter codes whose tracks are
    retried. A catalog without audio needs no model: all its tracks are skipped. The job starts with
    `embed.min_actors` replicas, or all, and adds more as nodes join. Raises InputError if there is
    no catalog or no model, UnusableError if GPUs are requested and absent.
    """
    started = time.monotonic()
    catalog = read_catalog(workspace)
    if catalog["uri"].null_count == len(catalog):
        return {**SKIPPED_ALL, "skipped": len(catalog)}
    if settings.embed.use_gpu:  # before anything is changed
        start_ray()
        require_gpus(fewest_actors(settings.embed))
    source = choose_model(workspace, model)
    loaded = identify(source, settings.embed.precision)
    shards = open_store(workspace, loaded)
    shards.take()
    if not storage.exists(f"{shards.model_folder}/{CONFIG}"):
        keep_model(source, loaded, shards.model_folder)
    (left, changed), replicas = tracks_left(shards, catalog, retry), 0
    if len(left):
        LOG.info(
            "embedding %d tracks, %d of them changed, with model %s",
            len(left),
            changed,
            loaded.fingerprint,
        )
        start_ray()
        embed = fit_actors(settings.embed, left)
        pipeline = embed_pipeline(left, shards, loaded.spec.audio, embed)
        replicas = commit_results(pipeline, shards, total=len(left), actors=embed.actors)
    shards.release()
    return {
        **shards.account(catalog),
        "new": len(left),
        "fingerprint": loaded.fingerprint,
        "model": shards.model_folder,
        "replicas": replicas,
        "seconds": round(time.monotonic() - started, 3),
    }


def embed_pipeline(
    tracks: pa.Table, shards: EmbeddingStore, spec: AudioSpec, embed: EmbedSpec
) -> ray.data.Dataset:
    """Rows of SOURCES -> EMBEDDED rows, streamed through the cluster.

    Without GPUs both steps request the same resources, so Ray fuses them and a decoded track never
    leaves its actor. With GPUs decoding is a separate stage, which Ray spreads over all free cores.
    """
    import ray.data

    device, gpus = ("cuda", 1) if embed.use_gpu else ("cpu", 0)
    cores = actor_cores(embed)
    dataset = ray.data.from_arrow(tracks)
    dataset.context.target_max_block_size = MOST_BLOCK_BYTES
    return (
        dataset.repartition(target_num_rows_per_block=embed.tracks_per_block)
        .map_batches(
            decode_tracks,
            fn_kwargs={"spec": spec, "embed": embed, "hung": shards.hung},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1 if embed.use_gpu else cores,
        )
        .map_batches(
            EmbedTracks,
            fn_constructor_args=(shards.model_folder, shards.made_by),
            fn_constructor_kwargs={"device": device, "threads": embed.threads},
            batch_size=embed.tracks_per_block if embed.use_gpu else None,  # no benefit on a CPU
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=fewest_actors(embed), max_size=embed.actors
            ),
            num_cpus=cores,
            num_gpus=gpus,
        )
    )


def actor_cores(embed: EmbedSpec) -> float:
    """Cores that one actor reserves: its threads, or less, so that tasks always find a free core.

    A task needs a whole core on one node. By the pigeonhole principle some node has one, for any
    placement of the actors, if as many cores are left in total as there are nodes. One core left in
    the cluster is not enough: two nodes of one core with half an actor's core each leave no room
    for a task, and the pipeline blocks.
    """
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    working = [cores for cores in nodes if cores >= 1]
    if not working:  # no node has joined yet; an autoscaler sees this request
        return embed.threads
    return float(min(embed.threads, (sum(working) - len(working)) / fewest_actors(embed)))


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
    LOG.info("no model is named and no run has finished here: %s is used", DEFAULT_MODEL)
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
    remaining = shards.remaining(catalog)
    left = catalog.filter(pc.is_in(catalog["track_id"], remaining["track_id"]))
    unknown = left["duration"].null_count
    seconds = (pc.sum(left["duration"]).as_py() or 0.0) + unknown * DRY_RUN_TRACK_S
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
            + (f" ({guess} of unknown length, taken as {DRY_RUN_TRACK_S:.0f} s)" if guess else "")
            + f", {answer['disk_mb']} MB; done: {answer['done']}, without audio: "
            f"{answer['skipped']}; model {answer['fingerprint']}"
        )
    lines = [
        f"{answer['embedded']} tracks embedded ({answer['new']} tried now), {answer['failed']} "
        f"failed, {answer['skipped']} without audio skipped; {answer['seconds']:.1f} s, "
        f"{answer['replicas']} replicas; model {answer['fingerprint']}"
    ]
    lines += [f"  {count} x {code}" for code, count in answer["errors"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
