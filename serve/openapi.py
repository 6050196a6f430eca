"""Additions to the OpenAPI document beyond what FastAPI derives from the routes.

These are every refusal with its media type, and the body of an upload, which the route reads
itself. Answers are described by the search contract but not validated per request. The library
builds them, a drill compares them with their schemas, and validation would cost time on each
request.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import JsonValue, TypeAdapter

from serve.messages import ProblemBody

Responses = dict[int | str, dict[str, Any]]  # FastAPI's own type of `responses`

REFUSALS = {
    400: "the body is no JSON",
    401: "no key, or an unknown one",
    403: "the key does not open this, or the host is not answered",
    404: "there is no such track, artist, model or file",
    408: "the body did not come in time",
    413: "the body is too large",
    416: "the file has none of the bytes asked for",
    422: "the request is not understood; `detail` says what is accepted",
    429: "the key's rate is spent, or the generator's queue is full; see `Retry-After`",
    503: "too busy, or not ready; `Retry-After` says how long to wait",
    504: "no answer in time",
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
SOUND: Responses = {
    200: {
        "content": {"audio/wav": {"schema": _FILE}},
        "description": "a generated WAV, sent while it is made",
    }
}


def refusals() -> Responses:
    """`responses` of an application: each refusal as application/problem+json."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": said, "content": content} for status, said in REFUSALS.items()}


def answers_with(model: type) -> Responses:
    """`responses` of a route that answers with a typed dictionary, which FastAPI only describes."""
    return {200: {"model": model}}


def add_problem(http: FastAPI) -> None:
    """Adds the body of every refusal to the components of the application's OpenAPI."""
    read_off = http.openapi

    def openapi() -> dict[str, JsonValue]:
        schema = read_off()
        schema["components"]["schemas"]["Problem"] = TypeAdapter(ProblemBody).json_schema()
        return schema

    http.openapi = openapi  # type: ignore[method-assign]
