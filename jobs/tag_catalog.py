"""`raymtr tag`: catalog + audio -> `heard/`: predicted tags and measured attributes.

Decoding, resume, dead letters and shards are those of `embed`. Predicted tags never change the
owner's tags. `index` turns them into columns to filter by. `heard/review.csv` lists tracks for
human review: tracks without tags, with suggestions, and tracks with a genre that the taggers do not
detect.
"""

from __future__ import annotations

import argparse
import csv
import io
import logging
import time
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from jobs.cluster import start_ray
from jobs.shard_rows import add_retry, commit_results, fit_actors, read_catalog, tracks_left
from raymtr import storage
from raymtr.embeddings.embed_tracks import decode_whole
from raymtr.embeddings.store import Account
from raymtr.specs import Settings
from raymtr.tagging.analysis import LABELS, PRESENT_FROM
from raymtr.tagging.store import MADE_BY, TagStore, TagTracks
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr tag --workspace w"
TRACKS_PER_BLOCK = 8  # unit of retry; a track takes seconds
SUGGESTED = 5  # labels in a row of the review
REVIEW = ["track_id", "title", "artist", "why", "owner", "heard"]


class TagAnswer(Account):
    """The catalog's tracks by outcome, and what this run did."""

    new: int  # tracks tried
    heard_by: str  # fingerprint
    review: str | None  # a CSV file
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `tag`."""
    add_retry(parser)


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> TagAnswer:
    """The command-line entry point."""
    return tag_catalog(workspace, settings, retry=arguments.retry)


def tag_catalog(
    workspace: Workspace, settings: Settings, *, retry: Sequence[str] = ()
) -> TagAnswer:
    """Tags every track of the catalog that has audio and was not tagged yet.

    Raises InputError if there is no catalog, UnusableError if the taggers are missing.
    """
    from raymtr.tagging.analysis import Analyzer

    started = time.monotonic()
    catalog = read_catalog(workspace)
    Analyzer()  # before anything is changed: the package may be missing
    shards = TagStore(workspace)
    shards.take()
    left, _ = tracks_left(shards, catalog, retry)
    if len(left):
        LOG.info("tagging %d tracks", len(left))
        start_ray()
        tag_tracks(left, shards, settings)
    shards.release()
    review = write_review(workspace, shards)
    return {
        **shards.account(catalog),
        "new": len(left),
        "heard_by": MADE_BY.fingerprint,
        "review": review,
        "seconds": round(time.monotonic() - started, 3),
    }


def tag_tracks(left: pa.Table, shards: TagStore, settings: Settings) -> None:
    """The pipeline: decodes and tags in one actor, as a decoded track is large; writes here."""
    import ray.data

    embed = fit_actors(settings.embed, left)
    pipeline = (
        ray.data.from_arrow(left)
        .repartition(target_num_rows_per_block=min(TRACKS_PER_BLOCK, embed.tracks_per_block))
        .map_batches(
            decode_whole,
            fn_kwargs={"embed": embed, "hung": shards.hung},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
        .map_batches(
            TagTracks,
            fn_constructor_args=(embed.threads,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=embed.actors),
            num_cpus=1,
        )
    )
    commit_results(pipeline, shards, total=len(left), actors=embed.actors, what="tag")


def write_review(workspace: Workspace, shards: TagStore) -> str | None:
    """Writes `heard/review.csv`, for a spreadsheet; None if no track was tagged."""
    heard = shards.read()
    if heard is None or not len(heard):
        return None
    named = ["track_id", "title", "artist", "tags"]
    owners = storage.read_tables(workspace.tracks, named)
    assert owners is not None, "its catalog was read before"
    by_id = {row["track_id"]: row for row in owners.to_pylist()}
    lines = [row for track in heard.to_pylist() if (row := review_row(track, by_id))]
    text = io.StringIO()
    writer = csv.DictWriter(text, REVIEW)
    writer.writeheader()
    writer.writerows(lines)
    file = f"{shards.folder}/review.csv"
    storage.write_bytes(file, text.getvalue().encode("utf-8-sig"))  # the encoding Excel reads
    return file


def review_row(track: dict[str, Any], owners: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """A row of REVIEW if a track has no tags, or a known label that the taggers do not detect."""
    owner = owners.get(track["track_id"])
    if owner is None:
        return None
    tags = [tag.lower() for tag in owner["tags"] or ()]
    best = sorted(LABELS, key=lambda label: -track[label])[:SUGGESTED]
    said = "; ".join(f"{label} {track[label]:.2f}" for label in best)
    row = {name: owner[name] for name in ("track_id", "title", "artist")} | {"heard": said}
    if not tags:
        return row | {"why": "no tags", "owner": ""}
    unheard = [tag for tag in tags if tag in LABELS and track[tag] < PRESENT_FROM / 5]
    if unheard and max(track[label] for label in LABELS) >= PRESENT_FROM:
        return row | {"why": "not heard", "owner": "; ".join(unheard)}
    return None


def describe(answer: TagAnswer) -> str:
    """The answer as text."""
    lines = [
        f"{answer['embedded']} tracks tagged ({answer['new']} tried now), {answer['failed']} "
        f"failed, {answer['skipped']} without audio skipped; {answer['seconds']:.1f} s"
    ]
    lines += [f"  {count} x {code}" for code, count in answer["errors"].items()]
    if answer["review"]:
        lines.append(f"for review: {answer['review']}")
    return "\n".join([*lines, "run `raymtr index` to filter by these tags"])


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
