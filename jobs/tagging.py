"""Shared by `tag` and `embed --also tags,attributes`: the store `heard/` and its pipeline.

What imports torch is imported in the functions, because `embed` alone does not need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, TypedDict, final

import pyarrow as pa

from jobs.shard_rows import commit_results, cpu_pipeline, fit_actors, tracks_left, tracks_per_block
from raymtr.embeddings.store import EVERY_CODE, EmbeddingStore
from raymtr.specs import EmbedSpec
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.tagging.store import TagStore

TRACKS_PER_BLOCK = 8  # tracks in a unit of retry; each takes seconds


@final
class Tagged(TypedDict):
    """The part of an answer that tagging in the same pass adds."""

    tagged: int
    not_tagged: int
    review: str | None  # a CSV file


def open_tags(
    workspace: Workspace, catalog: pa.Table, retry: Sequence[str]
) -> tuple[TagStore, pa.Table]:
    """The store of tags and attributes, owned, and SOURCES of the tracks left there.

    Codes of `retry` that no failure has there are ignored. Raises UnusableError if the taggers are
    missing.
    """
    from raymtr.tagging.analysis import Analyzer
    from raymtr.tagging.store import TagStore

    Analyzer()  # before anything is changed: the package may be missing
    shards = TagStore(workspace)
    shards.take()
    have = {EVERY_CODE, *shards.read_dead_letters()["code"].to_pylist()}
    left, _ = tracks_left(shards, catalog, [code for code in retry if code in have])
    return shards, left


def close_tags(shards: TagStore, workspace: Workspace, catalog: pa.Table) -> tuple[Tagged, float]:
    """The counts of the store of tags, and its error rate; writes the review."""
    from raymtr.tagging.review import write_review

    shards.release()
    counts = shards.account(catalog)
    tagged: Tagged = {
        "tagged": counts["embedded"],
        "not_tagged": counts["failed"],
        "review": write_review(workspace, shards),
    }
    return tagged, counts["error_rate"]


def tag_tracks(left: pa.Table, shards: EmbeddingStore, embed: EmbedSpec) -> int:
    """Tags and measures tracks: decoding and taggers in one actor, as a decoded track is large.

    Returns the number of replicas seen.
    """
    from raymtr.tagging.analysis import TAGGED_AUDIO
    from raymtr.tagging.store import TagTracks, decode_whole

    embed = fit_actors(embed, left)
    size = min(TRACKS_PER_BLOCK, tracks_per_block(left, TAGGED_AUDIO.window_s, embed))
    decode = partial(decode_whole, embed=embed, hung=shards.hung)
    pipeline = cpu_pipeline(left, decode, TagTracks, rows_per_block=size, embed=embed)
    return commit_results(pipeline, shards, total=len(left), actors=embed.actors, what="tag")
