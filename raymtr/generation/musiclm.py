"""MusicLM ready to use: words to sound, window by window.

Text becomes M_A, M_A semantic tokens for all of the clip, and then each window of the coarse stage
is refined by the fine stage and decoded, so that sound comes before all tokens are written. A
melody, where one is given, stands beside M_A; one that is shorter than the clip begins again.
Several prompts are sampled together; a clip's tokens depend on its own seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from raymtr.audio import AudioError
from raymtr.errors import InputError
from raymtr.generation.melody import crop_starts
from raymtr.generation.parts import Parts
from raymtr.generation.sampling import Sampler, next_window, sample, slide
from raymtr.generation.sound_file import Provenance
from raymtr.generation.stages import StageName, Stages
from raymtr.model.model import Model

LONGEST_S, LONGEST_PROMPT = 600.0, 1_000  # seconds, of a clip and of a melody; characters


@dataclass(frozen=True)
class Scene:
    """A text from `start_s` on."""

    text: str
    start_s: float = 0.0


@dataclass(frozen=True)
class _Asked:
    """What one call makes: M_A int64 [B, 1, levels] of each scene, and how the clips are drawn.

    `melodies` float32 [S] at 16 kHz are one a clip, or none.
    """

    joint: Sequence[Tensor]
    melodies: Sequence[np.ndarray]
    starts_s: Sequence[float]
    seconds: float
    generators: Sequence[torch.Generator]
    before_token: Callable[[], None]

    def joint_at(self, at_s: float) -> Tensor:
        """M_A of the scene at a time."""
        return self.joint[max(n for n, s in enumerate(self.starts_s) if s <= at_s + 1e-6)]


class MusicLM:
    """The stages, the parts under them and the joint model's text side."""

    def __init__(
        self, stages: Stages, parts: Parts, joint: Model, *, fingerprint: str, device: str = "cpu"
    ) -> None:
        self.stages, self.parts, self.joint = stages.eval().to(device), parts, joint
        self.fingerprint, self.device = fingerprint, torch.device(device)

    @property
    def sample_rate(self) -> int:
        """Of the sound, in Hz."""
        return int(self.parts.codec.sample_rate)

    @property
    def made_by(self) -> Provenance:
        """The fingerprints that a generated file names."""
        parts = self.parts
        return {
            "model": self.fingerprint,
            "parts": parts.fingerprint,
            "joint_model": parts.joint_model,
        }

    def score(self, text: str, samples: np.ndarray) -> float | None:
        """The cosine of a text and a sound by the joint model; None where the sound is silent."""
        try:
            heard = self.joint.encode_audio([(samples, self.sample_rate)])
        except AudioError:
            return None
        return float((self.joint.encode_text([text]) * heard).sum())

    def generate(
        self,
        texts: Sequence[str],
        seconds: float,
        seeds: Sequence[int],
        *,
        melodies: Sequence[np.ndarray] = (),
    ) -> list[np.ndarray]:
        """Mono float32 [S] for each text. Raises InputError as `stream`."""
        stories = [[Scene(text)] for text in texts]
        parts = list(self.stream(stories, seconds, seeds, melodies=melodies))
        return [np.concatenate([part[row] for part in parts]) for row in range(len(texts))]

    def stream(
        self,
        stories: Sequence[Sequence[Scene]],
        seconds: float,
        seeds: Sequence[int],
        *,
        melodies: Sequence[np.ndarray] = (),
        before_token: Callable[[], None] = lambda: None,
    ) -> Iterator[list[np.ndarray]]:
        """Sound of each story in turn, float32 [s] a story and window, until `seconds` are full.

        All stories change their texts at the same times. `melodies` are one a story, mono float32
        [S] at 16 kHz, or none. What `before_token` raises ends the sampling. Raises InputError as
        `check_story`, and where the model has no melody part for a melody.
        """
        for story in stories:
            check_story(story, seconds)
        starts = [scene.start_s for scene in stories[0]]
        if any([scene.start_s for scene in story] != starts for story in stories):
            raise InputError("stories that are sampled together change at the same times")
        joint = [
            torch.from_numpy(
                self.parts.joint.of_text(
                    self.joint.encode_text([story[n].text for story in stories])
                )
            )[:, None].to(self.device)
            for n in range(len(starts))
        ]
        yield from self.sound(
            joint, starts, seconds, seeds, melodies=melodies, before_token=before_token
        )

    def sound(
        self,
        joint: Sequence[Tensor],
        starts_s: Sequence[float],
        seconds: float,
        seeds: Sequence[int],
        *,
        melodies: Sequence[np.ndarray] = (),
        before_token: Callable[[], None] = lambda: None,
    ) -> Iterator[list[np.ndarray]]:
        """As `stream`, from tokens M_A int64 [B, 1, levels] of each scene."""
        if melodies and self.parts.melody is None:
            raise InputError(
                f"model {self.fingerprint} has no melody part: run `raymtr tokenize` and `raymtr "
                "train` with tokens.melody.steps above 0, or leave the melody out"
            )
        if len(melodies) not in (0, len(seeds)):
            raise InputError(f"{len(melodies)} melodies for {len(seeds)} clips; give each its own")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        asked = _Asked(joint, melodies, starts_s, seconds, generators, before_token)
        heard = self._semantic(asked) if self.stages.spec.hears_semantic else None
        yield from self._windows(asked, heard)

    def _semantic(self, asked: _Asked) -> Tensor:
        """Semantic tokens int64 [B, T, 1] of the whole."""
        rate = self.parts.semantic.frame_hz
        return slide(
            self.stages.semantic,
            lambda *frames: self._condition(asked, rate, *frames),
            self._empty(len(asked.generators), 1),
            math.ceil(asked.seconds * rate),
            round(self.stages.crop_s("semantic") * rate),
            self._sampler("semantic", asked),
            asked.generators,
            changes=[round(start * rate) for start in asked.starts_s[1:]],
        )

    def _condition(
        self, asked: _Asked, rate: float, first: int, last: int, done: int
    ) -> list[Tensor]:
        """M_A, and the melody where the model has that part, of a window's frames at a rate.

        They are `first` to `last`, of which those from `done` are to be written.
        """
        length_s = (last - first) / rate
        played = self.stages.no_melody(len(asked.generators), length_s)
        if self.parts.melody is not None and asked.melodies:
            starts = [first / rate + start for start in crop_starts(length_s)]
            tokens = [self.parts.melody.encode(melody, starts) for melody in asked.melodies]
            played = [torch.from_numpy(np.stack(tokens))]
        return [asked.joint_at(done / rate), *(tokens.to(self.device) for tokens in played)]

    def _windows(self, asked: _Asked, semantic: Tensor | None) -> Iterator[list[np.ndarray]]:
        """Coarse tokens window by window, each refined and decoded at once."""
        rate, slow = self._rate, self.parts.semantic.frame_hz
        total, crop = math.ceil(asked.seconds * rate), round(self.stages.crop_s("coarse") * rate)
        rows = len(asked.generators)
        coarse = self._empty(rows, self.stages.spec.coarse)
        fine = self._empty(rows, self.stages.tokens.levels - self.stages.spec.coarse)
        sent = 0
        while (done := coarse.shape[1]) < total:
            first, last = next_window(done, total, crop)
            given = self._condition(asked, rate, first, last, done)
            if semantic is not None:
                span = slice(int(first / rate * slow), max(1, round(last / rate * slow)))
                given.append(semantic[:, span])
            window = sample(
                *(self.stages.coarse, given, coarse[:, first:], last - first),
                *(self._sampler("coarse", asked), asked.generators),
            )
            coarse = torch.cat([coarse[:, :first], window], dim=1)
            fine = self._fine(asked, coarse, fine)
            end = last if last == total else last - self._margin
            sound = self._decode(coarse, fine, sent, end)
            length = round(asked.seconds * self.sample_rate) - round(sent / rate * self.sample_rate)
            yield [wave[:length] for wave in sound]
            sent = end

    def _fine(self, asked: _Asked, coarse: Tensor, fine: Tensor) -> Tensor:
        """The fine levels of all frames of `coarse`, continuing `fine`."""
        return slide(
            self.stages.fine,
            lambda first, last, done: [coarse[:, first:last]],
            fine,
            coarse.shape[1],
            round(self.stages.crop_s("fine") * self._rate),
            self._sampler("fine", asked),
            asked.generators,
        )

    def _decode(self, coarse: Tensor, fine: Tensor, first: int, last: int) -> list[np.ndarray]:
        """Sound of the frames from `first` to `last`, decoded with a margin on both sides."""
        before = max(0, first - self._margin)
        codes = torch.cat([coarse, fine], dim=2)[:, before : last + self._margin].cpu().numpy()
        hop = self.sample_rate / self._rate
        begin, end = round((first - before) * hop), round((last - before) * hop)
        return [self.parts.codec.decode(row)[begin:end] for row in codes]

    @property
    def _margin(self) -> int:
        """Token frames that a decoder hears around those it gives: half a second."""
        return math.ceil(self._rate / 2)

    @cached_property
    def _rate(self) -> float:
        return float(self.parts.codec.frame_hz)

    def _empty(self, rows: int, levels: int) -> Tensor:
        return torch.empty(rows, 0, levels, dtype=torch.int64, device=self.device)

    def _sampler(self, name: StageName, asked: _Asked) -> Sampler:
        spec = self.stages.spec
        temperature = float(getattr(spec, f"{name}_temperature"))
        return Sampler(temperature, spec.guidance, asked.before_token)


def check_story(story: Sequence[Scene], seconds: float) -> None:
    """Raise InputError on an empty or endless text, a length out of range, unsorted scenes."""
    if not 1 <= seconds <= LONGEST_S:
        raise InputError(
            f"a clip lasts 1 to {LONGEST_S:g} seconds, got {seconds:g}; join several for more"
        )
    if not story:
        raise InputError("there is no text to make sound from; give one")
    for scene in story:
        if not scene.text.strip():
            raise InputError("the text is empty; say what is to be heard, such as 'slow piano'")
        if len(scene.text) > LONGEST_PROMPT:
            raise InputError(
                f"a text has at most {LONGEST_PROMPT} characters, this one {len(scene.text)}"
            )
    starts = [scene.start_s for scene in story]
    if starts[0] != 0 or any(a >= b for a, b in pairwise(starts)):
        raise InputError(
            f"a story's texts start at 0 s and each after the one before, got {starts}"
        )
    if starts[-1] >= seconds:
        raise InputError(f"a text starts at {starts[-1]:g} s, after the end at {seconds:g} s")
