"""The record of one build: its tables, the model of its vectors, its vector index."""

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
    """The name of one table shard of a build, in the place of the build's in `table_name`."""
    return f"{build}-{number}"


def build_of(table: str) -> str:
    """The build that a LanceDB table belongs to; the inverse of `table_name` and `shard_name`."""
    return table.rpartition("_")[2].partition("-")[0]


@spec
class VectorIndex:
    """How nearest vectors are found; chosen with the build and stored in its record."""

    kind: Literal["exact", "ivf_rq", "ivf_sq"]
    why: str
    partitions: int = 0
    nprobes: int = 0
    refine: int = 0


@spec
class Trial:
    """The measured quality of a vector index against an exact scan, before publishing."""

    probes: str  # where the queries came from
    recall: dict[str, float]  # recall@10 by kind of query
    p50_ms: float


@spec
class Calibration:
    """Cosines of texts to their nearest tracks in this table, by this model."""

    nothing: float  # 95 % of nonsense texts stay below
    tags: float  # the median of the table's own tags

    def heard(self, cosine: float) -> float:
        """0 for what nonsense reaches, 1 for what a tag does; 0 where the two are not apart."""
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
    versions: dict[str, int]  # of each table; {} where its shards have the tables
    index: VectorIndex  # with shards: of the largest
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
        """What has tables: the table shards, in order; this build itself where it has none."""
        return self.shards or (self,)

    def with_parts(self, parts: Sequence[Build]) -> Build:
        """This build after a change of its `parts`, with what its record says of them together."""
        if not self.shards:
            return parts[0]
        largest = max(parts, key=lambda part: part.rows["vectors"])
        return replace(
            self,
            shards=tuple(parts),
            rows={kind: sum(part.rows[kind] for part in parts) for kind in KINDS},
            index=largest.index,
            trial=_worst([part.trial for part in parts if part.trial]),
        )


def _worst(trials: Sequence[Trial]) -> Trial | None:
    """The lowest recall of each kind and the longest time, because a search asks all shards."""
    if not trials:
        return None
    kinds = trials[0].recall
    recall = {kind: min(trial.recall[kind] for trial in trials) for kind in kinds}
    return replace(trials[0], recall=recall, p50_ms=max(trial.p50_ms for trial in trials))
