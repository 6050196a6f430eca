"""Routes to search by words, examples or a recording, for similar tracks, and to tag a recording.

Parameters have the types of the search contract. Answers are plain JSON values and are returned
without FastAPI's conversion, which for ten hits takes seven times as long as their JSON encoding.
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
from serve.backend import backend, run_search, within_deadline
from serve.messages import RecordingTags, SearchBody
from serve.openapi import UPLOAD, answers_with
from serve.uploads import file_of, recording_in


def add_search(http: FastAPI) -> None:
    """Adds the routes that answer with hits."""

    found = answers_with(SearchAnswer)

    async def answer(request: SearchRequest) -> JSONResponse:
        return JSONResponse(await run_search(http, backend().search(request)))

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
        content_type, body = request.headers.get("content-type", ""), await request.body()
        data = await asyncio.to_thread(file_of, content_type, body)
        return await answer(SearchRequest(audio=data, k=k, text=text, where=where))

    tagged = answers_with(RecordingTags)

    @http.post("/v1/tag", openapi_extra={"requestBody": UPLOAD}, responses=tagged)
    async def tag_upload(request: Request) -> JSONResponse:
        """Multipart with one file, or its bytes. The recording is not stored."""
        content_type, body = request.headers.get("content-type", ""), await request.body()
        data = await asyncio.to_thread(file_of, content_type, body)
        return JSONResponse(await within_deadline(http, backend().tag(data)))

    @http.get("/v1/tracks/{track_id}/similar", responses=found)
    async def similar_tracks(
        track_id: str, k: HitCount = 10, where: Where = None, per_artist: PerArtist = None
    ) -> JSONResponse:
        await within_deadline(http, backend().track(track_id))
        return await answer(SearchRequest(like=[track_id], k=k, where=where, per_artist=per_artist))

    @http.get("/v1/artists/{name:path}/similar", responses=answers_with(SimilarArtists))
    async def similar_artists(name: str, k: HitCount = 10, where: Where = None) -> JSONResponse:
        return JSONResponse(await run_search(http, backend().similar_artists(name, k, where)))
