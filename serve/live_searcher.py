"""The searcher of the live build: follows the live pointer, and reads table shards if any."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import lancedb
from ray.serve.handle import DeploymentHandle

from raymtr.errors import InputError, UnusableError
from raymtr.index.build import Build
from raymtr.index.deadlines import LostTableError
from raymtr.index.publish import live_build
from raymtr.index.sharded_table import ShardLostError, open_table
from raymtr.index.track_table import TrackTable
from raymtr.search.rerank import Matchers
from raymtr.search.searcher import Searcher
from raymtr.workspace import Workspace
from serve.settings import ServeSettings
from serve.shards import remote_table

T = TypeVar("T")

log = logging.getLogger("ray.serve")


class LiveSearcher:
    """Opens each build that becomes live, and runs look-ups on it."""

    def __init__(
        self,
        settings: ServeSettings,
        shards: Sequence[DeploymentHandle[Any]],
        *,
        on_open: Callable[[], None],
        matchers: Matchers | None = None,
    ) -> None:
        """`shards` read the tables, in order; without shards, this process reads them.

        `on_open` is called after another build was opened. `matchers` re-rank; without them, this
        process does. With shards, create the object on the event loop.
        """
        self._settings, self._shards, self._on_open = settings, shards, on_open
        self._matchers = matchers
        self._workspace = Workspace.open(settings.workspace)
        self._session = lancedb.Session(index_cache_size_bytes=settings.index_cache_bytes)
        self.searcher = self._open(live_build(self._workspace))
        if not shards:  # shards answer on this event loop, which this constructor blocks
            _warm(self.searcher)
        self._checked_at = time.monotonic()
        self._following = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None

    async def current(self) -> Searcher:
        """The searcher of the live build. The pointer is read every `pointer_every_s`.

        A new build is opened in the background; until it is open, the previous one answers.
        """
        due = time.monotonic() - self._checked_at >= self._settings.pointer_every_s
        if due and not self._following.locked():
            self._checked_at = time.monotonic()
            self._opening = asyncio.create_task(self._try_follow())
        return self.searcher

    async def read(self, look_up: Callable[[Searcher], Awaitable[T]]) -> T:
        """The result of `look_up` on the live build, or on the next one if its files are deleted.

        Raises UnusableError if no table shard answers.
        """
        try:
            return await _read_available(await self.current(), look_up)
        except LostTableError:
            await self._follow()
            return await _read_available(self.searcher, look_up)

    async def _try_follow(self) -> None:
        try:
            await self._follow()
        except (InputError, UnusableError) as error:
            log.error("the live build cannot be followed", extra={"reason": str(error)})

    async def _follow(self) -> None:
        """Opens the build that the pointer names, if it is not the open one."""
        async with self._following:  # many requests may miss a file; only one opens the build
            live = await asyncio.to_thread(live_build, self._workspace)
            if live == self.searcher.build:
                return
            if self._shards:
                searcher = self._open(live)
            else:
                searcher = await asyncio.to_thread(self._open, live)
            await asyncio.to_thread(_warm, searcher)
            self.searcher = searcher
            self._on_open()

    def _open(self, build: Build) -> Searcher:
        table: TrackTable
        if self._shards:
            table = remote_table(self._shards, build, self._settings)
        else:
            table = open_table(self._workspace.db, build, self._session)
        return Searcher(self._workspace, table, matchers=self._matchers)


async def _read_available(searcher: Searcher, look_up: Callable[[Searcher], Awaitable[T]]) -> T:
    """The result of `look_up` on the table shards that are available for all of it."""
    lost: set[int] = set()
    while True:  # each retry leaves out the shards that were lost
        try:
            return await look_up(searcher.present(lost))
        except ShardLostError as error:
            lost |= error.shards


def _warm(searcher: Searcher) -> None:
    """Loads what the first query of a build needs: vectors, rows and the vocabulary."""
    searcher.table.warm()
    searcher.search("warm piano", mode="keyword", k=1)
