"""`raymtr fetch`: copies a model or text tower into the workspace, for jobs that run offline.

raymtr.model.fetched defines what can be fetched and from where. `train` fetches its text tower by
itself on first use; this verb is for machines whose jobs have no network.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from raymtr.specs import Settings
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.fetched import FetchAnswer

EXAMPLE = "raymtr fetch roberta-base --workspace w"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `fetch`."""
    parser.add_argument(
        "name",
        help="ttmrpp, clap-general, musiccoca, or a text encoder or Llama-family base: a hub name "
        "or a folder",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> FetchAnswer:
    """The command-line entry point."""
    from raymtr.model.fetched import fetch  # imports torch

    return fetch(arguments.name, workspace)


def describe(answer: FetchAnswer) -> str:
    """The answer as text."""
    came = f"from {answer['source']}" if answer["new"] else "already here"
    licence = answer["licence"] or "not stated"
    return f"{answer['name']}, a {answer['kind']}, {came}; licence: {licence}\n{answer['folder']}"


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
