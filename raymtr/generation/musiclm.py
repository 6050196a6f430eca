"""MusicLM for inference: text to audio, part by part.

The text is encoded as M_A. The semantic stage samples semantic tokens for the complete clip. Then
the coarse stage samples window by window; each window is refined by the fine stage and decoded, so
that the first audio is ready before all tokens are sampled. An acoustic stage samples all levels of
a frame at once, so its windows are decoded in parts.
An optional melody is a second condition next to M_A; a melody shorter than the clip is repeated.
Several prompts are sampled as one batch; the tokens of a clip depend only on its own seed.
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
from raymtr.generation.sampling import Changes, Sampler, next_window, sample_in_parts, slide
from raymtr.generation.sound_file import Provenance
from raymtr.generation.stages import StageName, Stages
from raymtr.model.model import Model

LONGEST_S = 600.0  # of a clip, and of a melody
LONGEST_PROMPT = 1_000  # characters
PART_S = 3.0  # seconds that the acoustic stage samples before they are decoded


@dataclass(frozen=True)
class Scene:
    """A prompt that applies from `start_s` seconds on."""

    text: str
    start_s: float = 0.0


@dataclass(frozen=True)
class _Request:
    """The input of one call: M_A int64 [B, 1, levels] of each scene, and the sampling options.

    `melodies` are float32 [S] at 16 kHz, one per clip, or empty.
    """

    joint: Sequence[Tensor]
    melodies: Sequence[np.ndarray]
    starts_s: Sequence[float]
    seconds: float
    generators: Sequence[torch.Generator]
    before_token: Callable[[], None]

    def joint_at(self, time_s: float) -> Tensor:
        """M_A of the scene at a time."""
        return self.joint[max(n for n, s in enumerate(self.starts_s) if s <= time_s + 1e-6)]


class MusicLM:
    """The stages, their parts (tokenizers), and the joint model, which encodes prompts."""

    def __init__(
        self, stages: Stages, parts: Parts, joint: Model, *, fingerprint: str, device: str = "cpu"
    ) -> None:
        self.stages, self.parts, self.joint = stages.eval().to(device), parts, joint
        self.fingerprint, self.device = fingerprint, torch.device(device)

    @property
    def sample_rate(self) -> int:
        """Sample rate of the audio in Hz."""
        return int(self.parts.codec.sample_rate)

    @property
    def made_by(self) -> Provenance:
        """The fingerprints that are written to a generated file."""
        parts = self.parts
        return {
            "model": self.fingerprint,
            "parts": parts.fingerprint,
            "joint_model": parts.joint_model,
        }

    def score(self, text: str, samples: np.ndarray) -> float | None:
        """The cosine of a text and mono audio [S] by the joint model; None for silence."""
        try:
            vector = self.joint.encode_audio([(samples, self.sample_rate)])
        except AudioError:
            return None
        return float((self.joint.encode_text([text]) * vector).sum())

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
        """Audio of all stories, one list of float32 [s] per part, `seconds` long in total.

        All stories must change their texts at the same times. `melodies` are one per story, mono
        float32 [S] at 16 kHz, or empty. `before_token` is called before each token; an exception
        that it raises ends the sampling. Raises InputError as `check_story`, and for melodies if
        the model has no melody part.
        """
        for story in stories:
            check_story(story, seconds)
        starts = [scene.start_s for scene in stories[0]]
        if any([scene.start_s for scene in story] != starts for story in stories):
            raise InputError("stories of one batch must change their texts at the same times")
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
                "train` with tokens.melody.steps above 0, or omit the melody"
            )
        if len(melodies) not in (0, len(seeds)):
            raise InputError(f"{len(melodies)} melodies for {len(seeds)} clips; give one per clip")
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        request = _Request(joint, melodies, starts_s, seconds, generators, before_token)
        semantic = self._semantic(request) if self.stages.spec.hears_semantic else None
        yield from self._waves(request, semantic)

    def _semantic(self, request: _Request) -> Tensor:
        """Semantic tokens int64 [B, T, 1] of the complete clips."""
        rate = self.parts.semantic.frame_hz
        return slide(
            self.stages.semantic,
            lambda *frames: self._condition(request, rate, *frames),
            self._empty(len(request.generators), 1),
            math.ceil(request.seconds * rate),
            round(self.stages.crop_s("semantic") * rate),
            self._sampler("semantic", request),
            request.generators,
            changes=Changes.at(request.starts_s[1:], request.seconds, rate),  # the tune goes on
        )

    def _condition(
        self, request: _Request, rate: float, first: int, last: int, done: int
    ) -> list[Tensor]:
        """The conditions of a window: M_A, and melody tokens if the model has a melody part.

        The window has the frames `first` to `last` at `rate` Hz; those before `done` are a prefix.
        """
        length_s = (last - first) / rate
        melody = self.stages.no_melody(len(request.generators), length_s)
        if self.parts.melody is not None and request.melodies:
            starts = [first / rate + start for start in crop_starts(length_s)]
            tokens = [self.parts.melody.encode(samples, starts) for samples in request.melodies]
            melody = [torch.from_numpy(np.stack(tokens))]
        return [request.joint_at(done / rate), *(tokens.to(self.device) for tokens in melody)]

    def _waves(self, request: _Request, semantic: Tensor | None) -> Iterator[list[np.ndarray]]:
        """Decodes acoustic tokens as they are sampled."""
        total, done = math.ceil(request.seconds * self._rate), 0  # frames, `done` were decoded
        samples = round(request.seconds * self.sample_rate)
        for acoustic in self._acoustic(request, semantic, total):
            count = acoustic.shape[1]
            end = count if count == total else count - self._margin
            if end > done:
                length = samples - round(done / self._rate * self.sample_rate)
                yield [wave[:length] for wave in self._decode(acoustic, done, end)]
                done = end

    def _acoustic(self, request: _Request, semantic: Tensor | None, total: int) -> Iterator[Tensor]:
        """Tokens of all levels so far, int64 [B, F, levels], in growing length up to `total`.

        They are yielded window by window, by the acoustic stage every PART_S seconds.
        """
        rate, semantic_rate = self._rate, self.parts.semantic.frame_hz
        name: StageName = "acoustic" if self.stages.spec.depth_layers else "coarse"
        stage, crop = self.stages.of(name), round(self.stages.crop_s(name) * rate)
        acoustic = self._empty(len(request.generators), self.stages.tokens.levels)
        changes = Changes.at(request.starts_s[1:], self.stages.spec.story_prefix_s, rate)
        while (done := acoustic.shape[1]) < total:
            first, last = next_window(done, total, crop, changes)
            conditions = self._condition(request, rate, first, last, done)
            if semantic is not None:
                start = int(first / rate * semantic_rate)
                stop = max(1, round(last / rate * semantic_rate))
                conditions.append(semantic[:, start:stop])
            before = acoustic[:, :first]
            for window in sample_in_parts(
                *(stage, conditions, acoustic[:, first:, : stage.output.levels], last - first),
                *(self._sampler(name, request), request.generators),
                part=round(PART_S * rate) if name == "acoustic" else last - first,
            ):
                if name == "acoustic":
                    acoustic = torch.cat([before, window], dim=1)
                else:
                    coarse = torch.cat([before[:, :, : stage.output.levels], window], dim=1)
                    acoustic = self._refine(request, coarse, acoustic)
                yield acoustic

    def _refine(self, request: _Request, coarse: Tensor, acoustic: Tensor) -> Tensor:
        """All levels of the frames of `coarse`, continuing the fine levels of `acoustic`."""
        fine = slide(
            self.stages.fine,
            lambda first, last, done: [coarse[:, first:last]],
            acoustic[:, :, coarse.shape[2] :],
            coarse.shape[1],
            round(self.stages.crop_s("fine") * self._rate),
            self._sampler("fine", request),
            request.generators,
        )
        return torch.cat([coarse, fine], dim=2)

    def _decode(self, acoustic: Tensor, first: int, last: int) -> list[np.ndarray]:
        """Audio of the frames `first` to `last`, decoded with a margin on both sides."""
        before = max(0, first - self._margin)
        codes = acoustic[:, before : last + self._margin].cpu().numpy()
        hop = self.sample_rate / self._rate
        begin, end = round((first - before) * hop), round((last - before) * hop)
        return [self.parts.codec.decode(row)[begin:end] for row in codes]

    @property
    def _margin(self) -> int:
        """Context of the decoder on each side in token frames: half a second."""
        return math.ceil(self._rate / 2)

    @cached_property
    def _rate(self) -> float:
        return float(self.parts.codec.frame_hz)

    def _empty(self, rows: int, levels: int) -> Tensor:
        return torch.empty(rows, 0, levels, dtype=torch.int64, device=self.device)

    def _sampler(self, name: StageName, request: _Request) -> Sampler:
        spec = self.stages.spec
        if name == "acoustic":
            temperatures = [spec.coarse_temperature] * spec.coarse + [spec.fine_temperature]
        else:
            temperatures = [float(getattr(spec, f"{name}_temperature"))]
        return Sampler(temperatures, spec.guidance, request.before_token)


def check_story(story: Sequence[Scene], seconds: float) -> None:
    """Raise InputError on an empty or too long text, a length out of range, unsorted scenes."""
    if not 1 <= seconds <= LONGEST_S:
        raise InputError(
            f"a clip has 1 to {LONGEST_S:g} seconds, got {seconds:g}; join several for more"
        )
    if not story:
        raise InputError("there is no text to generate audio from; give one")
    for scene in story:
        if not scene.text.strip():
            raise InputError("the text is empty; describe the music, such as 'slow piano'")
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
