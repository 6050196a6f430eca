"""`raymtr evaluate captions`: captions of several systems against human ones, for the same tags.

Output in `evaluation/`: `captions.json` and, for reading side by side, `captions.jsonl`. `--blind`
writes a page that hides the systems, `captions-blind.html`, and its key in a separate file.
`--scores` reads the marks that the reader saved.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TypedDict, final

import numpy as np

from raymtr import storage
from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.judging.score import TokenEncoder
from raymtr.errors import InputError
from raymtr.evaluation import blind_reading, caption_benchmark, caption_training
from raymtr.tower_recipes import MINILM
from raymtr.workspace import Workspace

OWN = (
    "pairs",
    "held_out",
    "captions",
    "baseline",
    "encoder",
    "base",
    "blind",
    "scores",
)  # arguments of captions alone
SEED = 0  # of the tags' order and of the intervals


@final
class CaptionsAnswer(caption_benchmark.Comparison):
    """The systems compared, what their captioners were trained on, and the files written."""

    trained_on: dict[str, int | None]  # pairs by system; None: unknown
    seed: int
    files: dict[str, str]


@final
class ReadingAnswer(TypedDict):
    """A reader's marks of a blind page, by system."""

    read: dict[str, blind_reading.Marks]


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the arguments of `captions`."""
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
    parser.add_argument(
        "--base",
        metavar="NAME",
        help="a language model that reads: order gain and perplexity (`smollm2`, a folder, a name)",
    )


def run(arguments: argparse.Namespace, workspace: Workspace) -> CaptionsAnswer | ReadingAnswer:
    """The command-line entry point."""
    return evaluate_captions(
        workspace,
        pairs=arguments.pairs,
        held_out=bool(arguments.held_out),
        files=_named_files(arguments.captions or ()),
        baseline=arguments.baseline or caption_benchmark.TEMPLATE,
        encoder=arguments.encoder or MINILM,
        base=arguments.base,
        blind=arguments.blind,
        scores=arguments.scores,
        out=arguments.out,
    )


def _named_files(arguments: Sequence[str]) -> dict[str, str]:
    """Parses NAME=FILE arguments; names must be unique and not those of built-in systems."""
    files: dict[str, str] = {}
    for argument in arguments:
        name, _, uri = argument.partition("=")
        if not name or not uri:
            raise InputError(
                f"--captions is NAME=FILE, as in lora=captions.jsonl; got {argument!r}"
            )
        if name in files or name in caption_benchmark.MADE_HERE:
            raise InputError(f"--captions: the name {name!r} is taken; each system needs its own")
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
    base: str | None = None,
    blind: int | None = None,
    scores: str | None = None,
    out: str | None = None,
) -> CaptionsAnswer | ReadingAnswer:
    """Figures of each system's captions (`files`: name -> where) next to a template's and the tags.

    `pairs` defaults to the pairs that `finetune` held out, `files` to the workspace's captions.
    `base` reads them too. With `blind`, a page of that many pairs and its key are also written.
    With `scores`, the answer contains only a reader's marks of that page. Raises InputError if
    there is nothing to compare.
    """
    folder = out or workspace.path("evaluation")
    key = f"{folder}/captions-blind-key.json"
    if scores is not None:
        marks = storage.read_bytes(scores).decode()
        return {"read": blind_reading.read_scores(marks, storage.read_json(key))}
    chosen, vocabulary = caption_benchmark.asked_pairs(workspace, pairs, held_out=held_out)
    if not files and storage.list_files(workspace.captions, suffix=".parquet"):
        files = {"captions": workspace.captions}
    rng = np.random.default_rng(SEED)
    systems = {
        name: caption_benchmark.read_captions(uri, chosen) for name, uri in (files or {}).items()
    }
    systems |= caption_benchmark.made_here(chosen, rng)
    compared = caption_benchmark.compare(
        chosen,
        systems,
        encoder=TokenEncoder(encoder),
        vocabulary=vocabulary,
        baseline=baseline,
        rng=rng,
        base=Likelihood(base) if base else None,
    )
    learnt = caption_training.trained_on(workspace.captioner, chosen, files or {})
    compared["notes"] += caption_training.notes(learnt, len(chosen), caption_benchmark.MARK)
    answer: CaptionsAnswer = {
        **compared,
        "trained_on": learnt,
        "seed": SEED,
        "files": {name: f"{folder}/captions.{name}" for name in ("json", "jsonl")},
    }
    lines = caption_benchmark.side_by_side(chosen, systems)
    storage.write_bytes(answer["files"]["jsonl"], "".join(f"{n}\n" for n in lines).encode())
    if blind is not None:
        everyone = {blind_reading.PEOPLE: [[pair.caption] for pair in chosen], **systems}
        page, owners = blind_reading.blind_page(chosen, everyone, blind, rng)
        answer["files"]["blind"] = f"{folder}/captions-blind.html"
        storage.write_bytes(answer["files"]["blind"], page.encode())
        storage.write_json(key, owners)
    storage.write_json(answer["files"]["json"], answer)
    return answer


def describe(answer: CaptionsAnswer | ReadingAnswer) -> str:
    """A line per system."""
    if "read" in answer:
        return "\n".join(
            f"{name:20}{row['read']:5} read  fluency {row['fluency']:.2f}  faithfulness "
            f"{row['faithfulness']:.2f}  both at least {blind_reading.GOOD}: {row['both_good']:.0%}"
            for name, row in answer["read"].items()
        )
    lines = [*caption_benchmark.table_lines(answer, answer["trained_on"]), ""]
    lines += [f"note: {note}" for note in answer["notes"]]
    return "\n".join([*lines, f"written to {answer['files']['json']}"])
