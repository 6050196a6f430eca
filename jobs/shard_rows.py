"""Shared by `embed`, `tag` and `tokenize`: sends tracks to the cluster, and writes shards.

The cluster returns small results to this driver, which is the only writer (see
raymtr.embeddings.store).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from jobs.ray_calls import arrow_batches
from raymtr import storage
from raymtr.embeddings.embed_tracks import REPLICA
from raymtr.embeddings.store import EmbeddingStore
from raymtr.embeddings.tables import MADE_FROM, SOURCES
from raymtr.errors import InputError, UnusableError
from raymtr.progress import Progress
from raymtr.shards import ShardLimit
from raymtr.specs import EmbedSpec
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

LOG = logging.getLogger("raymtr")

SHARD_TRACKS, SHARD_EVERY_S = 2048, 30.0  # limits of a shard
BLOCKS_PER_ACTOR = 4  # at least, so that replicas end at about the same time
UNKNOWN_S = 240.0  # assumed length of a track whose duration the catalog does not know
COLUMNS = pa.schema(
    [*(pa.field(name, pa.string()) for name in MADE_FROM), pa.field("duration", pa.float64())]
)
SECONDS_PER_ACTOR = 1200.0  # minimum of audio per replica, because each has to load the model


def add_retry(parser: argparse.ArgumentParser) -> None:
    """Adds `--retry`, the codes of dead letters to try again."""
    parser.add_argument(
        "--retry",
        metavar="CODE",
        action="append",
        default=[],
        help="try the tracks that failed with CODE again (all: every failed one); repeatable",
    )


def tracks_left(
    shards: EmbeddingStore, catalog: pa.Table, retry: Sequence[str]
) -> tuple[pa.Table, int]:
    """Remove outdated results; return the tracks left, and how many of them had changed.

    Failures with a code of `retry` are tried again, and files that older rules refused.
    """
    if retry:
        shards.forget_failures(retry)
    shards.forget(shards.refused_by_older_rules())
    shards.adopt_digests(catalog)
    shards.forget(changed := shards.changed(catalog))
    return shards.remaining(catalog), len(changed)


def fit_actors(embed: EmbedSpec, tracks: pa.Table) -> EmbedSpec:
    """`embed` with no more replicas than `tracks` justify, because each has a start-up cost."""
    seconds = pc.sum(pc.fill_null(tracks["duration"], UNKNOWN_S)).as_py() or 0.0
    actors = min(embed.actors, max(1, int(seconds / SECONDS_PER_ACTOR)))
    return replace(embed, actors=actors, min_actors=min(embed.min_actors, actors))


def fewest_actors(embed: EmbedSpec) -> int:
    """The minimum number of replicas to start embedding."""
    return embed.min_actors or embed.actors


def actor_cores(embed: EmbedSpec) -> float:
    """Cores that one actor reserves: its threads, or less, so that tasks always find a free core.

    A task needs a whole core on one node. By the pigeonhole principle some node has one, for any
    placement of the actors, if as many cores are left in total as there are nodes. One core left in
    the cluster is not enough: two nodes of one core with half an actor's core each leave no room
    for a task, and the pipeline blocks.
    """
    import ray

    replicas = fewest_actors(embed) * embed.drivers
    nodes = [node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]]
    working = [cores for cores in nodes if cores >= 1]
    if not working:  # no node has joined yet; an autoscaler sees this request
        return embed.threads
    return float(min(embed.threads, (sum(working) - len(working)) / replicas))


def tracks_per_block(tracks: pa.Table, window_s: float, embed: EmbedSpec) -> int:
    """Tracks in a block of `embed.windows_per_block` windows, from the mean of their durations."""
    lengths = pc.fill_null(tracks["duration"], UNKNOWN_S)
    windows = max(1.0, float(pc.mean(lengths).as_py()) / window_s)
    evenly = -(-len(tracks) // (BLOCKS_PER_ACTOR * embed.actors))
    return max(1, min(round(embed.windows_per_block / windows), evenly))


def cpu_pipeline(
    tracks: pa.Table,
    decode: Callable[[pa.Table], Iterator[pa.Table]],
    actor: type,
    arguments: tuple[Any, ...] = (),
    *,
    rows_per_block: int,
    embed: EmbedSpec,
) -> ray.data.Dataset:
    """Rows of SOURCES, decoded and passed to replicas of `actor`, which also takes `threads`.

    Both steps request the same cores, so Ray fuses them and decoded audio never leaves its actor.
    """
    import ray.data

    cores = actor_cores(embed)
    return (
        ray.data.from_arrow(tracks.select(SOURCES))
        .repartition(target_num_rows_per_block=rows_per_block)
        .map_batches(decode, batch_size=None, batch_format="pyarrow", num_cpus=cores)
        .map_batches(
            actor,
            fn_constructor_args=arguments,
            fn_constructor_kwargs={"threads": embed.threads},
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(
                min_size=fewest_actors(embed), max_size=embed.actors
            ),
            num_cpus=cores,
        )
    )


class Store(Protocol):
    """Where results are committed."""

    def commit(self, rows: pa.Table, /) -> None:
        """Write one shard."""


def commit_results(
    pipeline: ray.data.Dataset,
    shards: Store,
    *,
    total: int,
    actors: int,
    what: str = "embed",
) -> int:
    """Writes the cluster's results shard by shard and logs progress; returns the replica count.

    The rate is measured from the first shard, which excludes the cluster's start. Raises
    UnusableError if the model does not start on a worker.
    """
    from ray.exceptions import ActorDiedError

    progress: Progress | None = None
    failed, replicas = 0, set[str]()
    try:
        for shard in gather_shards(pipeline):
            before = len(replicas)
            replicas.update(pc.unique(shard[REPLICA]).to_pylist())
            if len(replicas) > before:
                LOG.info("%d replicas so far %s, of at most %d", len(replicas), what, actors)
            shards.commit(shard)
            failed += len(shard) - shard["code"].null_count
            if progress is None:
                progress = Progress(what, total, unit="tracks", done=len(shard))
            else:
                progress.advance(len(shard), note=f"{failed} failed" if failed else "")
    except ActorDiedError as error:
        if not error.actor_init_failed:
            raise
        reason = str(error).strip().splitlines()[-1]
        raise UnusableError(f"the model does not run on a worker: {reason}") from error
    return len(replicas)


def gather_shards(pipeline: ray.data.Dataset) -> Iterator[pa.Table]:
    """Results as they arrive, joined to shards of limited size and age."""
    waiting: list[pa.Table] = []
    limit = ShardLimit(tracks=SHARD_TRACKS, seconds=SHARD_EVERY_S)
    for batch in arrow_batches(pipeline):
        waiting.append(batch)
        if limit.add(len(batch)):
            limit.close()
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)


def read_catalog(workspace: Workspace) -> pa.Table:
    """COLUMNS of the catalog. Raises InputError if there is no catalog."""
    catalog = storage.read_tables(workspace.tracks, COLUMNS.names)
    if catalog is None or not len(catalog):
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    return catalog
