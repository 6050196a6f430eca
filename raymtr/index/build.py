"""The record of one build: its tables, the model of its vectors, its vector index.

Field names are the keys of the JSON records in `db/`, so they do not change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, replace
from typing import Literal

from raymtr.embeddings.store import ModelRef
from raymtr.validation import spec

KINDS = ("tracks", "vectors", "windows")


def table_name(kind: str, build: str) -> str:
    """The LanceDB table of one kind in one build."""
    return f"{kind}_{build}"


def shard_name(build: str, number: int) -> str:
    """The name of one table shard of a build; `table_name` takes it in place of the build's."""
    return f"{build}-{number}"


def build_of(table: str) -> str:
    """The build that a LanceDB table belongs to; the inverse of `table_name` and `shard_name`."""
    return table.rpartition("_")[2].partition("-")[0]


@spec
class VectorIndex:
    """How nearest vectors are found; chosen with the build and stored in its record."""

    kind: Literal["exact", "ivf_rq", "ivf_sq"]
    why: str  # the reason for the kind, for people
    partitions: int = 0  # IVF partitions; 0 for an exact index
    nprobes: int = 0  # partitions that a query reads
    refine: int = 0  # refine factor: candidates per hit that are compared with full vectors


@spec
class Trial:
    """The measured quality of a vector index against an exact scan, before publishing."""

    probes: str  # where the queries came from
    recall: dict[str, float]  # recall@10 by kind of query
    p50_ms: float


@spec
class Calibration:
    """Cosines of texts to their nearest tracks in this table, by this model."""

    nothing: float  # the 95th percentile over nonsense texts
    tags: float  # the median over the table's own tags

    def confidence(self, cosine: float) -> float:
        """`cosine` scaled to 0 (as nonsense) .. 1 (as a tag); 0 if tags are not above nonsense."""
        if self.tags <= self.nothing:
            return 0.0
        return min(1.0, max(0.0, (cosine - self.nothing) / (self.tags - self.nothing)))


@spec
class Build:
    """The record of one build: its tables, the model of its vectors, its vector index."""

    name: str
    built_at: str  # UTC, ISO 8601
    made_by: ModelRef | None  # the model of its vectors; None: a catalog without vectors
    rows: dict[str, int]  # of each table
    versions: dict[str, int]  # of each table; {} if the tables belong to its shards
    index: VectorIndex  # with shards: that of the largest shard
    trial: Trial | None = None  # None: an exact index needs no trial
    calibration: Calibration | None = None  # None: an older build, or no model to measure with
    revision: int = 0  # how often tracks were added, changed or deleted since it was built
    changed_at: str | None = None  # time of the last change, in the format of `built_at`
    after: str | None = None  # the build that was live when this one was built
    retired_at: str | None = field(default=None, compare=False)  # when another became live
    shards: tuple[Build, ...] = ()  # its table shards; (): its tables are in one piece

    @property
    def table_version(self) -> str:
        """A name for exactly this content: build and revision."""
        return f"{self.name}.{self.revision}" if self.revision else self.name

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the model that computed the vectors."""
        return self.made_by.fingerprint if self.made_by else None

    def parts(self) -> tuple[Build, ...]:
        """The table shards, in order; for a build without shards, the build itself."""
        return self.shards or (self,)

    def with_parts(self, parts: Sequence[Build]) -> Build:
        """This build with other `parts`, and its totals computed from them."""
        if not self.shards:
            return parts[0]
        largest = max(parts, key=lambda part: part.rows["vectors"])
        return replace(
            self,
            shards=tuple(parts),
            rows={kind: sum(part.rows[kind] for part in parts) for kind in KINDS},
            index=largest.index,
            trial=_worst_of([part.trial for part in parts if part.trial]),
        )


def _worst_of(trials: Sequence[Trial]) -> Trial | None:
    """The lowest recall of each kind and the longest time, because a search reads all shards."""
    if not trials:
        return None
    kinds = trials[0].recall
    recall = {kind: min(trial.recall[kind] for trial in trials) for kind in kinds}
    return replace(trials[0], recall=recall, p50_ms=max(trial.p50_ms for trial in trials))
