"""`raymtr embed`: catalog + audio + a model -> one vector per track and one per window.

The pipeline stands in `embed_pipeline`: decode on CPUs, embed in actors that keep the model, and
bring the small result back to this driver, which alone writes it (raymtr.index.shards
says why). Killed at any moment and run again, the job goes on with what no committed shard holds.

Ray's own checkpoint is not used: it guards one `write_parquet`, and a track here becomes rows of
three tables that must appear together. Given up with it: the ids and URIs of the catalog pass
through the driver, some hundred bytes a track.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.cluster import require_gpus, start_ray
from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.index.embed_tracks import REPLICA, EmbedTracks, decode_tracks
from raymtr.index.made_with import identify, keep_model, open_shards
from raymtr.index.shard_tables import MADE_FROM
from raymtr.index.shards import Shards
from raymtr.model.identity import CONFIG
from raymtr.progress import Progress
from raymtr.specs import AudioSpec, EmbedSpec, Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    import ray.data


LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr embed --workspace w --model towers-or-name"

SHARD_TRACKS = 2048  # a shard closes at this many tracks,
SHARD_EVERY_S = 2.0  # or when the last one is this old: what a kill can cost, beside work in flight
TRACKS_PER_ACTOR = 500  # what a replica must have to do; its start takes as long as 300
MOST_BLOCK_BYTES = 32 << 20  # decoded audio handed to an actor at once; a long track may be more
SKIPPED_ALL: dict[str, Any] = {
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
    """Arguments of `embed` alone."""
    parser.add_argument(
        "--model", help="a model folder, or a name; else the newest finished training run"
    )
    parser.add_argument("--dry-run", action="store_true", help="count tracks, hours and disk only")
    parser.add_argument(
        "--retry",
        metavar="CODE",
        action="append",
        default=[],
        help="try the tracks that failed with CODE again (all: every failed one); repeatable",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The command line's way in."""
    if arguments.dry_run:
        return plan_embedding(workspace, settings, model=arguments.model)
    return embed_catalog(workspace, settings, model=arguments.model, retry=arguments.retry)


def embed_catalog(
    workspace: Workspace,
    settings: Settings,
    *,
    model: str | None = None,
    retry: Sequence[str] = (),
) -> dict[str, Any]:
    """Embed every track of the catalog that has audio and no vector of this model yet.

    A track whose file has changed since counts as new. `retry` names codes of the dead letter
    whose tracks are to be tried again. A catalog of words alone needs no model: all of it is
    skipped. It starts with `embed.min_actors` replicas, or all, and takes more as nodes come.
    Raises InputError where there is no catalog or no model, UnusableError where GPUs are asked for
    and absent.
    """
    started = time.monotonic()
    catalog = read_catalog(workspace)
    if catalog["uri"].null_count == len(catalog):
        return SKIPPED_ALL | {"skipped": len(catalog)}
    if settings.embed.use_gpu:  # before anything is touched
        start_ray()
        require_gpus(fewest_actors(settings.embed))
    source = workspace.model(model) if model else workspace.newest_model()
    loaded = identify(source, settings.embed.precision)
    shards = open_shards(workspace, loaded)
    shards.take()
    if not storage.exists(f"{shards.model_folder}/{CONFIG}"):
        keep_model(source, loaded, shards.model_folder)
    if retry:
        shards.forget_failures(retry)
    shards.forget(shards.refused_by_older_rules())
    shards.adopt_digests(catalog)
    shards.forget(changed := shards.changed(catalog))
    left, replicas = shards.remaining(catalog), 0
    if len(left):
        LOG.info(
            "embedding %d tracks, %d of them changed, with model %s",
            len(left),
            len(changed),
            loaded.fingerprint,
        )
        start_ray()
        embed = fit_actors(settings.embed, left)
        pipeline = embed_pipeline(left, shards, loaded.spec.audio, embed)
        replicas = commit_results(pipeline, shards, total=len(left), actors=embed.actors)
    shards.release()
    return shards.account(catalog) | {
        "new": len(left),
        "fingerprint": loaded.fingerprint,
        "model": shards.model_folder,
        "replicas": replicas,
        "seconds": round(time.monotonic() - started, 3),
    }


