"""Shared by `tag` and `embed --also tags,attributes`: the store `heard/` and its pipeline.

What imports torch is imported in the functions, because `embed` alone does not need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from jobs.shard_rows import commit_results, fit_actors, prepare
from raymtr.embeddings.store import EVERY_CODE
from raymtr.specs import Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.tagging.store import HeardShards

HEARD_PER_BLOCK = 8  # tracks in a unit of retry; each takes seconds


def open_heard(workspace: Workspace, catalog: pa.Table, retry: Sequence[str]) -> HeardShards:
    """The store of tags and attributes, owned and prepared; `retry` codes it lacks are ignored.

    Raises UnusableError if the taggers are missing.
    """
    from raymtr.tagging.ears import Ears
    from raymtr.tagging.store import HeardShards

    Ears()  # before anything is changed: the package may be missing
    shards = HeardShards(workspace)
    shards.drop_other_version()
    have = {EVERY_CODE, *shards.read_dead_letters()["code"].to_pylist()}
    prepare(shards, catalog, [code for code in retry if code in have])
    return shards


def close_heard(
    heard: HeardShards, workspace: Workspace, catalog: pa.Table, error_rate: float
) -> dict[str, Any]:
    """What `heard` adds to the answer; the error rate is the higher one of both stores."""
    from raymtr.tagging.review import write_review

    heard.release()
    counts = heard.account(catalog)
    return {
        "heard": counts["embedded"],
        "not_heard": counts["failed"],
        "review": write_review(workspace, heard),
        "error_rate": max(error_rate, counts["error_rate"]),
    }


def hear_tracks(left: pa.Table, shards: HeardShards, settings: Settings) -> None:
    """Tags and measures tracks: decoding and taggers in one actor, as a decoded track is large."""
    import ray.data

    from raymtr.tagging.store import HearTracks, decode_whole

    embed = fit_actors(settings.embed, left)
    pipeline = (
        ray.data.from_arrow(left)
        .repartition(target_num_rows_per_block=min(HEARD_PER_BLOCK, embed.tracks_per_block))
        .map_batches(
            decode_whole,
            fn_kwargs={"embed": embed, "hung": shards.hung},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
        .map_batches(
            HearTracks,
            fn_constructor_args=(embed.threads,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=embed.actors),
            num_cpus=1,
        )
    )
    commit_results(pipeline, shards, total=len(left), actors=embed.actors, what="tag")
