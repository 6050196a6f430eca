"""From drafts as they come, in no order, to whole tracks written in shards.

It holds only what is not settled yet: the drafts of captions whose other drafts are still being
drawn, and the captions of tracks that are not whole. So memory does not grow with the catalog.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from raymtr.captions.drafts import OK, best_draft, caption_row, template_row
from raymtr.captions.written import Written
from raymtr.errors import UnusableError
from raymtr.progress import Progress

SHARD_TRACKS = 1_024  # a shard closes at this many tracks,
SHARD_EVERY_S = 10.0  # or when the last one is this old: what a kill can cost


class Settle:
    """Gathers drafts until a track is settled, and commits settled tracks in shards."""

    def __init__(
        self,
        written: Written,
        made_by: dict[str, Any],
        *,
        per_track: int,
        progress: Progress,
    ) -> None:
        self.per_track, self.failed = per_track, 0
        self.refused: dict[tuple[str, int], dict[str, Any]] = {}  # caption -> its best draft so far
        self._accepted: dict[str, dict[int, dict[str, str]]] = {}  # of tracks not yet whole
        self._written, self._made_by, self._progress = written, made_by, progress
        self._rows: list[dict[str, str]] = []
        self._letters: list[dict[str, str]] = []
        self._tracks, self._spoken = 0, time.monotonic()

    def read(self, drafts: Iterator[dict[str, Any]], draws: int, *, last: bool) -> None:
        """Take one pass's drafts; `last`: what is refused now goes to a template."""
        waiting: dict[tuple[str, int], list[dict[str, Any]]] = {}
        before, self.refused = self.refused, {}
        for draft in drafts:
            key = (draft["track_id"], draft["caption"])
            group = waiting.setdefault(key, [])
            group.append(draft)
            if len(group) == draws:
                del waiting[key]
                self._caption(key, [*group, *filter(None, [before.pop(key, None)])], last=last)
        if lost := len(waiting) + len(before):
            raise UnusableError(f"{lost} captions did not come back; the same command goes on")
        self._commit()

    def _caption(self, key: tuple[str, int], drafts: list[dict[str, Any]], *, last: bool) -> None:
        best = best_draft(drafts)
        if best["verdict"] != OK and not last:
            self.refused[key] = best
            return
        track_id, number = key
        captions = self._accepted.setdefault(track_id, {})
        if best["error"] is not None:
            captions[number] = {"error": best["error"], "uri": best["uri"]}
        else:
            row = caption_row if best["verdict"] == OK else template_row
            captions[number] = row(best, self._made_by)
        if len(captions) == self.per_track:
            self._track(track_id, list(self._accepted.pop(track_id).values()))

    def _track(self, track_id: str, captions: list[dict[str, str]]) -> None:
        """All captions of a track are there: equal ones once, or its failure."""
        errors = [row for row in captions if "error" in row]
        if errors:
            letter = {"track_id": track_id, "uri": errors[0]["uri"], "code": "generation"}
            self._letters.append({**letter, "reason": errors[0]["error"]})
            self.failed += 1
        else:
            self._rows += {row["caption"]: row for row in captions}.values()
        self._tracks += 1
        self._progress.advance(1, note=f"{self.failed} failed" if self.failed else "")
        old = time.monotonic() - self._spoken > SHARD_EVERY_S
        if self._tracks >= SHARD_TRACKS or old:
            self._commit()

    def _commit(self) -> None:
        if self._rows or self._letters:
            self._written.commit(self._rows, self._letters)
        self._rows, self._letters, self._tracks = [], [], 0
        self._spoken = time.monotonic()
