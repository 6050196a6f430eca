"""Messages: request bodies for OpenAPI, and the values that deployments send each other.

Bodies define shapes only; the library validates what a search accepts. A problem travels between
deployments as a value, because an exception would arrive as a traceback. The cost of a request
travels with its answer, so that the ingress counts everything in one place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi.responses import JSONResponse
from pydantic import (
    BaseModel,
    ConfigDict,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    WithJsonSchema,
)

UPLOAD_AGAIN_S = 5  # Retry-After for an upload without capacity: about the time one takes


@dataclass(frozen=True)
class Problem:
    """Why a request is refused or failed: HTTP status, a stable code, the detail (RFC 9457)."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> JSONResponse:
        """The problem as an application/problem+json response (RFC 9457)."""
        body = {"type": "about:blank", "title": self.code.replace("_", " "), "status": self.status}
        headers = dict(self.headers)
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"  # required by RFC 9110
        return JSONResponse(
            # OpenAI's clients show `message` as the error, and nothing else.
            body | {"code": self.code, "detail": self.detail, "message": self.detail},
            self.status,
            headers,
            media_type="application/problem+json",
        )


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


@dataclass(frozen=True)
class Searched:
    """An answer to a search, and the vectors of its words if any were needed."""

    answer: dict[str, Any]
    vectors: Vectors | None
    remembered: bool = False  # from the cache, so nothing was looked up or encoded


def plain(value: Any) -> Any:
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
        return {name: plain(one) for name, one in value.items()}
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Example(_Body):
    """A track to be near to, or far from."""

    track_id: StrictStr
    weight: StrictFloat | StrictInt | None = None


class AudioData(_Body):
    """A recording inside a JSON body."""

    data: StrictStr
    format: StrictStr | None = None


class SearchBody(_Body):
    """The body of POST /v1/search."""

    text: StrictStr | None = None
    like: list[Example | StrictStr] | None = None
    unlike: list[Example | StrictStr] | None = None
    exclude: list[StrictStr] | None = None
    audio: AudioData | None = None
    where: StrictStr | None = None
    mode: StrictStr | None = None
    k: StrictInt = 10
    cursor: StrictStr | None = None
    per_artist: StrictInt | None = None
    diversity: StrictFloat | StrictInt | None = None
    fold_duplicates: StrictBool | None = None

    def asked(self) -> dict[str, Any]:
        """The arguments of `Searcher.plan`, without the audio."""
        return self.model_dump(exclude_none=True, exclude={"audio"})


TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class EmbeddingsBody(_Body):
    """The body of POST /v1/embeddings, as OpenAI's clients send it."""

    input: Annotated[StrictStr | list[Any], WithJsonSchema(TEXTS)]  # tokens: clear error
    model: StrictStr | None = None
    encoding_format: StrictStr | None = None
    dimensions: StrictInt | None = None
    user: StrictStr | None = None
