"""Shared basics of all caption writers, and one-sentence templates, the simplest writer.

A template is one readable string: `[...]` is left out when the slot in it is empty, `a(n)` becomes
the right article. Tags are sorted into four roles from short word lists; an unknown tag is a kind,
which reads well before a noun. Catalogs are captioned by `captions.writing.realiser`, which writes
far better. Templates are the baseline for other writers, and they teach a toy language model to
copy its tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from raymtr.captions.words import QUALITIES, SOUNDS

MAX_TAGS = 20  # in one caption, as in TTMR++ (Doh et al. 2024)
TRACK = ["track_id", "uri", "tags", "title", "artist", "album"]  # input columns of captions
SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("caption", pa.string(), nullable=False),
        pa.field("provenance", pa.string(), nullable=False),  # JSON; `source` names the writer
    ]
)

TEMPLATES = (
    "a(n) [{what} ]track[ featuring {sounds}][, in {key}].",
    "this is a(n) [{what} ]piece[ with {sounds}][ in {key}].",
    "[{what} ]music[ made with {sounds}][, set in {key}].",
    "[{sounds} can be heard in ]a(n) [{what} ]song[ in {key}].",
    "[in {key}, ]a(n) [{what} ]tune[ built on {sounds}].",
    "the listener hears a(n) [{what} ]number[ full of {sounds}][, based on {key}].",
    "we are given [{sounds} within ]a(n) [{what} ]theme[ centred on {key}].",
    "[{what} ]sounds[ carried by {sounds}][, staying in {key}].",
)


def template_caption(tags: Sequence[str] | None, rng: np.random.Generator) -> str | None:
    """One sentence that contains the tags (the first `MAX_TAGS`); None where there are none."""
    cleaned = clean_tags(tags or ())
    template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    return fill(template, cleaned, rng) if cleaned else None


def clean_tags(tags: Iterable[str | None]) -> list[str]:
    """Tags without blanks and repeats, at most `MAX_TAGS`, otherwise unchanged."""
    kept: dict[str, str] = {}
    for tag in tags:
        text = " ".join(tag.split()) if tag else ""
        if text:
            kept.setdefault(text.casefold(), text)
    return list(kept.values())[:MAX_TAGS]


def role_of(tag: str) -> str:
    """The role of `tag` in a sentence: `key`, `quality`, `sound`, or else `kind`."""
    words = tag.casefold().split()
    if words[-1] in ("key", "mode"):
        return "key"
    if tag.casefold() in QUALITIES:
        return "quality"
    if "and" not in words and {words[-1], words[-1].removesuffix("s")} & SOUNDS:
        return "sound"
    return "kind"


def fill(template: str, tags: Sequence[str], rng: np.random.Generator) -> str:
    """`template` with `tags` (at least one) in its slots, each group in random order."""
    groups: dict[str, list[str]] = {"quality": [], "kind": [], "sound": [], "key": []}
    for i in rng.permutation(len(tags)):
        groups[role_of(tags[i])].append(tags[i])
    what = (", ".join(groups["quality"]), ", ".join(groups["kind"]))
    slots = {
        "what": " ".join(part for part in what if part),
        "sounds": _listed(groups["sound"]),
        "key": _listed([f"{_article(tag)} {tag}" for tag in groups["key"]]),
    }

    def clause(match: re.Match[str]) -> str:
        name = re.search(r"{(\w+)}", match[1])
        return match[1] if name and slots[name[1]] else ""

    text = re.sub(r"\[(.*?)\]", clause, template)
    text = re.sub(r"{(\w+)}", lambda match: slots[match[1]], text)
    text = re.sub(r"a\(n\) (\S+)", lambda match: f"{_article(match[1])} {match[1]}", text)
    return text[0].upper() + text[1:]


def _listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _article(word: str) -> str:
    """`an` before a vowel sound, judged by spelling."""
    word = word.casefold()
    is_open = re.match(r"[aeiou8]|11|18", word) and not re.match(r"uk|uni|use|eu|one", word)
    return "an" if is_open else "a"
