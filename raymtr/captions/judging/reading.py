"""Readability of a caption as English: non-words, repetition, and acceptance by a reader.

It uses a lexicon and counts, without a model, so every draft can be checked where it is written. A
language model's order gain is added where available (`captions.judging.likelihood`).

- *Non-words*: words of three letters or more that are not in the English word list
  (`pyspellchecker`, 160,000 words), `lemminflect`'s lexicon, our musical terms or a tag. Names (a
  capital inside a sentence), numbers and words of other scripts are not judged.
- *Repetition*: the share of word trigrams that repeat, plus words said twice in a row.
- *Said*, more lenient than `captions.judging.faithfulness`: a tag counts as said when at least half
  of its words are in the caption in any inflected form, or as a synonym.

`takes` is meant to agree with people: it accepts what they write and rejects word salad.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise

from raymtr.captions.english import lexicon
from raymtr.captions.judging.faithfulness import words_of
from raymtr.captions.words import (
    FUNCTION_WORDS,
    GENERIC_WORDS,
    KIND_WORDS,
    PHRASES,
    QUALITY_WORDS,
    SOUND_WORDS,
)

MOST_NON_WORDS = 4.0  # per 100 words: people mistype, too
MOST_REPEATED = 0.12  # of the trigrams
LEAST_SAID = 0.2  # of the tags: people omit most of them
LEAST_ORDER_GAIN = 2.3  # nats per token, by the packaged SmolLM2
STEMS = ("'s", "s", "es", "ed", "d", "ing", "ly", "ish", "y", "er", "ers", "like", "ness")


@dataclass(frozen=True)
class Readability:
    """How one caption reads."""

    non_words: tuple[str, ...]
    words: int
    repetition: float  # share of trigrams
    said: float  # share of the tags

    @property
    def non_words_per_100(self) -> float:
        """Non-words per 100 words."""
        return 100 * len(self.non_words) / max(self.words, 1)


def read(caption: str, tags: Sequence[str] = ()) -> Readability:
    """Judge `caption`, written for `tags`."""
    words = words_of(caption)
    return Readability(
        tuple(non_words(caption, tags)), len(words), repetition(words), said(words, tags)
    )


def takes(reading: Readability, *, order_gain: float | None = None) -> str | None:
    """None where a reader would accept the caption, else the reason."""
    if reading.words < 3:
        return "too short"
    if reading.non_words_per_100 > MOST_NON_WORDS or len(reading.non_words) > 2:
        return f"no words: {', '.join(reading.non_words)}"
    if reading.repetition > MOST_REPEATED:
        return "repeats itself"
    if reading.said < LEAST_SAID:
        return "does not say its tags"
    if order_gain is not None and order_gain < LEAST_ORDER_GAIN:
        return "its words have no order"
    return None


def non_words(caption: str, tags: Sequence[str] = ()) -> list[str]:
    """The non-words of `caption`, in order."""
    allowed = {word for tag in tags for word in re.findall(r"[a-z]+", tag.casefold())}
    found, starts = [], True
    for match in re.finditer(r"[^\W\d_]+(?:['’][^\W\d_]+)*|[.!?:;]", caption):
        word = match[0]
        if word in ".!?:;":
            starts = True
            continue
        name = word[0].isupper() and not starts
        starts = False
        low = word.casefold().replace("’", "'")
        if name or len(low) < 3 or not low.isascii() or low in allowed or is_word(low):
            continue
        found.append(word)
    return found


@lru_cache(maxsize=1 << 16)
def is_word(low: str) -> bool:
    """Whether the lower-case word is English or a musical term."""
    if low in _english() or low in _terms() or _lemmas(low):
        return True
    for ending in STEMS:
        stem = low.removesuffix(ending)
        if stem != low and len(stem) > 2 and (stem in _english() or stem in _terms()):
            return True
    return any(
        low.startswith(p) and low[len(p) :] in _english() for p in ("un", "re", "non", "sub")
    )


def repetition(words: Sequence[str]) -> float:
    """Repeated trigrams plus words said twice in a row, per trigram."""
    runs = list(zip(words, words[1:], words[2:], strict=False))
    if not runs:
        return 0.0
    repeats = len(runs) - len(set(runs))
    twice = sum(a == b for a, b in pairwise(words))
    return (repeats + twice) / len(runs)


def said(words: Sequence[str], tags: Sequence[str]) -> float:
    """Share of `tags` that `words` express, by inflection or synonym; 1 without tags."""
    here = {form for word in words for form in _forms(word)}
    wanted = [tag for tag in map(words_of, tags) if tag]
    if not wanted:
        return 1.0
    hits = 0
    for tag in wanted:
        known = [not here.isdisjoint(_forms(word)) for word in tag]
        hits += sum(known) * 2 >= len(known)
    return hits / len(wanted)


@lru_cache(maxsize=1 << 16)
def _forms(word: str) -> frozenset[str]:
    """The word, its lemmas, a common stem and its synonyms."""
    lemmas = {word, *_lemmas(word)}
    stems = {f"{lemma[:5]}-" for lemma in lemmas if len(lemma) > 6}
    return frozenset(
        lemmas | stems | {name for lemma in lemmas for name in _synonyms().get(lemma, ())}
    )


@lru_cache(maxsize=1 << 16)
def _lemmas(word: str) -> tuple[str, ...]:
    from lemminflect import getAllLemmas

    return tuple(lemma for group in getAllLemmas(word).values() for lemma in group)


@lru_cache(maxsize=1)
def _synonyms() -> dict[str, tuple[str, ...]]:
    """For each word the synonym groups that contain it."""
    text = resources.files("raymtr.captions.judging").joinpath("synonyms.toml").read_text("utf-8")
    groups: dict[str, list[str]] = {}
    for name, words in tomllib.loads(text)["groups"].items():
        for word in words.split():
            groups.setdefault(word, []).append(f"={name}")
    return {word: tuple(names) for word, names in groups.items()}


@lru_cache(maxsize=1)
def _terms() -> frozenset[str]:
    """All single words of our own lists."""
    known = lexicon()
    lists = " ".join(
        (FUNCTION_WORDS, GENERIC_WORDS, SOUND_WORDS, KIND_WORDS, QUALITY_WORDS, *PHRASES)
    )
    words = {*lists.split(), *known.whole, *known.heads, *known.mass, *known.written}
    return frozenset(part for word in words for part in re.findall(r"[a-z]+", word))


@lru_cache(maxsize=1)
def _english() -> frozenset[str]:
    from spellchecker import SpellChecker

    return frozenset(SpellChecker(language="en", distance=1).word_frequency.dictionary)
