"""Routes for a track, its audio, the map of tracks, and a playlist between two tracks."""

from __future__ import annotations

import mimetypes
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response

from raymtr import storage
from raymtr.search.contract import TrackFields
from serve.backend import backend, within_deadline
from serve.files import ConditionalFileResponse
from serve.messages import (
    Playlist,
    PlaylistTrack,
    Problem,
    ProblemError,
    TrackMap,
)
from serve.openapi import answers_with
from serve.playlist import MEDIA_TYPES, SUFFIXES, write_playlist


def add_tracks(http: FastAPI) -> None:
    """Adds the routes over the catalog itself."""

    @http.get("/v1/tracks/{track_id}", responses=answers_with(TrackFields))
    async def track(track_id: str) -> JSONResponse:
        return JSONResponse(await within_deadline(http, backend().track(track_id)))

    @http.get("/v1/tracks/{track_id}/audio", response_class=FileResponse)
    async def track_audio(track_id: str) -> ConditionalFileResponse:
        """The catalog's file, whole or byte ranges. The path comes from the catalog alone."""
        uri = (await within_deadline(http, backend().track(track_id))).get("uri")
        is_local = isinstance(uri, str) and not storage.is_remote(uri)
        path = Path(storage.local_path(str(uri))) if is_local else None
        if path is None or not path.is_file():
            raise ProblemError(
                Problem(404, "no_audio", f"the endpoint has no audio file of {track_id!r}")
            )
        kind = mimetypes.guess_type(path.name)[0] or ""
        is_media = kind.startswith(("audio/", "video/"))
        media_type = kind if is_media else "application/octet-stream"
        return ConditionalFileResponse(path, media_type=media_type, stat_result=path.stat())

    @http.get("/v1/map", responses=answers_with(TrackMap))
    async def catalog_map() -> JSONResponse:
        return JSONResponse(await within_deadline(http, backend().map()))


def add_playlist(http: FastAPI) -> None:
    """Adds the playlist from one track to another, as JSON or as a file for players."""

    @http.get("/v1/playlist", responses=answers_with(Playlist))
    async def playlist(
        request: Request,
        start: Annotated[str, Query(alias="from")],
        end: Annotated[str, Query(alias="to")],
        n: int = 12,
        format: Literal["json", "m3u", "jspf"] = "json",
        where: str | None = None,
        links: Literal["stream", "file"] = "stream",
    ) -> Response:
        """A playlist of `n` tracks from track `from` to track `to`, both included.

        The entries of a file are URLs of this endpoint with `links=stream`, and the catalog's URIs
        with `links=file`.
        """
        answer = await within_deadline(http, backend().path(start, end, n, where))
        if format == "json":
            return JSONResponse(answer)

        def locate(track: PlaylistTrack) -> str:
            if links == "file" and track["uri"]:
                return str(track["uri"])
            return f"{request.base_url}v1/tracks/{quote(track['track_id'])}/audio"

        tracks = answer["tracks"]
        first, last = (track["title"] or track["track_id"] for track in (tracks[0], tracks[-1]))
        text = write_playlist(format, tracks, title=f"From {first} to {last}", locate=locate)
        name = f'attachment; filename="playlist.{SUFFIXES[format]}"'
        headers = {"Content-Disposition": name}
        return Response(text, media_type=MEDIA_TYPES[format], headers=headers)
