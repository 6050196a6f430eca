"""The search contract: one request and one answer for Python, command line, HTTP and MCP.

`SearchRequest` validates a request once. Every key has its own error message, so a wrong value
gives the same message in all four interfaces. Answers are typed dictionaries. Pydantic describes
them in the OpenAPI document and does not validate them: the library builds them, and validation
would cost time for each hit.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Annotated, NotRequired, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SkipValidation,
    StrictFloat,
    StrictStr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from raymtr.audio import Sound
from raymtr.errors import InputError
from raymtr.search.answer_parts import Mode, QueryEcho, StageTimes
from raymtr.search.cursor import mark_of

MOST_HITS = 100  # of one page
LONGEST_TEXT = 2_000  # characters; a text tower reads far fewer
MOST_EXAMPLES = 100
MOST_DEPTH, DEPTH = 200, 50  # hits to re-rank
MIX = 0.75  # weight of the match probability; the best on the dev queries of benchmarks.mulap
MOST_WEIGHT = 10
LONGEST_CURSOR = 200  # characters


def _problem(message: str) -> PydanticCustomError:
    return PydanticCustomError("invalid_request", "{message}", {"message": message})


def _message(name: str, accepts: str, item: str = "") -> WrapValidator:
    """A validator with a key's error message: what it accepts; `item` is for invalid list items."""

    def check(value: object, validate: ValidatorFunctionWrapHandler) -> object:
        try:
            return validate(value)
        except ValidationError as error:
            raise _problem(_message_of(name, value, error, accepts, item or accepts)) from None

    return WrapValidator(check)


def _message_of(name: str, value: object, error: ValidationError, accepts: str, item: str) -> str:
    first = error.errors(include_url=False)[0]
    place = first["loc"][0] if first["loc"] else None
    if first["type"] == "string_too_long" and isinstance(value, str):
        return f"{name} has {len(value)} characters, at most {first['ctx']['max_length']} are read"
    if first["type"] == "too_long" and isinstance(value, Sequence):
        return f"{name} takes at most {first['ctx']['max_length']} tracks, got {len(value)}"
    if "weight" in first["loc"]:
        return (
            f"a weight in {name} is a number above 0, at most {MOST_WEIGHT}; got {first['input']!r}"
        )
    if isinstance(place, int) and isinstance(value, Sequence):
        value, accepts = value[place], item
    return f"{name} is {accepts}{';' if ',' in accepts else ','} got {value!r:.200}"


def _clean(text: str | None) -> str | None:
    """The text without control characters, on which some tokenizers fail; None if it is empty."""
    if text is None:
        return None
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()) or None


class Example(BaseModel):
    """An example track, to find similar or dissimilar tracks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    track_id: StrictStr
    weight: Annotated[StrictFloat, Field(gt=0, le=MOST_WEIGHT, allow_inf_nan=False)] | None = None


_TRACKS = "a list of track ids, or of {'track_id', 'weight'}"
_Term = Annotated[str, Field(pattern=r"\S"), AfterValidator(str.strip)]
Text = Annotated[
    str | None,
    Field(max_length=LONGEST_TEXT, description="a title, an artist, a description, similar to ..."),
    AfterValidator(_clean),
    _message("text", "a text"),
]
Where = Annotated[
    str | None,
    Field(description="a filter, such as: year > 1990 and tags has 'jazz'"),
    _message("where", 'a text such as "year > 1990"'),
]
HitCount = Annotated[
    int,
    Field(ge=1, le=MOST_HITS, description=f"number of hits, 1 to {MOST_HITS}"),
    _message("k", f"a whole number from 1 to {MOST_HITS}"),
]
PerArtist = Annotated[
    Annotated[int, Field(ge=1, le=MOST_HITS)] | None,
    Field(description="maximum number of hits per artist"),
    _message("per_artist", f"a whole number from 1 to {MOST_HITS}"),
]


class Rerank(BaseModel):
    """Re-ranks the first hits with the matching head of a MuLaP run."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    depth: Annotated[int, Field(ge=1, le=MOST_DEPTH)] = DEPTH  # hits to re-rank
    run: str | None = None  # None: the newest one of the workspace
    mix: Annotated[float, Field(ge=0, le=1)] = MIX  # weight of the match probability


