"""Blind rating of captions: a page of shuffled captions, a separate key, and scores per system.

A rater scores each caption for fluency and faithfulness, 1 to 5, without knowing its system.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from raymtr.captions.learning.pairs import Pair
from raymtr.errors import InputError
from raymtr.evaluation.blind_page import blind_item, read_marks
from raymtr.evaluation.blind_page import blind_page as page_of

MARKS = dict.fromkeys(("fluency", "faithfulness"), tuple("12345"))
PEOPLE = "people"
GOOD = 4  # of 5: both ratings of a publishable caption are at least this
QUESTION = (
    "Fluency: could a careful writer have written it? Faithfulness: does it state its tags and "
    "nothing else? 1 is the worst, 5 the best."
)


class Marks(TypedDict):
    """The ratings of one system's captions."""

    read: int  # number of rated captions
    fluency: float  # mean, 1 to 5
    faithfulness: float
    both_good: float  # share with both at least GOOD


def blind_page(
    pairs: Sequence[Pair],
    systems: Mapping[str, Sequence[Sequence[str]]],
    count: int,
    rng: np.random.Generator,
) -> tuple[str, list[dict[str, str]]]:
    """The page with all systems' captions of `count` pairs, and the key from items to systems.

    Raises InputError if there are fewer pairs.
    """
    if not 1 <= count <= len(pairs):
        raise InputError(f"--blind takes 1 to {len(pairs)}, the number of pairs; got {count}")
    chosen = rng.choice(len(pairs), size=count, replace=False)
    texts = [
        (name, int(i), written[i][0])
        for i in chosen
        for name, written in systems.items()
        if written[i]
    ]
    order = rng.permutation(len(texts))
    items, key = [], []
    for number, at in enumerate(order, 1):
        name, i, text = texts[at]
        body = f"<p>{html.escape(text)}</p>"
        items.append(blind_item(f"t{number}", ", ".join(pairs[i].tags), body, MARKS))
        key.append({"item": f"t{number}", "system": name, "clip": pairs[i].clip, "text": text})
    return page_of("Blind rating of captions", QUESTION, items, list(MARKS)), key


def read_scores(text: str, key: Sequence[Mapping[str, str]]) -> dict[str, Marks]:
    """Figures of each system from a rater's CSV: means, and the share with both at least 4.

    Raises InputError on an invalid line, or on an item that is not in the key.
    """
    owner = {row["item"]: row["system"] for row in key}
    found: dict[str, list[tuple[int, int]]] = {}
    for item, (fluent, faithful) in read_marks(text, owner, MARKS):
        found.setdefault(owner[item], []).append((int(fluent), int(faithful)))
    return {
        name: {
            "read": len(marks),
            "fluency": float(np.mean([fluent for fluent, _ in marks])),
            "faithfulness": float(np.mean([faithful for _, faithful in marks])),
            "both_good": float(np.mean([min(both) >= GOOD for both in marks])),
        }
        for name, marks in found.items()
    }
