"""OpenSubsonic's `sonicSimilarity` extension, for players that support it.

Only the methods that the extension needs are implemented: `ping`, `getOpenSubsonicExtensions`,
`tokenInfo` and its two methods. Another music server has to provide the rest. Ids are this
catalog's track ids. Players read the body but not the status, so errors use Subsonic's envelope
with status 200, also for unknown methods. A key is sent as `apiKey`, or as the password `p`.
Subsonic's salted tokens are not supported, because they need the key in plain text. Players post
forms; `access` converts them to query strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import PurePosixPath
from xml.etree import ElementTree

from fastapi import FastAPI, Request
from fastapi.responses import Response
from typing_extensions import TypedDict

import raymtr
from raymtr.search.contract import SearchRequest, TrackFields
from serve.backend import backend, run_search, within_deadline
from serve.messages import Problem, ProblemError

VERSION = "1.16.1"
EXTENSIONS = [
    {"name": "sonicSimilarity", "versions": [1]},
    {"name": "apiKeyAuthentication", "versions": [1]},
    {"name": "formPost", "versions": [1]},
]
Element = Mapping[str, object]  # attributes and inner elements by name
GENERIC = 0  # Subsonic's error codes
BY_STATUS = {401: 44, 403: 50, 404: 70}  # no such key, not authorized, not found
BY_CODE = {"missing_parameter": 10, "token_login": 42}
FORMS = ("xml", "json", "jsonp")
CALLBACK = re.compile(r"[A-Za-z_$][\w$.]{0,99}", re.ASCII)  # valid JSONP callback names


def add_subsonic(http: FastAPI) -> None:
    """Adds the routes under /rest, each also under its old name with `.view`."""

    async def ping(request: Request) -> Response:
        return envelope({}, params=request.query_params)

    async def extensions(request: Request) -> Response:
        return envelope({"openSubsonicExtensions": EXTENSIONS}, params=request.query_params)

    async def key(request: Request) -> Response:
        """The owner of the key; `anyone` if the endpoint has no keys."""
        found = {"tokenInfo": {"username": request.scope.get("caller", "anyone")}}
        return envelope(found, params=request.query_params)

    async def unknown(request: Request, method: str) -> Response:
        detail = f"no method {method!r:.100} here, only {', '.join(verbs)}"
        return problem_response(Problem(400, "unknown_method", detail), params=request.query_params)

    async def similar(request: Request) -> Response:
        """Tracks that sound like `id`, nearest first."""
        return await answer(request, _similar)

    async def path(request: Request) -> Response:
        """A path from `startSongId` to `endSongId`, both included."""
        return await answer(request, _path)

    async def answer(request: Request, matches: Matches) -> Response:
        params = request.query_params
        try:
            found = await matches(http, params)
        except ProblemError as error:
            return problem_response(error.problem, params=params)
        return envelope({"sonicMatch": found}, params=params)

    verbs = {
        "ping": ping,
        "getOpenSubsonicExtensions": extensions,
        "tokenInfo": key,
        "getSonicSimilarTracks": similar,
        "findSonicPath": path,
    }
    for name, verb in verbs.items():
        for form in (name, f"{name}.view"):
            http.add_api_route(f"/rest/{form}", verb, methods=["GET"], include_in_schema=False)
    http.add_api_route("/rest/{method:path}", unknown, methods=["GET"], include_in_schema=False)


class Match(TypedDict):
    """A similar track; `similarity` is in [0, 1], or -1 if unknown."""

    entry: Element
    similarity: float


Matches = Callable[[FastAPI, Mapping[str, str]], Awaitable[list[Match]]]


async def _similar(http: FastAPI, params: Mapping[str, str]) -> list[Match]:
    track_id = _required(params, "id")
    await within_deadline(http, backend().track(track_id))
    request = SearchRequest(like=[track_id], k=_count(params, 10), mode="semantic")
    hits = (await run_search(http, backend().search(request)))["hits"]
    by_sound = [next((why for why in hit["why"] if why["by"] == "sound"), None) for hit in hits]
    return [
        {"entry": child(hit), "similarity": round(max(0.0, one["score"]) if one else -1, 4)}
        for hit, one in zip(hits, by_sound, strict=True)
    ]


async def _path(http: FastAPI, params: Mapping[str, str]) -> list[Match]:
    start, end = _required(params, "startSongId"), _required(params, "endSongId")
    for track_id in (start, end):
        await within_deadline(http, backend().track(track_id))
    path = backend().path(start, end, max(2, _count(params, 25)), None)
    playlist = await within_deadline(http, path)
    return [
        {"entry": child(track), "similarity": round(max(0.0, track["similarity"]), 4)}
        for track in playlist["tracks"]
    ]


def child(track: TrackFields) -> Element:
    """A track as Subsonic's `Child`."""
    kind = PurePosixPath(track["uri"] or "").suffix.removeprefix(".").lower()
    entry: dict[str, str | bool | int | None] = {
        "id": track["track_id"],
        "isDir": False,
        "title": track["title"] or track["track_id"],
        "artist": track["artist"],
        "album": track["album"],
        "year": track["year"],
        "genre": next(iter(track["tags"] or ()), None),
        "duration": None if track["duration"] is None else round(track["duration"]),
        "suffix": kind or None,
        "type": "music",
        "mediaType": "song",
    }
    return {key: value for key, value in entry.items() if value is not None}


