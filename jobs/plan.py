"""`raymtr plan`: the resources a catalog of a given size needs, from measured constants.

The arithmetic and its constants are in raymtr.capacity. The index type for that size comes from the
index code itself, so that a plan cannot disagree with it.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import Any, TypedDict

from raymtr.capacity import (
    MEASURED,
    MOST_DIM,
    MOST_HOURS,
    MOST_MINUTES,
    CapacityPlan,
    Wanted,
    parse_positive,
    parse_size,
    plan_capacity,
)
from raymtr.index.build_tables import choose_index
from raymtr.specs import Settings
from raymtr.workspace import Workspace

TAGGERS = {"musicnn-msd": 1, "musicnn": 2}  # musicnn's networks by kind of tower, of others 0
EXAMPLE = "raymtr plan --tracks 100M --hours 168"


class IndexChoice(TypedDict):
    """The vector index that a catalog of this size gets."""

    kind: str
    partitions: int
    why: str


class PlanAnswer(CapacityPlan):
    """A capacity plan with its input, its index, and the constants behind it."""

    wanted: dict[str, float]  # of `Wanted`
    index: IndexChoice
    measured: dict[str, Any]  # of `Measured`


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `plan`."""
    parser.add_argument(
        "--tracks", metavar="N", required=True, help="such as 250000, 250k, 100M or 1.5B"
    )
    parser.add_argument(
        "--hours", metavar="H", required=True, help="in which to embed and index all of it"
    )
    parser.add_argument("--minutes-per-track", metavar="M", default="4", help="default: 4")
    parser.add_argument("--dim", metavar="D", default="128", help="of a vector; default: 128")


def run(
    arguments: argparse.Namespace, workspace: Workspace | None, settings: Settings
) -> PlanAnswer:
    """The command-line entry point; a plan reads no workspace."""
    wanted = Wanted(
        tracks=parse_size(arguments.tracks, "--tracks"),
        hours=parse_positive(arguments.hours, "--hours", most=MOST_HOURS),
        minutes_per_track=parse_positive(
            arguments.minutes_per_track, "--minutes-per-track", most=MOST_MINUTES
        ),
        dim=parse_size(arguments.dim, "--dim", most=MOST_DIM),
        clips=settings.train.steps * settings.train.global_batch,
        cache_gib=settings.train.cache_gib,
        taggers=TAGGERS.get(settings.towers.audio_tower.kind, 0),
    )
    return plan_catalog(wanted, settings)


def plan_catalog(wanted: Wanted, settings: Settings) -> PlanAnswer:
    """The `CapacityPlan` as JSON, with its index and the constants behind it."""
    index = choose_index(wanted.tracks, wanted.dim, exact_below=settings.search.exact_below)
    exact = index.kind == "exact"
    return {
        "wanted": asdict(wanted),
        **plan_capacity(wanted, exact=exact),
        "index": {"kind": index.kind, "partitions": index.partitions, "why": index.why},
        "measured": asdict(MEASURED),
    }


def describe(answer: PlanAnswer) -> str:
    """The plan as a table."""
    wanted, disk = answer["wanted"], answer["disk_gb"]
    parts = ", ".join(f"{name} {_gb(size)}" for name, size in disk.items() if name != "all")
    rows = {
        "catalog": f"{wanted['tracks']:,} tracks, {answer['audio_hours']:,.0f} hours of audio, "
        f"{answer['windows']:,} windows of {wanted['dim']} dimensions",
        "GPUs": f"{answer['gpus']:,}, busy for {answer['embed_hours']:,.1f} h (the index takes "
        "the rest)",
        "no GPU": f"{answer['encode_cores']:,} CPU cores instead",
        "decoding": f"{answer['decode_cores']:,} CPU cores for as long, which send the GPUs "
        f"{answer['decode_gbit_s']:,.2g} Gbit/s",
        "partitions": f"{answer['partitions']:,}, of which embed.drivers at once",
        "disk": f"{_gb(disk['all'])}: {parts}",
        "training": f"{_gb(answer['train_audio_gb'])} of decoded audio, of which a machine "
        f"keeps {_gb(answer['train_cache_gb'])} on its disk (train.cache_gib); "
        f"{answer['train_decode_core_hours']:,.3g} core-hours of decoding for {wanted['clips']:,} "
        "clips",
        "index": f"{answer['index']['kind']}: {answer['index']['why']}",
        "build": f"{answer['build_hours']:.3g} h, {answer['build_core_hours']:.3g} core-hours, "
        f"{_gb(answer['build_memory_gb'])} of memory on one machine",
        "serving": f"{_gb(answer['serving_memory_gb'])} of memory a replica, its model apart"
        + (f", with index_cache_gb={math.ceil(disk['index'])} or more" if disk["index"] else ""),
        "shards": f"{answer['table_shards']:,} (search.shards), each "
        f"{_gb(answer['shard_memory_gb'])} a replica",
        "recall@10": _by_kind(answer["recall_at_10"], "{:.3f}"),
        "p95": _by_kind(answer["p95_ms"], "{:,.1f} ms") + " (vectors alone)",
        "a query": _by_kind(answer["query_core_ms"], "{:,.1f} core-ms"),
    }
    lines = [f"{name:10} {text}" for name, text in rows.items()]
    return "\n".join([*lines, *(f"note       {note}" for note in answer["notes"])])


def _gb(size: float) -> str:
    return f"{size / 1000:,.1f} TB" if size >= 1000 else f"{size:,.3g} GB"


def _by_kind(values: dict[str, float], form: str) -> str:
    return ", ".join(f"{kind} {form.format(value)}" for kind, value in values.items())


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
