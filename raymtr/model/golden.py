"""Golden vectors: a few fixed inputs, and the vectors a model gave for them when it was saved.

They test mel, towers, pooling and tokenizer together. One sound is not enough: bfloat16 from the
start of the tower passed with a chord and failed with music. So the sounds are synthetic and
varied: tonal, noisy, percussive, quiet. In float32 correct vectors agree to 1e-8 or better on any
machine; with TF32 they differ by 1e-6 to 1e-2.

How far bfloat16 differs from float32 depends on the weights (1e-9 to 1e-2), so no single limit
works. Therefore the bfloat16 vectors are stored (pinned) too. They are computed with the same
layers in float32 as on all devices, with arithmetic that any CPU can do. With the same layers in
float32 rounding is the same, so recomputed vectors are nearer to the pinned ones than float32's are
(on trained towers by a factor of 20). With other layers in float32 they are further away (by 8).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raymtr.model.audio_forward import Towers, folded
from raymtr.model.exact import exact_float32
from raymtr.model.resnet import ModifiedResNet, pooled
from raymtr.model.torch_convolutions import TorchConvolutions
from raymtr.tower_specs import AudioSpec

GOLDEN_TEXTS = ("a slow piano ballad", "music track Blue by Nobody", "")
LEAST_COSINE = {"fp32": 0.9999995, "bf16": 0.999}  # least mean over one side's golden inputs


def golden_sounds(spec: AudioSpec) -> np.ndarray:
    """The fixed windows, float32 [6, window_samples]; older models pinned only the first.

    A chord under a sweep, noise, a tone, drum beats, an arpeggio, a quiet sweep.
    """
    seconds = np.arange(spec.window_samples) / spec.sample_rate
    turns = 2 * math.pi * seconds
    noise = np.random.default_rng(0).standard_normal(spec.window_samples)
    chord = sum(np.sin(2 * math.pi * hz * seconds) for hz in (220.0, 277.18, 329.63))
    sweep = np.sin(2 * math.pi * (100.0 + 150.0 * seconds) * seconds)
    beat = 0.5 + 0.5 * np.cos(2 * math.pi * 2.0 * seconds)
    sounds = (
        0.1 * chord * beat + 0.2 * sweep,
        0.1 * noise,
        0.5 * np.sin(440.0 * turns),
        0.5 * noise * np.exp(-12.0 * (seconds % 0.5)),
        0.2 * _arpeggio(turns),
        1e-3 * np.sin((50.0 + 20.0 * seconds) * turns),
    )
    return np.asarray(sounds, dtype=np.float32)


def _arpeggio(turns: np.ndarray) -> np.ndarray:
    """Sixteen plucked notes of four partials each, evenly spaced over the window."""
    notes = np.zeros_like(turns)
    for place, hz in enumerate((261.63, 329.63, 392.0, 523.25) * 4):
        since = turns - turns[-1] * place / 16
        pluck = np.where(since < 0, 0.0, np.exp(-since.clip(min=0.0) / 1.5))
        notes += sum(pluck * np.sin(hz * k * turns) / k for k in (1, 2, 3, 4))
    return notes


def golden_vectors(towers: Towers) -> dict[str, Any]:
    """Un-normalised vectors of the golden inputs, from the plain float32 forward on a CPU."""
    plain = copy.deepcopy(towers).cpu().eval()
    waves = torch.from_numpy(golden_sounds(plain.spec.audio))
    with torch.inference_mode(), exact_float32():
        sounds = torch.cat([plain.embed_audio(wave[None]) for wave in waves])
        text = [plain.embed_text(**plain.tokenize([text]))[0] for text in GOLDEN_TEXTS]
        resnet = isinstance(getattr(plain, "audio_tower", None), ModifiedResNet)
        near = _in_bf16(plain, waves).tolist() if resnet else None
    return {
        "texts": list(GOLDEN_TEXTS),
        "text": [vector.tolist() for vector in text],
        "audio": sounds[0].tolist(),  # a separate field: an older raymtr reads only this one
        "sounds": sounds[1:].tolist(),
        "sounds_bf16": near,  # of all sounds; null unless a ResNet (others use autocast)
    }


def _in_bf16(towers: Any, waves: Tensor) -> Tensor:
    """Vectors of `waves` with bfloat16 convolutions, in the arrangement all devices share."""
    tower, head = towers.audio_tower, towers.audio_projector
    convolutions = TorchConvolutions(folded(tower), waves.device, torch.bfloat16, fused=False)
    mels = [towers.log_mel(wave[None]) for wave in waves]
    maps = [convolutions(mel).float() for mel in mels]
    both = zip(maps, mels, strict=True)
    return torch.cat([head(pooled(tower.attn_pool, tower.wide_parts(), x, mel)) for x, mel in both])


def pinned_audio(golden: Mapping[str, Any], dtype: torch.dtype) -> tuple[np.ndarray, float]:
    """Expected vectors [N, dim] of the first N golden sounds in `dtype`, and the least mean cosine.

    Older models pinned one sound, in float32.
    """
    exact = np.array([golden["audio"], *golden.get("sounds", ())])
    if dtype == torch.float32:
        return exact, LEAST_COSINE["fp32"]
    if golden.get("sounds_bf16") is None:
        return exact, LEAST_COSINE["bf16"]
    near = np.array(golden["sounds_bf16"])
    return near, min(float(cosines(near, exact).mean()), LEAST_COSINE["fp32"])


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of each row of `a` [N, D] with the same row of `b`, float64 [N]."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a * b).sum(axis=1) / np.maximum(norms, 1e-300))
