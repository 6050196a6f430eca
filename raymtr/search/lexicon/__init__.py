"""The lexicon: music terms in nine languages, as data files that a workspace can extend.

`genres.tsv`, `instruments.tsv`, `moods.tsv` and `activities.tsv` have one concept per line. `tags`
are names of the concept. `weaker` are names of correlated tags, used if a catalog has none of
`tags`. The other columns have its words, one column per language. A workspace may have files of
this form in `lexicon/`; its lines take precedence. `directions.tsv` has words for directions along
the axes of `axes.json`. `words.json` has function words and cues. `languages.tsv` has languages of
lyrics. `everyday.txt` has the 5,000 most common words of BERT's English vocabulary, which are never
treated as misspelt names.
"""

from __future__ import annotations

import csv
import functools
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from raymtr import storage
from raymtr.errors import InputError
from raymtr.search.tokens import phrase_key

THEMES = ("genres", "instruments", "moods", "activities")
LANGUAGES = ("en", "de", "fr", "es", "pt", "it", "ja", "zh", "ru")
HEADER = ("tags", "weaker", *LANGUAGES)
LEAST_STEM = 4  # letters
_ENDINGS = (
    *("ими", "ого", "ому", "ыми", "ая", "яя", "ый", "ий", "ое", "ее", "ые", "ие", "ой", "ую"),
    *(
        "ами",
        "ов",
        "ев",
        "ах",
        "ых",
        "их",
        "ам",
        "ом",
        "ей",
        "а",
        "о",
        "у",
        "ы",
        "и",
        "е",
        "я",
        "ь",
    ),
    *("en", "er", "es", "em", "os", "as", "e", "o", "a", "i", "s"),
)


@dataclass(frozen=True)
class Concept:
    """One concept: its name, and the keys of its tags and of correlated tags."""

    name: str
    same: tuple[str, ...]
    weaker: tuple[str, ...]
    theme: str


@dataclass(frozen=True)
class Axis:
    """The axis of a direction: columns, tags at both ends, texts for the text tower."""

    columns: tuple[str, ...]
    up: tuple[str, ...]
    down: tuple[str, ...]
    up_text: str
    down_text: str

    def tags(self, sign: int) -> tuple[str, ...]:
        """The tags in the direction of `sign`."""
        return self.up if sign > 0 else self.down


@dataclass
class Lexicon:
    """The whole lexicon, by key."""

    concepts: dict[str, Concept] = field(default_factory=dict)
    stems: dict[str, Concept] = field(default_factory=dict)
    language: dict[str, str] = field(default_factory=dict)  # word -> language
    axes: dict[str, Axis] = field(default_factory=dict)
    directions: dict[str, tuple[str, int]] = field(default_factory=dict)
    words_of: dict[str, set[str]] = field(default_factory=dict)  # word -> languages that list it
    cues: dict[str, dict[str, str]] = field(default_factory=dict)  # kind -> key -> language
    leads: set[str] = field(default_factory=set)  # last words of cues that precede names
    stops: dict[str, set[str]] = field(default_factory=dict)  # word -> languages
    voices: frozenset[str] = frozenset()
    numbers: dict[str, float] = field(default_factory=dict)  # as written, in lower case
    decades: dict[str, int] = field(default_factory=dict)
    languages: dict[str, tuple[str, ...]] = field(default_factory=dict)  # word -> spellings
    everyday: frozenset[str] = frozenset()

    def concept(self, key: str) -> Concept | None:
        """The concept of a word or phrase; inflected words match by their stem."""
        found = self.concepts.get(key)
        if found is None and len(key) > LEAST_STEM:
            found = self.stems.get(stem(key))
        return found

    def leads_to_name(self, key: str) -> bool:
        """Whether a name may follow a word."""
        return key in self.leads

    def add(self, rows: Iterable[Mapping[str, str]], theme: str) -> None:
        """Adds the concepts of one table; existing entries stay."""
        for row in rows:
            same = _keys(row["tags"])
            concept = Concept(row["tags"].split(",")[0].strip(), same, _keys(row["weaker"]), theme)
            for language in ("tags", *LANGUAGES):
                for key in _keys(row.get(language) or ""):
                    self.concepts.setdefault(key, concept)
                    self.language.setdefault(key, "en" if language == "tags" else language)
                    if language != "tags":
                        self.words_of.setdefault(key, set()).add(language)
                    if len(key) > LEAST_STEM and language not in ("tags", "en"):
                        self.stems.setdefault(stem(key), concept)


