"""Captions by a language model: drafts, the engine that writes them, the judge, and the store.

One pass of Ray Data: tracks -> drafts -> engine -> judge. Results return to the driver as they are
ready and are written in shards, so memory does not grow with the catalog. Drafts that the judge
rejects are kept on storage for the next pass, with new seeds. The realiser writes what the last
pass rejects. Killed and run again, the job resumes.
"""

from __future__ import annotations

import functools
import json
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import NotRequired, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from jobs.cluster import is_lost, start_ray
from jobs.ray_calls import arrow_batches
from raymtr import storage
from raymtr.captions.judging.faithfulness import MusicTerms
from raymtr.captions.writing.assembler import CaptionAssembler
from raymtr.captions.writing.drafts import (
    DRAFT,
    Draft,
    judge_drafts,
    plan_again,
    plan_drafts,
    seed_of,
    usable_tags,
)
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.captions.writing.store import CaptionStore
from raymtr.captions.writing.templates import TRACK
from raymtr.errors import LostError, UnusableError
from raymtr.progress import Progress
from raymtr.specs import Settings
from raymtr.validation import to_dict
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
TRACKS_PER_BLOCK = 256  # planned by one task
# Settings that do not affect captions: a run that lacked memory can resume with less.
WIDTH = ("actors", "threads", "batch", "cache_mib", "tensor_parallel", "max_num_seqs", "gpu_memory")
SAMPLING = ("temperature", "top_k", "tag_bias", "presence_penalty", "max_new_tokens")
MOST_TERMS = 100_000  # different tags of a catalog that the judge accepts as musical terms


class CaptionCounts(TypedDict):
    """The content of `captions/` after a run."""

    tracks: int  # of the catalog
    captioned: int
    untagged: int
    captions: int
    by: dict[str, int]  # captions by source: model or realised
    failed: int  # tracks
    error_rate: float  # of tracks with usable tags
    engine: NotRequired[str]  # with a captioner: this, and means over all captions
    coverage: NotRequired[float]  # share of a track's tags that its caption names
    invention: NotRequired[float]  # share of its terms that no tag has


