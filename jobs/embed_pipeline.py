"""The pipelines of `embed`: vectors alone, or with tags and attributes in the same pass."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.partitions import Worked
from jobs.shard_rows import (
    actor_cores,
    commit_results,
    fewest_actors,
    fit_actors,
    tracks_per_block,
)
from jobs.tagging import Tagged
from raymtr.embeddings.embed_tracks import EmbedTracks, decode_tracks
from raymtr.embeddings.store import EmbeddingStore
from raymtr.embeddings.tables import SOURCES
from raymtr.specs import EmbedSpec
from raymtr.tower_specs import AudioSpec

if TYPE_CHECKING:
    import ray.data

    from raymtr.tagging.store import TagStore

MOST_BLOCK_BYTES = 128 << 20  # decoded audio per actor call; a long track may exceed it


class EmbedFigures(Worked):
    """The catalog's tracks by outcome, and what this run did."""

    fingerprint: str | None
    model: str | None  # its folder
    seconds: float
    also: Tagged | None  # with --also


@final
class EmbedAnswer(EmbedFigures):
    """The answer of `embed`."""


def embed_alone(
    left: pa.Table, shards: EmbeddingStore, embed: EmbedSpec, *, spec: AudioSpec
) -> int:
    """Embeds the tracks `left`; the number of replicas seen."""
    embed = fit_actors(embed, left)
    pipeline = embed_pipeline(left, shards, embed, spec)
    return commit_results(pipeline, shards, total=len(left), actors=embed.actors)


def embed_and_tag(
    left: pa.Table,
    shards: EmbeddingStore,
    embed: EmbedSpec,
    *,
    spec: AudioSpec,
    tags: TagStore,
    untagged: pa.Table,
) -> int:
    """Embeds the tracks `left`, and tags those of them that are `untagged` in the same pass.

    Returns the number of replicas seen.
    """
    from raymtr.tagging.together import BothStores

    shared = pc.is_in(left["track_id"], value_set=untagged["track_id"])
    both, alone, replicas = left.filter(shared), left.filter(pc.invert(shared)), 0
    if len(both):
        fitted = fit_actors(embed, both)
        pipeline = embed_pipeline(both, shards, fitted, spec, tag=True)
        stores = BothStores(shards, tags)
        replicas = commit_results(pipeline, stores, total=len(both), actors=fitted.actors)
    if len(alone):
        replicas = max(replicas, embed_alone(alone, shards, embed, spec=spec))
    return replicas


def embed_pipeline(
    tracks: pa.Table,
    shards: EmbeddingStore,
    embed: EmbedSpec,
    spec: AudioSpec,
    *,
    tag: bool = False,
) -> ray.data.Dataset:
    """Rows of SOURCES and `duration` -> EMBEDDED rows, or EmbedAndTag's, through the cluster.

    Without GPUs both steps request the same resources, so Ray fuses them and a decoded track never
    leaves its actor. With GPUs decoding is a separate stage, which Ray spreads over all free cores:
    samples travel as 16-bit integers, and a replica takes one block while it computes another.
    """
    import ray.data

    cores = actor_cores(embed)
    size = tracks_per_block(tracks, spec.window_s, embed)
    decode, actor = decode_tracks, EmbedTracks
    if tag:  # imported here because it imports torch
        from raymtr.tagging.together import EmbedAndTag, decode_for_both

        decode, actor = decode_for_both, EmbedAndTag
    dataset = ray.data.from_arrow(tracks.select(SOURCES))
    dataset.context.target_max_block_size = MOST_BLOCK_BYTES
    return (
        dataset.repartition(target_num_rows_per_block=size)
        .map_batches(
            partial(decode, spec=spec, embed=embed, hung=shards.hung, packed=embed.use_gpu),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1 if embed.use_gpu else cores,
        )
        .map_batches(
            actor,
            fn_constructor_args=(shards.model_folder, shards.made_by),
            fn_constructor_kwargs={
                "device": "cuda" if embed.use_gpu else "cpu",
                "threads": embed.threads,
            },
            batch_size=size if embed.use_gpu else None,  # Ray wants a number for a GPU
            batch_format="pyarrow",
            compute=replicas_of(embed),
            num_cpus=cores,
            num_gpus=embed.gpu_share if embed.use_gpu else 0,
        )
    )


def replicas_of(embed: EmbedSpec) -> ray.data.ActorPoolStrategy:
    """The pool of model replicas; on a GPU each has two calls in flight."""
    import ray.data

    return ray.data.ActorPoolStrategy(
        min_size=fewest_actors(embed),
        max_size=embed.actors,
        max_concurrent_calls_per_actor=2 if embed.use_gpu else None,
        enable_true_multi_threading=embed.use_gpu or None,
    )
