"""The generator deployment: makes sound from words by MusicLM, and sends it window by window.

A clip keeps a core busy for its whole length, so a replica makes one at a time and few wait for it;
the next is told to come back (429). A clip whose client has left, or that is late, ends at its next
token.
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

AGAIN_S = 10  # Retry-After of a full queue: about the time a clip takes
FULL = Problem(429, "generator_full", "enough clips are asked for already", AGAIN_S)


@dataclass(frozen=True)
class ClipRequest:
    """A clip that is asked for."""

    text: str
    seconds: float
    seed: int

    def check(self, most_s: float) -> None:
        """Raise InputError where it cannot be made, or is longer than `most_s`."""
        check_story([Scene(self.text)], self.seconds)
        check_seed(self.seed)
        if self.seconds > most_s:
            raise InputError(
                f"this endpoint makes clips of at most {most_s:g} seconds (generate_max_s), got "
                f"{self.seconds:g}"
            )


class _EndedError(Exception):
    """The client left, or the clip is late."""


class Generator:
    """Makes clips, one at a time."""

    def __init__(self, settings: ServeSettings) -> None:
        """Raises InputError or UnusableError where the model cannot be read."""
        self.settings = settings
        folder = Workspace.open(settings.workspace).trained(settings.generation_model)
        self.model: MusicLM = read_musiclm(folder, device=settings.device)
        self._turn = asyncio.Lock()
        self._asked = 0  # in work or waiting

    async def stream(self, wanted: ClipRequest) -> AsyncGenerator[bytes | Problem, None]:
        """The bytes of a WAV, window by window, or the Problem that ends them."""
        if self._asked > self.settings.generate_queued:
            yield FULL
            return
        left = threading.Event()
        until = time.monotonic() + self.settings.generate_timeout_s
        self._asked += 1
        try:
            async with self._turn:
                async for part in self._parts(wanted, left, until):
                    yield part
        except _EndedError:
            late = f"the clip was not made within {self.settings.generate_timeout_s:g} s"
            yield Problem(504, "timeout", late)
        except UnusableError as error:
            yield Problem(503, "model_unavailable", str(error))
        finally:
            left.set()
            self._asked -= 1

    async def _parts(
        self, wanted: ClipRequest, left: threading.Event, until: float
    ) -> AsyncIterator[bytes]:
        """The head of the file with the first window, then the others."""

        def go_on() -> None:
            if left.is_set() or time.monotonic() > until:
                raise _EndedError

        model, story = self.model, [Scene(wanted.text)]
        windows = model.stream([story], wanted.seconds, [wanted.seed], before_token=go_on)
        part = wav_head(
            round(wanted.seconds * model.sample_rate),
            model.sample_rate,
            prompt=wanted.text,
            seed=wanted.seed,
            made_by=model.made_by,
        )
        # The thread of a clip that was given up ends at its next token.
        while (window := await asyncio.to_thread(next, windows, None)) is not None:
            yield part + pcm_bytes(window[0])
            part = b""
