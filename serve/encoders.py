"""The text encoder deployment, and the model cache of both encoders, keyed by fingerprint.

A call contains the fingerprint of the model that the searched table needs. So a new build with
another model needs no restart: the next call loads that model next to the old one. A model is used
only after the golden check.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from raymtr.embeddings.kept_model import load_kept_model
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.errors import InputError, UnusableError
from raymtr.index.publish import live_build
from raymtr.model.model import Model
from raymtr.workspace import Workspace
from serve.batching import DynamicBatcher
from serve.messages import Problem, Vectors
from serve.settings import ServeSettings

log = logging.getLogger("ray.serve")  # Serve's own logger, as in `retriever`
MODELS_KEPT = 2  # the live model and the one before or after it

Item = TypeVar("Item")
Job = tuple[ModelRef, Item]  # the model, and its input


class ModelCache:
    """The models of a workspace's embeddings, each loaded at first use."""

    def __init__(
        self, settings: ServeSettings, *, text_int8: bool = False, audio_only: bool = False
    ) -> None:
        self._workspace = Workspace.open(settings.workspace)
        self._device = settings.device
        self._text_int8, self._audio_only = text_int8, audio_only
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, made_by: ModelRef) -> Model:
        """The model, after the golden check. Raises UnusableError if the check fails."""
        with self._lock:
            if made_by.fingerprint not in self._models:
                self._models[made_by.fingerprint] = self._load(made_by)
                while len(self._models) > MODELS_KEPT:
                    self._models.popitem(last=False)
            self._models.move_to_end(made_by.fingerprint)
            return self._models[made_by.fingerprint]

    def warm(self) -> None:
        """Loads the live build's model, so that no query of a new replica waits for it."""
        try:
            made_by = live_build(self._workspace).made_by
            if made_by is not None:
                self.get(made_by)
        except (UnusableError, OSError, InputError) as error:
            log.warning("no model is loaded yet: %s", error)  # each query will report it

    def _load(self, made_by: ModelRef) -> Model:
        return load_kept_model(
            EmbeddingStore.of_model(self._workspace, made_by).model_folder,
            made_by,
            device=self._device,
            audio_only=self._audio_only,
            text_int8=self._text_int8,
        )


class TextEncoder:
    """Encodes sentences in dynamic batches, as a deployment or inside the fused ingress."""

    def __init__(self, settings: ServeSettings) -> None:
        self.models = ModelCache(settings, text_int8=settings.text_int8)
        self.models.warm()
        self._batcher = DynamicBatcher(self._encode_batch, max_batch_size=settings.max_batch_size)

    async def encode(self, made_by: ModelRef, sentences: list[str]) -> Vectors | Problem:
        """Unit vectors, float32 [N, D], of one request's sentences."""
        return await self._batcher.submit((made_by, sentences))

    def _encode_batch(self, jobs: Sequence[Job[list[str]]]) -> list[Vectors | Problem]:
        answers: list[Vectors | Problem] = [_NOT_ENCODED] * len(jobs)
        for made_by, places in by_model(jobs):
            try:
                model = self.models.get(made_by)
                flat = [sentence for i in places for sentence in jobs[i][1]]
                vectors = model.encode_text(flat)
            except (UnusableError, OSError, InputError) as error:
                for i in places:
                    answers[i] = Problem(503, "model_unavailable", str(error), 5)
                continue
            for i in places:
                count = len(jobs[i][1])
                answers[i] = Vectors(vectors[:count], len(places), notes=model.unread(jobs[i][1]))
                vectors = vectors[count:]
        return answers


def by_model(jobs: Sequence[Job[Any]]) -> Iterator[tuple[ModelRef, list[int]]]:
    """Each distinct model of the jobs, with the indices of its jobs."""
    for made_by in {job[0].fingerprint: job[0] for job in jobs}.values():
        yield (
            made_by,
            [i for i, job in enumerate(jobs) if job[0].fingerprint == made_by.fingerprint],
        )


_NOT_ENCODED = Problem(500, "internal", "no encoder processed the sentences")
