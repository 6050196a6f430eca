"""Typed slots of a parsed query, each with the words it came from.

`understand` creates each slot once. Filters and retrievers are derived from slots, and an answer
repeats them. Names use the catalog's spelling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from raymtr.search.answer_parts import (
    AnchorPart,
    CorrectionPart,
    DirectionPart,
    ExcludePart,
    FilterPart,
    IgnoredPart,
    IncludePart,
    QueryParts,
)

Kind = Literal["title", "artist", "album", "similar", "description"]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A named track or artist that hits should be near to, or far from.

    `tracks` are the tracks of that name. The vectors of the anchors of one `group` are averaged
    ("X meets Y"); the hits of different groups are combined ("X and Y").
    """

    words: str
    title: str | None = None
    artist: str | None = None
    tracks: tuple[str, ...] = ()
    positive: bool = True
    group: int = 0

    def echo(self) -> AnchorPart:
        """The form in an answer."""
        return {
            "title": self.title,
            "artist": self.artist,
            "tracks": len(self.tracks),
            "positive": self.positive,
            "words": self.words,
        }


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag of the catalog: the column that contains it, and its spelling there."""

    column: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Include:
    """What hits should have: one of `tags`; failing that, one of `wider`."""

    term: str
    words: str
    tags: tuple[Tag, ...]
    wider: tuple[Tag, ...] = ()
    exact: bool = False  # the tags are exact matches, not only correlated ones
    few: bool = False  # few tracks have one of `tags`, so `wider` is searched too
    theme: str = ""  # the lexicon's table: genres, instruments, moods ...

    def echo(self) -> IncludePart:
        """The form in an answer."""
        tags = [tag.value for tag in self.tags or self.wider]
        return {"term": self.term, "tags": tags, "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """What hits must not have: a tag family or an artist; without either, a term to steer from."""

    term: str
    words: str
    tags: tuple[Tag, ...] = ()
    artist: str | None = None

    def echo(self) -> ExcludePart:
        """The form in an answer."""
        if self.artist:
            return {"term": self.term, "artist": self.artist, "words": self.words}
        return {"term": self.term, "tags": [t.value for t in self.tags], "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Facet:
    """A condition on columns, in the filter language.

    An exclusion admits tracks whose value is unknown; those that meet `known` come first.
    """

    column: str
    where: str
    words: str
    known: str | None = None

    def echo(self) -> FilterPart:
        """The form in an answer."""
        return {"column": self.column, "where": self.where, "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A direction from the anchors along an axis of the lexicon: +1 up, -1 down."""

    axis: str
    sign: int
    words: str

    def echo(self) -> DirectionPart:
        """The form in an answer."""
        return {"axis": self.axis, "toward": "up" if self.sign > 0 else "down", "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """Words that could not be used, and why."""

    words: str
    why: str

    def echo(self) -> IgnoredPart:
        """The form in an answer."""
        return {"words": self.words, "why": self.why}


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Words corrected as misspellings of others."""

    words: str
    taken_for: str

    def echo(self) -> CorrectionPart:
        """The form in an answer."""
        return {"words": self.words, "taken_for": self.taken_for}


@dataclass(frozen=True, kw_only=True)
class Understood:
    """A parsed query."""

    kind: Kind
    text: str  # the input of the text tower
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    tracks: tuple[str, ...] = ()  # tracks of the names
    anchors: tuple[Anchor, ...] = ()  # that hits should be near to or far from
    names: tuple[Anchor, ...] = ()  # whose own tracks are requested
    include: tuple[Include, ...] = ()
    excluded: tuple[Exclude, ...] = ()
    filters: tuple[Facet, ...] = ()
    directions: tuple[Direction, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    corrected: tuple[Correction, ...] = ()
    nearest_names: tuple[str, ...] = ()  # for "did you mean"
    unmatched: str = ""  # words that no slot matched, searched in names and captions
    language: str = "en"
    known_share: float = 1.0  # share of the words that a slot matched

    @property
    def exclude(self) -> tuple[str, ...]:
        """The terms that hits must not have."""
        return tuple(slot.term for slot in self.excluded)

    def echo(self) -> QueryParts:
        """The form in an answer, without the request's other arguments."""
        return {
            "kind": self.kind,
            "title": self.title,
            "artist": self.artist,
            "album": self.album,
            "description": self.text or None,
            "understood_exclude": list(self.exclude),
            "anchors": [slot.echo() for slot in (*self.anchors, *self.names)],
            "include": [slot.echo() for slot in self.include],
            "exclude": [slot.echo() for slot in self.excluded],
            "filters": [slot.echo() for slot in self.filters],
            "directions": [slot.echo() for slot in self.directions],
            "rest": self.text,
            "language": self.language,
            "corrected": [slot.echo() for slot in self.corrected],
            "ignored": [slot.echo() for slot in self.ignored],
        }
