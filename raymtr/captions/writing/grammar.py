"""The realiser's wordings, and the filling of their slots.

`grammar.toml` has them in short form. A wording with choices, `[this is/here is] {what}`, expands
to all its combinations, and a verb `~carry` to `<carries|carry>`, which agrees with the slot before
it.
"""

from __future__ import annotations

import itertools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

NO_SUBJECT = ("how", "of")  # slots that no verb agrees with
KEPT = ("it", "the", "how")  # slots that are not used up


@dataclass(frozen=True)
class Part:
    """The content of a slot: words, and whether they are plural."""

    text: str
    plural: bool = False


@lru_cache(maxsize=1)
def grammar() -> dict[str, dict[str, Any]]:
    """The wordings, `train` and `held_out`, by name, with all their choices."""
    text = resources.files("raymtr.captions.writing").joinpath("grammar.toml").read_text("utf-8")
    return {part: _whole(wordings) for part, wordings in tomllib.loads(text).items()}


def _whole(wordings: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _whole(own)
        if isinstance(own, dict)
        else [full for wording in own for full in expanded(wording)]
        for name, own in wordings.items()
    }


def expanded(wording: str) -> list[str]:
    """All combinations of the choices of `wording`, with its verbs in both numbers."""
    parts = re.split(r"\[([^\]]*)\]", wording)
    choices = [part.split("/") if i % 2 else [part] for i, part in enumerate(parts)]
    return [
        re.sub(r"~(\w+)", lambda verb: f"<{third_person(verb[1])}|{verb[1]}>", "".join(words))
        for words in itertools.product(*choices)
    ]


def third_person(verb: str) -> str:
    """`carry` -> `carries`, `push` -> `pushes`, `lead` -> `leads`, `have` -> `has`."""
    if verb == "have":
        return "has"
    if re.search(r"[^aeiou]y$", verb):
        return f"{verb[:-1]}ies"
    return f"{verb}es" if verb.endswith(("s", "sh", "ch", "x", "z", "o")) else f"{verb}s"


def filled(wording: str, slots: dict[str, Part]) -> str:
    """`wording` with its slots filled; the slots are then removed from `slots`."""
    last = Part("")

    def put(match: re.Match[str]) -> str:
        nonlocal last
        if name := match[1]:
            part = slots[name] if name in KEPT else slots.pop(name)
            if name not in NO_SUBJECT:
                last = part
            return part.text
        part = slots[match[2][:-1]] if match[2] else last
        return match[4] if part.plural else match[3]

    return re.sub(r"{(\w+)}|<(\w+:)?([^>|]+)\|([^>]+)>", put, wording)
