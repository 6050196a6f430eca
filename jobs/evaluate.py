"""`raymtr evaluate`: quality of retrieval, of captions and of query answers, by what is measured.

**tracks** (the default) is jobs.evaluate_tracks, **captions** (`raymtr evaluate captions`)
jobs.evaluate_captions, **queries** (`raymtr evaluate queries --file F`) jobs.evaluate_queries,
**probe** (`raymtr evaluate probe --task T --model A`) jobs.evaluate_probe, **generation**
jobs.evaluate_generation, the published protocols are jobs.evaluate_protocols.
"""

from __future__ import annotations

import argparse
from types import ModuleType

from jobs import (
    evaluate_captions,
    evaluate_generation,
    evaluate_probe,
    evaluate_protocols,
    evaluate_queries,
    evaluate_tracks,
)
from raymtr.errors import InputError
from raymtr.specs import Settings
from raymtr.track import SPLITS
from raymtr.workspace import Workspace

EXAMPLE = "raymtr evaluate --workspace w --split test"

PARTS: dict[str, ModuleType] = {
    "captions": evaluate_captions,
    "queries": evaluate_queries,
    "probe": evaluate_probe,
    "generation": evaluate_generation,
    **dict.fromkeys((*evaluate_protocols.PROTOCOLS, "compare"), evaluate_protocols),
}
WHAT = ("tracks", *PARTS)
GROUPS: dict[str, ModuleType] = {
    "captions": evaluate_captions,
    "queries": evaluate_queries,
    "probe": evaluate_probe,
    "generation": evaluate_generation,
    "protocols": evaluate_protocols,
}

EvaluateAnswer = (
    evaluate_tracks.QualityAnswer
    | evaluate_captions.CaptionsAnswer
    | evaluate_captions.ReadingAnswer
    | evaluate_generation.GenerationAnswer
    | evaluate_probe.ProbeAnswer
    | evaluate_protocols.ProtocolAnswer
    | evaluate_protocols.CompareAnswer
    | evaluate_queries.QueriesAnswer
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `evaluate`."""
    parser.add_argument(
        "what", nargs="?", choices=WHAT, default="tracks", help="what is measured (default: tracks)"
    )
    parser.add_argument(
        "--split", choices=SPLITS, default="test", help="whose tracks are the pool (default: test)"
    )
    parser.add_argument(
        "--benchmark",
        metavar="FOLDER",
        help="your own: queries.jsonl, qrels.txt and, if not the whole catalog, pool.txt",
    )
    parser.add_argument(
        "--system", choices=evaluate_tracks.SYSTEMS, default="both", help="default: both"
    )
    parser.add_argument("--out", metavar="FOLDER", help="default: evaluation/ in the workspace")
    for name, part in GROUPS.items():
        part.add_arguments(parser.add_argument_group(name))


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> EvaluateAnswer:
    """The command-line entry point."""
    for name, part in GROUPS.items():
        given = [option for option in part.OWN if getattr(arguments, option) is not None]
        if given and part is not PARTS.get(arguments.what):
            option = given[0].replace("_", "-")
            raise InputError(f"--{option} belongs to `raymtr evaluate {name}`")
    if arguments.what in PARTS:
        answer: EvaluateAnswer = PARTS[arguments.what].run(arguments, workspace)
        return answer
    return evaluate_tracks.evaluate_tracks(
        workspace,
        settings,
        split=arguments.split,
        benchmark=arguments.benchmark,
        system=arguments.system,
        out=arguments.out,
    )


def describe(answer: EvaluateAnswer) -> str:
    """The answer as text; each part has its own key."""
    if "systems" in answer or "read" in answer:
        return evaluate_captions.describe(answer)
    if "protocol" in answer:
        return evaluate_protocols.describe(answer)
    if "fad" in answer:
        return evaluate_generation.describe(answer)
    if "held_out" in answer:
        return evaluate_probe.describe(answer)
    if "classes" in answer:
        return evaluate_queries.describe(answer)
    return evaluate_tracks.describe(answer)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
