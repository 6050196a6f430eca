"""Training of MusicLM: crops of tokens, and the sum of the losses of its stages.

The stages share no weights, so one step trains them as separate runs would. M_A of a crop is
computed from its audio, and so is its melody if the tokens have one. Training reads no text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from raymtr.audio_cache import AudioCache
from raymtr.generation.joint import crop_vector
from raymtr.generation.melody import STORED_S, crop_tokens, no_melody
from raymtr.generation.musiclm_folder import save_musiclm
from raymtr.generation.parts import Parts, read_parts
from raymtr.generation.stages import StageName, Stages, stage_names
from raymtr.generation.token_store import local_tokens, tokens_of
from raymtr.generation_specs import MusicLMSpec
from raymtr.specs import Settings, TrainSpec
from raymtr.trained_on import Record
from raymtr.training.batches import PrefetchedBatches
from raymtr.training.contrastive_loss import shares
from raymtr.training.mixture import Mixture
from raymtr.training.step import TrainStep

VALID_ROWS = 16  # validation crops
ROUNDING_S = 0.1  # a track's tokens end at most this much before its audio
WITHOUT_MELODY = 0.3  # share of rows without a melody, so that sampling works without one


@dataclass(frozen=True)
class StageBatch:
    """Rows of one stage: conditions and target, int64 [B, T, levels] each."""

    conditions: list[Tensor]
    target: Tensor
    unconditional: Tensor  # bool [B], rows without M_A


@dataclass(frozen=True)
class MusicLMBatch:
    """One worker's rows of a global batch, for each stage."""

    stages: Mapping[StageName, StageBatch]

    def to(self, device: torch.device) -> MusicLMBatch:
        """The same batch on `device`."""
        return MusicLMBatch(
            {
                name: StageBatch(
                    [tokens.to(device) for tokens in rows.conditions],
                    rows.target.to(device),
                    rows.unconditional.to(device),
                )
                for name, rows in self.stages.items()
            }
        )


class MusicLMStep(TrainStep):
    """A step over MusicLMBatch: `loss` is the sum of the stages' mean losses in nats per token."""

    def read_ahead(self, batch: Any) -> Any:
        """Return the batch unchanged: there are no frozen layers to apply ahead."""
        return batch

    def backward(self, batch: MusicLMBatch) -> dict[str, Tensor]:
        """Add this worker's gradients; their mean over workers is that of the global batch."""
        stages: Stages = self.towers
        figures: dict[str, Tensor] = {}
        for name, rows in batch.stages.items():
            with self._autocast():
                loss = stages.of(name)(rows.conditions, rows.target, rows.unconditional).mean()
            loss.backward()
            figures[name] = loss.detach()
        return {"loss": torch.stack(list(figures.values())).sum(), **figures}

    def facts(self, figures: dict[str, float], cure: str) -> dict[str, float]:
        """No further figures."""
        return {}

    @torch.no_grad()
    def losses(self, batch: MusicLMBatch) -> dict[str, float]:
        """The loss of each stage in evaluation mode."""
        stages: Stages = self.towers.eval()
        batch = batch.to(self.device)
        return {
            name: float(stages.of(name)(rows.conditions, rows.target, rows.unconditional).mean())
            for name, rows in batch.stages.items()
        }


