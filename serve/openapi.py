"""Additions to the OpenAPI document beyond what FastAPI derives from the routes.

These are every refusal with its media type, the body of an upload, which the route reads itself,
and the schema of a search answer. Answers are described here but not validated per request. The
library builds them, a drill compares them with these schemas, and validation would cost time on
each request.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

REFUSALS = {
    400: "the body is no JSON",
    401: "no key, or an unknown one",
    403: "the key does not open this, or the host is not answered",
    404: "there is no such track, artist, model or file",
    408: "the body did not come in time",
    413: "the body is too large",
    416: "the file has none of the bytes asked for",
    422: "the request is not understood; `detail` says what is accepted",
    429: "the key's rate is spent; `Retry-After` says how long to wait",
    503: "too busy, or not ready; `Retry-After` says how long to wait",
    504: "no answer in time",
}


def _record(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    properties = required | optional
    return {"type": "object", "properties": properties, "required": list(required)}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _or_null(kind: str) -> dict[str, Any]:
    return {"type": [kind, "null"]}


def _named(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


TEXT, NUMBER = {"type": "string"}, {"type": "number"}
_ABOUT = {  # of a track, from the catalog
    "track_id": TEXT,
    **{name: _or_null("string") for name in ("title", "artist", "album", "uri")},
    "artists": {"type": ["array", "null"], "items": TEXT},
    "year": _or_null("integer"),
    "duration": _or_null("number"),
    "tags": {"type": ["array", "null"], "items": TEXT},
}
_FOUND = {  # of every answer to a search
    "query": _named("Query"),
    "next_cursor": _or_null("string"),
    "model": _or_null("string"),
    "table_version": TEXT,
    "notes": _list(TEXT),
    "took_ms": _record({stage: NUMBER for stage in ("encode", "search", "rank", "total")}),
}
_WORDS = {"words": TEXT}  # the words of the query behind a slot
_UNDERSTOOD = {
    "anchors": _list(
        _record(
            {
                "title": _or_null("string"),
                "artist": _or_null("string"),
                "tracks": {"type": "integer"},
                "positive": {"type": "boolean"},
                **_WORDS,
            }
        )
    ),
    "include": _list(_record({"term": TEXT, "tags": _list(TEXT), **_WORDS})),
    "exclude": _list(_record({"term": TEXT, **_WORDS}, tags=_list(TEXT), artist=TEXT)),
    "filters": _list(_record({"column": TEXT, "where": TEXT, **_WORDS})),
    "directions": _list(_record({"axis": TEXT, "toward": TEXT, **_WORDS})),
    "corrected": _list(_record({"taken_for": TEXT, **_WORDS})),
    "ignored": _list(_record({"why": TEXT, **_WORDS})),
    "suggestions": _list(_record({}, did_you_mean=TEXT, relax=TEXT, hits={"type": "integer"})),
}
SCHEMAS = {
    "Query": {
        **_record({"kind": TEXT, "rest": TEXT, "language": TEXT, **_UNDERSTOOD}),
        "description": "the request, and how its text was understood, slot by slot",
    },
    "Problem": _record(
        {"type": TEXT, "title": TEXT, "status": {"type": "integer"}, "code": TEXT, "detail": TEXT},
        message=TEXT,
    ),
    "Hit": _record(
        {
            **_ABOUT,
            "score": NUMBER,
            "segment": {"anyOf": [_named("Segment"), {"type": "null"}]},
            "why": _list({"type": "object"}),
        },
        duplicates=_list(TEXT),
    ),
    "Segment": _record({"start_s": NUMBER, "end_s": NUMBER}),
    "SearchAnswer": _record({**_FOUND, "hits": _list(_named("Hit"))}),
    "SimilarArtist": _record(
        {"artist": TEXT, "score": NUMBER, "track": _named("Hit"), "why": _list({"type": "object"})}
    ),
    "SimilarArtists": _record({**_FOUND, "artists": _list(_named("SimilarArtist"))}),
    "Track": _record(_ABOUT),
    "Tagged": {
        **_record(
            {
                "labels": _list(_record({"label": TEXT, "probability": NUMBER})),
                "heard": _list(TEXT),
                "vocal": NUMBER,
                "bpm": _or_null("number"),
                "bpm_alternatives": _list(NUMBER),
                "bpm_confidence": NUMBER,
                **{name: _or_null("string") for name in ("key", "mode")},
                "key_confidence": NUMBER,
                "loudness_lufs": _or_null("number"),
                "energy": NUMBER,
                "brightness": NUMBER,
                "seconds": NUMBER,
                "segment": _named("Segment"),
                "provenance": TEXT,
            }
        ),
        "description": "all labels, those that count, and attributes, of the segment",
    },
}
UPLOAD = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _record({"file": {**TEXT, "format": "binary"}})},
        "application/octet-stream": {"schema": {**TEXT, "format": "binary"}},
    },
}


def refusals() -> dict[int | str, dict[str, Any]]:
    """`responses` of an application: each refusal as application/problem+json."""
    content = {"application/problem+json": {"schema": _named("Problem")}}
    return {status: {"description": said, "content": content} for status, said in REFUSALS.items()}


def answers_with(name: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers with one of SCHEMAS."""
    return {200: {"content": {"application/json": {"schema": _named(name)}}}}


def add_schemas(http: FastAPI) -> None:
    """Adds SCHEMAS to the components of the application's OpenAPI."""
    read_off = http.openapi

    def openapi() -> dict[str, Any]:
        schema = read_off()
        schema["components"]["schemas"] |= SCHEMAS
        return schema

    http.openapi = openapi  # type: ignore[method-assign]