def embed_pipeline(
    tracks: pa.Table, shards: Shards, spec: AudioSpec, embed: EmbedSpec
) -> ray.data.Dataset:
    """Rows of SOURCES -> EMBEDDED rows, streaming through the cluster.

    Without GPUs both steps ask for the same, so Ray fuses them: a decoded track never leaves its
    actor. With GPUs decoding is a stage of its own, which Ray spreads over all free cores.
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
            batch_size=embed.tracks_per_block if embed.use_gpu else None,  # a CPU gains nothing
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=fewest_actors(embed), max_size=embed.actors
            ),
            num_cpus=cores,
            num_gpus=gpus,
        )
    )


def fit_actors(embed: EmbedSpec, tracks: pa.Table) -> EmbedSpec:
    """`embed` with no more replicas than `tracks` are worth: each costs its start."""
    actors = min(embed.actors, max(1, len(tracks) // TRACKS_PER_ACTOR))
    return replace(embed, actors=actors, min_actors=min(embed.min_actors, actors))


def fewest_actors(embed: EmbedSpec) -> int:
    """With how many replicas embedding may start."""
    return embed.min_actors or embed.actors


def actor_cores(embed: EmbedSpec) -> float:
    """Cores one actor reserves: its threads, or less, so that tasks find a core somewhere.

    A task needs a whole core on one node. However the actors are spread, some node has one if, over
    all, as many are left as there are nodes (pigeonhole); one core of the cluster is not enough:
    two nodes of one core with half an actor's core each leave no task a place, and nothing moves.
    """
    import ray

    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    working = [cores for cores in nodes if cores >= 1]
    if not working:  # nothing has joined yet; an autoscaler will see what is asked for
        return embed.threads
    return float(min(embed.threads, (sum(working) - len(working)) / fewest_actors(embed)))


def commit_results(pipeline: ray.data.Dataset, shards: Shards, *, total: int, actors: int) -> int:
    """Write what the cluster made, shard by shard, and say how it goes; how many replicas made it.

    The clock of the rate starts with the first shard: what comes before is the cluster's start.
    Raises UnusableError where the model does not start on a worker.
    """
    from ray.exceptions import ActorDiedError

    progress: Progress | None = None
    failed, replicas = 0, set[str]()
    try:
        for shard in gather_shards(pipeline):
            before = len(replicas)
            replicas.update(pc.unique(shard[REPLICA]).to_pylist())
            if len(replicas) > before:
                LOG.info("%d replicas so far embed, of at most %d at once", len(replicas), actors)
            shards.commit(shard)
            failed += len(shard) - shard["code"].null_count
            if progress is None:
                progress = Progress("embed", total, unit="tracks", done=len(shard))
            else:
                progress.advance(len(shard), note=f"{failed} failed" if failed else "")
    except ActorDiedError as error:
        if not error.actor_init_failed:
            raise
        reason = str(error).strip().splitlines()[-1]
        raise UnusableError(f"the model does not run on a worker: {reason}") from error
    return len(replicas)


def gather_shards(pipeline: ray.data.Dataset) -> Iterator[pa.Table]:
    """Results as they come, joined to shards of at most a size and an age."""
    waiting: list[pa.Table] = []
    closed = float("-inf")
    for batch in pipeline.iter_batches(batch_size=None, batch_format="pyarrow"):
        waiting.append(batch)
        now = time.monotonic()
        if now - closed >= SHARD_EVERY_S or sum(map(len, waiting)) >= SHARD_TRACKS:
            yield pa.concat_tables(waiting)
            waiting, closed = [], now
    if waiting:
        yield pa.concat_tables(waiting)


def read_catalog(workspace: Workspace) -> pa.Table:
    """MADE_FROM and `duration` of the catalog. Raises InputError where there is none."""
    catalog = storage.read_tables(workspace.tracks, [*MADE_FROM, "duration"])
    if catalog is None or not len(catalog):
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    return catalog


def plan_embedding(
    workspace: Workspace, settings: Settings, *, model: str | None = None
) -> dict[str, Any]:
    """What `embed` would do: tracks, hours of audio and bytes to write; nothing is run."""
    catalog = read_catalog(workspace)
    source = workspace.model(model) if model else workspace.newest_model()
    loaded = identify(source, settings.embed.precision)
    spec = loaded.spec
    remaining = open_shards(workspace, loaded).remaining(catalog)
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
        "disk_mb": round((windows + len(left)) * spec.dim * 4 / 1e6, 1),
        "fingerprint": loaded.fingerprint,
    }


def describe(answer: dict[str, Any]) -> str:
    """The answer in words."""
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
