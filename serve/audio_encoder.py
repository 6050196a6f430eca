"""The audio encoder deployment: decodes uploads in child processes and batches their windows.

C decoders process untrusted bytes, so they run in a child process. A child has memory and time
limits and can be killed. The deployment limits the number of concurrent children
(`audio_ongoing`), so the encoder itself has no queue.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from raymtr import audio
from raymtr.embeddings.store import ModelRef
from raymtr.errors import InputError, UnusableError
from raymtr.model.audio_forward import WINDOWS_AT_ONCE
from raymtr.tagging.analysis import TAGGED_AUDIO, VERSION, Analyzer
from raymtr.tower_specs import AudioSpec
from raymtr.validation import to_dict
from raymtr.vectors import is_unit, unit
from serve.batching import DynamicBatcher
from serve.encoders import Job, ModelCache, by_model
from serve.messages import UPLOAD_RETRY_S, Problem, RecordingTags
from serve.settings import ServeSettings

CANNOT_DECODE = 3  # exit status of decode_upload
# Of a longer recording only the middle is tagged: tagging takes about 50 ms per second of audio.
MOST_TAGGED_S = 120.0


class AudioEncoder:
    """Encodes recordings to vectors.

    A batch combines windows of several uploads, because one upload alone would leave most of a GPU
    batch empty. A window's vector does not depend on the rest of its batch. Cancelling a request
    kills its child process, and its windows that wait for a batch are not embedded.
    """

    def __init__(self, settings: ServeSettings, *, niceness: int = 0) -> None:
        """`niceness` is added to that of this process; its children inherit the sum."""
        os.nice(niceness)
        self.settings = settings
        self.models = ModelCache(settings, audio_only=True)
        self.models.warm()
        size = WINDOWS_AT_ONCE[settings.device]
        self.batcher = DynamicBatcher(self._embed_batch, max_batch_size=size)
        self._analyzer: Analyzer | None = None
        self._loading = threading.Lock()
        self._children = ThreadPoolExecutor(settings.audio_ongoing, thread_name_prefix="child")

    async def encode(self, made_by: ModelRef, data: bytes) -> np.ndarray | Problem:
        """One recording's vector, float32 [D], or the Problem that prevented it."""
        try:
            async with asyncio.timeout(self.settings.encoding_s):
                return await self._encode(made_by, data)
        except TimeoutError:
            late = f"the recording was not embedded within {self.settings.encoding_s:g} s"
            return Problem(503, "busy", late, UPLOAD_RETRY_S)

    async def _encode(self, made_by: ModelRef, data: bytes) -> np.ndarray | Problem:
        try:
            model = await asyncio.to_thread(self.models.get, made_by)
        except (UnusableError, OSError, InputError) as error:
            return Problem(503, "model_unavailable", str(error), 5)
        samples = await self._decode(data, model.spec.audio)
        if isinstance(samples, Problem):
            return samples
        try:
            _, windows = audio.windows(samples, model.spec.audio)
        except audio.AudioError as error:
            return _unusable(error.code, error.reason)
        rows = await asyncio.gather(*(self.batcher.submit((made_by, one)) for one in windows))
        vector = unit(model.pool(np.stack(rows)))
        if not is_unit(vector):
            return _unusable("bad_vector", "its vector by the model is zero or not finite")
        return vector

    async def tag(self, data: bytes) -> RecordingTags | Problem:
        """Tags and attributes of one recording, or the Problem that prevented them.

        Of a recording longer than MOST_TAGGED_S the middle is tagged.
        """
        try:
            async with asyncio.timeout(self.settings.encoding_s):
                return await self._tag(data)
        except TimeoutError:
            late = f"the recording was not tagged within {self.settings.encoding_s:g} s"
            return Problem(503, "busy", late, UPLOAD_RETRY_S)
        except UnusableError as error:  # a package is not installed here
            return Problem(503, "taggers_unavailable", str(error), 60)
        except audio.AudioError as error:
            return _unusable(error.code, error.reason)

    async def _tag(self, data: bytes) -> RecordingTags | Problem:
        """As `tag`. The windows are tagged one by one, so that a cancelled request stops soon."""
        analyzer = await asyncio.to_thread(self._load_analyzer)
        samples = await self._decode(data, TAGGED_AUDIO)
        if isinstance(samples, Problem):
            return samples
        rate = TAGGED_AUDIO.sample_rate
        max_samples = round(MOST_TAGGED_S * rate)
        first = max(0, (len(samples) - max_samples) // 2)
        part = samples[first : first + max_samples]
        _, windows = audio.windows(part, TAGGED_AUDIO)
        logits = [await asyncio.to_thread(analyzer.logits, one[None]) for one in windows]
        by_tagger = {name: np.concatenate([one[name] for one in logits]) for name in logits[0]}
        heard = await asyncio.to_thread(analyzer.analyze, part, by_tagger)
        attributes = heard.attributes
        return {
            "labels": [{"label": name, "probability": p} for name, p in heard.ranked],
            "heard": heard.named,
            "vocal": heard.vocal,
            "bpm": attributes.bpm,
            "bpm_alternatives": list(attributes.bpm_alternatives),
            "bpm_confidence": attributes.bpm_confidence,
            "key": attributes.key,
            "mode": attributes.mode,
            "key_confidence": attributes.key_confidence,
            "loudness_lufs": attributes.loudness_lufs,
            "energy": attributes.energy,
            "brightness": attributes.brightness,
            "seconds": len(samples) / rate,
            "segment": {"start_s": first / rate, "end_s": (first + len(part)) / rate},
            "provenance": VERSION,
        }

    def _load_analyzer(self) -> Analyzer:
        """The taggers, loaded at the first use. Raises UnusableError if they are missing."""
        with self._loading:
            self._analyzer = self._analyzer or Analyzer()
            return self._analyzer

    def _embed_batch(self, jobs: Sequence[Job[np.ndarray]]) -> list[np.ndarray]:
        """The un-normalised vector [D] of each window [S]."""
        rows: list[np.ndarray] = [np.empty(0)] * len(jobs)
        for made_by, places in by_model(jobs):
            windows = np.stack([jobs[i][1] for i in places])
            vectors = self.models.get(made_by).embed_windows(windows)
            for i, row in zip(places, vectors, strict=True):
                rows[i] = row
        return rows

    async def _decode(self, data: bytes, spec: AudioSpec) -> np.ndarray | Problem:
        """Samples, float32 [n] at the spec's rate, or the Problem that prevented decoding."""
        child = start_decoder(spec, self.settings)
        loop, limit_s = asyncio.get_running_loop(), self.settings.audio_timeout_s
        try:
            return await loop.run_in_executor(self._children, read_samples, child, data, limit_s)
        except asyncio.CancelledError:
            child.kill()
            raise


def start_decoder(spec: AudioSpec, settings: ServeSettings) -> subprocess.Popen[bytes]:
    """Starts a child process that decodes an upload within memory limits."""
    arguments: dict[str, Any] = {"spec": to_dict(spec), "max_s": settings.audio_max_s}
    arguments["memory_mb"] = settings.audio_memory_mb
    command = [sys.executable, "-m", "serve.decode_upload", json.dumps(arguments)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)


def read_samples(
    child: subprocess.Popen[bytes], data: bytes, limit_s: float
) -> np.ndarray | Problem:
    """The samples that the child decodes, float32 [n], or the Problem on failure or timeout."""
    try:
        output, errors = child.communicate(data, limit_s)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        limit = f"{limit_s:g} s"
        return Problem(422, "audio_too_slow", f"the recording was not decoded within {limit}")
    if child.returncode == CANNOT_DECODE:
        return _unusable(*json.loads(errors))
    if child.returncode:
        detail = "the decoder crashed or ran out of memory"
        return Problem(422, "audio_unreadable", detail)
    return np.frombuffer(output, dtype=np.float32)


def _unusable(code: str, reason: str) -> Problem:
    return Problem(422, f"audio_{code}", f"the recording cannot be used: {reason}")
