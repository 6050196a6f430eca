"""The towers as the service uses them: several models by fingerprint, in batches, off the loop.

Plain classes that need no cluster; the deployments in `app` forward to them, and what uploads need
besides is in `audio_encoder`. A query names the
fingerprint of the table it goes to, so a promote of another model needs no restart: the next query
loads it beside the old one. A model serves only after its golden vectors came out right.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from raymtr.errors import InputError, UnusableError
from raymtr.index.publish import live_build
from raymtr.index.shards import MadeBy
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model
from raymtr.workspace import Workspace
from serve.messages import Refusal, Vectors
from serve.settings import ServeSettings

log = logging.getLogger("ray.serve")  # Serve's, as in `retriever`
MODELS_HELD = 2  # the one that serves and the one before or after it

Item = TypeVar("Item")
Made = TypeVar("Made")
Job = tuple[MadeBy, Item]  # which model, and what it is to encode


class Models:
    """The models of a workspace's embeddings, loaded when first asked for."""

    def __init__(
        self, settings: ServeSettings, *, text_int8: bool = False, audio_only: bool = False
    ) -> None:
        self._workspace = Workspace.open(settings.workspace)
        self._device = settings.device
        self._text_int8, self._audio_only = text_int8, audio_only
        self._held: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, made_by: MadeBy) -> Model:
        """The checked model. Raises UnusableError where it is not what made the vectors."""
        with self._lock:
            if made_by.fingerprint not in self._held:
                self._held[made_by.fingerprint] = self._load(made_by)
                while len(self._held) > MODELS_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(made_by.fingerprint)
            return self._held[made_by.fingerprint]

    def warm(self) -> None:
        """Load the model of the live build: a new replica takes no query it would keep waiting."""
        try:
            made_by = live_build(self._workspace).made_by
            if made_by is not None:
                self.get(made_by)
        except (UnusableError, OSError, InputError) as error:
            log.warning("no model is loaded yet: %s", error)  # each query will be told

    def _load(self, made_by: MadeBy) -> Model:
        folder = f"{self._workspace.embeddings(made_by.fingerprint)}/model"
        model = load_model(
            folder,
            precision=made_by.precision,
            device=self._device,
            audio_only=self._audio_only,
        )
        if model.fingerprint != made_by.fingerprint:
            raise UnusableError(f"{folder} holds model {model.fingerprint}")
        if self._text_int8:
            model.quantize_text()
        model.check_golden()
        return model


class TextEncoder:
    """Sentences of many requests in one pass."""

    def __init__(self, settings: ServeSettings) -> None:
        self.models = Models(settings, text_int8=settings.text_int8)
        self.models.warm()

    def encode(self, jobs: Sequence[Job[list[str]]]) -> list[Vectors | Refusal]:
        """For each job its vectors, float32 [sentences, D], or why there are none."""
        answers: list[Vectors | Refusal] = [_BROKEN] * len(jobs)
        for made_by, mine in by_model(jobs):
            try:
                model = self.models.get(made_by)
                flat = [sentence for i in mine for sentence in jobs[i][1]]
                vectors = model.encode_text(flat)
            except (UnusableError, OSError, InputError) as error:
                for i in mine:
                    answers[i] = Refusal(503, "model_unavailable", str(error), 5)
                continue
            for i in mine:
                count = len(jobs[i][1])
                answers[i] = Vectors(vectors[:count], len(mine))
                vectors = vectors[count:]
        return answers


class Passes(Generic[Item, Made]):
    """Jobs that come while a pass runs share the next one; on an idle encoder none waits.

    Serve's own batches wait a fixed time for company, and close while another still runs: that
    time is lost to a lonely request, and under load the batches stay small.
    """

    def __init__(self, run: Callable[[list[Job[Item]]], list[Made]], *, most: int) -> None:
        self._run, self._most = run, most
        self._waiting: deque[tuple[Job[Item], asyncio.Future[Made]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def join(self, job: Job[Item]) -> Made:
        """What the pass that takes `job` makes of it; raises what the pass raises."""
        answer: asyncio.Future[Made] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all())
        return await answer

    async def _run_all(self) -> None:
        while self._waiting:
            taken: list[tuple[Job[Item], asyncio.Future[Made]]] = []
            while self._waiting and len(taken) < self._most:
                job, answer = self._waiting.popleft()
                if not answer.done():  # else its request was given up
                    taken.append((job, answer))
            if not taken:
                break
            jobs = [job for job, _ in taken]
            made = asyncio.get_running_loop().run_in_executor(None, self._run, jobs)
            await asyncio.wait([made])
            for place, (_, answer) in enumerate(taken):
                if answer.done():
                    continue
                if error := made.exception():
                    answer.set_exception(error)
                else:
                    answer.set_result(made.result()[place])
        self._runner = None


def by_model(jobs: Sequence[Job[Any]]) -> Iterator[tuple[MadeBy, list[int]]]:
    """Each model that jobs name, with the places of its jobs."""
    for made_by in {job[0].fingerprint: job[0] for job in jobs}.values():
        yield (
            made_by,
            [i for i, job in enumerate(jobs) if job[0].fingerprint == made_by.fingerprint],
        )


_BROKEN = Refusal(500, "internal", "no encoder took the sentence")
