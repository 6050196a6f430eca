"""Storage of one run's captions: complete tracks, each committed once, by one owner.

`run.json` records what wrote the captions beside it. A run with the same settings resumes there and
writes what is missing. A run with other settings writes into a folder beside them,
`next-<settings>/`, and replaces the old captions only when it is complete. `pending-*/` has the
tracks to draw again. So a run that dies loses nothing and repeats nothing. Readers take the Parquet
files directly under the folder, so they never see two runs at once.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raymtr import storage
from raymtr.captions.writing.drafts import PENDING
from raymtr.captions.writing.templates import SCHEMA
from raymtr.ownership import RUN, Ownership
from raymtr.shards import shard_name
from raymtr.track import DEAD_LETTER

LETTERS, NEXT, PENDING_FOLDER = "dead_letter", "next-", "pending-"
PENDING_FOLDERS = (PENDING_FOLDER, "held-")  # the second by an older version


class CaptionStore:
    """The captions of a run with these `settings` (JSON) under the `captions/` folder."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self._live, self._settings = folder, settings
        text = json.dumps(settings, sort_keys=True)
        beside = f"{folder}/{NEXT}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self._goes_on = self._made_by(folder) == settings
        self.folder = folder if self._goes_on else beside
        self._owner = Ownership(self.folder, "caption")

    @staticmethod
    def _made_by(folder: str) -> dict[str, Any] | None:
        file = f"{folder}/{RUN}"
        settings: dict[str, Any] | None = None
        if storage.exists(file):
            settings = storage.read_json(file)["settings"]
        return settings

    def take(self) -> None:
        """Become the owner. Tracks that failed or were pending are tried again."""
        self._owner.take(self._facts)
        storage.delete(f"{self.folder}/{LETTERS}")
        self._forget_pending()

    def done(self) -> pa.ChunkedArray:
        """Ids of the tracks whose captions are written, with repeats, in no order."""
        table = storage.read_tables(self.folder, ["track_id"])
        return table["track_id"] if table else pa.chunked_array([], pa.string())

    def commit(
        self,
        rows: Sequence[Mapping[str, object]],
        letters: Sequence[Mapping[str, object]],
    ) -> None:
        """Write one shard: all captions of its tracks, and dead letters of the failed ones.

        Raises UnusableError where another run has become the owner.
        """
        self._owner.check()
        ids = {str(row["track_id"]) for row in (*rows, *letters)}
        name = f"part-{shard_name(ids)}.parquet"
        if letters:
            table = pa.Table.from_pylist(list(letters), DEAD_LETTER)
            storage.write_table(f"{self.folder}/{LETTERS}/{name}", table)
        if rows:
            storage.write_table(f"{self.folder}/{name}", pa.Table.from_pylist(list(rows), SCHEMA))

    def commit_pending(self, rows: Sequence[Mapping[str, object]], attempt: int) -> None:
        """Write one shard of tracks (PENDING) that the pass after `attempt` draws again.

        Raises UnusableError where another run has become the owner.
        """
        self._owner.check()
        name = f"part-{uuid.uuid4().hex[:16]}.parquet"
        storage.write_table(
            f"{self.pending(attempt)}/{name}", pa.Table.from_pylist(list(rows), PENDING)
        )

    def pending(self, attempt: int) -> str:
        """The folder of tracks that the pass `attempt` leaves to the next one."""
        return f"{self.folder}/{PENDING_FOLDER}{self._owner.token}-{attempt}"

    @property
    def _facts(self) -> dict[str, Any]:
        return {"settings": self._settings}

    def _forget_pending(self) -> None:
        for name in storage.list_folders(self.folder):
            if name.startswith(PENDING_FOLDERS):
                storage.delete(f"{self.folder}/{name}")

    def finish(self) -> None:
        """Publish the complete run's captions as the workspace's."""
        self._forget_pending()
        if not storage.list_files(self.folder, suffix=".parquet"):
            storage.write_table(f"{self.folder}/part-empty.parquet", SCHEMA.empty_table())
        self._owner.release(self._facts)
        if not self._goes_on:
            storage.delete(f"{self._live}/{LETTERS}")
            if storage.exists(f"{self.folder}/{LETTERS}"):
                storage.replace_files(f"{self.folder}/{LETTERS}", f"{self._live}/{LETTERS}")
            storage.replace_files(self.folder, self._live)
        forget_unfinished(self._live)


def forget_unfinished(folder: str) -> None:
    """Remove the leftovers of runs with other settings beside the captions in `folder`."""
    for name in storage.list_folders(folder):
        if name.startswith(NEXT):
            storage.delete(f"{folder}/{name}")
