"""Messages: request bodies for OpenAPI, and the values that deployments send each other.

Deployments return a problem as a value, because Ray would turn an exception into a traceback. An
answer includes the cost of its request, so that the ingress records all metrics in one place.
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
CatalogRow = dict[str, JsonValue]  # a track's fields and the catalog's extras
UPLOAD_RETRY_S = 5  # Retry-After of a refused upload: about the time that an upload takes


class ProblemBody(TypedDict):
    """The body of an error response (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    message: NotRequired[str]  # the same as detail: OpenAI's clients show only this


@dataclass(frozen=True)
class Problem:
    """Why a request was refused or failed: HTTP status, a stable code, the detail (RFC 9457)."""

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
    """Raises a problem; the exception handler returns it as the response."""

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
    """Vectors of sentences, and the fingerprint of their model."""

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
    """Tags of a recording's segment and its attributes; `heard` are the tags over a threshold."""

    labels: list[LabelProbability]  # the most probable first
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
    """Tracks on the two principal axes of their vectors."""

    points: list[MapPoint]


@dataclass(frozen=True)
class Searched(Generic[A]):
    """An answer to a search, and the vectors of its text if it has any."""

    answer: A
    vectors: Vectors | None
    remembered: bool = False  # from the answer cache: nothing was encoded or searched


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
        """The search request. Raises InputError if it is empty."""
        return SearchRequest.read({**dict(self), "audio": recording})


class GenerateBody(_Body):
    """The body of POST /v1/generate."""

    text: StrictStr
    seconds: float = 10.0
    seed: StrictInt = 0


class Generates(TypedDict):
    """Whether the endpoint generates audio, and the longest clip in seconds."""

    on: bool
    most_seconds: float


TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class EmbeddingsBody(_Body):
    """The body of POST /v1/embeddings, as OpenAI's clients send it."""

    # list[object] also accepts token ids, so that the route can refuse them with a reason.
    input: Annotated[StrictStr | list[object], WithJsonSchema(TEXTS)]
    model: StrictStr | None = None
    encoding_format: StrictStr | None = None
    dimensions: StrictInt | None = None
    user: StrictStr | None = None