class SearchTerms(BaseModel):
    """The keys of a search that every interface accepts; null is the same as no key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    text: Text = None
    like: Annotated[
        Annotated[Sequence[Example | str], Field(max_length=MOST_EXAMPLES)] | None,
        Field(description="example tracks that hits should be near to"),
        _message("like", _TRACKS),
    ] = None
    unlike: Annotated[
        Annotated[Sequence[Example | str], Field(max_length=MOST_EXAMPLES)] | None,
        Field(description="example tracks that hits should be far from"),
        _message("unlike", _TRACKS),
    ] = None
    exclude: Annotated[
        Sequence[_Term] | None,
        Field(description="terms that tags and captions of hits must not have"),
        _message("exclude", "a list of terms", "a list of non-empty terms"),
    ] = None
    where: Where = None
    mode: Annotated[
        Mode | None,
        Field(description="auto, semantic, keyword or hybrid"),
        _message("mode", "one of auto, semantic, keyword, hybrid"),
    ] = None
    k: HitCount = 10
    per_artist: PerArtist = None
    diversity: Annotated[
        Annotated[float, Field(ge=0, le=1)] | None,
        Field(description="0 to 1: how much hits should differ from one another"),
        _message("diversity", "a number from 0 to 1"),
    ] = None
    fold_duplicates: Annotated[
        bool | None,
        Field(description="of tracks that are one song (`raymtr duplicates`) show only the best"),
        _message("fold_duplicates", "true or false"),
    ] = None
    rerank: Annotated[
        Rerank | None,
        Field(description="a run of `train --recipe mulap` that re-ranks the first hits"),
        _message("rerank", f"{{'depth'}}, 1 to {MOST_DEPTH}, maybe with 'run' and 'mix', 0 to 1"),
    ] = None
    cursor: Annotated[
        Annotated[str, Field(min_length=1, max_length=LONGEST_CURSOR)] | None,
        Field(description="the next_cursor of an answer, for its next page"),
        _message("cursor", "the next_cursor of an answer"),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _only_known_keys(cls, values: object) -> object:
        unknown = sorted(set(values) - set(cls.model_fields)) if isinstance(values, Mapping) else []
        if unknown:
            accepted = ", ".join(cls.model_fields)
            raise _problem(f"unknown key {unknown[0]!r:.100} in a search; accepted: {accepted}")
        return values


class SearchRequest(SearchTerms):
    """A valid search. `read` creates one from unchecked values."""

    model_config = ConfigDict(arbitrary_types_allowed=True)  # samples

    audio: Annotated[
        SkipValidation[Sound | None], Field(description="a recording to search by")
    ] = None  # the decoder validates a recording
    similar_artist: Annotated[
        str | None,
        Field(description="instead of a text, an artist to find similar artists of"),
        _message("similar_artist", "a name"),
    ] = None

    @classmethod
    def read(cls, values: Mapping[str, object]) -> Self:
        """Validates the values of a search. Raises InputError that names the invalid key."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise InputError(error.errors(include_url=False)[0]["msg"]) from None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if self.similar_artist and self.text:
            raise _problem("similar_artist replaces text; give one of the two")
        if not self.text and not self.similar_artist and not self.like and self.audio is None:
            raise _problem("a search needs a non-empty text, like or audio")
        return self

    def mark(self, build: str) -> str:
        """The mark in a cursor of this request on that build."""
        audio = self.audio
        if isinstance(audio, tuple):
            audio = audio[0].tobytes() + str(audio[1]).encode()
        if isinstance(audio, os.PathLike):
            audio = os.fspath(audio)
        if isinstance(audio, bytes):
            audio = hashlib.blake2b(audio).hexdigest()
        return mark_of(build, self.model_dump(exclude={"audio", "cursor"}) | {"audio": audio})


def weights_of(examples: Sequence[Example | str] | None) -> dict[str, float]:
    """The weight of each example, by track id: 1 by default, summed over repeated ids."""
    weights: dict[str, float] = {}
    for one in examples or ():
        track_id, weight = (one, None) if isinstance(one, str) else (one.track_id, one.weight)
        weights[track_id] = weights.get(track_id, 0.0) + (1.0 if weight is None else weight)
    return weights


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

    by: str  # text, sound, words, names, title, artist, artist graph, tags, direction, unknown ...
    rank: NotRequired[int]
    score: NotRequired[float]
    matched: NotRequired[list[str]]  # tags
    toward: NotRequired[str]  # the direction in the words of the query
    columns: NotRequired[dict[str, float | None]]
    tags: NotRequired[list[str]]  # its tags that lie in the direction
    concept: NotRequired[str]  # two texts; the query moved along the difference of their vectors


class Hit(TrackFields):
    """A track that was found; `score` is in (0, 1]."""

    score: float
    segment: Segment | None
    why: list[Reason]
    duplicates: NotRequired[list[str]]  # with fold_duplicates: other tracks of the same song


class Answer(TypedDict):
    """The common keys of every answer to a search."""

    query: QueryEcho
    next_cursor: str | None
    model: str | None  # fingerprint
    table_version: str
    partial: bool  # whether a table shard did not answer, so that its tracks are left out
    notes: list[str]
    took_ms: StageTimes


class SearchAnswer(Answer):
    """The answer to a search, best hit first."""

    hits: list[Hit]


class SimilarArtist(TypedDict):
    """A similar artist, with the best track."""

    artist: str
    score: float
    track: Hit
    why: list[Reason]


class SimilarArtists(Answer):
    """Artists similar to the requested one, best first."""

    artists: list[SimilarArtist]