def stem(key: str) -> str:
    """A word without its most common ending, if enough letters remain."""
    for ending in _ENDINGS:
        if key.endswith(ending) and len(key) - len(ending) >= LEAST_STEM:
            return key[: -len(ending)]
    return key


@functools.lru_cache(4)
def load_lexicon(folder: str | None = None) -> Lexicon:
    """Loads the lexicon, with the tables of `folder` (a URI) before the packaged ones.

    Raises InputError if a table does not begin with the columns of HEADER.
    """
    lexicon = Lexicon()
    if folder is not None and storage.exists(folder):
        for name in sorted(storage.list_files(folder, suffix=".tsv")):
            uri = f"{folder}/{name}"
            lexicon.add(_table(storage.read_bytes(uri).decode(), uri), "own")
    for theme in THEMES:
        lexicon.add(_table(_text(f"{theme}.tsv"), theme), theme)
    for name, axis in json.loads(_text("axes.json")).items():
        lexicon.axes[name] = Axis(
            tuple(axis["columns"]),
            _all_keys(axis["up"]),
            _all_keys(axis["down"]),
            axis["up_text"],
            axis["down_text"],
        )
    for row in csv.DictReader(io.StringIO(_text("directions.tsv")), delimiter="\t"):
        for key in _keys(row["words"]):
            lexicon.directions.setdefault(key, (row["axis"], int(row["sign"])))
    words = json.loads(_text("words.json"))
    for kind, entries in words.items():
        lexicon.cues[kind] = _cues(entries)
        if kind in ("like", "unlike", "by", "album", "meets"):
            lexicon.leads |= {phrase_key(phrase.split()[-1]) for phrase in _phrases(entries)}
    for language, entries in words["stop"].items():
        for word in entries.split():
            lexicon.stops.setdefault(phrase_key(word), set()).add(language)
    lexicon.voices = frozenset(_all_keys(words["voice_tags"]))
    lexicon.numbers = dict(words["numbers"])
    lexicon.decades = dict(words["decades"])
    for row in csv.DictReader(io.StringIO(_text("languages.tsv")), delimiter="\t"):
        spellings = (row["name"], *(code.strip() for code in row["codes"].split(",")))
        for key in (phrase_key(row["name"]), *_keys(row["words"])):
            lexicon.languages.setdefault(key, spellings)
    lexicon.everyday = frozenset(_text("everyday.txt").split())
    return lexicon


def _cues(entries: Any) -> dict[str, str]:
    """Key -> language. A dict has an entry per language, else English. Text is split into words."""
    by_language = entries if isinstance(entries, dict) else {"en": entries}
    found: dict[str, str] = {}
    for language, phrases in by_language.items():
        listed = phrases.split() if isinstance(phrases, str) else phrases
        for phrase in listed if isinstance(listed, list) else ():
            found.setdefault(phrase_key(phrase), language)
    return found


def _phrases(entries: Any) -> list[str]:
    return (
        [phrase for each in entries.values() for phrase in each]
        if isinstance(entries, dict)
        else entries
    )


def _table(text: str, name: str) -> list[dict[str, str]]:
    reader = csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE)
    columns = list(reader.fieldnames or ())
    if columns[:2] != list(HEADER[:2]) or set(columns) - set(HEADER):
        raise InputError(
            f"{name} begins with {columns}, expected a header of {', '.join(HEADER)}, with tabs"
        )
    return [{key: value or "" for key, value in row.items() if key} for row in reader]


def _text(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _keys(listed: str) -> tuple[str, ...]:
    return _all_keys(listed.split(","))


def _all_keys(names: Iterable[str]) -> tuple[str, ...]:
    keys = (phrase_key(name) for name in names)
    return tuple(dict.fromkeys(key for key in keys if key))