class Crops:
    """Cuts crops from `rows` of a table with the columns of `tokens/<fingerprint>/tracks/`."""

    def __init__(self, tokens: pa.Table, rows: np.ndarray, parts: Parts, spec: MusicLMSpec) -> None:
        self.tokens, self.rows, self.parts, self.spec = tokens, rows, parts, spec
        self.seconds = tokens["seconds"].to_numpy()[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, places: np.ndarray, rngs: list[np.random.Generator]) -> MusicLMBatch:
        """One crop per row and stage; `places` [B] index `self.rows`.

        The crops of a stage are shortened to the shortest track of the batch.
        """
        rows = self.tokens.take(pa.array(self.rows[places])).to_pylist()
        shortest_s = float(self.seconds[places].min()) - ROUNDING_S
        stages: dict[StageName, StageBatch] = {}
        for name in stage_names(self.spec):
            length_s = min(float(getattr(self.spec, f"{name}_s")), shortest_s)
            crops = [
                self._crop(name, row, length_s, rng) for row, rng in zip(rows, rngs, strict=True)
            ]
            unconditional = [rng.random() < self.spec.unconditional for rng in rngs]
            conditions = [
                torch.from_numpy(np.stack(tokens))
                for tokens in zip(*(crop[0] for crop in crops), strict=True)
            ]
            target = torch.from_numpy(np.stack([crop[1] for crop in crops]))
            stages[name] = StageBatch(conditions, target, torch.tensor(unconditional))
        return MusicLMBatch(stages)

    def _crop(
        self, name: StageName, row: dict[str, Any], length_s: float, rng: np.random.Generator
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """The conditions and the target, each int64 [T, levels]."""
        parts, coarse = self.parts, self.spec.coarse
        semantic, acoustic = tokens_of(row, parts.spec.levels)
        semantic_rate, rate = parts.semantic.frame_hz, parts.codec.frame_hz
        frames = max(1, int(length_s * rate))
        first = int(rng.integers(max(1, len(acoustic) - frames + 1)))
        if parts.melody is not None and name != "fine":  # align with a stored melody window
            first = round(first / rate // STORED_S * STORED_S * rate)
        codes = acoustic[first : first + frames]
        if name == "fine":
            return [codes[:, :coarse]], codes[:, coarse:]
        begin_s = first / rate
        vector = crop_vector(
            np.asarray(row["starts_s"]),
            np.asarray(row["vectors"], np.float32).reshape(len(row["starts_s"]), -1),
            *(begin_s, begin_s + length_s),
        )
        joint = parts.joint.of_audio(vector[None])
        conditions = [joint, *self._melody(row, begin_s, length_s, rng)]
        output = codes if name == "acoustic" else codes[:, :coarse]
        if not self.spec.hears_semantic:
            return conditions, output
        count = max(1, int(length_s * semantic_rate))
        start = max(0, min(int(begin_s * semantic_rate), len(semantic) - count))
        crop = semantic[start : start + count][:, None]
        if name == "semantic":
            return conditions, crop
        return [*conditions, crop], output

    def _melody(
        self, row: dict[str, Any], begin_s: float, length_s: float, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """The crop's melody tokens, dropped at random; [] without a melody part."""
        spec = self.parts.spec.melody
        if not spec.steps:
            return []
        if rng.random() < WITHOUT_MELODY:
            return [no_melody(1, length_s, spec.levels)[0].numpy()]
        stored = np.asarray(row["melody"], np.int64).reshape(-1, spec.levels)
        return [crop_tokens(stored, begin_s, length_s)]


class MusicLMBatches(PrefetchedBatches):
    """Builds MusicLMBatch: step number -> this worker's rows."""

    def __init__(self, crops: Crops, spec: TrainSpec, *, rank: int, workers: int) -> None:
        self._crops, self._spec = crops, spec
        self._mixture = Mixture([None] * len(crops), {}, seed=spec.seed)
        first, last = (sum(shares(spec.global_batch, workers)[:n]) for n in (rank, rank + 1))
        self._share = slice(first, last)

    def make(self, step: int) -> MusicLMBatch:
        """This worker's rows of batch `step`."""
        size = self._spec.global_batch
        places = self._mixture.draw(step, size)[self._share]
        numbers = range(size)[self._share]
        rngs = [np.random.default_rng([self._spec.seed, step, number]) for number in numbers]
        return self._crops.batch(places, rngs)


class MusicLMObjective:
    """MusicLM on one worker, trained on stored tokens; see training.objectives.Objective."""

    def __init__(self, settings: Settings, tokens_folder: str, device: torch.device) -> None:
        self._settings, self._folder = settings, tokens_folder
        self._parts = read_parts(f"{tokens_folder}/parts")
        torch.manual_seed(settings.train.seed)
        self.stages = Stages(
            settings.tokens, settings.musiclm, codec_codes=int(self._parts.codec.codes)
        )
        self.step = MusicLMStep(self.stages, settings.train, device)

    def ready(self, train: pa.Table, cache: AudioCache, *, rank: int, local_rank: int) -> None:
        """Do nothing: this objective decodes no audio."""

    def batches(
        self, train: pa.Table, cache: AudioCache, *, rank: int, workers: int
    ) -> MusicLMBatches:
        """Batches of crops of the training tracks' tokens."""
        return MusicLMBatches(self._crops(train), self._settings.train, rank=rank, workers=workers)

    def validation(self, valid: pa.Table) -> Callable[[MusicLMStep], dict[str, float]]:
        """The loss of each stage on fixed crops of the validation tracks; {} without any."""
        if not len(valid):
            return lambda step: {}
        count = min(VALID_ROWS, len(valid))
        rngs = [np.random.default_rng([0, row]) for row in range(count)]
        batch = self._crops(valid).batch(np.arange(count), rngs)
        for rows in batch.stages.values():
            rows.unconditional.fill_(False)
        return lambda step: {f"valid_{name}": loss for name, loss in step.losses(batch).items()}

    def save(self, folder: str, *, provenance: Mapping[str, object], trained_on: Record) -> None:
        """Write the model; `raymtr generate` reads it."""
        save_musiclm(
            self.stages, self._folder, folder, provenance=provenance, trained_on=trained_on
        )

    def _crops(self, tracks: pa.Table) -> Crops:
        tokens = local_tokens(self._folder)
        ids, stored = (table["track_id"].combine_chunks() for table in (tracks, tokens))
        rows = pc.index_in(ids, value_set=stored).to_numpy(zero_copy_only=False)
        return Crops(tokens, rows, self._parts, self._settings.musiclm)
