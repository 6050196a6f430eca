"""Shared by `embed` and `tag`: sends the catalog's tracks to the cluster and writes shards.

The cluster returns small results to this driver, which is the only writer (see
raymtr.embeddings.store).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.embeddings.embed_tracks import REPLICA
from raymtr.embeddings.store import EmbeddingStore
from raymtr.embeddings.tables import MADE_FROM
from raymtr.errors import InputError, UnusableError
from raymtr.progress import Progress
from raymtr.specs import EmbedSpec
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    import ray.data

LOG = logging.getLogger("raymtr")

SHARD_TRACKS = 2048  # a shard closes at this many tracks,
SHARD_EVERY_S = 2.0  # or at this age: the most a kill can cost, besides work in progress
TRACKS_PER_ACTOR = 500  # minimum per replica; its start takes as long as 300


def fit_actors(embed: EmbedSpec, tracks: pa.Table) -> EmbedSpec:
    """`embed` with no more replicas than `tracks` justify, because each has a start-up cost."""
    actors = min(embed.actors, max(1, len(tracks) // TRACKS_PER_ACTOR))
    return replace(embed, actors=actors, min_actors=min(embed.min_actors, actors))


def fewest_actors(embed: EmbedSpec) -> int:
    """The minimum number of replicas to start embedding."""
    return embed.min_actors or embed.actors


class Store(Protocol):
    """Where results are committed."""

    def commit(self, rows: pa.Table) -> None:
        """Write one shard."""


def prepare(shards: EmbeddingStore, catalog: pa.Table, retry: Sequence[str]) -> int:
    """Become the owner of `shards`, and forget what is to be done again.

    These are the failures with a code of `retry`, those under older rules, and tracks whose file
    has changed, whose number is returned. Raises InputError for a code that no failure has.
    """
    shards.take()
    if retry:
        shards.forget_failures(retry)
    shards.forget(shards.refused_by_older_rules())
    shards.adopt_digests(catalog)
    changed = shards.changed(catalog)
    shards.forget(changed)
    return len(changed)


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
    """MADE_FROM and `duration` of the catalog. Raises InputError if there is no catalog."""
    catalog = storage.read_tables(workspace.tracks, [*MADE_FROM, "duration"])
    if catalog is None or not len(catalog):
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    return catalog
