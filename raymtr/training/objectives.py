"""Objectives: what a run learns. The loop around them is the same for all.

An objective builds the model and its step, the batches, the check during training, and saves the
result. `train.objective` names it. It starts from a folder: a text tower's, or one of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import pyarrow as pa
import torch

from raymtr import storage
from raymtr.audio_cache import AudioCache
from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import build_towers
from raymtr.specs import Settings
from raymtr.trained_on import Record
from raymtr.training.batches import Batches, PrefetchedBatches
from raymtr.training.lora import merge_lora
from raymtr.training.mulap import MulapObjective
from raymtr.training.musiclm import MusicLMObjective
from raymtr.training.ready import ready_for_audio
from raymtr.training.step import TrainStep
from raymtr.training.validation import Validation
from raymtr.workspace import FETCHED

Check = Callable[[Any], dict[str, float]]  # from the step to figures


class Objective(Protocol):
    """One kind of training, on one worker."""

    @property
    def step(self) -> TrainStep:
        """The model with its optimizer."""
        ...

    def ready(self, train: pa.Table, cache: AudioCache, *, rank: int, local_rank: int) -> None:
        """Prepare this worker for the training tracks, before `batches`."""
        ...

    def batches(
        self, train: pa.Table, cache: AudioCache, *, rank: int, workers: int
    ) -> PrefetchedBatches:
        """The batches of this worker, over the training tracks."""
        ...

    def validation(self, valid: pa.Table) -> Check:
        """A quick check on fixed questions about the validation tracks."""
        ...

    def save(self, folder: str, *, provenance: Mapping[str, object], trained_on: Record) -> None:
        """Write the trained model to `folder`."""
        ...


class Contrastive:
    """Two towers with a joint vector space: TTMR++."""

    def __init__(self, settings: Settings, text_folder: str, device: torch.device) -> None:
        self._settings = settings
        text_folder = storage.local_copy(text_folder, last=FETCHED)
        self.towers = build_towers(
            settings.towers, seed=settings.train.seed, text_folder=text_folder
        )
        self.step = TrainStep(self.towers, settings.train, device)

    def ready(self, train: pa.Table, cache: AudioCache, *, rank: int, local_rank: int) -> None:
        """As `ready_for_audio`."""
        ready_for_audio(
            *(self.towers.text_tower, train, cache, self._settings.train),
            rank=rank,
            local_rank=local_rank,
        )

    def batches(self, train: pa.Table, cache: AudioCache, *, rank: int, workers: int) -> Batches:
        """As for any Objective; a frozen tower gets windows, or sentences, which repeat."""
        return Batches(
            *(train, cache, self.towers.tokenize, self._settings.train),
            rank=rank,
            workers=workers,
            anywhere=self._settings.towers.audio_tower.trainable,
            any_words=self._settings.towers.text_tower.trainable,
        )

    def validation(self, valid: pa.Table) -> Check:
        """Retrieval of tracks by their sentences."""
        return Validation(valid, self.towers.tokenize, self._settings.towers.audio)

    def save(self, folder: str, *, provenance: Mapping[str, object], trained_on: Record) -> None:
        """Write a raymtr model."""
        towers = merge_lora(self.towers, self._settings.train)
        save_towers(towers, folder, provenance=provenance, trained_on=trained_on)


OBJECTIVES: dict[str, Callable[[Settings, str, torch.device], Objective]] = {
    "contrastive": Contrastive,
    "mulap": MulapObjective,
    "musiclm": MusicLMObjective,
}
