"""A build in table shards, read as one table: look-ups go to all shards and are merged here.

The hash of a track's id determines its shard (`raymtr.partitions`), so rows by id are read from
their shards only. Cosines are exact in every shard, so the merged list equals that of one table up
to ties. BM25 counts words within a shard, so scores differ slightly from those of one table. The
difference is small, because a hash distributes tracks at random.

A shard may be in another process (`serve.shards`) and fail to answer. Then the look-up fails with
ShardLostError, `present` leaves that shard out for RETRY_S seconds, and the search begins again
without it. So no answer mixes look-ups with and without a shard. Facts about the whole build (tags,
columns, trigrams) are read once and cached, so they stay available while a shard is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain
from operator import attrgetter
from typing import Any, Protocol, TypeVar, cast

import lancedb
import numpy as np
import pyarrow as pa
from typing_extensions import override

from raymtr.errors import UnusableError
from raymtr.index.build import Build
from raymtr.index.column_values import ColumnValues
from raymtr.index.filters import Filter
from raymtr.index.full_text import Ranked
from raymtr.index.track_rows import NamedRow, Row
from raymtr.index.track_table import TrackTable
from raymtr.index.trigrams import TrigramCounts
from raymtr.partitions import partition_of_track

T = TypeVar("T")
RETRY_S = 1.0  # how long a lost shard is left out before it is tried again
THREADS = 8  # per shard of this process; enough for the retrievers of two searches


class ShardLostError(UnusableError):
    """A table shard does not answer, or does not have the requested build."""

    def __init__(self, message: str, shards: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.shards = frozenset(shards)  # the numbers of all lost shards


class Shard(Protocol):
    """One table shard, in this process or another."""

    def submit(
        self, look_up: Callable[[TrackTable], T], *, long_running: bool = False
    ) -> Future[T]:
        """Run `look_up` on the shard's table; the future may raise ShardLostError.

        `long_running`: for a fact about the whole table, which takes longer than the look-ups of a
        search.
        """
        ...


class LocalShard(Shard):
    """A table shard in this process."""

    def __init__(self, table: TrackTable, threads: Executor) -> None:
        self._table, self._threads = table, threads

    @override
    def submit(
        self, look_up: Callable[[TrackTable], T], *, long_running: bool = False
    ) -> Future[T]:
        return self._threads.submit(look_up, self._table)


def open_table(uri: str, build: Build, session: lancedb.Session | None = None) -> TrackTable:
    """The tables of `build` in the LanceDB database at `uri`, with all its shards in this process.

    All tables of a `session` share its caches. Raises UnusableError if a table is missing.
    """
    if not build.shards:
        return TrackTable(uri, build, session)
    threads = ThreadPoolExecutor(THREADS * len(build.shards), thread_name_prefix="shard")
    shards = [LocalShard(TrackTable(uri, part, session), threads) for part in build.shards]
    return ShardedTable(build, dict(enumerate(shards)))


@dataclass
class _SharedState:
    """State that all views of one sharded table share."""

    values: dict[str, Any] = field(default_factory=dict)  # facts about the whole build, by name
    lost_at: dict[int, float] = field(default_factory=dict)  # `time.monotonic`, by shard
    views: dict[frozenset[int], ShardedTable] = field(default_factory=dict)  # by missing shards


class ShardedTable(TrackTable):
    """The table of `build` over `shards`, by number; the other shards of the build are missing."""

    def __init__(
        self, build: Build, shards: Mapping[int, Shard], shared: _SharedState | None = None
    ) -> None:
        self.build = build
        self._shards = shards
        self._shared = shared or _SharedState()

    @property
    @override
    def missing(self) -> tuple[int, ...]:
        return tuple(n for n in range(len(self.build.shards)) if n not in self._shards)

    @override
    def present(self, lost: Collection[int] = ()) -> TrackTable:
        """This table without the shards in `lost`, or lost within the last RETRY_S seconds.

        Raises UnusableError if none is left.
        """
        now = time.monotonic()
        lost_now = {n for n, at in self._shared.lost_at.items() if now - at < RETRY_S}.union(lost)
        if not lost_now.intersection(self._shards):
            return self
        shards = {n: shard for n, shard in self._shards.items() if n not in lost_now}
        if not shards:
            count = len(self.build.shards)
            raise UnusableError(f"none of the {count} shards of build {self.build.name} answers")
        view = ShardedTable(self.build, shards, self._shared)
        return self._shared.views.setdefault(frozenset(view.missing), view)

    @override
    def warm(self) -> None:
        self._gather(dict.fromkeys(self._shards, TrackTable.warm), long_running=True)

    @cached_property
    @override
    def filterable(self) -> pa.Schema:
        return self._fact("filterable", attrgetter("filterable"), _first)

    @cached_property
    @override
    def columns(self) -> list[str]:
        return self._fact("columns", attrgetter("columns"), _first)

    @cached_property
    @override
    def column_values(self) -> ColumnValues:
        values: Callable[[TrackTable], ColumnValues] = attrgetter("column_values")
        return self._fact("values", values, ColumnValues.merged)

    @cached_property
    @override
    def trigram_counts(self) -> TrigramCounts:
        counts: Callable[[TrackTable], TrigramCounts] = attrgetter("trigram_counts")
        return self._fact("trigrams", counts, TrigramCounts.merged)

    @override
    def nearest(self, vector: np.ndarray, *, limit: int, where: Filter | None = None) -> Ranked:
        return self._best(
            limit, partial(TrackTable.nearest, vector=vector, limit=limit, where=where)
        )

    @override
    def match_words(self, text: str, *, limit: int, where: Filter | None = None) -> Ranked:
        return self._best(
            limit, partial(TrackTable.match_words, text=text, limit=limit, where=where)
        )

    @override
    def match_weighted(
        self, weights: Mapping[str, float], *, limit: int, where: Filter | None = None
    ) -> Ranked:
        return self._best(
            limit, partial(TrackTable.match_weighted, weights=weights, limit=limit, where=where)
        )

    @override
    def match_trigrams(
        self,
        words: Sequence[str],
        *,
        must: Sequence[str],
        also: Sequence[str],
        limit: int,
        where: Filter | None,
    ) -> Ranked:
        look_up = partial(
            TrackTable.match_trigrams, words=words, must=must, also=also, limit=limit, where=where
        )
        return self._best(limit, look_up)

    @override
    def share_trigrams(self, some: Sequence[str], *, limit: int) -> Ranked:
        return self._best(limit, partial(TrackTable.share_trigrams, some=some, limit=limit))

    @override
    def named(self, keys: Iterable[str]) -> list[NamedRow]:
        return [*chain(*self._from_all(partial(TrackTable.named, keys=list(keys))))]

    @override
    def similar_to(self, artist_key: str) -> dict[str, int]:
        return _merged(self._from_all(partial(TrackTable.similar_to, artist_key=artist_key)))

    @override
    def matching(self, where: Filter | None) -> set[str]:
        return set(chain(*self._from_all(partial(TrackTable.matching, where=where))))

    @override
    def count(self, where: Filter | None) -> int:
        return sum(self._from_all(partial(TrackTable.count, where=where)))

    @override
    def rows(self, ids: Sequence[str], columns: Sequence[str] | None = None) -> dict[str, Row]:
        return _merged(self._from_owners(ids, partial(TrackTable.rows, columns=columns)))

    @override
    def vectors(self, ids: Sequence[str]) -> dict[str, np.ndarray]:
        return _merged(self._from_owners(ids, TrackTable.vectors))

    @override
    def windows(self, ids: Sequence[str]) -> pa.Table:
        found = self._from_owners(ids, TrackTable.windows)
        return pa.concat_tables(found or self._from_all(partial(TrackTable.windows, ids=[])))

    @override
    def all_vectors(self) -> tuple[list[str], np.ndarray]:
        found = self._from_all(TrackTable.all_vectors)
        return [*chain(*(ids for ids, _ in found))], np.concatenate([rows for _, rows in found])

    @override
    def sample(self, count: int, rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
        sizes = {number: self.build.shards[number].rows["vectors"] for number in self._shards}
        drawn = rng.permutation(np.repeat(list(sizes), list(sizes.values())))[:count]
        found = self._gather(
            {
                number: partial(TrackTable.sample, count=int(share), rng=shard_rng)
                for number, shard_rng in zip(sizes, rng.spawn(len(sizes)), strict=True)
                if (share := (drawn == number).sum())
            }
        )
        return [*chain(*(ids for ids, _ in found))], np.concatenate([rows for _, rows in found])

    @override
    def stream_vectors(self) -> Iterator[tuple[list[str], np.ndarray]]:
        return chain(*self._from_all(TrackTable.stream_vectors))  # of shards in this process

    @override
    def stream(self, kind: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        return chain(*self._from_all(partial(TrackTable.stream, kind=kind, columns=columns)))

    @override
    def unindexed_rows(self) -> int:
        return sum(self._from_all(TrackTable.unindexed_rows))

    def _best(self, limit: int, look_up: Callable[[TrackTable], Ranked]) -> Ranked:
        """The best of the shards' lists; ties in the order of the shards."""
        return sorted(chain(*self._from_all(look_up)), key=lambda hit: -hit[1])[:limit]

    def _from_all(self, look_up: Callable[[TrackTable], T]) -> list[T]:
        return self._gather(dict.fromkeys(self._shards, look_up))

    def _from_owners(self, ids: Sequence[str], look_up: Callable[..., T]) -> list[T]:
        """The results of `look_up` on the shards of these tracks, each with its share of `ids`."""
        count = len(self.build.shards)
        ids_of_shard: dict[int, list[str]] = {}
        for track_id in ids:
            ids_of_shard.setdefault(partition_of_track(track_id, count), []).append(track_id)
        for number, some in ids_of_shard.items():
            if number not in self._shards:
                raise UnusableError(
                    f"track {some[0]!r} is in shard {number} of {count}, which does not answer now"
                )
        return self._gather(
            {number: partial(look_up, ids=some) for number, some in ids_of_shard.items()}
        )

    def _gather(
        self, look_ups: Mapping[int, Callable[[TrackTable], T]], *, long_running: bool = False
    ) -> list[T]:
        """The result of each shard. Raises ShardLostError, once all have answered or are lost."""
        futures = {
            n: self._shards[n].submit(look_up_of, long_running=long_running)
            for n, look_up_of in look_ups.items()
        }
        answers: list[T] = []
        lost: dict[int, ShardLostError] = {}
        for number, future in futures.items():
            try:
                answers.append(future.result())
            except ShardLostError as error:
                lost[number] = error
        if lost:
            self._shared.lost_at |= dict.fromkeys(lost, time.monotonic())
            message = "; ".join(f"shard {number}: {error}" for number, error in lost.items())
            raise ShardLostError(message, lost)
        return answers

    def _fact(
        self, name: str, look_up: Callable[[TrackTable], T], merge: Callable[[list[T]], T]
    ) -> T:
        """A fact about the whole build, cached; from the present shards until all have answered."""
        if name not in self._shared.values:
            found = merge(self._gather(dict.fromkeys(self._shards, look_up), long_running=True))
            if self.missing:
                return found
            self._shared.values[name] = found
        return cast(T, self._shared.values[name])


def _first(found: list[T]) -> T:
    return found[0]  # all shards have the same columns


def _merged(found: Iterable[Mapping[str, T]]) -> dict[str, T]:
    return {key: value for each in found for key, value in each.items()}
