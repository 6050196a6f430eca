"""`raymtr evaluate captions`: sentences of several systems for the same tags, against people's.

Written to `evaluation/`: `captions.json` and, for reading side by side, `captions.jsonl`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from raymtr import storage
from raymtr.captions.score import TokenEncoder
from raymtr.errors import InputError
from raymtr.evaluation import caption_benchmark, caption_training
from raymtr.recipes import MINILM
from raymtr.workspace import Workspace

OWN = ("pairs", "held_out", "captions", "baseline", "encoder")  # arguments of captions alone
SEED = 0  # of the tags' order and of the intervals


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Arguments of captions alone."""
    parser.add_argument(
        "--pairs",
        metavar="JSONL",
        help="`tags` and a reference `caption` (default: what `finetune` held out)",
    )
    parser.add_argument(
        "--held-out",
        action="store_true",
        default=None,
        help="only those of --pairs that `finetune` holds out",
    )
    parser.add_argument(
        "--captions",
        metavar="NAME=FILE",
        action="append",
        help="a system's captions, JSON lines or Parquet; repeatable (default: the workspace's)",
    )
    parser.add_argument("--baseline", metavar="NAME", help="others less this one (template)")
    parser.add_argument(
        "--encoder", metavar="NAME", help=f"of BERTScore, a folder or a name (default: {MINILM})"
    )


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Those of them that were given."""
    values = {name: getattr(arguments, name) for name in OWN}
    return {name: value for name, value in values.items() if value is not None}


def run(arguments: argparse.Namespace, workspace: Workspace) -> dict[str, Any]:
    """The command line's way in."""
    asked = given(arguments)
    files = _named_files(asked.pop("captions", ()))
    return evaluate_captions(workspace, files=files, out=arguments.out, **asked)


def _named_files(arguments: Sequence[str]) -> dict[str, str]:
    """NAME=FILE each, every name once and none of those that are made here."""
    files: dict[str, str] = {}
    for argument in arguments:
        name, _, uri = argument.partition("=")
        if not name or not uri:
            raise InputError(
                f"--captions is NAME=FILE, as in lora=captions.jsonl; got {argument!r}"
            )
        if name in files or name in (caption_benchmark.TEMPLATE, caption_benchmark.TAGS):
            raise InputError(f"--captions: the name {name!r} is taken; each system has its own")
        files[name] = uri
    return files


def evaluate_captions(
    workspace: Workspace,
    *,
    pairs: str | None = None,
    held_out: bool = False,
    files: Mapping[str, str] | None = None,
    baseline: str = caption_benchmark.TEMPLATE,
    encoder: str = MINILM,
    out: str | None = None,
) -> dict[str, Any]:
    """Figures of each system's captions (`files`: name -> where) beside a template's and the tags.

    `pairs` are the ones that `finetune` held out, where not given, and `files` the workspace's
    captions. Raises InputError where there is nothing to compare.
    """
    asked, vocabulary = caption_benchmark.asked_pairs(workspace, pairs, held_out=held_out)
    if not files and storage.list_files(workspace.captions, suffix=".parquet"):
        files = {"captions": workspace.captions}
    rng = np.random.default_rng(SEED)
    systems = {
        name: caption_benchmark.read_captions(uri, asked) for name, uri in (files or {}).items()
    }
    systems |= caption_benchmark.made_here(asked, rng)
    answer = caption_benchmark.compare(
        asked,
        systems,
        encoder=TokenEncoder(encoder),
        vocabulary=vocabulary,
        baseline=baseline,
        rng=rng,
    )
    learnt = caption_training.trained_on(workspace.captioner, asked, files or {})
    answer["trained_on"] = learnt
    answer["notes"] += caption_training.notes(learnt, len(asked), caption_benchmark.MARK)
    folder = out or workspace.path("evaluation")
    answer |= {"seed": SEED, "files": {n: f"{folder}/captions.{n}" for n in ("json", "jsonl")}}
    lines = caption_benchmark.side_by_side(asked, systems)
    storage.write_bytes(answer["files"]["jsonl"], "".join(f"{n}\n" for n in lines).encode())
    storage.write_json(answer["files"]["json"], answer)
    return answer


def describe(answer: dict[str, Any]) -> str:
    """A line a system."""
    lines = [*caption_benchmark.table_lines(answer), ""]
    lines += [f"note: {note}" for note in answer["notes"]]
    return "\n".join([*lines, f"written to {answer['files']['json']}"])