def problem_response(problem: Problem, *, params: Mapping[str, str]) -> Response:
    """A problem as a Subsonic error."""
    code = BY_CODE.get(problem.code, BY_STATUS.get(problem.status, GENERIC))
    answer = envelope({"error": {"code": code, "message": problem.detail}}, params=params)
    if problem.retry_after_s:
        answer.headers["Retry-After"] = str(problem.retry_after_s)
    return answer


def envelope(body: Element, *, params: Mapping[str, str]) -> Response:
    """`subsonic-response` around an answer, in the format (`f`) the player requested."""
    head: dict[str, object] = {
        "status": "failed" if "error" in body else "ok",
        "version": VERSION,
        "type": "raymtr",
        "serverVersion": raymtr.__version__,
        "openSubsonic": True,
    }
    form, callback = params.get("f", "xml").lower(), params.get("callback", "")
    wrong = form not in FORMS or (form == "jsonp" and not CALLBACK.fullmatch(callback))
    if wrong and "error" not in body:
        detail = "f is xml, json, or jsonp with the name of a callback"
        return problem_response(Problem(422, "missing_parameter", detail), params=params)
    if form in ("json", "jsonp"):
        text = json.dumps({"subsonic-response": head | dict(body)}, ensure_ascii=False)
        if wrong or form == "json":
            return Response(text, media_type="application/json")
        return Response(f"{callback}({text});", media_type="application/javascript")
    root = _element("subsonic-response", head | dict(body))
    root.set("xmlns", "http://subsonic.org/restapi")
    return Response(
        ElementTree.tostring(root, "utf-8", xml_declaration=True), media_type="text/xml"
    )


def _element(name: str, value: Element) -> ElementTree.Element:
    """Scalars become attributes, mappings elements, and lists elements with the same name."""
    element = ElementTree.Element(name)
    for key, inner in value.items():
        for item in inner if isinstance(inner, list) else [inner]:
            if isinstance(item, Mapping):
                element.append(_element(key, item))
            elif isinstance(inner, list):
                ElementTree.SubElement(element, key).text = str(item)
            else:
                element.set(key, _plain(item))
    return element


def _plain(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return "".join(c for c in text if c >= " " and not "\ud800" <= c <= "\udfff" and c < "\ufffe")


def _required(params: Mapping[str, str], name: str) -> str:
    if not params.get(name):
        detail = f"required parameter {name} is missing"
        raise ProblemError(Problem(422, "missing_parameter", detail))
    return params[name]


def _count(params: Mapping[str, str], default: int) -> int:
    text = params.get("count", "")
    return min(100, max(1, int(text))) if text.isdecimal() and len(text) < 9 else default
