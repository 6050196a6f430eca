"""A tiny stack trained on two kinds of sound, low tones and high noise, in some seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from raymtr.generation.codec import AUDIO, fit_mel_codec
from raymtr.generation.joint import fit_joint
from raymtr.generation.parts import Parts
from raymtr.generation.quantizer import fit_quantizer
from raymtr.generation.semantic import MusicnnEncoder, SemanticTokens
from raymtr.generation.stages import Stages
from raymtr.generation_specs import MusicLMSpec, TokensSpec
from raymtr.model.musicnn import Musicnn
from raymtr.recipes import tiny
from raymtr.specs import TrainSpec
from raymtr.training.musiclm import Crops, MusicLMBatches, MusicLMStep
from raymtr.vectors import unit

SECONDS = 3.0
DIM = tiny().towers.dim
TOKENS = TokensSpec(
    levels=3,
    codes=16,
    semantic_codes=8,
    semantic_hz=12.5,
    joint_levels=2,
    joint_codes=2,
    rounds=4,
    decoder_width=32,
    decoder_layers=2,
    decoder_steps=60,
    decoder_batch=2,
)
MUSICLM = MusicLMSpec(
    layers=2,
    heads=2,
    width=32,
    inner=64,
    dropout=0.0,
    coarse=1,
    semantic_s=2.0,
    coarse_s=1.0,
    fine_s=1.0,
)
DEPTH = replace(MUSICLM, hears_semantic=False, depth_layers=1, acoustic_s=1.0)
TRAIN = TrainSpec(objective="musiclm", steps=60, global_batch=8, learning_rate=1e-2, warmup_steps=5)
KINDS = ("low", "high")


def sound(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A low tone, or noise above 4 kHz, float32 [S] at 16 kHz."""
    time = np.arange(round(SECONDS * AUDIO.sample_rate)) / AUDIO.sample_rate
    if kind == "low":
        return (0.3 * np.sin(2 * np.pi * rng.uniform(150, 300) * time)).astype(np.float32)
    spectrum = np.fft.rfft(rng.normal(size=len(time)))
    spectrum[: len(spectrum) // 2] = 0
    return (0.2 * np.fft.irfft(spectrum, len(time))).astype(np.float32)


def vectors_of(kind: str, rng: np.random.Generator) -> np.ndarray:
    """What a joint model might give for three windows of such a sound, float32 [3, DIM]."""
    return unit(np.eye(DIM)[KINDS.index(kind)] + rng.normal(0, 0.01, (3, DIM)))


def centroid_hz(samples: np.ndarray) -> float:
    """The mean frequency of a sound, weighed by power."""
    power = np.abs(np.fft.rfft(samples)) ** 2
    return float((np.fft.rfftfreq(len(samples), 1 / AUDIO.sample_rate) * power).sum() / power.sum())


@pytest.fixture(scope="session")
def sounds() -> list[tuple[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [(kind, sound(kind, rng)) for kind in KINDS * 8]


@pytest.fixture(scope="session")
def parts(sounds: list[tuple[str, np.ndarray]]) -> Parts:
    """Parts over a musicnn of random weights: the package is not needed."""
    torch.manual_seed(0)
    codec, _ = fit_mel_codec([wave for _, wave in sounds], TOKENS)
    semantic = SemanticTokens(MusicnnEncoder(Musicnn()), TOKENS)
    frames = torch.cat([semantic.frames(wave) for _, wave in sounds])
    semantic.quantizer = fit_quantizer(frames, 1, TOKENS.semantic_codes, rounds=4, seed=0)
    rng = np.random.default_rng(1)
    audio = np.concatenate([vectors_of(kind, rng) for kind, _ in sounds])
    return Parts(TOKENS, codec, semantic, fit_joint(audio, audio, TOKENS), joint_model="none")


@pytest.fixture(scope="session")
def token_table(sounds: list[tuple[str, np.ndarray]], parts: Parts) -> pa.Table:
    """Rows as of `tokens/<fingerprint>/tracks/`."""
    rng = np.random.default_rng(2)
    return pa.Table.from_pylist(
        [
            {
                "track_id": f"{kind}{n}",
                "seconds": SECONDS,
                "semantic": parts.semantic.encode(wave),
                "acoustic": parts.codec.encode(wave).reshape(-1),
                "starts_s": [0.0, 1.0, 2.0],
                "vectors": vectors_of(kind, rng).reshape(-1),
            }
            for n, (kind, wave) in enumerate(sounds)
        ]
    )


@pytest.fixture(scope="session", params=[MUSICLM, DEPTH], ids=["stages", "depth"])
def spec(request: pytest.FixtureRequest) -> MusicLMSpec:
    chosen: MusicLMSpec = request.param
    return chosen


@pytest.fixture(scope="session")
def crops(token_table: pa.Table, parts: Parts, spec: MusicLMSpec) -> Crops:
    return Crops(token_table, np.arange(len(token_table)), parts, spec)


@pytest.fixture(scope="session")
def new_step(spec: MusicLMSpec) -> Callable[[], MusicLMStep]:
    """A function: an untrained step, always with the same weights."""

    def make() -> MusicLMStep:
        torch.manual_seed(0)
        stages = Stages(TOKENS, spec, codec_codes=TOKENS.codes)
        return MusicLMStep(stages, TRAIN, torch.device("cpu"))

    return make


@pytest.fixture(scope="session")
def trained(crops: Crops, new_step: Callable[[], MusicLMStep]) -> tuple[Stages, list[dict]]:
    """The stages after TRAIN.steps, and the figures of each step."""
    step, batches = new_step(), MusicLMBatches(crops, TRAIN, rank=0, workers=1)
    figures = [step(batches.make(number), number) for number in range(TRAIN.steps)]
    return step.towers.eval(), figures
