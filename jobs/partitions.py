"""Shared by `embed` and `tag`: processes the catalog, partition by partition.

A small catalog is one partition, which this process handles itself. For a larger one it is the
coordinator: it splits the catalog once, gives partitions to drivers, which are Ray tasks, and
collects their counts. A driver owns its partition, reads its part of the catalog, runs the pipeline
and commits shards. So no process has all ids in memory. If a driver or node is lost, only the work
in flight of its partition is lost: Ray starts the driver again, which takes over the partition. For
a partition that was completed before, only one small file is read.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import pyarrow as pa
import ray

from jobs.cluster import start_ray
from jobs.ray_calls import ray_task, run_tasks
from jobs.shard_rows import COLUMNS, read_catalog, tracks_left
from raymtr import audio, storage
from raymtr.embeddings.rewrite import merge_small, partition_shards
from raymtr.embeddings.store import Account, EmbeddingStore
from raymtr.errors import InputError
from raymtr.partitions import TablePart, count_rows, partition_count, split_table
from raymtr.progress import Progress
from raymtr.specs import EmbedSpec
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
DRIVER_STARTS = 4  # of one partition, before the job gives up


class Worked(Account):
    """The tracks of a catalog or a partition by outcome, and what this run did."""

    new: int  # tracks tried
    replicas: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """The work on tracks, and the store of the results; it is sent to the drivers."""

    what: str  # the verb
    shards: EmbeddingStore
    run: Callable[[pa.Table, EmbeddingStore, EmbedSpec], int]  # on tracks; replicas seen
    embed: EmbedSpec
    retry: Sequence[str] = ()  # codes of dead letters whose tracks are tried again


def count_tracks(workspace: Workspace) -> int:
    """Tracks of the catalog. Raises InputError if there is none."""
    tracks = count_rows(workspace.tracks)
    if not tracks:
        raise InputError(f"no tracks in {workspace.tracks}; run `raymtr scan` first")
    return tracks


def partitions_of(workspace: Workspace, work: Work) -> int:
    """The number of partitions: as set, or by the catalog's size, and never fewer than before."""
    fitting = partition_count(count_tracks(workspace))
    return work.embed.partitions or max(fitting, work.shards.run.get("partitions", 1))


def work_through_catalog(workspace: Workspace, work: Work) -> Worked:
    """Does the work for every track of the catalog that is new or has changed.

    Returns counts of all tracks by outcome, over all runs; how many were tried now (`new`); and
    the count of `replicas`.
    """
    shards, before = work.shards, work.shards.run.get("partitions", 1)
    count = partitions_of(workspace, work)
    if count != before:
        shards.take()
        shards.note(partitions=0)  # neither number, until all shards are distributed
        partition_shards(shards, count)
        shards.note(partitions=count)
    if count > 1:
        return _coordinate(workspace, work, count)
    shards.take()
    if work.retry:
        work = replace(work, retry=shards.codes_to_retry(work.retry))
    answer = work_through(
        replace(work, embed=replace(work.embed, drivers=1)), read_catalog(workspace)
    )
    shards.release()
    return answer


def work_through(work: Work, catalog: pa.Table) -> Worked:
    """Does the work for the new and changed tracks of `catalog`; `work.shards` is owned here."""
    shards = work.shards
    (left, changed), replicas = tracks_left(shards, catalog, work.retry), 0
    if len(left):
        LOG.info("%s: %d tracks, %d of them changed", work.what, len(left), changed)
        start_ray()
        replicas = work.run(left, shards, work.embed)
    merge_small(shards)
    return {**shards.account(catalog), "new": len(left), "replicas": replicas}


def _coordinate(workspace: Workspace, work: Work, count: int) -> Worked:
    """Hands the partitions to drivers; the counts of all partitions together."""
    shards = work.shards
    shards.claim()
    if work.retry:
        work = replace(work, retry=shards.codes_to_retry(work.retry))
    parts = split_table(workspace.tracks, workspace.catalog_parts, COLUMNS, count)
    answers: list[Worked] = []
    left: list[TablePart] = []
    with ThreadPoolExecutor(storage.AT_ONCE) as pool:
        known = pool.map(lambda part: None if work.retry else _known(shards, part), parts)
        for part, answer in zip(parts, known, strict=True):
            answers.append(answer) if answer else left.append(part)
    if left:
        start_ray()
        drivers = min(work.embed.drivers, work.embed.actors, len(left))
        share = max(1, work.embed.actors // drivers)
        fewest = min(-(-work.embed.min_actors // drivers), share)
        embed = replace(work.embed, drivers=drivers, actors=share, min_actors=fewest)
        LOG.info("%s: %d of %d partitions, %d at once", work.what, len(left), count, drivers)
        answers += _drive_all(replace(work, embed=embed), left)
    shards.check_owner()
    shards.note(running=False)
    return _sum(answers)


def _known(shards: EmbeddingStore, part: TablePart) -> Worked | None:
    """The counts of a partition that has nothing new; None if its driver has to check."""
    run = shards.part(part.name).run
    same = run.get("catalog") == part.digest and run.get("rules") == audio.RULES
    if not same or run.get("running") is not False:
        return None
    account: Account = run["account"]
    return {**account, "new": 0, "replicas": 0}


def _drive_all(work: Work, parts: Sequence[TablePart]) -> Iterator[Worked]:
    """The answers of the partitions, as their drivers end."""
    drive = ray_task(_drive, num_cpus=0, max_retries=DRIVER_STARTS - 1, strategy="SPREAD")
    progress = Progress(work.what, sum(part.rows for part in parts), unit="tracks")
    shared = ray.put(work)
    ended = run_tasks(lambda part: drive(shared, part), parts, at_once=work.embed.drivers)
    for index, answer in ended:
        progress.advance(parts[index].rows)
        yield answer


def _drive(work: Work, part: TablePart) -> Worked:
    """The driver of one partition: becomes its owner and processes it."""
    work.shards.check_owner()  # a replaced coordinator must not take over a partition again
    mine = work.shards.part(part.name)
    mine.take()
    answer = work_through(replace(work, shards=mine), storage.read_table(part.file))
    mine.release(catalog=part.digest, rules=audio.RULES, account=answer)
    return answer


def _sum(answers: Sequence[Worked]) -> Worked:
    errors: Counter[str] = Counter()
    for answer in answers:
        errors.update(answer["errors"])
    embedded = sum(answer["embedded"] for answer in answers)
    failed = sum(answer["failed"] for answer in answers)
    return {
        "embedded": embedded,
        "failed": failed,
        "skipped": sum(answer["skipped"] for answer in answers),
        "error_rate": failed / max(embedded + failed, 1),
        "errors": dict(errors.most_common()),
        "new": sum(answer["new"] for answer in answers),
        "replicas": sum(answer["replicas"] for answer in answers),
    }
