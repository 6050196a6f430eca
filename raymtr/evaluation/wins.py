"""Wins of one model's clips over another's: blind pairs of one prompt, and a reader's choices.

Each pair has one prompt, and which model is on which side is drawn. A reader chooses a side, or
that they are the same. Wins are given as the share of decided pairs, with its Wilson interval.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypedDict

import numpy as np

from raymtr.errors import InputError
from raymtr.evaluation.blind_page import blind_item, blind_page, read_marks
from raymtr.evaluation.clips import ClipRow
from raymtr.evaluation.query_battery import wilson

SIDES, SAME = ("a", "b"), "same"
MARKS = {"better": (*SIDES, SAME)}
TITLE = "Two clips, heard blind"
QUESTION = (
    "Which clip fits the words better? Choose a or b, or same where neither does. Listen to both."
)
CLIPS = "clips"  # the folder beside the page


class Pair(NamedTuple):
    """Two clips of one prompt, and which model made each: an item of the key."""

    item: str
    prompt: str
    a: str  # fingerprints
    b: str
    a_uri: str
    b_uri: str


class Wins(TypedDict):
    """A reader's choices between two models."""

    model: str  # fingerprints
    against: str
    pairs: int  # that were chosen from
    wins: int
    losses: int
    same: int
    share: float | None  # of wins among the decided pairs; None where none is decided
    interval: list[float]  # of that share, at 95 %


def draw_pairs(
    ours: Sequence[ClipRow], theirs: Sequence[ClipRow], count: int, rng: np.random.Generator
) -> list[Pair]:
    """`count` pairs of clips of one prompt, in a drawn order and on drawn sides.

    Raises InputError where there are fewer prompts that both models have a clip of.
    """
    first, second = ({row["prompt"]: row for row in reversed(rows)} for rows in (ours, theirs))
    common = sorted(first.keys() & second.keys())
    if not 1 <= count <= len(common):
        raise InputError(
            f"--blind takes 1 to {len(common)} pairs, the prompts that both models have a clip "
            f"of; got {count}"
        )
    pairs = []
    for number, place in enumerate(rng.permutation(len(common))[:count], start=1):
        prompt = common[place]
        a, b = (first, second) if rng.random() < 0.5 else (second, first)
        models = a[prompt]["model"], b[prompt]["model"]
        pairs.append(Pair(f"p{number}", prompt, *models, a[prompt]["uri"], b[prompt]["uri"]))
    return pairs


def wins_page(pairs: Sequence[Pair]) -> str:
    """The page of these pairs; it plays `clip_file` of each, from the folder beside it."""
    items = []
    for pair in pairs:
        players = "".join(
            f'<p>{side} <audio controls preload="none" src="{html.escape(clip_file(pair, side))}">'
            "</audio></p>"
            for side in SIDES
        )
        items.append(blind_item(pair.item, pair.prompt, players, MARKS))
    return blind_page(TITLE, QUESTION, items, list(MARKS))


def clip_file(pair: Pair, side: str) -> str:
    """The file of one side, relative to the page; its name does not tell the model."""
    return f"{CLIPS}/{pair.item}{side}.wav"


def read_wins(text: str, key: Sequence[Mapping[str, str]], model: str, against: str) -> Wins:
    """Wins of `model` from a reader's CSV and the page's key.

    Raises InputError as `read_marks`, where the key is of other models, or a pair is there twice.
    """
    by_item = {row["item"]: row for row in key}
    seen = {row[side] for row in key for side in SIDES}
    if seen != {model, against}:
        raise InputError(
            f"the page in this folder compares {' and '.join(sorted(seen))}, not {model} and "
            f"{against}; name its models, or its folder by --out"
        )
    chosen: dict[str, str] = {}
    for item, (side,) in read_marks(text, by_item, MARKS):
        if item in chosen:
            raise InputError(f"the scores have {item} twice; keep one line of it")
        chosen[item] = SAME if side == SAME else by_item[item][side]
    wins, losses = (sum(owner == name for owner in chosen.values()) for name in (model, against))
    decided = wins + losses
    return {
        "model": model,
        "against": against,
        "pairs": len(chosen),
        "wins": wins,
        "losses": losses,
        "same": len(chosen) - decided,
        "share": wins / decided if decided else None,
        "interval": [round(edge, 4) for edge in wilson(wins, decided)],
    }
