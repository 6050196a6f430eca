"""English and musical vocabulary: word lists, parts of speech, number and articles.

The lists are from `lexicon.toml`. Parts of speech and lemmas come from `lemminflect`, articles from
`inflect`, with corrections here.
"""

from __future__ import annotations

import re
import tomllib
from functools import lru_cache
from importlib import resources
from typing import Any

NOT_PLURAL = ("ss", "us", "is", "ous", "bass", "blues")
OWN_AN = re.compile(
    r"8|11(?!\d)|18(?!\d)|11\d\d(?!\d)|18\d\d(?!\d)|r&b|rnb|nba|f[ #♯♭]|mc\b|mp3|lp\b|sf|f-",
    re.IGNORECASE,
)
OWN_A = re.compile(r"\d|u(?:k|sa?)\b|eur|uni|a cappella\b|a capella\b", re.IGNORECASE)


class MusicLexicon:
    """The word lists of `lexicon.toml`, each as a set."""

    def __init__(self) -> None:
        text = resources.files("raymtr.captions").joinpath("lexicon.toml").read_text("utf-8")
        table: dict[str, dict[str, str]] = tomllib.loads(text)
        self.heads = {w: role for role, words in table["heads"].items() for w in words.split()}
        lists = table["words"]
        self.sets = {name: frozenset(words.split()) for name, words in table["sets"].items()}
        self.whole: dict[str, str] = {}
        for name, words in lists.items():
            parts = words.split(",") if "," in words else words.split()
            for word in parts:
                self.whole.setdefault(" ".join(word.split()), name.removesuffix("_phrases"))
        self.genres = {w for w, role in self.whole.items() if role == "genre"}
        self.moods = frozenset(lists["mood"].split())
        self.mass = frozenset(lists["mass_nouns"].split())
        self.agents = frozenset(lists["agents"].split())
        self.feelings = frozenset(lists["feeling"].split())
        self.origins = frozenset(table["names"]["origins"].split())
        names = self.origins | set(
            (table["names"]["others"] + " " + table["names"]["words"]).split()
        )
        self.places = set(table["names"]["others"].split()) | {"new york", "new orleans"}
        self.written = {w: w.capitalize() for w in names}
        self.written |= {w: w.upper() for w in table["names"]["upper"].split()}
        self.written["rnb"] = "RnB"


@lru_cache(maxsize=1)
def lexicon() -> MusicLexicon:
    """The lists, read once per process."""
    return MusicLexicon()


@lru_cache(maxsize=1 << 15)
def parts_of_speech(word: str) -> frozenset[str]:
    """Parts of speech that `word` can have, by lemminflect's lexicon; empty where unknown."""
    from lemminflect import getAllLemmas

    return frozenset(getAllLemmas(word))


@lru_cache(maxsize=1 << 15)
def singular(word: str) -> str:
    """`drums` -> `drum`; `bass` and `brass` do not change."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(NOT_PLURAL):
        return word
    from lemminflect import getAllLemmas

    lemmas: tuple[str, ...] = getAllLemmas(word).get("NOUN", ())
    plain = f"{word[:-3]}y" if word.endswith("ies") else word[:-1]
    return lemmas[0] if lemmas and word not in lemmas else plain


@lru_cache(maxsize=1 << 15)
def article(phrase: str) -> str:
    """`a` or `an`, by the sound of the first word (`inflect`; numbers and R&B by our own rules)."""
    if OWN_AN.match(phrase):
        return "an"
    if OWN_A.match(phrase):
        return "a"
    return _inflect().a(phrase.split()[0]).split()[0]  # type: ignore[no-any-return]


@lru_cache(maxsize=1)
def _inflect() -> Any:
    """The engine; without the checks of argument types that take 3 s of its import."""
    import typeguard

    checked = typeguard.typechecked
    typeguard.typechecked = lambda function: function  # type: ignore[assignment]
    try:
        import inflect
    finally:
        typeguard.typechecked = checked
    return inflect.engine()
