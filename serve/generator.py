"""The generator deployment: generates audio from text with MusicLM, streamed window by window.

A clip occupies a core until it is complete. So a replica generates one clip at a time, a few
requests wait, and further ones are refused with 429. If the client disconnects or the deadline
passes, sampling stops at the next token.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

from raymtr.errors import InputError, UnusableError
from raymtr.generation.musiclm import MusicLM, Scene, check_story
from raymtr.generation.musiclm_folder import read_musiclm
from raymtr.generation.requests import check_seed
from raymtr.generation.sound_file import pcm_bytes, wav_head
from raymtr.workspace import Workspace
from serve.messages import Problem
from serve.settings import ServeSettings

RETRY_S = 10  # Retry-After of a full queue: about the time a clip takes
QUEUE_FULL = Problem(429, "generator_full", "the queue for clips is full", RETRY_S)


@dataclass(frozen=True)
class ClipRequest:
    """The prompt, length and seed of one clip."""

    text: str
    seconds: float
    seed: int

    def check(self, max_s: float) -> None:
        """Raise InputError if the request is invalid, or longer than `max_s` seconds."""
        check_story([Scene(self.text)], self.seconds)
        check_seed(self.seed)
        if self.seconds > max_s:
            raise InputError(
                f"this endpoint generates at most {max_s:g} seconds (generate_max_s), got "
                f"{self.seconds:g}"
            )


class _StoppedError(Exception):
    """The client disconnected, or the deadline passed."""


class Generator:
    """Generates clips, one at a time."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises InputError or UnusableError if the model cannot be read."""
        self.settings = settings
        folder = Workspace.open(settings.workspace).trained(settings.generation_model)
        self.model: MusicLM = read_musiclm(folder, device=settings.device)
        self._lock = asyncio.Lock()
        self._pending = 0  # requests that run or wait

    async def stream(self, request: ClipRequest) -> AsyncGenerator[bytes | Problem, None]:
        """The bytes of a WAV, window by window. A Problem is the last part and means failure."""
        if self._pending > self.settings.generate_queued:
            yield QUEUE_FULL
            return
        cancelled = threading.Event()
        deadline = time.monotonic() + self.settings.generate_timeout_s
        self._pending += 1
        try:
            async with self._lock:
                async for part in self._parts(request, cancelled, deadline):
                    yield part
        except _StoppedError:
            late = f"the clip was not generated within {self.settings.generate_timeout_s:g} s"
            yield Problem(504, "timeout", late)
        except UnusableError as error:
            yield Problem(503, "model_unavailable", str(error))
        finally:
            cancelled.set()
            self._pending -= 1

    async def _parts(
        self, request: ClipRequest, cancelled: threading.Event, deadline: float
    ) -> AsyncIterator[bytes]:
        """The WAV header with the first window, then the other windows."""

        def stop_if_late() -> None:
            if cancelled.is_set() or time.monotonic() > deadline:
                raise _StoppedError

        model, story = self.model, [Scene(request.text)]
        windows = model.stream([story], request.seconds, [request.seed], before_token=stop_if_late)
        part = wav_head(
            round(request.seconds * model.sample_rate),
            model.sample_rate,
            prompt=request.text,
            seed=request.seed,
            made_by=model.made_by,
        )
        # A cancelled request's thread ends at its next token.
        while (window := await asyncio.to_thread(next, windows, None)) is not None:
            yield part + pcm_bytes(window[0])
            part = b""
