"""Additions to the OpenAPI document beyond what FastAPI derives from the routes.

These are the error responses with their media type, and the body of an upload, which the route
parses itself. Answers are described by the search contract but not validated, because validation
would cost time on each request. A drill compares them with their schemas.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import JsonValue, TypeAdapter

from serve.messages import ProblemBody

Responses = dict[int | str, dict[str, Any]]  # FastAPI's own type of `responses`

ERROR_DESCRIPTIONS = {
    400: "the body is not JSON",
    401: "the key is missing or unknown",
    403: "the key lacks the scope of this route, or the host is not allowed",
    404: "the track, artist, model or file does not exist",
    408: "the body did not arrive in time",
    413: "the body is too large",
    416: "the requested range is outside of the file",
    422: "the request is invalid; `detail` says what is accepted",
    429: "the key's rate limit is exceeded, or the generator's queue is full; see `Retry-After`",
    503: "too busy, or not ready; `Retry-After` says how long to wait",
    504: "no answer before the deadline",
}


_FILE: dict[str, JsonValue] = {"type": "string", "format": "binary"}
_FORM: dict[str, JsonValue] = {
    "type": "object",
    "properties": {"file": _FILE},
    "required": ["file"],
}
UPLOAD: dict[str, JsonValue] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/octet-stream": {"schema": _FILE},
    },
}
WAV: Responses = {
    200: {
        "content": {"audio/wav": {"schema": _FILE}},
        "description": "a generated WAV, streamed while it is generated",
    }
}


def error_responses() -> Responses:
    """`responses` of an application: each error as application/problem+json."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {"description": text, "content": content}
        for status, text in ERROR_DESCRIPTIONS.items()
    }


def answers_with(model: type) -> Responses:
    """`responses` of a route that returns a typed dictionary: described, not validated."""
    return {200: {"model": model}}


def add_problem(http: FastAPI) -> None:
    """Adds the schema of error bodies to the components of the application's OpenAPI."""
    derive = http.openapi

    def openapi() -> dict[str, JsonValue]:
        schema = derive()
        schema["components"]["schemas"]["Problem"] = TypeAdapter(ProblemBody).json_schema()
        return schema

    http.openapi = openapi  # type: ignore[method-assign]
