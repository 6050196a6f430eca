"""`raymtr tag`: catalog + audio -> `heard/`: predicted tags and measured attributes.

Decoding, resume, dead letters and shards are those of `embed`. Predicted tags never change the
owner's tags. `index` turns them into columns to filter by. `heard/review.csv` lists tracks for
human review: tracks without tags, with suggestions, and tracks with a genre that the taggers do not
detect (tagging.review). `raymtr embed --also tags,attributes` does the same in one pass with the
vectors.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from jobs.partitions import Work, Worked, count_tracks, work_through_catalog
from jobs.shard_rows import add_retry
from jobs.tagging import tag_tracks
from raymtr.specs import Settings
from raymtr.tagging.review import write_review
from raymtr.tagging.store import MADE_BY, TagStore
from raymtr.workspace import Workspace

EXAMPLE = "raymtr tag --workspace w"


class TagAnswer(Worked):
    """The catalog's tracks by outcome, and what this run did."""

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
    count_tracks(workspace)
    Analyzer()  # before anything is changed: the package may be missing
    shards = TagStore(workspace)
    work = Work(what="tag", shards=shards, run=tag_tracks, embed=settings.embed, retry=tuple(retry))
    answer = work_through_catalog(workspace, work)
    review = write_review(workspace, shards)
    return {
        **answer,
        "heard_by": MADE_BY.fingerprint,
        "review": review,
        "seconds": round(time.monotonic() - started, 3),
    }


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
