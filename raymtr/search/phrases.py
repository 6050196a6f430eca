"""Splits a query into phrases: cues, facets, tags and directions.

The longest phrase wins and each word is used once. Facets come before tags.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from raymtr.search.facets import find_facets, quoted
from raymtr.search.lexicon import LANGUAGES
from raymtr.search.slots import Direction, Facet, Ignored, Include
from raymtr.search.tokens import TokenizedQuery
from raymtr.search.vocabulary import CatalogVocabulary

# "postfix not" follows what it negates; "absence" is a word such as "drumless"; "instrumental" is a
# word for music without vocals.
Role = Literal[
    "tag", "facet", "direction", "not", "postfix not", "absence", "instrumental", "stop", "ignored"
]
ABSENCE_SUFFIXES = {"less": "en", "free": "en", "los": "de", "frei": "de"}  # suffix -> language
OUT_VERBS = ("leave", "keep", "cut", "take")  # followed by "out" they negate
OR_WORDS = ("or", "oder", "ou", "または", "或", "или")


@dataclass(frozen=True)
class Item:
    """A phrase of tokens `start` to `end`, its role, and the slot that it becomes."""

    start: int
    end: int
    role: Role
    slot: Any = None
    theme: str = ""


def language_of(query: TokenizedQuery, vocabulary: CatalogVocabulary) -> str:
    """The language of most words of a query; English on a tie."""
    lexicon, votes = vocabulary.lexicon, Counter[str]()
    stops = lexicon.stops
    for position in range(len(query.tokens)):
        for end in range(position + 1, min(query.longest(position), position + 6) + 1):
            key = query.key(position, end)
            for language in stops.get(key, ()):
                votes[language] += 1
            for language in lexicon.words_of.get(key, ()):
                votes[language] += 1 if lexicon.language[key] == "en" else 2
            if (cue := lexicon.cues["not"].get(key)) is not None:
                votes[cue] += 1
    if not votes:
        return "en"
    best = max(votes.values())
    return next(language for language in LANGUAGES if votes[language] == best)


class Phrases:
    """The phrases of one query, by one vocabulary. Tokens in `taken` already belong to names."""

    def __init__(
        self, query: TokenizedQuery, vocabulary: CatalogVocabulary, taken: set[int]
    ) -> None:
        self.query, self.vocabulary = query, vocabulary
        self.lexicon = vocabulary.lexicon
        self.language = language_of(query, vocabulary)
        self.taken = taken

    def items(self) -> list[Item]:
        """Every phrase with a meaning, in order, without overlaps."""
        query = self.query
        found: list[Item] = []
        used = set(self.taken)
        for facet in find_facets(query.text, self.vocabulary):
            inside = [
                position
                for position, token in enumerate(query.tokens)
                if token.start >= facet.start and token.end <= facet.end
            ]
            if inside and not used & set(inside):
                role: Role = "facet" if isinstance(facet.slot, Facet) else "ignored"
                found.append(Item(inside[0], inside[-1] + 1, role, facet.slot))
                used |= set(inside)
        position = 0
        while position < len(query.tokens):
            item = None if position in used else self._longest_at(position, used)
            if item is None:
                position += 1
                continue
            found.append(item)
            used |= set(range(item.start, item.end))
            position = item.end
        return self._merge_alternatives(sorted(found, key=lambda item: item.start))

    def _merge_alternatives(self, items: list[Item]) -> list[Item]:
        """Merges "metal or punk" into one include of either tag, unless it is negated."""
        merged: list[Item] = []
        negated = False
        for item in items:
            negated |= item.role == "not"
            joint = [i for i in merged[-1:] if self.query.key(i.start, i.end) in OR_WORDS]
            first = merged[-2] if joint and len(merged) > 1 else None
            both = first is not None and first.role == item.role == "tag"
            close = first is not None and first.end == joint[0].start and joint[0].end == item.start
            if first is not None and both and close and not negated:
                slot = Include(
                    term=self.query.words(first.start, item.end),
                    words=self.query.words(first.start, item.end),
                    tags=tuple(dict.fromkeys((*first.slot.tags, *item.slot.tags))),
                    wider=tuple(dict.fromkeys((*first.slot.wider, *item.slot.wider))),
                    exact=first.slot.exact and item.slot.exact,
                    theme=first.theme,
                )
                merged[-2:] = [Item(first.start, item.end, "tag", slot, first.theme)]
                continue
            merged.append(item)
        return merged

    def _longest_at(self, position: int, used: set[int]) -> Item | None:
        query = self.query
        last = query.longest(position)
        for end in range(last, position, -1):
            if any(p in used for p in range(position, end)):
                continue
            if query.tokens[position].clause != query.tokens[end - 1].clause:
                continue
            item = self._phrase(position, end)
            if item is not None:
                return item
        return None

    def _phrase(self, start: int, end: int) -> Item | None:
        key = self.query.key(start, end)
        words = self.query.words(start, end)
        lexicon = self.lexicon
        if (found := lexicon.directions.get(key)) is not None:
            slot = Direction(axis=found[0], sign=found[1], words=words)
            return Item(start, end, "direction", slot)
        if self._is_negation(key, start, end):
            return Item(start, end, "not")
        if lexicon.cues["instrumental"].get(key) in ("en", self.language):
            return Item(start, end, "instrumental", words)
        if lexicon.cues["not_after"].get(key) == self.language and start:
            return Item(start, end, "postfix not")
        if (language := self._language(key, start, end)) is not None:
            return language
        if self._is_stop(key) and not self.vocabulary.tag(key):
            return Item(start, end, "stop")
        meaning = self.vocabulary.meaning(key, self.language)
        if start and self.query.tokens[start - 1].key in lexicon.cues["about"]:
            meaning = meaning if self.vocabulary.tag(key) else None  # a topic, not a mood
        if meaning is not None:
            return Item(start, end, "tag", meaning.include(words, words), meaning.theme)
        if end == start + 1 and (head := self._absent_instrument(key)):
            return Item(start, end, "absence", head)
        if len(key) > 2 and (values := self.vocabulary.categories.get(key)):
            column, value = values[0]
            where = f"{column} = {quoted(value)}"
            return Item(start, end, "facet", Facet(column=column, where=where, words=words))
        return None

    def _is_negation(self, key: str, start: int, end: int) -> bool:
        tokens = self.query.tokens
        if key in OUT_VERBS:  # "leave the drums out"
            return any(t.key == "out" and t.clause == tokens[start].clause for t in tokens[end:])
        language = self.lexicon.cues["not"].get(key)
        if language not in ("en", self.language) or end >= len(self.query.tokens):
            return False
        following = tokens[end]
        same = following.clause == tokens[end - 1].clause
        numbered = key == "no" and following.key.isdigit()  # "No. 5 for piano"
        return same and not numbered

    def _absent_instrument(self, key: str) -> str | None:
        """The instrument that a word such as "drumless" excludes."""
        for ending, language in ABSENCE_SUFFIXES.items():
            if language in ("en", self.language) and key.endswith(ending):
                stem = key.removesuffix(ending)
                for head in (stem, stem.removesuffix("s")):
                    concept = self.vocabulary.concept(head, self.language)
                    if len(head) > 2 and concept is not None and concept.theme == "instruments":
                        return head
        return None

    def _is_stop(self, key: str) -> bool:
        languages = self.lexicon.stops.get(key, ())
        cue = any(
            self.lexicon.cues[kind].get(key) in ("en", self.language)
            for kind in ("like", "by", "and", "album", "about", "featuring", "meets", "ends_not")
        )
        return cue or "en" in languages or self.language in languages

    def _language(self, key: str, start: int, end: int) -> Item | None:
        """A language of the lyrics: "in Spanish", "French lyrics"."""
        spellings = self.lexicon.languages.get(key)
        if spellings is None:
            return None
        tokens = self.query.tokens
        before = tokens[start - 1].key if start else ""
        after = tokens[end].key if end < len(tokens) else ""
        has_cue = before in ("in", "auf", "en", "em", "na", "на") or after in (
            *("lyrics", "vocals", "language", "speaking", "sung", "singing", "songs", "song"),
            *("text", "の", "歌"),
        )
        column = self.vocabulary.column(("language", "lang", "languages"))
        words = self.query.words(start, end)
        if column is None:
            if not has_cue or self.vocabulary.tag(key):
                return None
            return Item(
                start, end, "ignored", Ignored(words=words, why="no language in this catalog")
            )
        known = {name.casefold() for name in spellings}
        values = [v for v in self.vocabulary.values(column) if v.casefold() in known]
        if not values:
            if not has_cue:
                return None
            why = f"no track of this catalog is in {words}"
            return Item(start, end, "ignored", Ignored(words=words, why=why))
        where = f"{column} in ({', '.join(map(quoted, values))})"
        return Item(start, end, "facet", Facet(column=column, where=where, words=words))


MOST_TOKENS = 14  # of a query in which every word may start a name


def spans(query: TokenizedQuery, vocabulary: CatalogVocabulary) -> Iterator[tuple[int, int]]:
    """Spans of tokens that may be a name: within the length limit, not only common words."""
    lexicon = vocabulary.lexicon
    common = [
        token.key in lexicon.stops or token.key in lexicon.concepts or token.key in vocabulary.tags
        for token in query.tokens
    ]
    many = len(query.tokens) > MOST_TOKENS
    for start in range(len(query.tokens)):
        before = query.tokens[start - 1].key if start else ""
        after_cue = lexicon.leads_to_name(before)
        if many and not after_cue and common[start] and before not in lexicon.cues["and"]:
            continue
        for end in range(start + 1, query.longest(start) + 1):
            if after_cue or not all(common[start:end]):
                yield start, end
