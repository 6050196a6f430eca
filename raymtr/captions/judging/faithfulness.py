"""Faithfulness of a caption to its tags: coverage, invention, and leaked names.

A caption is judged by its words alone, without a model, so every one of 10^8 captions can be judged
where it is written. The rules, all on words without case, accents and typographic signs:

- *Words* are runs of letters and digits; a hyphen separates them (`lo-fi` is `lo fi`), and a sharp
  belongs to its note (`c#`). Scripts without spaces, and Hangul with its endings, are read
  character by character; a run of characters counts only where it is contiguous.
- *Coverage*: share of the tags all of whose words are in the caption, as spelled (a plural is
  another word: the published figures of other systems are counted this way). Without tags: 1.
- *Invention*: share of the caption's distinct musical terms that no tag has; of two overlapping
  terms the longer counts, and a plural equals its singular. A term of several words is also known
  where each of its words is in some tag, ignoring words such as `and` or `song`: with the tags
  `soft` and `rock`, `soft rock song` invents nothing. Without terms: 0.
- *Leaks*: a name of the track (artist, title, album; a leading "the" is ignored) whose words are in
  the caption in order. A name of plain words only, that is musical terms known here, function words
  and words such as `song` (a title "Piano", an artist "The Who"), leaks only where a capital inside
  a sentence marks it as a name. Any other name leaks anywhere, even as an everyday word ("Air") and
  even as a tag, because tags often name their artist: `without_names` says which tags may be used.
  A name of symbols alone ("!!!") is not checked.

Limitations: synonyms (a `singer` is invented where the tag is `vocals`), negation, and inflections
other than the English plural.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from raymtr.captions.words import GENERIC, KIND_WORDS, PHRASES, QUALITIES, SMALL_WORDS, SOUNDS
from raymtr.track import artist_key

LEAST_COVERAGE = 0.5  # of an acceptable caption
MOST_INVENTION = 0.5
SENTENCE_ENDS = frozenset(".!?…:\n")
LONGEST_TERM = 16  # words or characters; longer tags are sentences, not terms

# Read character by character: Thai to Burmese, Khmer, kana and ideographs, Hangul.
_SIGNS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
)
_SIGNS += "\U00020000-\U0003ffff"
_INDIC = "\u0900-\u0963\u0966-\u0dff"  # with vowel signs that Python does not class as letters
_POINTS = "\u0591-\u05c7\u064b-\u065f\u0670\u0640"  # Hebrew and Arabic points, optional in writing
_SIGN = re.compile(f"[{_SIGNS}]")
_WORD = re.compile(rf"[{_SIGNS}]|(?:(?![{_SIGNS}])[^\W_]|[{_INDIC}{_POINTS}])+[#♯]?")
_DECADE = re.compile(r"(?<=\d)['’](?=s\b)", re.IGNORECASE)

Words = tuple[str, ...]


@dataclass(frozen=True)
class Faithfulness:
    """The verdict on one caption."""

    coverage: float  # share of the tags
    invention: float  # share of the caption's musical terms
    invented: tuple[str, ...]  # those terms, in order of appearance
    leaked: tuple[str, ...]  # names, as given


class MusicTerms:
    """Musical terms to find in a text: those known here and a catalog's tags.

    Function words and words such as `song` are not terms. A lookup costs one dictionary access per
    word.
    """

    def __init__(self, terms: frozenset[Words]) -> None:
        self._terms = terms
        self._longest: dict[str, int] = {}  # first word -> words of the longest term
        for term in terms:
            self._longest[term[0]] = max(len(term), self._longest.get(term[0], 0))

    @classmethod
    def of_tags(cls, tags: Iterable[str]) -> MusicTerms:
        """The built-in terms and `tags`."""
        return cls(_base_terms() | {term for term in map(_singulars, tags) if _is_term(term)})

    def __len__(self) -> int:
        return len(self._terms)

    def find(self, words: Sequence[str]) -> list[Words]:
        """The distinct terms in singular `words`, from left to right, longer before shorter."""
        found: dict[Words, None] = {}
        place = 0
        while place < len(words):
            for count in range(self._longest.get(words[place], 0), 0, -1):
                term = tuple(words[place : place + count])
                if term in self._terms:
                    found[term] = None
                    place += count - 1
                    break
            place += 1
        return list(found)


def judge(
    caption: str, tags: Sequence[str], vocabulary: MusicTerms, *, names: Sequence[str] = ()
) -> Faithfulness:
    """Judge `caption` by the `tags` that it must cover.

    `names` (artist, title, album) must not appear in it.
    """
    parts = list(_parts(caption))
    words = tuple(word for word, _ in parts)
    terms = vocabulary.find([_singular(word) for word in words])
    tagged = [_singulars(tag) for tag in tags]
    allowed = (SMALL_WORDS | GENERIC).union(*tagged)
    invented = [
        term
        for term in terms
        if not (
            allowed.issuperset(term) if _spaced(term) else any(_within(term, t) for t in tagged)
        )
    ]
    return Faithfulness(
        coverage=_coverage(words, tags),
        invention=len(invented) / len(terms) if terms else 0.0,
        invented=tuple(_spelled(term) for term in invented),
        leaked=tuple(_leaked(parts, names)),
    )


def acceptable(verdict: Faithfulness) -> bool:
    """Whether a caption is kept: half the tags covered, at most half the terms new, no name."""
    return (
        not verdict.leaked
        and verdict.coverage >= LEAST_COVERAGE
        and verdict.invention <= MOST_INVENTION
    )


def names_of(track: Mapping[str, Any]) -> list[str]:
    """Artist, title and album of `track` where known, which no caption may contain."""
    return [track[key] for key in ("artist", "title", "album") if track.get(key)]


def without_names(tags: Sequence[str], names: Sequence[str]) -> list[str]:
    """The `tags` that do not contain the track's artist, title or album."""
    return [tag for tag in tags if not any(_leaked(list(_parts(tag)), names))]


