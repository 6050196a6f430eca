"""`raymtr duplicates`: which tracks of the live tables are the same song.

All tracks are compared once, in this process. The result is stored as rows; searches fold groups on
request (`fold_duplicates`). raymtr.duplicates.same_song defines the criteria.
"""

from __future__ import annotations

import argparse
import time
from typing import TypedDict

from raymtr.duplicates.find import count_classes, find_duplicates, write_duplicates
from raymtr.duplicates.same_song import THRESHOLDS
from raymtr.index.publish import live_build
from raymtr.index.sharded_table import open_table
from raymtr.specs import Settings
from raymtr.workspace import Workspace

EXAMPLE = "raymtr duplicates --workspace w"
SHOWN = 10  # groups in the answer


# An example: a row of the duplicates table.
DuplicateRow = TypedDict(
    "DuplicateRow",
    {
        "group": int,
        "track_id": str,
        "title": str | None,
        "artist": str | None,
        "class": str,
        "cosine": float,
        "seconds": float,
    },
)


class DuplicatesAnswer(TypedDict):
    """How many tracks are one song, by class."""

    table_version: str
    compared: int  # tracks
    groups: int
    tracks: int  # in groups
    classes: dict[str, int]
    thresholds: dict[str, str]
    examples: list[DuplicateRow]
    written_to: str
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds no arguments; the help describes the criteria."""
    parser.description = "; ".join(f"{kind}: {rule}" for kind, rule in THRESHOLDS.items())


def run(
    arguments: argparse.Namespace, workspace: Workspace, settings: Settings
) -> DuplicatesAnswer:
    """The command-line entry point."""
    return report_duplicates(workspace)


def report_duplicates(workspace: Workspace) -> DuplicatesAnswer:
    """Finds the duplicates of the live build, stores them, and counts each class.

    Raises InputError if nothing is published yet.
    """
    started = time.monotonic()
    build = live_build(workspace)
    rows = find_duplicates(open_table(workspace.db, build))
    write_duplicates(workspace, rows)
    shown = rows.filter(rows["group"].to_numpy() < SHOWN).to_pylist()
    return {
        "table_version": build.table_version,
        "compared": build.rows["vectors"],
        "groups": len(rows["group"].unique()),
        "tracks": len(rows),
        "classes": count_classes(rows),
        "thresholds": THRESHOLDS,
        "examples": shown,
        "written_to": workspace.duplicates,
        "seconds": round(time.monotonic() - started, 3),
    }


def describe(answer: DuplicatesAnswer) -> str:
    """Counts, and the first groups."""
    counts = ", ".join(f"{count:,} x {kind}" for kind, count in answer["classes"].items())
    lines = [
        f"{answer['compared']:,} tracks compared: {answer['groups']:,} songs occur more than once "
        f"({counts}); {answer['seconds']:.1f} s; rows in {answer['written_to']}"
    ]
    for row in answer["examples"]:
        name = " - ".join(part for part in (row["artist"], row["title"]) if part) or "(untitled)"
        lines.append(
            f"{row['group']:6}  {row['class']:16} {row['cosine']:.4f} {row['seconds']:8.1f} s  "
            f"{name}  [{row['track_id']}]"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
