"""The record of one build: its tables, the model of its vectors, its vector index."""

from __future__ import annotations

from dataclasses import field
from typing import Literal

from raymtr.embeddings.store import ModelRef
from raymtr.validation import spec

KINDS = ("tracks", "vectors", "windows")


def table_name(kind: str, build: str) -> str:
    """The LanceDB table of one kind in one build."""
    return f"{kind}_{build}"


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
    versions: dict[str, int]  # of each table
    index: VectorIndex
    trial: Trial | None = None  # None: an exact index needs no trial
    calibration: Calibration | None = None  # None: an older build, or no model to measure with
    revision: int = 0  # how often tracks were added, changed or deleted since it was built
    changed_at: str | None = None  # time of the last change, in the format of `built_at`
    after: str | None = None  # the build that was live when this one was built
    retired_at: str | None = field(default=None, compare=False)  # when another became live

    @property
    def table_version(self) -> str:
        """A name for exactly this content: build and revision."""
        return f"{self.name}.{self.revision}" if self.revision else self.name

    @property
    def fingerprint(self) -> str | None:
        """Fingerprint of the model that computed the vectors."""
        return self.made_by.fingerprint if self.made_by else None
