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

KEYS: dict[str, ModuleType] = {  # a key that only this part's answers have
    **dict.fromkeys(("systems", "read"), evaluate_captions),
    "protocol": evaluate_protocols,
    **dict.fromkeys(("fad", "memorisation", "page", "wins"), evaluate_generation),
    "held_out": evaluate_probe,
    "classes": evaluate_queries,
}

EvaluateAnswer = (
    evaluate_tracks.QualityAnswer
    | evaluate_captions.CaptionsAnswer
    | evaluate_captions.ReadingAnswer
    | evaluate_generation.Answer
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
    parser.add_argument(
        "--blind", type=int, metavar="N", help="a page to judge N pairs blind: captions, generation"
    )
    parser.add_argument("--scores", metavar="CSV", help="a reader's marks, by the key in --out")
    for name, part in GROUPS.items():
        part.add_arguments(parser.add_argument_group(name))


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> EvaluateAnswer:
    """The command-line entry point."""
    wanted = PARTS.get(arguments.what)
    for name, part in GROUPS.items():
        for option in part.OWN:
            given = getattr(arguments, option) is not None
            if given and (wanted is None or option not in wanted.OWN):
                raise InputError(
                    f"--{option.replace('_', '-')} belongs to `raymtr evaluate {name}`"
                )
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
    """The answer as text."""
    part = next((part for key, part in KEYS.items() if key in answer), evaluate_tracks)
    text: str = part.describe(answer)
    return text


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
