"""`raymtr fetch`: a model or text tower comes into the workspace, before a job needs it offline.

What it may be, and where it is looked for, stands in raymtr.model.fetched. `train` fetches its
text tower by itself on first use; this verb is for machines whose jobs have no network.
"""

from __future__ import annotations

import argparse
from typing import Any

from raymtr.specs import Settings
from raymtr.workspace import Workspace

EXAMPLE = "raymtr fetch roberta-base --workspace w"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fetch` alone."""
    parser.add_argument(
        "name",
        help="ttmrpp, clap-general, or a text encoder or Llama-family base: a hub name or a folder",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The command line's way in."""
    from raymtr.model.fetched import fetch  # torch

    return fetch(arguments.name, workspace)


def describe(answer: dict[str, Any]) -> str:
    """The answer in words."""
    came = f"from {answer['source']}" if answer["new"] else "already here"
    licence = answer["licence"] or "not stated"
    return f"{answer['name']}, a {answer['kind']}, {came}; licence: {licence}\n{answer['folder']}"


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
