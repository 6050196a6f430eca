"""The step of the generation job: rows of prompts -> WAV files and manifest rows."""

from __future__ import annotations

import pyarrow as pa
import torch

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.generation.musiclm_folder import read_musiclm
from raymtr.generation.requests import Melody
from raymtr.generation.sound_file import manifest_of, wav_bytes

PROMPTS = pa.schema(
    [
        pa.field("clip_id", pa.string()),
        pa.field("text", pa.string()),
        pa.field("seed", pa.int64()),
    ]
)


class WriteClips:
    """Rows of PROMPTS -> rows of MANIFEST; the model is loaded once per replica."""

    def __init__(
        self,
        model: str,
        folder: str,
        seconds: float,
        melody: Melody | None = None,
        *,
        device: str,
        threads: int,
    ) -> None:
        """Writes clips of `seconds` to `folder`/clips. Raises as `read_musiclm`."""
        torch.set_num_threads(threads)
        self._model = read_musiclm(model, device=device)
        self._folder, self._seconds, self._melody = folder, seconds, melody
        self._made_by = self._model.made_by
        if melody is not None:
            self._made_by["melody"] = melody.name

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One row out per row in, in order; the prompts of a batch are sampled together."""
        rows = batch.to_pylist()
        texts, seeds = [row["text"] for row in rows], [row["seed"] for row in rows]
        try:
            melodies = [self._melody.samples] * len(rows) if self._melody else []
            clips = self._model.generate(texts, self._seconds, seeds, melodies=melodies)
        except UnusableError as error:  # such as numbers that are not finite
            return manifest_of(
                [self._row(row, code="bad_model", reason=str(error)) for row in rows]
            )
        written = []
        for row, samples in zip(rows, clips, strict=True):
            uri = f"{self._folder}/clips/{row['clip_id']}.wav"
            data = wav_bytes(
                samples,
                self._model.sample_rate,
                prompt=row["text"],
                seed=row["seed"],
                made_by=self._made_by,
            )
            storage.write_bytes(uri, data)
            score = self._model.score(row["text"], samples)
            written.append(self._row(row, uri=uri, score=score))
        return manifest_of(written)

    def _row(self, row: dict[str, object], **columns: object) -> dict[str, object]:
        request = {"clip_id": row["clip_id"], "prompt": row["text"], "seed": row["seed"]}
        return {**request, "seconds": self._seconds, **self._made_by, **columns}
