"""Does a caption say what its tags say: how much of them, what beyond them, and any name?

A caption is judged by words alone, without a model, so that every one of 10^8 can be judged where
it is written. The rules, all on words without case, accents and typographic signs:

- *Words* are runs of letters and digits; a hyphen parts them (`lo-fi` is `lo fi`), and a sharp
  belongs to its note (`c#`). Scripts that are written without spaces, and Hangul with its endings,
  are read sign by sign, and a run of signs counts only where it stands unbroken.
- *Coverage*: share of the tags all of whose words stand in the caption, as spelled (a plural is
  another word: the published figures of other systems are counted so). No tags: 1.
- *Invention*: of the different musical terms in the caption, the share that no tag holds; of two
  terms that overlap the longer counts, and a plural is its singular. A term of several words is
  also held where each of its words stands in some tag, words such as `and` or `song` aside: beside
  `soft` and `rock`, `soft rock song` invents nothing. No terms: 0.
- *Leaks*: a name of the track (artist, title, album; a leading "the" aside) whose words stand in
  the caption in their order. A name made of plain words only, that is musical terms known here,
  the small words of English and words such as `song` (a title "Piano", an artist "The Who"), leaks
  only where a capital inside a sentence marks it as a name. Any other name leaks wherever it
  stands, even as an everyday word ("Air") and even as a tag, because tags often name their artist:
  `without_names` says which tags may be spoken. A name of signs alone ("!!!") is not looked for.

Given up: synonyms (a `singer` is invented beside `vocals`), negation, and forms of a word other
than the English plural.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from raymtr.captions.words import GENERIC, HEARD, KIND_WORDS, PHRASES, QUALITIES, SMALL_WORDS
from raymtr.track import artist_key

LEAST_COVERAGE = 0.5  # of an acceptable caption
MOST_INVENTION = 0.5
SENTENCE_ENDS = frozenset(".!?…:\n")
LONGEST_TERM = 16  # words, or signs; what is longer is a sentence, not a term

# Read sign by sign: Thai to Burmese, Khmer, kana and ideographs, Hangul.
_SIGNS = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af"
)
_SIGNS += "\U00020000-\U0003ffff"
_INDIC = "\u0900-\u0963\u0966-\u0dff"  # vowel signs that Python does not take for letters
_POINTS = "\u0591-\u05c7\u064b-\u065f\u0670\u0640"  # Hebrew and Arabic: written or left out
_SIGN = re.compile(f"[{_SIGNS}]")
_WORD = re.compile(rf"[{_SIGNS}]|(?:(?![{_SIGNS}])[^\W_]|[{_INDIC}{_POINTS}])+[#♯]?")
_DECADE = re.compile(r"(?<=\d)['’](?=s\b)", re.IGNORECASE)

Words = tuple[str, ...]


@dataclass(frozen=True)
class Faithfulness:
    """The verdict on one caption."""

    coverage: float  # share of the tags
    invention: float  # share of the caption's musical terms
    invented: tuple[str, ...]  # those terms, in their order
    leaked: tuple[str, ...]  # names, as they were given


class Vocabulary:
    """Musical terms that can be found in a text: those known here and a catalog's tags.

    Small words and words such as `song` are no terms. A lookup costs one dictionary access a word.
    """

    def __init__(self, terms: frozenset[Words]) -> None:
        self._terms = terms
        self._longest: dict[str, int] = {}  # first word -> words of the longest term
        for term in terms:
            self._longest[term[0]] = max(len(term), self._longest.get(term[0], 0))

    @classmethod
    def of_tags(cls, tags: Iterable[str]) -> Vocabulary:
        """The built-in terms and `tags`."""
        return cls(_base_terms() | {term for term in map(_singulars, tags) if _is_term(term)})

    def __len__(self) -> int:
        return len(self._terms)

    def find(self, words: Sequence[str]) -> list[Words]:
        """The different terms in singular `words`, from left to right, longer before shorter."""
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
    caption: str, tags: Sequence[str], vocabulary: Vocabulary, *, names: Sequence[str] = ()
) -> Faithfulness:
    """Judge `caption` by the `tags` it was asked to hold.

    `names` (artist, title, album) must not appear in it.
    """
    parts = list(_parts(caption))
    words = tuple(word for word, _ in parts)
    terms = vocabulary.find([_singular(word) for word in words])
    tagged = [_singulars(tag) for tag in tags]
    held = (SMALL_WORDS | GENERIC).union(*tagged)
    invented = [
        term
        for term in terms
        if not (held.issuperset(term) if _spaced(term) else any(_within(term, t) for t in tagged))
    ]
    return Faithfulness(
        coverage=_coverage(words, tags),
        invention=len(invented) / len(terms) if terms else 0.0,
        invented=tuple(_spelled(term) for term in invented),
        leaked=tuple(_leaked(parts, names)),
    )


def acceptable(verdict: Faithfulness) -> bool:
    """Whether a caption may stay: half its tags covered, half its terms theirs, and no name."""
    return (
        not verdict.leaked
        and verdict.coverage >= LEAST_COVERAGE
        and verdict.invention <= MOST_INVENTION
    )


def names_of(track: Mapping[str, Any]) -> list[str]:
    """Artist, title and album of `track`, as far as they are known: what no caption may say."""
    return [track[key] for key in ("artist", "title", "album") if track.get(key)]


def without_names(tags: Sequence[str], names: Sequence[str]) -> list[str]:
    """The `tags` that can be spoken without naming the track's artist, title or album."""
    return [tag for tag in tags if not any(_leaked(list(_parts(tag)), names))]


def _coverage(words: Words, tags: Sequence[str]) -> float:
    wanted = [tag for tag in map(words_of, tags) if tag]  # a tag of signs alone asks for nothing
    here = set(words)
    covered = [all(_stands(unit, words, here) for unit in _units(tag)) for tag in wanted]
    return sum(covered) / len(covered) if covered else 1.0


def _leaked(parts: Sequence[tuple[str, bool]], names: Sequence[str]) -> Iterator[str]:
    """The `names` that a text of these `parts` gives away."""
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
    """Whether words that describe music, or hold any sentence together, make up all of `name`."""
    return name in _base_terms() or all(
        word in SMALL_WORDS or _singular(word) in GENERIC or (_singular(word),) in _base_terms()
        for word in name
    )


@lru_cache(maxsize=1)
def _base_terms() -> frozenset[Words]:
    known = (*QUALITIES, *HEARD, *KIND_WORDS.split(), *PHRASES)
    return frozenset(filter(_is_term, map(_singulars, known)))


def _is_term(words: Words) -> bool:
    """Whether a tag says anything about the music; one letter or number does not."""
    if not 0 < len(words) <= LONGEST_TERM or (len(words) == 1 and len(words[0]) == 1):
        return False
    return not all(word in SMALL_WORDS or word in GENERIC for word in words)


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """Each word of `text`, and whether it has a capital where no sentence begins."""
    text = _DECADE.sub("", unicodedata.normalize("NFKC", text))
    end = 0
    for match in _WORD.finditer(text):
        word, before = match[0], text[end : match.start()]
        begins = not end or not SENTENCE_ENDS.isdisjoint(before)
        yield _folded(word), word[0].isupper() and not begins
        end = match.end()


@lru_cache(maxsize=1 << 15)
def words_of(text: str) -> Words:
    """The words of `text` as they are compared; kept, for tags and names come again and again."""
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
    """`drums` -> `drum`, `melodies` -> `melody`; `bass`, `chorus`, `blues` stay."""
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
    """What must stand together: a word alone, a run of signs as a whole."""
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
