"""Routes to search by words, examples or a recording, and for similar tracks and artists.

Parameters have the types of the search contract. Answers are plain JSON values and are returned
unchanged: FastAPI's conversion of ten hits takes seven times as long as their JSON encoding.
"""

from __future__ import annotations

import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from raymtr.search.contract import (
    HitCount,
    PerArtist,
    SearchAnswer,
    SearchRequest,
    SimilarArtists,
    Text,
    Where,
)
from serve.backend import ask, ask_search, backend
from serve.messages import SearchBody
from serve.openapi import UPLOAD, answers_with
from serve.uploads import file_of, recording_in


def add_search(http: FastAPI) -> None:
    """Adds the routes that answer with hits."""

    found = answers_with(SearchAnswer)

    async def answer(request: SearchRequest) -> JSONResponse:
        return JSONResponse(await ask_search(http, backend().search(request)))

    @http.post("/v1/search", responses=found)
    async def search_tracks(body: SearchBody) -> JSONResponse:
        data = body.audio
        recording = await asyncio.to_thread(recording_in, data.data) if data else None
        return await answer(body.request(recording))

    @http.post("/v1/search/audio", openapi_extra={"requestBody": UPLOAD}, responses=found)
    async def search_by_upload(
        request: Request, k: HitCount = 10, text: Text = None, where: Where = None
    ) -> JSONResponse:
        """Multipart with one file; the other search arguments are in the query string."""
        sent = request.headers.get("content-type", ""), await request.body()
        data = await asyncio.to_thread(file_of, *sent)
        return await answer(SearchRequest(audio=data, k=k, text=text, where=where))

    @http.get("/v1/tracks/{track_id}/similar", responses=found)
    async def similar_tracks(
        track_id: str, k: HitCount = 10, where: Where = None, per_artist: PerArtist = None
    ) -> JSONResponse:
        await ask(http, backend().track(track_id))
        return await answer(SearchRequest(like=[track_id], k=k, where=where, per_artist=per_artist))

    @http.get("/v1/artists/{name:path}/similar", responses=answers_with(SimilarArtists))
    async def similar_artists(name: str, k: HitCount = 10, where: Where = None) -> JSONResponse:
        return JSONResponse(await ask_search(http, backend().similar_artists(name, k, where)))
