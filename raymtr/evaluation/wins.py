"""A blind listening test: pairs of clips by two models for one prompt, and a listener's choices.

The side of each model is random. A listener chooses the better side, or `same`. The result is the
share of wins among the decided pairs, with its Wilson interval.
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
TITLE = "Blind comparison of clips"
QUESTION = (
    "Listen to both clips. Which one fits the text better? Choose a or b, or same if neither does."
)
CLIPS = "clips"  # the folder next to the page


class ClipPair(NamedTuple):
    """Two clips of one prompt, and the model of each: an item of the key."""

    item: str
    prompt: str
    a: str  # fingerprints
    b: str
    a_uri: str
    b_uri: str


class Wins(TypedDict):
    """A listener's choices between two models."""

    model: str  # fingerprints
    against: str
    pairs: int  # rated pairs
    wins: int
    losses: int
    same: int
    share: float | None  # of wins among the decided pairs; None without any
    interval: list[float]  # of that share, at 95 %


def draw_pairs(
    ours: Sequence[ClipRow], theirs: Sequence[ClipRow], count: int, rng: np.random.Generator
) -> list[ClipPair]:
    """`count` pairs of clips of one prompt, in random order and on random sides.

    Raises InputError if both models have clips of fewer common prompts.
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
        pairs.append(ClipPair(f"p{number}", prompt, *models, a[prompt]["uri"], b[prompt]["uri"]))
    return pairs


def wins_page(pairs: Sequence[ClipPair]) -> str:
    """The HTML page of these pairs; it plays `clip_file` of each, relative to the page."""
    items = []
    for pair in pairs:
        players = "".join(
            f'<p>{side} <audio controls preload="none" src="{html.escape(clip_file(pair, side))}">'
            "</audio></p>"
            for side in SIDES
        )
        items.append(blind_item(pair.item, pair.prompt, players, MARKS))
    return blind_page(TITLE, QUESTION, items, list(MARKS))


def clip_file(pair: ClipPair, side: str) -> str:
    """The file of one side, relative to the page; its name does not reveal the model."""
    return f"{CLIPS}/{pair.item}{side}.wav"


def read_wins(text: str, key: Sequence[Mapping[str, str]], model: str, against: str) -> Wins:
    """Wins of `model` from a listener's CSV and the page's key.

    Raises InputError as `read_marks`, if the key is of other models, or if a pair occurs twice.
    """
    by_item = {row["item"]: row for row in key}
    compared = {row[side] for row in key for side in SIDES}
    if compared != {model, against}:
        raise InputError(
            f"the page in this folder compares {' and '.join(sorted(compared))}, not {model} and "
            f"{against}; give its models, or the other page's folder with --out"
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