def _coverage(words: Words, tags: Sequence[str]) -> float:
    wanted = [tag for tag in map(words_of, tags) if tag]  # skips tags of symbols alone
    here = set(words)
    covered = [all(_stands(unit, words, here) for unit in _units(tag)) for tag in wanted]
    return sum(covered) / len(covered) if covered else 1.0


def _leaked(parts: Sequence[tuple[str, bool]], names: Sequence[str]) -> Iterator[str]:
    """The `names` that appear in a text of these `parts`."""
    words = [word for word, _ in parts]
    for name in names:
        wanted = words_of(name)
        if wanted[:1] == ("the",) and len(wanted) > 1:
            wanted = wanted[1:]
        if not wanted:
            continue
        plain = _is_plain(wanted)
        for start in _places(wanted, words):
            marked = any(capital for _, capital in parts[start : start + len(wanted)])
            if marked or not plain:
                yield name
                break


def _is_plain(name: Words) -> bool:
    """Whether `name` consists of musical terms, generic words and function words alone."""
    return name in _base_terms() or all(
        word in SMALL_WORDS or _singular(word) in GENERIC or (_singular(word),) in _base_terms()
        for word in name
    )


@lru_cache(maxsize=1)
def _base_terms() -> frozenset[Words]:
    known = (*QUALITIES, *SOUNDS, *KIND_WORDS.split(), *PHRASES)
    return frozenset(filter(_is_term, map(_singulars, known)))


def _is_term(words: Words) -> bool:
    """Whether a tag can be a musical term; a single letter or digit cannot."""
    if not 0 < len(words) <= LONGEST_TERM or (len(words) == 1 and len(words[0]) == 1):
        return False
    return not all(word in SMALL_WORDS or word in GENERIC for word in words)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Each word of `text`, and whether it has a capital that does not begin a sentence."""
    text = _DECADE.sub("", unicodedata.normalize("NFKC", text))
    end = 0
    for match in _WORD.finditer(text):
        word, before = match[0], text[end : match.start()]
        begins = not end or not SENTENCE_ENDS.isdisjoint(before)
        yield _folded(word), word[0].isupper() and not begins
        end = match.end()


@lru_cache(maxsize=1 << 15)
def words_of(text: str) -> Words:
    """The words of `text` in comparable form; cached, because tags and names repeat."""
    return tuple(word for word, _ in _parts(text))


def _singulars(tag: str) -> Words:
    return tuple(map(_singular, words_of(tag)))


@lru_cache(maxsize=1 << 16)
def _folded(word: str) -> str:
    """A word without case, accents, points and the Arabic article."""
    bare = re.sub(f"[{_POINTS}]", "", artist_key(word).replace("♯", "#"))
    return bare.removeprefix("ال") if len(bare) > 4 else bare


@lru_cache(maxsize=1 << 16)
def _singular(word: str) -> str:
    """`drums` -> `drum`, `melodies` -> `melody`; `bass`, `chorus`, `blues` do not change."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is", "blues")):
        return word
    return f"{word[:-3]}y" if word.endswith("ies") and len(word) > 5 else word[:-1]


def _is_sign(word: str) -> bool:
    return word > "\u0e00" and _SIGN.match(word) is not None


def _spaced(term: Words) -> bool:
    return not any(map(_is_sign, term))


def _spelled(term: Words) -> str:
    return (" " if _spaced(term) else "").join(term)


def _units(words: Words) -> Iterator[Words]:
    """Units that must be contiguous: a single word, or a whole run of characters."""
    run: list[str] = []
    for word in words:
        if _is_sign(word):
            run.append(word)
            continue
        if run:
            yield tuple(run)
        run = []
        yield (word,)
    if run:
        yield tuple(run)


def _stands(unit: Words, words: Words, here: set[str]) -> bool:
    return unit[0] in here and (len(unit) == 1 or _within(unit, words))


def _within(inner: Words, outer: Words) -> bool:
    return next(_places(inner, outer), None) is not None


def _places(inner: Sequence[str], outer: Sequence[str]) -> Iterator[int]:
    """Where the words `inner` begin in `outer`."""
    size = len(inner)
    for start in range(len(outer) - size + 1):
        if outer[start] == inner[0] and tuple(outer[start : start + size]) == tuple(inner):
            yield start
