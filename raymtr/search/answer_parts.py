"""Parts of the answer to a search: how the query was understood, and the time of each stage."""

from __future__ import annotations

from typing import Literal, NotRequired

from typing_extensions import TypedDict

Mode = Literal["auto", "semantic", "keyword", "hybrid"]


class AnchorPart(TypedDict):
    """A named track or artist; `tracks` counts the tracks of that name."""

    title: str | None
    artist: str | None
    tracks: int
    positive: bool
    words: str


class IncludePart(TypedDict):
    """What hits should have."""

    term: str
    tags: list[str]
    words: str


class ExcludePart(TypedDict):
    """What hits must not have: tags or an artist."""

    term: str
    artist: NotRequired[str]
    tags: NotRequired[list[str]]
    words: str


class FilterPart(TypedDict):
    """A condition on a column."""

    column: str
    where: str
    words: str


class DirectionPart(TypedDict):
    """A direction along an axis; `toward` is up or down."""

    axis: str
    toward: str
    words: str


class CorrectionPart(TypedDict):
    """Words that were read as a misspelling of others."""

    words: str
    taken_for: str


class IgnoredPart(TypedDict):
    """Words that could not be used."""

    words: str
    why: str


class Suggestion(TypedDict, total=False):
    """A change to the query: a name to try, or words to drop and the hits without them."""

    did_you_mean: str
    relax: str
    hits: int


class QueryParts(TypedDict):
    """How the text was understood, each part with the words it came from."""

    kind: str
    title: str | None
    artist: str | None
    album: str | None
    description: str | None
    understood_exclude: list[str]
    anchors: list[AnchorPart]
    include: list[IncludePart]
    exclude: list[ExcludePart]
    filters: list[FilterPart]
    directions: list[DirectionPart]
    rest: str
    language: str
    corrected: list[CorrectionPart]
    ignored: list[IgnoredPart]
    similar_artist: NotRequired[str]  # as requested


class QueryEcho(QueryParts):
    """The request, and how its text was understood."""

    text: str | None
    like: dict[str, float]
    unlike: dict[str, float]
    audio: bool
    where: str | None
    mode: Mode
    k: int | None
    per_artist: int | None
    diversity: float
    fold_duplicates: bool
    suggestions: list[Suggestion]


class StageTimes(TypedDict):
    """Milliseconds of each stage."""

    encode: float
    search: float
    rank: float
    rerank: NotRequired[float]  # only if hits were re-ranked; part of `rank`
    total: float
