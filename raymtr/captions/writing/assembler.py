"""Assembly of unordered drafts into complete tracks, written in shards.

Memory holds only one shard and the tracks whose drafts are still being drawn. A track with a
rejected caption is written to storage, where the next pass reads it. So memory grows neither with
the catalog nor with the rejected captions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from raymtr.captions.writing.drafts import (
    OK,
    Draft,
    best_drafts,
    caption_row,
    pending_drafts,
    pending_row,
    realised_row,
)
from raymtr.captions.writing.store import CaptionStore
from raymtr.errors import UnusableError
from raymtr.progress import Progress
from raymtr.shards import ShardLimit

SHARD_TRACKS, SHARD_EVERY_S = 1_024, 10.0  # limits of a shard


class CaptionAssembler:
    """Collects drafts until all of a track's are there, and commits complete tracks in shards."""

    def __init__(
        self,
        written: CaptionStore,
        made_by: Mapping[str, object],
        *,
        per_track: int,
        draws: int,
        progress: Progress,
    ) -> None:
        self.failed = 0
        self._per_track, self._draws = per_track, draws
        self._written, self._made_by, self._progress = written, made_by, progress
        self._rows: list[dict[str, str]] = []
        self._letters: list[dict[str, str | None]] = []
        self._pending: list[dict[str, object]] = []
        self._limit = ShardLimit(tracks=SHARD_TRACKS, seconds=SHARD_EVERY_S)

    def read(self, drafts: Iterator[Draft], tracks: int, *, attempt: int, last: bool) -> int:
        """Take the drafts of one pass over `tracks` tracks; return how many wait for the next pass.

        With `last` there is no next pass, and the realiser replaces rejected captions. Raises
        UnusableError if the engine did not return all drafts.
        """
        waiting: dict[str, list[Draft]] = {}
        settled = pending = 0
        for draft in drafts:
            track_id, before = draft["track_id"], pending_drafts(draft)
            group = waiting.setdefault(track_id, [])
            group.append(draft)
            refused = sum(best["verdict"] != OK for best in before) if before else self._per_track
            if len(group) < refused * self._draws:
                continue
            del waiting[track_id]
            best = best_drafts(group + before)
            settled += 1
            if not last and any(draft["verdict"] != OK for draft in best):
                self._pending.append(pending_row(best))
                pending += 1
                self._progress.advance(0, note=f"{pending} pending for the next pass")
            else:
                self._track(best)
                self._progress.advance(1, note=f"{self.failed} failed" if self.failed else "")
            self._commit_when_due(attempt)
        self._commit(attempt)
        if settled < tracks:
            raise UnusableError(
                f"the engine returned no drafts for {tracks - settled} tracks; run the same "
                "command again to continue"
            )
        return pending

    def _track(self, best: list[Draft]) -> None:
        """Add a track's rows: distinct captions, or its failure."""
        failed = next((draft for draft in best if draft["error"] is not None), None)
        if failed:
            letter = {"track_id": failed["track_id"], "uri": failed["uri"], "code": "generation"}
            self._letters.append({**letter, "reason": failed["error"]})
            self.failed += 1
        else:
            rows = [
                (caption_row if draft["verdict"] == OK else realised_row)(draft, self._made_by)
                for draft in best
            ]
            self._rows += {row["caption"]: row for row in rows}.values()

    def _commit_when_due(self, attempt: int) -> None:
        if self._limit.add(1):
            self._commit(attempt)

    def _commit(self, attempt: int) -> None:
        if self._rows or self._letters:
            self._written.commit(self._rows, self._letters)
        if self._pending:
            self._written.commit_pending(self._pending, attempt)
        self._rows, self._letters, self._pending = [], [], []
        self._limit.close()
