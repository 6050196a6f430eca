"""The files of shards in one folder, and who may write them: the folder's owner, or a partition's.

A shard is up to four Parquet files with one name, the hash of its track ids:

    windows/<shard>.parquet       written first
    sources/<shard>.parquet       second: the source file of each track, and its version
    dead_letter/<shard>.parquet   third, if a track of the shard failed
    tracks/<shard>.parquet        last: this file commits the shard, even when it is empty

A run killed between two of these writes leaves uncommitted files. The next owner removes them. If
two drivers run at once, the token in `run.json` decides: the one that wrote it last owns the
folder, the other stops at its next commit.

The shards of a large catalog belong to partitions (raymtr.partitions). The names of a partition's
shards begin with the partition's name, and its token is in `partitions/<name>.json`, so every
partition has its own driver and owner. A folder without a partition sees all shards.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Self

import pyarrow as pa

from raymtr import storage
from raymtr.embeddings.rewrite import COMMIT, KINDS, finish_rewrite
from raymtr.errors import UnusableError
from raymtr.ownership import Ownership
from raymtr.shards import shard_name

PARTITIONS = "partitions"  # folder of the partitions' run files


class ShardFolder:
    """The shards in `folder`, or those of one partition; `facts` say what made them."""

    JOB = "embed"  # the verb that writes them

    def __init__(self, folder: str, facts: Mapping[str, Any]) -> None:
        self.folder, self.partition = folder, ""
        self._facts = {"made_by": facts}
        self._owner = Ownership(folder, self.JOB)

    def part(self, partition: str) -> Self:
        """One partition of these shards, without an owner."""
        part = copy.copy(self)
        part.partition = partition
        part._owner = Ownership(self.folder, self.JOB, file=f"{PARTITIONS}/{partition}.json")
        return part

    @property
    def run(self) -> dict[str, Any]:
        """The record of the last run; {} before the first."""
        return self._owner.record

    @property
    def complete(self) -> bool:
        """Whether the last run finished."""
        return self._owner.complete

    def claim(self) -> None:
        """Become the owner; an earlier owner stops at its next commit.

        Raises UnusableError if another version or model wrote this folder.
        """
        before, now = self.run.get("made_by"), self._facts["made_by"]
        if before not in (None, now):
            raise UnusableError(
                f"{self._owner.file} was started by {before}, this run is of {now}; finish it with "
                f"the raymtr that started it, or delete {self.folder}"
            )
        self._owner.take(self._facts)

    def take(self) -> None:
        """Become the owner of all shards; undo or finish an earlier owner's unfinished rewrite.

        In a folder with partitions, the owners of the partitions stop at their next commit, too.
        """
        self.claim()
        if not self.partition:
            folder = f"{self.folder}/{PARTITIONS}"
            for name in storage.list_files(folder, suffix=".json"):
                self.part(name.removesuffix(".json")).take()
            storage.delete(folder)
        finish_rewrite(self)
        self._sweep()

    def check_owner(self) -> None:
        """Raises UnusableError if another run has become the owner."""
        self._owner.check()

    def note(self, **facts: Any) -> None:
        """Add facts to the record of the run."""
        self._owner.note(facts)

    def release(self, **facts: Any) -> None:
        """Mark the run as complete, so that the next owner need not wait for this one."""
        self.check_owner()
        self._sweep()
        self._owner.release(facts)

    def file(self, kind: str, name: str) -> str:
        """The path of one of a shard's files."""
        return f"{self.folder}/{kind}/{name}.parquet"

    def names(self, kind: str) -> set[str]:
        """The names of the shards that have a file of this kind."""
        folder = f"{self.folder}/{kind}"
        files = storage.list_files(folder, prefix=self._prefix, suffix=".parquet")
        return {name.removesuffix(".parquet") for name in files}

    def shard_name(self, parts: Iterable[str]) -> str:
        """The name of the shard of these track ids, or of these shards that it replaces."""
        return self._prefix + shard_name(parts)

    def read_columns(self, kind: str, columns: list[str]) -> pa.Table | None:
        """Some columns of all files of one kind; None where there are none."""
        return storage.read_tables(f"{self.folder}/{kind}", columns, prefix=self._prefix)

    @property
    def _prefix(self) -> str:
        return f"{self.partition}-" if self.partition else ""

    def _sweep(self) -> None:
        committed = self.names(COMMIT)
        for kind in KINDS:
            for name in self.names(kind) - committed:
                storage.delete(self.file(kind, name))
