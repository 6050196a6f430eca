"""The captions of one run on storage: whole tracks, each committed once, by one owner.

`run.json` says what made the captions that lie beside it. The same settings go on there and write
what is missing; other settings write into a folder beside them, `next-<settings>/`, and replace
what was there only when they are done. `held-*/` is what a run has still to draw again. So a run
that dies loses nothing and doubles nothing, and readers, who take the Parquet files directly under
the folder, never see two runs at once.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raymtr import storage
from raymtr.captions.writing.drafts import HELD
from raymtr.captions.writing.templates import SCHEMA
from raymtr.errors import UnusableError
from raymtr.track import DEAD_LETTER

RUN, LETTERS, NEXT, HELD_FOLDER = "run.json", "dead_letter", "next-", "held-"


class CaptionStore:
    """What a run with these `settings` (JSON) has written under the `captions/` folder."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self._live, self._settings = folder, settings
        text = json.dumps(settings, sort_keys=True)
        beside = f"{folder}/{NEXT}{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self._goes_on = self._made_by(folder) == settings
        self.folder = folder if self._goes_on else beside
        self._token = uuid.uuid4().hex

    @staticmethod
    def _made_by(folder: str) -> dict[str, Any] | None:
        file = f"{folder}/{RUN}"
        made: dict[str, Any] | None = None
        if storage.exists(file):
            made = storage.read_json(file)["settings"]
        return made

    def take(self) -> None:
        """Become the owner. Tracks that failed or were held before are tried anew."""
        storage.write_json(f"{self.folder}/{RUN}", {"run": self._token, "settings": self._settings})
        storage.delete(f"{self.folder}/{LETTERS}")
        self._forget_held()

    def done(self) -> pa.ChunkedArray:
        """Ids of the tracks whose captions are written, repeated, in no order."""
        table = storage.read_tables(self.folder, ["track_id"])
        return table["track_id"] if table else pa.chunked_array([], pa.string())

    def commit(self, rows: Sequence[dict[str, str]], letters: Sequence[dict[str, str]]) -> None:
        """Write one shard: all captions of its tracks, and what became of the others.

        Raises UnusableError where another run has become the owner.
        """
        self._check_owner()
        ids = "\n".join(sorted({row["track_id"] for row in (*rows, *letters)}))
        name = f"part-{hashlib.sha256(ids.encode()).hexdigest()[:16]}.parquet"
        if letters:
            table = pa.Table.from_pylist(list(letters), DEAD_LETTER)
            storage.write_table(f"{self.folder}/{LETTERS}/{name}", table)
        if rows:
            storage.write_table(f"{self.folder}/{name}", pa.Table.from_pylist(list(rows), SCHEMA))

    def hold(self, rows: Sequence[dict[str, str]], attempt: int) -> None:
        """Write one shard of tracks (HELD) for which the pass after `attempt` draws again.

        Raises UnusableError where another run has become the owner.
        """
        self._check_owner()
        name = f"part-{uuid.uuid4().hex[:16]}.parquet"
        storage.write_table(f"{self.held(attempt)}/{name}", pa.Table.from_pylist(list(rows), HELD))

    def held(self, attempt: int) -> str:
        """The folder of what the pass `attempt` holds for the next one."""
        return f"{self.folder}/{HELD_FOLDER}{self._token}-{attempt}"

    def _check_owner(self) -> None:
        if storage.read_json(f"{self.folder}/{RUN}")["run"] != self._token:
            raise UnusableError(
                f"another caption job has taken over {self.folder}; let one of them finish alone"
            )

    def _forget_held(self) -> None:
        for name in storage.list_folders(self.folder):
            if name.startswith(HELD_FOLDER):
                storage.delete(f"{self.folder}/{name}")

    def finish(self) -> None:
        """The run is complete: its captions are the workspace's."""
        self._forget_held()
        if not storage.list_files(self.folder, suffix=".parquet"):
            storage.write_table(f"{self.folder}/part-empty.parquet", SCHEMA.empty_table())
        if not self._goes_on:
            storage.delete(f"{self._live}/{LETTERS}")
            if storage.exists(f"{self.folder}/{LETTERS}"):
                storage.replace_files(f"{self.folder}/{LETTERS}", f"{self._live}/{LETTERS}")
            storage.replace_files(self.folder, self._live)
        forget_unfinished(self._live)


def forget_unfinished(folder: str) -> None:
    """Remove what runs with other settings left beside the captions in `folder`."""
    for name in storage.list_folders(folder):
        if name.startswith(NEXT):
            storage.delete(f"{folder}/{name}")
