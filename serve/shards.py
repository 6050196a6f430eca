"""The deployments that serve table shards, and the retriever's client for them.

    Retriever -> RetrieverShard0, RetrieverShard1, ...

A shard only reads the tables of its share of the tracks. The retriever plans the search, fans each
look-up out to the shards, merges the results and ranks once (`raymtr.index.sharded_table`). Each
call contains the version of its build, so an answer never mixes two builds. A shard follows the
live pointer itself, and keeps the previous build open for searches in progress.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import lancedb
from cachetools import LRUCache
from ray.serve.handle import DeploymentHandle, DeploymentResponse
from typing_extensions import override

from raymtr.errors import InputError, UnusableError
from raymtr.index.build import Build
from raymtr.index.deadlines import overdue_calls
from raymtr.index.publish import kept_builds, live_build
from raymtr.index.sharded_table import Shard, ShardedTable, ShardLostError
from raymtr.index.track_table import TrackTable
from raymtr.workspace import Workspace
from serve.backend import NO_CAPACITY, REPLICA_LOST, result_of, unary_response
from serve.settings import ServeSettings

T = TypeVar("T")
BUILDS_OPEN = 2  # the live build, and the previous one for searches in progress

log = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class NotRead:
    """Why a shard could not read its tables."""

    reason: str


class RetrieverShard:
    """Reads one table shard of the live build."""

    def __init__(self, settings: ServeSettings, number: int) -> None:
        """Opens the live build. Raises UnusableError if its number of shards is another."""
        self.settings, self.number = settings, number
        self.workspace = Workspace.open(settings.workspace)
        self._session = lancedb.Session(index_cache_size_bytes=settings.index_cache_bytes)
        self._tables = LRUCache[str, TrackTable](BUILDS_OPEN)  # by version
        self._opening: dict[str, asyncio.Task[TrackTable]] = {}
        self._checked_at = time.monotonic()
        self._following: asyncio.Task[None] | None = None
        build = live_build(self.workspace)
        self._tables[build.table_version] = self._open(build)

    async def read(self, version: str, look_up: Callable[[TrackTable], T]) -> T | NotRead:
        """The result of `look_up` on this shard of that version of the tables."""
        if time.monotonic() - self._checked_at >= self.settings.pointer_every_s:
            self._checked_at = time.monotonic()
            self._following = asyncio.create_task(self._follow())
        try:
            table = await self._table_of(version)
            return await asyncio.to_thread(look_up, table)
        except (InputError, UnusableError) as error:
            return NotRead(str(error))

    def check_health(self) -> None:
        """Called by Ray Serve periodically; see `Retriever.check_health`."""
        overdue = overdue_calls(self.settings.request_timeout_s)
        if overdue:
            raise UnusableError(f"table calls are past their deadline (seconds): {overdue}")

    async def _follow(self) -> None:
        """Opens the live build, while the previous one still answers."""
        try:
            live = await asyncio.to_thread(live_build, self.workspace)
            await self._table_of(live.table_version)
        except (InputError, UnusableError) as error:
            log.error("the live build cannot be followed", extra={"reason": str(error)})

    async def _table_of(self, version: str) -> TrackTable:
        """This shard of a version. The first caller opens it, even if that call is cancelled."""
        if version in self._tables:
            return self._tables[version]
        if version not in self._opening:
            self._opening[version] = asyncio.create_task(self._add(version))
        return await asyncio.shield(self._opening[version])

    async def _add(self, version: str) -> TrackTable:
        try:
            table = await asyncio.to_thread(self._find, version)
            self._tables[version] = table
            return table
        finally:
            del self._opening[version]

    def _find(self, version: str) -> TrackTable:
        builds = [live_build(self.workspace), *kept_builds(self.workspace)]
        build = next((build for build in builds if build.table_version == version), None)
        if build is None:
            raise UnusableError(f"build {version} is no longer stored")
        return self._open(build)

    def _open(self, build: Build) -> TrackTable:
        """This shard of `build`, with vectors and rows loaded, so that no search waits for them."""
        check_shards(build, self.settings)
        part = build.shards[self.number]
        table = TrackTable(self.workspace.db, part, self._session)
        table.warm()
        return table


class RemoteShard(Shard):
    """The client of a shard behind a deployment handle, for one version of the tables."""

    def __init__(
        self, handle: DeploymentHandle[Any], build: Build, settings: ServeSettings
    ) -> None:
        """Create it on the event loop that shall run the calls; other threads may call it."""
        self._handle, self._version, self._settings = handle, build.table_version, settings
        self._loop = asyncio.get_running_loop()

    @override
    def submit(
        self, look_up: Callable[[TrackTable], T], *, long_running: bool = False
    ) -> Future[T]:
        settings = self._settings
        within_s = settings.request_timeout_s if long_running else settings.shard_timeout_s
        return asyncio.run_coroutine_threadsafe(self._read(look_up, within_s), self._loop)

    async def _read(self, look_up: Callable[[TrackTable], T], within_s: float) -> T:
        call: DeploymentResponse[T | NotRead] = unary_response(
            self._handle.read.remote(self._version, look_up)
        )
        try:
            found = await asyncio.wait_for(result_of(call, within_s), within_s)
        except TimeoutError as error:
            call.cancel()
            raise ShardLostError(f"no answer within {within_s:g} s") from error
        except (*NO_CAPACITY, *REPLICA_LOST) as error:
            call.cancel()
            raise ShardLostError("no replica can answer now") from error
        if isinstance(found, NotRead):
            raise ShardLostError(found.reason)
        return found


def remote_table(
    handles: Sequence[DeploymentHandle[Any]], build: Build, settings: ServeSettings
) -> ShardedTable:
    """The table of `build` over the shards behind `handles`. Call it on the event loop.

    Raises UnusableError if the build has another number of shards.
    """
    check_shards(build, settings)
    return ShardedTable(
        build, {n: RemoteShard(handle, build, settings) for n, handle in enumerate(handles)}
    )


def check_shards(build: Build, settings: ServeSettings) -> None:
    """Raises UnusableError if a build has another number of shards than the settings."""
    count = len(build.shards) or 1
    if count != settings.shards:
        raise UnusableError(
            f"build {build.name} has {count} table shards and the endpoint was started with "
            f"shards={settings.shards}; start it with shards={count}, or build with `raymtr index "
            f"--set search.shards={settings.shards}`"
        )
