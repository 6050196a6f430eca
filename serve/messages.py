"""Messages: request bodies for OpenAPI, and the values that deployments send each other.

A problem travels between
deployments as a value, because an exception would arrive as a traceback. The cost of a request
travels with its answer, so that the ingress counts everything in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Generic, NotRequired, TypeVar

import numpy as np
from fastapi.responses import JSONResponse
from pydantic import (
    BaseModel,
    ConfigDict,
    JsonValue,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)
from typing_extensions import TypedDict

from raymtr.search.contract import Answer, SearchRequest, SearchTerms, Segment, TrackFields

A = TypeVar("A", bound=Answer)
CatalogRow = dict[str, JsonValue]  # of a track: its fields and the catalog's extras
UPLOAD_AGAIN_S = 5  # Retry-After for an upload without capacity: about the time one takes


class ProblemBody(TypedDict):
    """The body of a refusal (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    message: NotRequired[str]  # the detail again: OpenAI's clients show it, and nothing else


@dataclass(frozen=True)
class Problem:
    """Why a request was rejected or failed: HTTP status, a stable code, the detail (RFC 9457)."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> JSONResponse:
        """The problem as an application/problem+json response (RFC 9457)."""
        body: ProblemBody = {
            "type": "about:blank",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "message": self.detail,
        }
        headers = dict(self.headers)
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"  # required by RFC 9110
        return JSONResponse(body, self.status, headers, media_type="application/problem+json")


class ProblemError(Exception):
    """Carries a problem to the exception handler that answers with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True)
class Vectors:
    """Unit vectors [N, D] of one request, and how many requests shared the encoder's batch."""

    rows: np.ndarray
    batch: int
    cached: bool = False
    notes: tuple[str, ...] = ()  # messages about the encoding: truncated text


@dataclass(frozen=True)
class Embedded:
    """Vectors of sentences, and the fingerprint of the model that made them."""

    model: str
    vectors: Vectors


class LiveState(TypedDict):
    """The build that serves, for readiness and metrics."""

    table_version: str
    model: str | None  # fingerprint
    built_at: str
    rows: dict[str, int]  # of each table
    unindexed_rows: int
    overdue_calls: int


class PlaylistTrack(TrackFields):
    """A track of a playlist, with its cosine to the first."""

    similarity: float


class LabelProbability(TypedDict):
    """A tag and its probability."""

    label: str
    probability: float


class RecordingTags(TypedDict):
    """All tags of a recording's segment, those that count (`heard`), and its attributes."""

    labels: list[LabelProbability]  # the likeliest first
    heard: list[str]
    vocal: float  # probability of a voice
    bpm: float | None
    bpm_alternatives: list[float]
    bpm_confidence: float
    key: str | None
    mode: str | None
    key_confidence: float
    loudness_lufs: float | None
    energy: float
    brightness: float
    seconds: float  # of the whole recording
    segment: Segment
    provenance: str


class Playlist(TypedDict):
    """A playlist between two tracks, both included."""

    tracks: list[PlaylistTrack]
    model: str | None
    table_version: str


class MapPoint(TypedDict):
    """A track on the map; x and y are in [-1, 1]."""

    track_id: str
    x: float
    y: float
    title: str | None
    artist: str | None
    tag: str | None


class TrackMap(TypedDict):
    """Tracks on the two main axes of their vectors."""

    points: list[MapPoint]


@dataclass(frozen=True)
class Searched(Generic[A]):
    """An answer to a search, and the vectors of its words if any were needed."""

    answer: A
    vectors: Vectors | None
    remembered: bool = False  # from the cache, so nothing was looked up or encoded


def plain(value: object) -> JsonValue:
    """A catalog value as JSON: NaN and infinity become null, bytes a text with their length.

    Tables written before such values were refused still contain them.
    """
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class AudioData(_Body):
    """A recording inside a JSON body."""

    data: StrictStr
    format: StrictStr | None = None


class SearchBody(SearchTerms):
    """The body of POST /v1/search."""

    audio: AudioData | None = None

    def request(self, recording: bytes | None = None) -> SearchRequest:
        """The search it asks for. Raises InputError if it asks for nothing."""
        return SearchRequest.read({**dict(self), "audio": recording})


class GenerateBody(_Body):
    """The body of POST /v1/generate."""

    text: StrictStr
    seconds: float = 10.0
    seed: StrictInt = 0


class Generates(TypedDict):
    """Whether the endpoint makes sound, and the longest clip in seconds."""

    on: bool
    most_seconds: float


TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class EmbeddingsBody(_Body):
    """The body of POST /v1/embeddings, as OpenAI's clients send it."""

    input: Annotated[StrictStr | list[object], WithJsonSchema(TEXTS)]  # tokens: clear error
    model: StrictStr | None = None
    encoding_format: StrictStr | None = None
    dimensions: StrictInt | None = None
    user: StrictStr | None = None
