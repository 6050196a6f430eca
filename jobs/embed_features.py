"""`raymtr embed --output features`: catalog + audio + a model -> what its audio tower hears.

The same decoding, shards, dead letters and resuming as for vectors. Features are stored in float16
(mulap.store). A re-ranker and a probe read them.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from jobs.cluster import start_ray
from jobs.shard_rows import EmbedAnswer, commit_results, fit_actors, read_catalog, tracks_left
from raymtr.embeddings.embed_tracks import decode_tracks
from raymtr.errors import InputError
from raymtr.mulap.backbone import open_backbone
from raymtr.mulap.store import FeatureTracks, open_features
from raymtr.specs import Settings
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")


def named_source(workspace: Workspace, model: str | None) -> str:
    """The model folder of the run, or of the model, that is named. Raises InputError if none is."""
    if model is None:
        raise InputError("--output features needs --model, a run's name or a model folder")
    return workspace.trained(model)


def embed_features(
    workspace: Workspace, settings: Settings, *, model: str | None, retry: Sequence[str] = ()
) -> EmbedAnswer:
    """The features of every track of the catalog that has audio and none of this model yet.

    Raises InputError if no model is named, or it has no audio tower.
    """
    import ray.data

    started = time.monotonic()
    catalog, source = read_catalog(workspace), named_source(workspace, model)
    backbone = open_backbone(source)
    shards = open_features(workspace, backbone)
    shards.take()
    (left, changed), replicas = tracks_left(shards, catalog, retry), 0
    if len(left):
        LOG.info("features of %d tracks, %d of them changed, by %s", len(left), changed, source)
        start_ray()
        embed = fit_actors(settings.embed, left)
        pipeline = (
            ray.data.from_arrow(left)
            .repartition(target_num_rows_per_block=embed.tracks_per_block)
            .map_batches(
                decode_tracks,
                fn_kwargs={"spec": backbone.spec.audio, "embed": embed, "hung": shards.hung},
                batch_size=None,
                batch_format="pyarrow",
                num_cpus=1,
            )
            .map_batches(
                FeatureTracks,
                fn_constructor_args=(source, shards.made_by),
                fn_constructor_kwargs={"threads": embed.threads},
                batch_size=None,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=embed.actors),
                num_cpus=1,
            )
        )
        replicas = commit_results(pipeline, shards, total=len(left), actors=embed.actors)
    shards.release()
    return {
        **shards.account(catalog),
        "new": len(left),
        "fingerprint": backbone.fingerprint,
        "model": source,
        "replicas": replicas,
        "seconds": round(time.monotonic() - started, 3),
    }
