"""Messages: request bodies as OpenAPI shows them, and what deployments send each other.

Bodies state shapes only; the library checks what a search accepts. A problem travels between
deployments as a value, since an exception would arrive as a traceback. The cost of a request
travels back with its answer, so that the ingress counts all of it in one place.
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

UPLOAD_AGAIN_S = 5  # to a recording that finds no room: about what one takes


@dataclass(frozen=True)
class Problem:
    """Why a request is refused or failed: HTTP status, a stable code, the detail (RFC 9457)."""

    status: int
    code: str
    detail: str
    retry_after_s: int | None = None
    headers: tuple[tuple[str, str], ...] = ()

    def response(self) -> JSONResponse:
        """As application/problem+json (RFC 9457)."""
        body = {"type": "about:blank", "title": self.code.replace("_", " "), "status": self.status}
        headers = dict(self.headers)
        if self.retry_after_s:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"  # RFC 9110 asks for it
        return JSONResponse(
            # `message` is what OpenAI's clients show of an error, and all they show.
            body | {"code": self.code, "detail": self.detail, "message": self.detail},
            self.status,
            headers,
            media_type="application/problem+json",
        )


class ProblemError(Exception):
    """Carries a problem up to the one place that answers with it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.detail)
        self.problem = problem


@dataclass(frozen=True)
class Vectors:
    """Unit vectors [N, D] of one request, and how many requests shared the encoder's pass."""

    rows: np.ndarray
    batch: int
    cached: bool = False


@dataclass(frozen=True)
class Embedded:
    """Vectors of sentences, and the fingerprint of the model that made them."""

    model: str
    vectors: Vectors


@dataclass(frozen=True)
class Searched:
    """An answer to a search, and the vectors of its words where it needed any."""

    answer: dict[str, Any]
    vectors: Vectors | None
    remembered: bool = False  # made for an earlier request, so nothing was looked up or encoded


def plain(value: Any) -> Any:
    """A value of the catalog as JSON has it: NaN and infinity are unknown, bytes say their number.

    Tables written before such values were refused still hold them.
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
        """The arguments of `Searcher.plan`, the audio left out."""
        return self.model_dump(exclude_none=True, exclude={"audio"})


TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


class EmbeddingsBody(_Body):
    """The body of POST /v1/embeddings, as OpenAI's clients send it."""

    input: Annotated[StrictStr | list[Any], WithJsonSchema(TEXTS)]  # tokens are refused in words
    model: StrictStr | None = None
    encoding_format: StrictStr | None = None
    dimensions: StrictInt | None = None
    user: StrictStr | None = None
