"""Looks up names at a position in a query: exact, misspelt or unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from raymtr.names import name_key
from raymtr.search.facets import find_facets
from raymtr.search.misspelt import LEAST_COMMON
from raymtr.search.named import (
    QUOTES,
    SPELT_LIKE,
    Known,
    Named,
    NameReading,
    likeness,
    whole_readings,
)
from raymtr.search.phrases import spans
from raymtr.search.slots import Anchor, Correction, Exclude, Ignored
from raymtr.search.tokens import TokenizedQuery
from raymtr.search.vocabulary import CatalogVocabulary

NEAREST = 3  # known names reported for an unknown one
ENDS_NAME = (
    "but",
    "only",
    "with",
    "without",
    "aber",
    "mais",
    "pero",
    "mas",
    "ma",
    "но",
    "except",
    "that",
    "who",
    "just",
)


@dataclass
class NamesFound:
    """The names in a query and the tokens they took, cues included."""

    taken: set[int] = field(default_factory=set)
    anchors: tuple[Anchor, ...] = ()
    artists: tuple[Anchor, ...] = ()
    says_by: bool = False  # whether a cue such as "by" precedes an artist
    excluded: list[Exclude] = field(default_factory=list)
    title: str | None = None
    title_tracks: tuple[str, ...] = ()
    album: str | None = None
    album_tracks: tuple[str, ...] = ()
    ignored: list[Ignored] = field(default_factory=list)
    corrected: list[Correction] = field(default_factory=list)
    nearest: tuple[str, ...] = ()


class NameLookup:
    """Looks for names at positions of one query."""

    def __init__(self, question: TokenizedQuery, vocabulary: CatalogVocabulary) -> None:
        self.question, self.vocabulary = question, vocabulary
        self.lexicon, self.table = vocabulary.lexicon, vocabulary.table
        self.places = list(spans(question, vocabulary))
        self.found = NamesFound()
        self.known = Known(self.table)

    def spans(self) -> list[str]:
        """The texts that may be names, to be looked up in the catalog in one call."""
        return [self.question.words(start, end).strip(QUOTES) for start, end in self.places]

    def _cue(self, place: int, kinds: Iterable[str]) -> tuple[int, str] | None:
        """The end and the kind of the longest cue that starts at a token."""
        for end in range(self.question.longest(place), place, -1):
            key = self.question.key(place, end)
            for kind in kinds:
                if key in self.lexicon.cues[kind]:
                    return end, kind
        return None

    def _named(self, start: int, end: int) -> Named | None:
        """What tokens name: an artist, else a title, else both."""
        words = self._words(start, end)
        named = self.known.named(NameReading(None, words))
        album = end <= self._segment_end(start)
        return named or self.known.first(whole_readings(words, album=album))

    def _name_at(self, start: int) -> tuple[int, Named] | None:
        """The longest name that begins at a token, and its end."""
        if start >= len(self.question.tokens):
            return None
        whole = min(len(self.question.tokens), start + 12)
        for end in range(whole, start, -1):
            named = self._named(start, end)
            if named is not None and not self._only_tags(start, end):
                return end, named
        ends = self._segment_end(start)
        words = self._words(start, ends) if ends > start else ""
        if words and self.known.in_graph(words):
            return ends, Named(title=None, artist=words, tracks=())
        return None

    def _artist_at(self, start: int) -> tuple[int, Named] | None:
        if start >= len(self.question.tokens):
            return None
        for end in range(self.question.longest(start), start, -1):
            named = self.known.named(NameReading(None, self._words(start, end)))
            if named is not None and not self._only_tags(start, end):
                return end, named
        return None

    def _misspelt_at(self, start: int, *, anchor: bool) -> tuple[int, Named] | None:
        end = self._segment_end(start)
        places = range(start, end)
        if start >= end or all(map(self._is_of_music, places)):
            return None
        named = self._spelt_like(start, end, anchor=anchor)
        if named is None:
            return None
        spelt = name_key(" by ".join(p for p in (named.title, named.artist) if p))
        typed = name_key(self._words(start, end))
        if all(map(self._is_common, places)) and likeness(spelt, typed) < LEAST_COMMON:
            return None
        self._correct(named, start, end)
        return end, named

    def _spelt_like(self, start: int, end: int, *, anchor: bool) -> Named | None:
        words = self._words(start, end)
        rows = self.table.spelt_like(words, limit=SPELT_LIKE)
        readings = [NameReading(None, words), *(whole_readings(words) if anchor else ())]
        known = Known(self.table, rows=rows)
        named = known.first(readings)
        return named and known.all_of(named)

    def _unknown_at(self, start: int, cue: int) -> bool:
        """Whether an unknown name is at this position; it is then reported."""
        end = self._segment_end(start)
        content = [
            p for p in range(start, end) if self.question.tokens[p].key not in self.lexicon.stops
        ]
        facet = any(place in self.in_facets for place in range(start, end))
        if not content or all(map(self._is_common, content)) or facet:
            return False
        words = self._words(start, end)
        self.found.ignored.append(
            Ignored(words=words, why="no track or artist of that name in this catalog")
        )
        rows = self.table.spelt_like(words, limit=NEAREST)
        names = dict.fromkeys(row["artist"] or row["title"] for row in rows)
        self.found.nearest = tuple(name for name in names if name)
        self._take(cue, end)
        return True

    @cached_property
    def in_facets(self) -> set[int]:
        """The tokens of a year, a tempo or the like: "between 90 and 99 bpm"."""
        facets = find_facets(self.question.text, self.vocabulary)
        return {
            place
            for place, token in enumerate(self.question.tokens)
            if any(facet.start < token.end and facet.end > token.start for facet in facets)
        }

    def _segment_end(self, start: int) -> int:
        """The latest end of a name that begins at a token: its clause, "but" or a negation."""
        tokens, lexicon = self.question.tokens, self.lexicon
        if start >= len(tokens):
            return start
        for place in range(start, len(tokens)):
            key = tokens[place].key
            if tokens[place].clause != tokens[start].clause or key in ENDS_NAME:
                return place
            if place > start and (
                any(
                    self.question.key(place, e) in lexicon.directions
                    for e in (place + 1, place + 2)
                )
                or key in lexicon.cues["not"]
            ):
                return place
        return len(tokens)

    def _is_common(self, place: int) -> bool:
        key = self.question.tokens[place].key
        lexicon = self.lexicon
        typed = self.question.words(place, place + 1)
        capital = typed[:1].isupper() and not self.question.text.isupper()
        if key in lexicon.stops or key in self.vocabulary.tags or key.isdigit():
            return True
        return not capital and (key in lexicon.everyday or lexicon.concept(key) is not None)

    def _is_of_music(self, place: int) -> bool:
        key = self.question.tokens[place].key
        lexicon = self.lexicon
        known = key in lexicon.stops or key in self.vocabulary.tags
        return known or lexicon.concept(key) is not None

    def _only_tags(self, start: int, end: int) -> bool:
        """Whether a phrase is a tag of the catalog, and so no name after a cue: "like jazz"."""
        return self.question.key(start, end) in self.vocabulary.tags

    def _may_stand_alone(self, start: int, end: int) -> bool:
        """Whether a phrase without a cue may be an artist, which common words alone are not."""
        tokens, lexicon = self.question.tokens, self.lexicon
        words = [tokens[place].key for place in range(start, end)]
        known = [
            w in self.vocabulary.tags or lexicon.concept(w) is not None or w in lexicon.stops
            for w in words
        ]
        if end - start > 1 and not all(known):
            return True
        return not known[0] and words[0] not in lexicon.everyday and len(words[0]) > 2

    def _negated(self, place: int) -> bool:
        """Whether a negation directly precedes a token."""
        cues = self.lexicon.cues["not"]
        return any(
            self.question.key(start, place) in cues for start in range(max(0, place - 3), place)
        )

    def _anchor(self, named: Named, start: int, end: int, positive: bool, group: int) -> None:
        anchor = Anchor(
            words=self.question.words(start, end),
            title=named.title,
            artist=named.artist,
            tracks=named.tracks,
            positive=positive,
            group=group,
        )
        self.found.anchors = (*self.found.anchors, replace(anchor))

    def _correct(self, named: Named, start: int, end: int) -> None:
        spelt = " by ".join(part for part in (named.title, named.artist) if part)
        words = self.question.words(start, end)
        self.found.corrected.append(Correction(words=words, taken_for=spelt))

    def _take(self, start: int, end: int) -> None:
        self.found.taken |= set(range(max(start, 0), end))

    def _words(self, start: int, end: int) -> str:
        return self.question.words(start, end).strip(QUOTES)
