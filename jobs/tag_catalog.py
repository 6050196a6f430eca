"""`raymtr tag`: catalog + audio -> `heard/`: predicted tags and measured attributes.

Decoding, resume, dead letters and shards are those of `embed`. Predicted tags never change the
owner's tags. `index` turns them into columns to filter by. `heard/review.csv` lists tracks for
human review: tracks without tags, with suggestions, and tracks with a genre that the taggers do not
detect (tagging.review). `raymtr embed --also tags,attributes` does the same in one pass with the
vectors.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from typing import Any

from jobs.cluster import start_ray
from jobs.hearing import hear_tracks
from jobs.shard_rows import prepare, read_catalog
from raymtr.specs import Settings
from raymtr.tagging.review import write_review
from raymtr.tagging.store import MADE_BY, HeardShards
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr tag --workspace w"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `tag`."""
    parser.add_argument(
        "--retry",
        metavar="CODE",
        action="append",
        default=[],
        help="try the tracks that failed with CODE again (all: every failed one); repeatable",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The command-line entry point."""
    return tag_catalog(workspace, settings, retry=arguments.retry)


def tag_catalog(
    workspace: Workspace, settings: Settings, *, retry: Sequence[str] = ()
) -> dict[str, Any]:
    """Tags every track of the catalog that has audio and was not tagged yet.

    Raises InputError if there is no catalog, UnusableError if the taggers are missing.
    """
    from raymtr.tagging.ears import Ears

    started = time.monotonic()
    catalog = read_catalog(workspace)
    Ears()  # before anything is changed: the package may be missing
    shards = HeardShards(workspace)
    prepare(shards, catalog, retry)
    left = shards.remaining(catalog)
    if len(left):
        LOG.info("hearing %d tracks", len(left))
        start_ray()
        hear_tracks(left, shards, settings)
    shards.release()
    review = write_review(workspace, shards)
    return shards.account(catalog) | {
        "new": len(left),
        "heard_by": MADE_BY.fingerprint,
        "review": review,
        "seconds": round(time.monotonic() - started, 3),
    }


def describe(answer: dict[str, Any]) -> str:
    """The answer as text."""
    lines = [
        f"{answer['embedded']} tracks heard ({answer['new']} tried now), {answer['failed']} "
        f"failed, {answer['skipped']} without audio skipped; {answer['seconds']:.1f} s"
    ]
    lines += [f"  {count} x {code}" for code, count in answer["errors"].items()]
    if answer["review"]:
        lines.append(f"to look through: {answer['review']}")
    return "\n".join([*lines, "run `raymtr index` to filter by it"])


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
