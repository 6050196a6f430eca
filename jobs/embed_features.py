"""`raymtr embed --output features`: catalog + audio + a model -> features of its audio tower.

The same decoding, partitions, shards, dead letters and resuming as for vectors. Features are stored
in float16 (mulap.store). A re-ranker and a probe read them.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Sequence

import pyarrow as pa

from jobs.embed_pipeline import EmbedAnswer
from jobs.partitions import Work, count_tracks, work_through_catalog
from jobs.shard_rows import commit_results, cpu_pipeline, fit_actors, tracks_per_block
from raymtr.embeddings.embed_tracks import decode_tracks
from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError
from raymtr.mulap.backbone import LOG_MEL, RANDOM, open_backbone
from raymtr.mulap.store import FeatureTracks, open_features
from raymtr.specs import EmbedSpec, Settings
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")


def named_source(workspace: Workspace, model: str | None) -> str:
    """What `open_backbone` opens for a run, a model, LOG_MEL, or RANDOM and a run.

    Raises InputError if no model is named.
    """
    if model is None:
        raise InputError("--output features needs --model, a run's name or a model folder")
    if model.startswith(RANDOM):
        return RANDOM + workspace.trained(model.removeprefix(RANDOM))
    return model if model == LOG_MEL else workspace.trained(model)


def embed_features(
    workspace: Workspace, settings: Settings, *, model: str | None, retry: Sequence[str] = ()
) -> EmbedAnswer:
    """Stores features of every track that has audio and no features of this model yet.

    Raises InputError if there is no catalog, no model is named, or it has no audio tower.
    """
    started = time.monotonic()
    count_tracks(workspace)
    source = named_source(workspace, model)
    backbone = open_backbone(source)
    LOG.info("features by %s, model %s", source, backbone.fingerprint)
    work = Work(
        what="embed",
        shards=open_features(workspace, backbone),
        run=functools.partial(hear_tracks, source=source, spec=backbone.spec.audio),
        embed=settings.embed,
        retry=tuple(retry),
    )
    return {
        **work_through_catalog(workspace, work),
        "fingerprint": backbone.fingerprint,
        "model": source,
        "seconds": round(time.monotonic() - started, 3),
        "also": None,
    }


def hear_tracks(
    left: pa.Table, shards: EmbeddingStore, embed: EmbedSpec, *, source: str, spec: AudioSpec
) -> int:
    """Stores the features of the tracks `left`, by the model `source`, on CPUs.

    Returns the number of replicas seen.
    """
    embed = fit_actors(embed, left)
    size = tracks_per_block(left, spec.window_s, embed)
    decode = functools.partial(decode_tracks, spec=spec, embed=embed, hung=shards.hung)
    made_by = (source, shards.made_by)
    pipeline = cpu_pipeline(left, decode, FeatureTracks, made_by, rows_per_block=size, embed=embed)
    return commit_results(pipeline, shards, total=len(left), actors=embed.actors)
