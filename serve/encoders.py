"""The towers as the service uses them: several models by fingerprint, in batches, off the loop.

Plain classes that need no cluster; the deployments in `app` forward to them. A query names the
fingerprint of the table it goes to, so a promote of another model needs no restart: the next query
loads it beside the old one. A model serves only after its golden vectors came out right.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import numpy as np

from raymtr.errors import InputError, UnusableError
from raymtr.index.publish import live_build
from raymtr.index.shards import MadeBy
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model
from raymtr.specs import AudioSpec, to_dict
from raymtr.workspace import Workspace
from serve.messages import Refusal, Vectors
from serve.settings import ServeSettings

log = logging.getLogger("ray.serve")  # Serve's, as in `retriever`
MODELS_HELD = 2  # the one that serves and the one before or after it
CANNOT_DECODE = 3  # exit status of decode_upload


class Models:
    """The models of a workspace's embeddings, loaded when first asked for."""

    def __init__(self, workspace: str, device: str, *, text_int8: bool = False) -> None:
        self._workspace = Workspace.open(workspace)
        self._device = device
        self._text_int8 = text_int8
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
        model = load_model(folder, precision=made_by.precision, device=self._device)
        if model.fingerprint != made_by.fingerprint:
            raise UnusableError(f"{folder} holds model {model.fingerprint}")
        if self._text_int8:
            model.quantize_text()
        model.check_golden()
        return model


TextJob = tuple[MadeBy, list[str]]  # which model, and the sentences of one request


class TextEncoder:
    """Sentences of many requests in one pass."""

    def __init__(self, settings: ServeSettings) -> None:
        self.models = Models(settings.workspace, settings.device, text_int8=settings.text_int8)
        self.models.warm()

    def encode(self, jobs: Sequence[TextJob]) -> list[Vectors | Refusal]:
        """For each job its vectors, float32 [sentences, D], or why there are none."""
        answers: list[Vectors | Refusal] = [_BROKEN] * len(jobs)
        for made_by in {job[0].fingerprint: job[0] for job in jobs}.values():
            mine = [i for i, job in enumerate(jobs) if job[0].fingerprint == made_by.fingerprint]
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


class Passes:
    """Requests that come while a pass runs share the next one; on an idle encoder none waits.

    Serve's own batches wait a fixed time for company, and close while another still runs: that
    time is lost to a lonely request, and under load the batches stay small.
    """

    def __init__(
        self, run: Callable[[list[TextJob]], list[Vectors | Refusal]], *, most: int
    ) -> None:
        self._run, self._most = run, most
        self._waiting: deque[tuple[TextJob, asyncio.Future[Vectors | Refusal]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def join(self, job: TextJob) -> Vectors | Refusal:
        """What the pass that takes `job` makes of it; raises what the pass raises."""
        answer: asyncio.Future[Vectors | Refusal] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, answer))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_all())
        return await answer

    async def _run_all(self) -> None:
        while self._waiting:
            taken: list[tuple[TextJob, asyncio.Future[Vectors | Refusal]]] = []
            while self._waiting and len(taken) < self._most:
                job, answer = self._waiting.popleft()
                if not answer.done():  # else its request was given up
                    taken.append((job, answer))
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


class AudioEncoder:
    """One uploaded recording at a time: decoded in a child, embedded here."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.models = Models(settings.workspace, settings.device)
        self.models.warm()

    def encode(self, made_by: MadeBy, data: bytes) -> np.ndarray | Refusal:
        """The recording's vector, float32 [D], or why there is none."""
        try:
            model = self.models.get(made_by)
        except (UnusableError, OSError, InputError) as error:
            return Refusal(503, "model_unavailable", str(error), 5)
        samples = decode_upload(data, model.spec.audio, self.settings)
        if isinstance(samples, Refusal):
            return samples
        vector: np.ndarray = model.encode_audio([(samples, model.spec.audio.sample_rate)])[0]
        return vector


def decode_upload(data: bytes, spec: AudioSpec, settings: ServeSettings) -> np.ndarray | Refusal:
    """Samples float32 [n] at the spec's rate, made by a child within bounds of time and memory."""
    told = {"spec": to_dict(spec), "max_s": settings.audio_max_s}
    told["memory_mb"] = settings.audio_memory_mb
    command = [sys.executable, "-m", "serve.decode_upload", json.dumps(told)]
    try:
        done = subprocess.run(
            command, input=data, capture_output=True, timeout=settings.audio_timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        limit = f"{settings.audio_timeout_s:g} s"
        return Refusal(422, "audio_too_slow", f"the recording was not decoded within {limit}")
    if done.returncode == CANNOT_DECODE:
        code, reason = json.loads(done.stderr)
        return Refusal(422, f"audio_{code}", f"the recording cannot be used: {reason}")
    if done.returncode:
        return Refusal(422, "audio_unreadable", "decoding the recording failed or took too much")
    return np.frombuffer(done.stdout, dtype=np.float32)


_BROKEN = Refusal(500, "internal", "no encoder took the sentence")
