"""Looks up names at a position in a query: exact, misspelt or unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from raymtr.names import name_key
from raymtr.search.facets import find_facets
from raymtr.search.misspelt import LEAST_COMMON
from raymtr.search.named import (
    QUOTES,
    SPELT_LIKE,
    CatalogNames,
    NameMatch,
    NameReading,
    similarity,
    whole_readings,
)
from raymtr.search.phrases import spans
from raymtr.search.slots import Anchor, Correction, Exclude, Ignored
from raymtr.search.tokens import TokenizedQuery
from raymtr.search.vocabulary import CatalogVocabulary

NEAREST = 3  # known names reported for an unknown one
NAME_END_WORDS = (
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
    """The names in a query, and the tokens that belong to them and their cues."""

    taken: set[int] = field(default_factory=set)
    anchors: tuple[Anchor, ...] = ()
    artists: tuple[Anchor, ...] = ()
    has_by_cue: bool = False  # whether a cue such as "by" precedes an artist
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

    def __init__(self, query: TokenizedQuery, vocabulary: CatalogVocabulary) -> None:
        self.query, self.vocabulary = query, vocabulary
        self.lexicon, self.table = vocabulary.lexicon, vocabulary.table
        self.name_spans = list(spans(query, vocabulary))
        self.found = NamesFound()
        self.known = CatalogNames(self.table)

    def span_texts(self) -> list[str]:
        """The texts that may be names, to be looked up in the catalog in one call."""
        return [self.query.words(start, end).strip(QUOTES) for start, end in self.name_spans]

    def _cue(self, position: int, kinds: Iterable[str]) -> tuple[int, str] | None:
        """The end and the kind of the longest cue that starts at a token."""
        for end in range(self.query.longest(position), position, -1):
            key = self.query.key(position, end)
            for kind in kinds:
                if key in self.lexicon.cues[kind]:
                    return end, kind
        return None

    def _match(self, start: int, end: int) -> NameMatch | None:
        """The match of some tokens: an artist, else a title, else both."""
        words = self._words(start, end)
        named = self.known.match(NameReading(None, words))
        album = end <= self._segment_end(start)
        return named or self.known.first(whole_readings(words, album=album))

    def _name_at(self, start: int) -> tuple[int, NameMatch] | None:
        """The longest name that begins at a token: its end and its match."""
        if start >= len(self.query.tokens):
            return None
        whole = min(len(self.query.tokens), start + 12)
        for end in range(whole, start, -1):
            named = self._match(start, end)
            if named is not None and not self._is_tag(start, end):
                return end, named
        ends = self._segment_end(start)
        words = self._words(start, ends) if ends > start else ""
        if words and self.known.in_graph(words):
            return ends, NameMatch(title=None, artist=words, tracks=())
        return None

    def _artist_at(self, start: int) -> tuple[int, NameMatch] | None:
        if start >= len(self.query.tokens):
            return None
        for end in range(self.query.longest(start), start, -1):
            named = self.known.match(NameReading(None, self._words(start, end)))
            if named is not None and not self._is_tag(start, end):
                return end, named
        return None

    def _misspelt_at(self, start: int, *, anchor: bool) -> tuple[int, NameMatch] | None:
        end = self._segment_end(start)
        positions = range(start, end)
        if start >= end or all(map(self._is_music_term, positions)):
            return None
        named = self._spelt_like(start, end, anchor=anchor)
        if named is None:
            return None
        spelt = name_key(" by ".join(p for p in (named.title, named.artist) if p))
        typed = name_key(self._words(start, end))
        if all(map(self._is_common, positions)) and similarity(spelt, typed) < LEAST_COMMON:
            return None
        self._add_correction(named, start, end)
        return end, named

    def _spelt_like(self, start: int, end: int, *, anchor: bool) -> NameMatch | None:
        words = self._words(start, end)
        rows = self.table.spelt_like(words, limit=SPELT_LIKE)
        readings = [NameReading(None, words), *(whole_readings(words) if anchor else ())]
        known = CatalogNames(self.table, rows=rows)
        named = known.first(readings)
        return named and known.complete(named)

    def _unknown_at(self, start: int, cue: int) -> bool:
        """Whether an unknown name is at this position; it is then reported."""
        end = self._segment_end(start)
        content = [
            p for p in range(start, end) if self.query.tokens[p].key not in self.lexicon.stops
        ]
        facet = any(position in self.facet_tokens for position in range(start, end))
        if not content or all(map(self._is_common, content)) or facet:
            return False
        words = self._words(start, end)
        self.found.ignored.append(
            Ignored(words=words, why="no track or artist of that name in this catalog")
        )
        rows = self.table.spelt_like(words, limit=NEAREST)
        names = dict.fromkeys(row["artist"] or row["title"] for row in rows)
        self.found.nearest = tuple(name for name in names if name)
        self._mark_taken(cue, end)
        return True

    @cached_property
    def facet_tokens(self) -> set[int]:
        """The tokens of facets such as a year or a tempo: "between 90 and 99 bpm"."""
        facets = find_facets(self.query.text, self.vocabulary)
        return {
            position
            for position, token in enumerate(self.query.tokens)
            if any(facet.start < token.end and facet.end > token.start for facet in facets)
        }

    def _segment_end(self, start: int) -> int:
        """The latest end of a name from token `start`: at "but", a negation or a clause's end."""
        tokens, lexicon = self.query.tokens, self.lexicon
        if start >= len(tokens):
            return start
        for position in range(start, len(tokens)):
            key = tokens[position].key
            if tokens[position].clause != tokens[start].clause or key in NAME_END_WORDS:
                return position
            if position > start and (
                any(
                    self.query.key(position, e) in lexicon.directions
                    for e in (position + 1, position + 2)
                )
                or key in lexicon.cues["not"]
            ):
                return position
        return len(tokens)

    def _is_common(self, position: int) -> bool:
        key = self.query.tokens[position].key
        lexicon = self.lexicon
        typed = self.query.words(position, position + 1)
        capital = typed[:1].isupper() and not self.query.text.isupper()
        if key in lexicon.stops or key in self.vocabulary.tags or key.isdigit():
            return True
        return not capital and (key in lexicon.everyday or lexicon.concept(key) is not None)

    def _is_music_term(self, position: int) -> bool:
        key = self.query.tokens[position].key
        lexicon = self.lexicon
        known = key in lexicon.stops or key in self.vocabulary.tags
        return known or lexicon.concept(key) is not None

    def _is_tag(self, start: int, end: int) -> bool:
        """Whether a phrase is a tag of the catalog, so that "like jazz" has no name."""
        return self.query.key(start, end) in self.vocabulary.tags

    def _may_be_artist(self, start: int, end: int) -> bool:
        """Whether a phrase without a cue may be an artist; common words alone are not."""
        tokens, lexicon = self.query.tokens, self.lexicon
        words = [tokens[position].key for position in range(start, end)]
        known = [
            w in self.vocabulary.tags or lexicon.concept(w) is not None or w in lexicon.stops
            for w in words
        ]
        if end - start > 1 and not all(known):
            return True
        return not known[0] and words[0] not in lexicon.everyday and len(words[0]) > 2

    def _negated(self, position: int) -> bool:
        """Whether a negation directly precedes a token."""
        cues = self.lexicon.cues["not"]
        return any(
            self.query.key(start, position) in cues
            for start in range(max(0, position - 3), position)
        )

    def _add_anchor(
        self, named: NameMatch, start: int, end: int, positive: bool, group: int
    ) -> None:
        anchor = Anchor(
            words=self.query.words(start, end),
            title=named.title,
            artist=named.artist,
            tracks=named.tracks,
            positive=positive,
            group=group,
        )
        self.found.anchors = (*self.found.anchors, anchor)

    def _add_correction(self, named: NameMatch, start: int, end: int) -> None:
        spelt = " by ".join(part for part in (named.title, named.artist) if part)
        words = self.query.words(start, end)
        self.found.corrected.append(Correction(words=words, taken_for=spelt))

    def _mark_taken(self, start: int, end: int) -> None:
        self.found.taken |= set(range(max(start, 0), end))

    def _words(self, start: int, end: int) -> str:
        return self.query.words(start, end).strip(QUOTES)
