"""The retriever deployment: follows the live build, calls the encoders, and answers requests.

A request is planned, encoded and answered on one build, so a new live build cannot mix two tables.
The searcher is the same as that of Python and the command line. A request in progress keeps its
build. A cursor of an older build is refused with an explanation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
from cachetools import LRUCache
from ray.serve.handle import DeploymentHandle

from raymtr.audio import Sound
from raymtr.embeddings.store import ModelRef
from raymtr.errors import InputError, UnusableError
from raymtr.index.build import Build
from raymtr.index.deadlines import overdue_calls
from raymtr.index.filters import parse_filter
from raymtr.names import name_key
from raymtr.search.contract import SearchAnswer, SearchRequest, SimilarArtist, SimilarArtists
from raymtr.search.path import path_between
from raymtr.search.plan import Encoded
from raymtr.search.present import HIT_COLUMNS
from raymtr.search.searcher import Searcher
from serve.answer_cache import AnswerCache
from serve.backend import AudioBackend, RemoteAudioEncoder, RemoteTextEncoder, TextBackend
from serve.live_searcher import LiveSearcher
from serve.messages import (
    CatalogRow,
    Embedded,
    LiveState,
    Playlist,
    PlaylistTrack,
    Problem,
    RecordingTags,
    Searched,
    TrackMap,
    Vectors,
    plain,
)
from serve.reranker import RemoteMatcher
from serve.settings import ServeSettings
from serve.track_map import draw_map

T = TypeVar("T")
VECTORS_KEPT = 4_096

log = logging.getLogger("ray.serve")  # Serve's own logger, which logs the request's id


class Retriever:
    """Answers requests over the live build of a workspace."""

    def __init__(
        self,
        settings: ServeSettings,
        text: TextBackend | DeploymentHandle[Any],
        audio: AudioBackend | DeploymentHandle[Any],
        *shards: DeploymentHandle[Any],
        reranker: DeploymentHandle[Any] | None = None,
    ) -> None:
        """`shards` read the tables, in order; without shards, this process reads them.

        `reranker` re-ranks; without it, this process does. Create the object on the event loop.
        """
        self.settings = settings
        self._answers = AnswerCache()
        loop = asyncio.get_running_loop() if reranker else None
        self._live = LiveSearcher(
            settings,
            shards,
            on_open=self._answers.clear,
            matchers=partial(RemoteMatcher, reranker, loop) if reranker and loop else None,
        )
        wait_s = settings.queue_timeout_s
        if isinstance(text, DeploymentHandle):
            text = RemoteTextEncoder(text, wait_s)
        if isinstance(audio, DeploymentHandle):
            audio = RemoteAudioEncoder(audio, wait_s)
        self._text, self._audio = text, audio
        self._vectors = LRUCache[Hashable, Vectors](VECTORS_KEPT)
        self._map: tuple[str, TrackMap] | None = None
        self._warm = False

    @property
    def searcher(self) -> Searcher:
        """The searcher of the build that is open now."""
        return self._live.searcher

    async def _read(self, look_up: Callable[[Searcher], Awaitable[T]]) -> T | Problem:
        """The result of `look_up` on the live build; an error becomes a Problem."""
        try:
            return await self._live.read(look_up)
        except InputError as error:
            return Problem(422, "invalid_request", str(error))
        except UnusableError as error:
            return Problem(503, "index_unavailable", str(error), 5)

    async def search(self, request: SearchRequest) -> Searched[SearchAnswer] | Problem:
        """The answer of `Searcher.find` to `request`; audio is the bytes of a file."""
        found = await self._read(partial(self._cached, request))
        if isinstance(found, Searched):
            _log_search(found)
        return found

    async def _cached(
        self, request: SearchRequest, searcher: Searcher
    ) -> Searched[SearchAnswer] | Problem:
        cached = self._answers.get(request, searcher.build)
        if cached is not None:
            return cached
        found = await self._search(searcher, request)
        if isinstance(found, Searched):
            self._answers.put(request, searcher.build, found)
        return found

    async def _search(
        self, searcher: Searcher, request: SearchRequest
    ) -> Searched[SearchAnswer] | Problem:
        plan = await asyncio.to_thread(searcher.plan, request)
        started = time.perf_counter()
        text = await self._encode_text(searcher, plan.sentences)
        recording = await self._encode_recording(searcher, plan.recording)
        for encoded in (text, recording):
            if isinstance(encoded, Problem):
                return encoded
        vectors = Encoded(
            text=text.rows if isinstance(text, Vectors) else (),
            recording=recording if isinstance(recording, np.ndarray) else None,
            took_s=time.perf_counter() - started,
            notes=text.notes if isinstance(text, Vectors) else (),
        )
        answer = await asyncio.to_thread(searcher.answer, plan, vectors)
        return Searched(answer, text if isinstance(text, Vectors) else None)

    async def _encode_text(
        self, searcher: Searcher, sentences: list[str]
    ) -> Vectors | Problem | None:
        made_by = searcher.build.made_by
        return await self.text_vectors(made_by, sentences) if made_by and sentences else None

    async def _encode_recording(
        self, searcher: Searcher, recording: Sound | None
    ) -> np.ndarray | Problem | None:
        made_by = searcher.build.made_by
        if made_by is None or not isinstance(recording, bytes):
            return None
        return await self._audio.encode(made_by, recording)

    async def text_vectors(self, made_by: ModelRef, sentences: list[str]) -> Vectors | Problem:
        """Unit vectors [N, D]. Their cache stays valid when another build becomes live."""
        key = (made_by.fingerprint, tuple(sentences))
        cached = self._vectors.get(key)
        if cached is not None:
            return replace(cached, batch=0, cached=True)
        vectors = await self._text.encode(made_by, sentences)
        if isinstance(vectors, Vectors):
            self._vectors[key] = vectors
        return vectors

    async def embed(self, model: str, sentences: list[str]) -> Embedded | Problem:
        """Vectors of sentences by the live model, named `raymtr` or by its fingerprint."""
        made_by = (await self._live.current()).build.made_by
        if made_by is None or model not in ("raymtr", made_by.fingerprint):
            served = f"raymtr, {made_by.fingerprint}" if made_by else "none"
            return Problem(404, "unknown_model", f"no model {model!r} here; served: {served}")
        vectors = await self.text_vectors(made_by, sentences)
        if isinstance(vectors, Problem):
            return vectors
        return Embedded(made_by.fingerprint, vectors)

    async def track(self, track_id: str) -> CatalogRow | Problem:
        """The catalog's row of a track."""
        rows = await self._read(lambda live: asyncio.to_thread(live.table.rows, [track_id]))
        if isinstance(rows, Problem):
            return rows
        if track_id not in rows:
            return Problem(404, "unknown_track", f"no track {track_id!r} in this catalog")
        return {name: plain(value) for name, value in rows[track_id].items()}

    async def tag(self, data: bytes) -> RecordingTags | Problem:
        """Tags and attributes of a recording, from the audio encoder; no table is read."""
        return await self._audio.tag(data)

    async def path(self, start: str, end: str, count: int, where: str | None) -> Playlist | Problem:
        """A playlist of `count` tracks between two, each with its cosine to the first."""

        def find_path(searcher: Searcher) -> Playlist:
            table, build = searcher.table, searcher.build
            allowed = parse_filter(where, table.filterable) if where and where.strip() else None
            steps = path_between(table, start, end, count=count, where=allowed)
            rows = table.rows([track_id for track_id, _ in steps], HIT_COLUMNS)
            tracks = [
                cast(PlaylistTrack, rows[track_id] | {"similarity": round(near, 4)})
                for track_id, near in steps
            ]
            return Playlist(
                tracks=tracks, model=build.fingerprint, table_version=build.table_version
            )

        return await self._read(lambda live: asyncio.to_thread(find_path, live))

    async def similar_artists(
        self, name: str, k: int, where: str | None
    ) -> Searched[SimilarArtists] | Problem:
        """Artists similar to one, each with its best track, by a search with `similar_artist`.

        The name is a separate argument, because the parser of sentences would misread "Artist vs
        Poet", or an artist whose name is also a title.
        """
        key = name_key(name)
        keys = [key] if key else []
        rows = await self._read(lambda live: asyncio.to_thread(live.table.named, keys))
        if isinstance(rows, Problem):
            return rows
        if not any(name_key(row["artist"]) == key for row in rows):
            return Problem(404, "unknown_artist", f"no artist {name!r} in this catalog")
        request = SearchRequest(similar_artist=name, per_artist=1, k=k, where=where)
        found = await self.search(request)
        if isinstance(found, Problem):
            return found
        answer = found.answer
        artists = [
            SimilarArtist(artist=hit["artist"], score=hit["score"], track=hit, why=hit["why"])
            for hit in answer["hits"]
            if hit["artist"] and name_key(hit["artist"]) != key
        ]
        return Searched(
            SimilarArtists(
                query=answer["query"],
                next_cursor=answer["next_cursor"],
                model=answer["model"],
                table_version=answer["table_version"],
                partial=answer["partial"],
                notes=answer["notes"],
                took_ms=answer["took_ms"],
                artists=artists,
            ),
            found.vectors,
            found.remembered,
        )

    async def state(self) -> LiveState | Problem:
        """The live build, for readiness and metrics.

        The first call runs one search, which loads the tables and the encoder's checked model.
        """
        if not self._warm:
            answer = await self.search(SearchRequest(text="warm piano", mode="hybrid", k=1))
            if isinstance(answer, Problem):
                return Problem(503, "not_ready", answer.detail, 5)
            self._warm = True

        async def count(searcher: Searcher) -> tuple[Build, int]:
            return searcher.build, await asyncio.to_thread(searcher.table.unindexed_rows)

        counted = await self._read(count)
        if isinstance(counted, Problem):
            return counted
        build, unindexed = counted
        return LiveState(
            table_version=build.table_version,
            model=build.fingerprint,
            built_at=build.changed_at or build.built_at,
            rows=build.rows,
            unindexed_rows=unindexed,
            overdue_calls=len(overdue_calls(self.settings.request_timeout_s)),
        )

    def check_health(self) -> None:
        """Called by Ray Serve periodically; a replica that fails it is replaced.

        A table call that runs past its request's deadline cannot be stopped. It occupies a thread,
        or a core, until this process ends. Raises UnusableError if there is one.
        """
        overdue = overdue_calls(self.settings.request_timeout_s)
        if overdue:
            raise UnusableError(f"table calls are past their deadline (seconds): {overdue}")

    async def map(self) -> TrackMap | Problem:
        """The map of the live build's tracks."""

        async def draw(searcher: Searcher) -> TrackMap:
            version = searcher.build.table_version
            if self._map is not None and self._map[0] == version:
                return self._map[1]
            drawn = await asyncio.to_thread(draw_map, searcher.table)
            if not searcher.table.missing:
                self._map = version, drawn
            return drawn

        return await self._read(draw)


def _log_search(searched: Searched[SearchAnswer]) -> None:
    """Logs one line with the search's times and counts, but not its query."""
    answer, vectors = searched.answer, searched.vectors
    fields: dict[str, object] = {f"{stage}_ms": took for stage, took in answer["took_ms"].items()}
    fields |= {"hits": len(answer["hits"]), "kind": answer["query"]["kind"]}
    fields |= {"remembered": searched.remembered, "partial": answer["partial"]}
    fields |= {"cached": vectors.cached, "encoder_batch": vectors.batch} if vectors else {}
    log.info("searched", extra=fields | {"table_version": answer["table_version"]})