class ModelCaptions:
    """One run of a captioner over the catalog."""

    def __init__(
        self, workspace: Workspace, settings: Settings, captioner: str, engine: str
    ) -> None:
        from raymtr.captions.captioner import open_captioner
        from raymtr.captions.prompt import prompt_hash
        from raymtr.captions.writing.engine import choose_engine

        self._workspace, self._spec = workspace, settings.caption
        self._captioner = open_captioner(captioner)
        if self._spec.tag_bias and not self._captioner.is_toy:
            LOG.info("caption.tag_bias is for a toy base; it is 0 for this one")
            self._spec = replace(self._spec, tag_bias=0.0)
        self._engine = choose_engine(engine)
        self._made_by = {
            "base": self._captioner.base_identity,
            "adapter": self._captioner.adapter,
            "prompt": prompt_hash(),
            "sampling": {name: getattr(self._spec, name) for name in SAMPLING},
            "engine": self._engine,
        }

    def write(self, *, per_track: int, seed: int, model_tracks: int | None = None) -> CaptionCounts:
        """Generates, judges and commits until every tagged track has its captions or a failure."""
        from raymtr.captions.writing.engine import prepare_weights, require_room

        start_ray()
        require_room(self._engine, self._spec)
        self._weights = prepare_weights(self._captioner, self._spec, home=self._workspace.captioner)
        spec = {name: value for name, value in to_dict(self._spec).items() if name not in WIDTH}
        inputs = {"per_track": per_track, "seed": seed, "spec": spec}
        if model_tracks is not None:
            inputs["model_tracks"] = model_tracks
        written = CaptionStore(self._workspace.captions, {**self._made_by, **inputs})
        written.take()
        if model_tracks is not None:
            self._leave_to_realiser(written, model_tracks, per_track=per_track, seed=seed)
        done = pc.unique(written.done())
        tagged, total, undone = self._count(set(done.to_pylist()))
        progress = Progress("caption", tagged, unit="tracks", done=tagged - undone)
        assembler = CaptionAssembler(
            written,
            self._made_by,
            per_track=per_track,
            draws=self._spec.draws,
            progress=progress,
        )
        try:
            for attempt in range(self._spec.passes):
                if not undone:
                    break
                if attempt:
                    drafts = self._draw_again(written.pending(attempt - 1), seed, attempt)
                else:
                    drafts = self._draw(done, per_track, seed)
                last = attempt == self._spec.passes - 1
                undone = assembler.read(self._judged(drafts), undone, attempt=attempt, last=last)
        except ray.exceptions.RayError as error:
            lines = str(error).strip().splitlines()
            cause = next((line for line in reversed(lines) if "Error: " in line), lines[-1])
            kind = LostError if is_lost(error) else UnusableError
            raise kind(
                f"the {self._engine} engine died. Captions written so far are kept; remove the "
                f"cause and run the same command again to continue: {cause.strip()}"
            ) from error
        written.finish()
        return self._account(tagged, total, assembler)

    def _leave_to_realiser(
        self, written: CaptionStore, model_tracks: int, *, per_track: int, seed: int
    ) -> None:
        """Writes realised captions for all tagged tracks but `model_tracks` chosen by the seed."""
        tracks = pa.Table.from_batches(list(self._tracks(TRACK)))
        usable = [row["track_id"] for row in tracks.to_pylist() if usable_tags(row)]
        usable.sort(key=lambda track_id: seed_of(seed, track_id, 0, 0))
        others = pc.is_in(
            tracks["track_id"], value_set=pa.array(usable[model_tracks:], pa.string())
        )
        already = pc.is_in(tracks["track_id"], value_set=pc.unique(written.done()))
        left = tracks.filter(pc.and_(others, pc.invert(already)))
        written.commit(caption_tracks(left, per_track=per_track, seed=seed).to_pylist(), [])

    def _draw(self, done: pa.Array, per_track: int, seed: int) -> ray.data.Dataset:
        """The first pass's drafts, not yet generated: all tracks except finished ones."""

        def undone(tracks: pa.Table) -> pa.Table:
            return tracks.filter(pc.invert(pc.is_in(tracks["track_id"], value_set=done)))

        draws = range(self._spec.draws)
        plan = functools.partial(plan_drafts, per_track=per_track, seed=seed, draws=draws)
        return (
            ray.data.read_parquet(self._workspace.tracks, columns=TRACK)
            .repartition(target_num_rows_per_block=TRACKS_PER_BLOCK)
            .map_batches(undone, batch_format="pyarrow")
            .map_batches(plan, batch_format="pyarrow")
        )

    def _draw_again(self, pending: str, seed: int, attempt: int) -> ray.data.Dataset:
        """A later pass's drafts, not yet generated: those that the judge rejected."""
        draws = range(attempt * self._spec.draws, (attempt + 1) * self._spec.draws)
        plan = functools.partial(plan_again, seed=seed, draws=draws)
        return (
            ray.data.read_parquet(pending)
            .repartition(target_num_rows_per_block=TRACKS_PER_BLOCK)
            .map_batches(plan, batch_format="pyarrow")
        )

    def _judged(self, drafts: ray.data.Dataset) -> Iterator[Draft]:
        """`drafts`, generated and judged, in any order."""
        from raymtr.captions.writing.engine import write_drafts

        vocabulary = MusicTerms.of_tags([*self._captioner.vocabulary, *self._catalog_tags()])
        judged = write_drafts(drafts, self._engine, self._weights, self._spec).map_batches(
            functools.partial(judge_drafts, vocabulary=vocabulary), batch_format="pyarrow"
        )
        for batch in arrow_batches(judged):
            if len(batch):
                yield from batch.select(DRAFT.names).to_pylist()

    def _tracks(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        for name in storage.list_files(self._workspace.tracks, suffix=".parquet"):
            filesystem, path = storage.open_filesystem(f"{self._workspace.tracks}/{name}")
            with pq.ParquetFile(path, filesystem=filesystem) as file:
                yield from file.iter_batches(columns=columns)

    def _count(self, done: set[str]) -> tuple[int, int, int]:
        """Tracks with usable tags, all tracks, and tracks still to be captioned."""
        tagged = total = undone = 0
        for batch in self._tracks(TRACK):
            ids = [track["track_id"] for track in batch.to_pylist() if usable_tags(track)]
            tagged, total = tagged + len(ids), total + len(batch)
            undone += sum(track_id not in done for track_id in ids)
        return tagged, total, undone

    def _catalog_tags(self) -> list[str]:
        """The catalog's most frequent tags."""
        counts: Counter[str] = Counter()
        for batch in self._tracks(["tags"]):
            counts.update(pc.list_flatten(batch["tags"]).drop_null().to_pylist())
        return [tag for tag, _ in counts.most_common(MOST_TERMS)]

    def _account(self, tagged: int, total: int, assembler: CaptionAssembler) -> CaptionCounts:
        """Counts of `captions/`, over this run and earlier ones."""
        by: Counter[str] = Counter()
        sums = {"coverage": 0.0, "invention": 0.0}
        ids: set[str] = set()
        for name in storage.list_files(self._workspace.captions, suffix=".parquet"):
            table = storage.read_table(f"{self._workspace.captions}/{name}")
            ids.update(table["track_id"].to_pylist())
            for text in table["provenance"].to_pylist():
                provenance = json.loads(text)
                by[provenance["source"]] += 1
                sums["coverage"] += provenance.get("coverage", 1.0)  # absent in older provenance
                sums["invention"] += provenance.get("invention", 0.0)
        captions = max(sum(by.values()), 1)
        return {
            "tracks": total,
            "captioned": len(ids),
            "untagged": total - tagged,
            "captions": sum(by.values()),
            "by": dict(by),
            "engine": self._engine,
            "coverage": round(sums["coverage"] / captions, 4),
            "invention": round(sums["invention"] / captions, 4),
            "failed": assembler.failed,
            "error_rate": assembler.failed / tagged if tagged else 0.0,
        }
