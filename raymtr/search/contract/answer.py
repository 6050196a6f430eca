"""The answer to a search, as typed dictionaries: its hits, and how the query was understood.

Pydantic describes them in the OpenAPI document. Nothing validates them again: the library builds
them, and validation would cost time for each hit.
"""

from __future__ import annotations

from typing import NotRequired

from typing_extensions import TypedDict

from raymtr.search.contract.request import Mode


class TrackFields(TypedDict):
    """A track, from the catalog."""

    track_id: str
    title: str | None
    artist: str | None
    artists: list[str] | None
    album: str | None
    year: int | None
    duration: float | None  # seconds
    tags: list[str] | None
    uri: str | None


class Segment(TypedDict):
    """The part of a track that is nearest to the query."""

    start_s: float
    end_s: float


class Reason(TypedDict):
    """Why a track is a hit: its rank and score in one list, its tags, or its values on an axis."""

    by: str  # text, sound, words, names, title, artist, artist graph, tags, direction ...
    rank: NotRequired[int]
    score: NotRequired[float]
    matched: NotRequired[list[str]]  # tags
    toward: NotRequired[str]  # the direction in the words of the query
    columns: NotRequired[dict[str, float | None]]


class Hit(TrackFields):
    """A track that was found; `score` is in (0, 1]."""

    score: float
    segment: Segment | None
    why: list[Reason]
    duplicates: NotRequired[list[str]]  # with fold_duplicates: tracks that are the same song


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
    """Words that were taken for others."""

    words: str
    taken_for: str


class IgnoredPart(TypedDict):
    """Words that could not be used."""

    words: str
    why: str


class Suggestion(TypedDict, total=False):
    """Another query to try: `did_you_mean`, or the hits without the words in `relax`."""

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
    similar_artist: NotRequired[str]  # the request's, where it has one


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
    total: float


class Answer(TypedDict):
    """What every answer to a search has."""

    query: QueryEcho
    next_cursor: str | None
    model: str | None  # fingerprint
    table_version: str
    notes: list[str]
    took_ms: StageTimes


class SearchAnswer(Answer):
    """The answer to a search, best hit first."""

    hits: list[Hit]


class SimilarArtist(TypedDict):
    """An artist, with the best track."""

    artist: str
    score: float
    track: Hit
    why: list[Reason]


class SimilarArtists(Answer):
    """Artists similar to one, best first."""

    artists: list[SimilarArtist]
