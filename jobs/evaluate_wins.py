"""Blind pairs of two models' clips, of `raymtr evaluate generation --against`.

`--blind N` writes a page of N pairs, with copies of the clips whose names do not tell the model,
and its key in a file of its own; `--scores` reads what the reader saved.
Output: `evaluation/wins.html`, `evaluation/clips/`, `evaluation/wins-key.json`.
"""

from __future__ import annotations

from typing import TypedDict, final

import numpy as np

from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation.clips import clips_of
from raymtr.evaluation.wins import SIDES, Wins, clip_file, draw_pairs, read_wins, wins_page
from raymtr.workspace import Workspace

SEED = 0  # of the pairs, their order and their sides
PAGE, KEY = "wins.html", "wins-key.json"


@final
class WinsPageAnswer(TypedDict):
    """A page to compare two models' clips, and its key."""

    pairs: int
    page: str
    key: str


@final
class WinsAnswer(TypedDict):
    """A reader's choices of a page."""

    wins: Wins


def write_page(
    workspace: Workspace, *, clips: str | None, against: str | None, count: int, out: str | None
) -> WinsPageAnswer:
    """A page of `count` pairs of clips of two models, by their fingerprints.

    Raises InputError where they have fewer prompts in common.
    """
    model, other = _models(clips, against)
    folder = out or workspace.path("evaluation")
    ours, theirs = clips_of(workspace, model), clips_of(workspace, other)
    pairs = draw_pairs(ours, theirs, count, np.random.default_rng(SEED))
    for pair in pairs:
        for side, uri in zip(SIDES, (pair.a_uri, pair.b_uri), strict=True):
            storage.write_bytes(f"{folder}/{clip_file(pair, side)}", storage.read_bytes(uri))
    storage.write_json(f"{folder}/{KEY}", [pair._asdict() for pair in pairs])
    storage.write_bytes(f"{folder}/{PAGE}", wins_page(pairs).encode())
    return {"pairs": len(pairs), "page": f"{folder}/{PAGE}", "key": f"{folder}/{KEY}"}


def read_choices(
    workspace: Workspace, *, clips: str | None, against: str | None, scores: str, out: str | None
) -> WinsAnswer:
    """Wins of the model `clips` over `against` in a reader's CSV, by the key of the page.

    Raises InputError where there is no such key, or a line is no choice.
    """
    model, other = _models(clips, against)
    key = f"{out or workspace.path('evaluation')}/{KEY}"
    if not storage.exists(key):
        raise InputError(
            f"there is no {key}: --blind N writes a page and its key, by --out if given"
        )
    text = storage.read_bytes(scores).decode()
    return {"wins": read_wins(text, storage.read_json(key), model, other)}


def _models(clips: str | None, against: str | None) -> tuple[str, str]:
    if not clips or not against or clips == against:
        raise InputError(
            "a blind comparison has two models: name their fingerprints by --clips and --against; "
            f"got {clips} and {against}"
        )
    return clips, against


def describe(answer: WinsPageAnswer | WinsAnswer) -> str:
    """The answer as text."""
    if "page" in answer:
        return (
            f"{answer['pairs']} pairs to compare in {answer['page']}; their key is {answer['key']}"
        )
    wins = answer["wins"]
    counts = (
        f"{wins['pairs']} pairs: {wins['model']} wins {wins['wins']}, loses {wins['losses']} "
        f"against {wins['against']}, {wins['same']} the same"
    )
    if wins["share"] is None:
        return f"{counts}; none is decided"
    low, high = wins["interval"]
    return f"{counts}; wins {wins['share']:.2f} of the decided ({low:.2f} to {high:.2f} at 95 %)"
