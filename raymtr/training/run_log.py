"""Log of a run: `metrics.jsonl`, TensorBoard, a progress line.

`metrics.jsonl` has one row per step and is rewritten as a whole at each checkpoint. An object store
cannot append, and a resumed run drops the rows after its checkpoint instead of repeating them.
"""

from __future__ import annotations

import json
import tempfile
from typing import Any

from pyarrow import fs

from raymtr import storage
from raymtr.progress import Progress


class RunLog:
    """The log of the run in `folder`, from step `first` (0, or where it resumes) to `steps`."""

    def __init__(self, folder: str, *, first: int, steps: int) -> None:
        from tensorboardX import SummaryWriter

        self._file = f"{folder}/metrics.jsonl"
        self.rows: list[dict[str, Any]] = []
        if first and storage.exists(self._file):
            lines = storage.read_bytes(self._file).decode().splitlines()
            self.rows = [row for row in map(json.loads, lines) if row["step"] < first]
        self._board = f"{folder}/tensorboard"
        remote = storage.is_remote(folder)
        self._scratch = tempfile.mkdtemp(prefix="tensorboard-") if remote else None
        local = self._scratch or storage.local_path(self._board)
        self._writer = SummaryWriter(local, purge_step=first or None, flush_secs=30)
        self._progress = Progress("train", steps, unit="steps", done=first)

    def add(self, step: int, figures: dict[str, float]) -> None:
        """Add the figures of one finished step."""
        self.rows.append({"step": step, **figures})
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
        self._progress.advance(1, note=f"loss {figures['loss']:.3f}")

    def save(self) -> None:
        """Write everything so far to storage."""
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        storage.write_bytes(self._file, text.encode())
        self._writer.flush()
        if self._scratch:
            filesystem, path = storage.open_filesystem(self._board)
            fs.copy_files(self._scratch, path, fs.LocalFileSystem(), filesystem)

    def close(self) -> None:
        """Save, and close the TensorBoard file."""
        self.save()
        self._writer.close()
