"""Routes to search by words, examples or a recording, for similar tracks, and to tag a recording.

The library validates what a search accepts, so nothing is repeated here. Answers are plain JSON
values and are returned unchanged: FastAPI's conversion of ten hits takes seven times as long as
their JSON encoding.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from serve.backend import ask, ask_search, backend
from serve.messages import SearchBody
from serve.openapi import UPLOAD, answers_with
from serve.uploads import file_of, recording_in


def add_search(http: FastAPI) -> None:
    """Adds the routes that answer with hits."""

    found = answers_with("SearchAnswer")

    @http.post("/v1/search", responses=found)
    async def search_tracks(body: SearchBody) -> JSONResponse:
        asked = body.asked()
        if body.audio is not None:
            asked["audio"] = await asyncio.to_thread(recording_in, body.audio.data)
        return JSONResponse(await ask_search(http, backend().search(asked)))

    @http.post("/v1/search/audio", openapi_extra={"requestBody": UPLOAD}, responses=found)
    async def search_by_upload(
        request: Request, k: int = 10, text: str | None = None, where: str | None = None
    ) -> JSONResponse:
        """Multipart with one file; the other search arguments are in the query string."""
        sent = request.headers.get("content-type", ""), await request.body()
        data = await asyncio.to_thread(file_of, *sent)
        asked = {"audio": data, "k": k, "text": text, "where": where}
        return JSONResponse(await ask_search(http, backend().search(asked)))

    tagged = answers_with("Tagged")

    @http.post("/v1/tag", openapi_extra={"requestBody": UPLOAD}, responses=tagged)
    async def tag_upload(request: Request) -> JSONResponse:
        """Multipart with one file, or its bytes; nothing is kept of it."""
        sent = request.headers.get("content-type", ""), await request.body()
        data = await asyncio.to_thread(file_of, *sent)
        return JSONResponse(await ask(http, backend().tag(data)))

    @http.get("/v1/tracks/{track_id}/similar", responses=found)
    async def similar_tracks(
        track_id: str, k: int = 10, where: str | None = None, per_artist: int | None = None
    ) -> JSONResponse:
        await ask(http, backend().track(track_id))
        asked = {"like": [track_id], "k": k, "where": where, "per_artist": per_artist}
        return JSONResponse(await ask_search(http, backend().search(asked)))

    @http.get("/v1/artists/{name:path}/similar", responses=answers_with("SimilarArtists"))
    async def similar_artists(name: str, k: int = 10, where: str | None = None) -> JSONResponse:
        asked = {"k": k, "where": where}
        return JSONResponse(await ask_search(http, backend().similar_artists(name, asked)))
