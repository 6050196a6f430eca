"""What a question was understood to ask: typed slots, each with the words it came from.

A slot is made once, by `understand`, and read by everything after it: the filter and the retrievers
are made from slots, and an answer echoes them as they stand here. Names stand as the catalog spells
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["title", "artist", "album", "similar", "description"]


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """A named track or artist to be near to, or far from; `tracks` are those the name stands for.

    `group`: anchors of one group are averaged ("X meets Y"), groups are united ("X and Y").
    """

    words: str
    title: str | None = None
    artist: str | None = None
    tracks: tuple[str, ...] = ()
    positive: bool = True
    group: int = 0

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {
            "title": self.title,
            "artist": self.artist,
            "tracks": len(self.tracks),
            "positive": self.positive,
            "words": self.words,
        }


@dataclass(frozen=True, kw_only=True)
class Tag:
    """A tag of the catalog: the column that lists it, and its spelling there."""

    column: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Include:
    """What hits should have: one of `tags`; failing that, one of `wider`."""

    term: str
    words: str
    tags: tuple[Tag, ...]
    wider: tuple[Tag, ...] = ()
    exact: bool = False  # the tags say this very thing, and not what mostly goes with it
    few: bool = False  # tracks have one of `tags`: the wider are searched for with them

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        tags = [tag.value for tag in self.tags or self.wider]
        return {"term": self.term, "tags": tags, "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Exclude:
    """What hits must not have: a family of tags, or an artist; without both, a sound to avoid."""

    term: str
    words: str
    tags: tuple[Tag, ...] = ()
    artist: str | None = None

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        by = {"artist": self.artist} if self.artist else {"tags": [t.value for t in self.tags]}
        return {"term": self.term, **by, "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Facet:
    """A condition on columns, in the filter language."""

    column: str
    where: str
    words: str

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {"column": self.column, "where": self.where, "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Direction:
    """A way to go from the anchors along an axis of the lexicon: +1 up, -1 down."""

    axis: str
    sign: int
    words: str

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {"axis": self.axis, "toward": "up" if self.sign > 0 else "down", "words": self.words}


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """Words that could not be used, and why."""

    words: str
    why: str

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {"words": self.words, "why": self.why}


@dataclass(frozen=True, kw_only=True)
class Correction:
    """Words taken for others that they misspell."""

    words: str
    taken_for: str

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it."""
        return {"words": self.words, "taken_for": self.taken_for}


@dataclass(frozen=True, kw_only=True)
class Understood:
    """A query as it was understood."""

    kind: Kind
    text: str  # what the text tower reads
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    tracks: tuple[str, ...] = ()  # what the names stand for
    anchors: tuple[Anchor, ...] = ()  # to be near to or far from
    names: tuple[Anchor, ...] = ()  # whose own tracks are wanted
    include: tuple[Include, ...] = ()
    excluded: tuple[Exclude, ...] = ()
    filters: tuple[Facet, ...] = ()
    directions: tuple[Direction, ...] = ()
    ignored: tuple[Ignored, ...] = ()
    corrected: tuple[Correction, ...] = ()
    nearest_names: tuple[str, ...] = ()  # did you mean
    unsaid: str = ""  # words that no slot took: what names and captions are searched for
    language: str = "en"
    known_share: float = 1.0  # of the words that carry meaning, those that a slot took

    @property
    def exclude(self) -> tuple[str, ...]:
        """The terms that hits must not have."""
        return tuple(slot.term for slot in self.excluded)

    def echo(self) -> dict[str, Any]:
        """As an answer repeats it; what was asked beside the text is not known here."""
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
