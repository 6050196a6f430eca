"""Backbones: the features of a window by any trained model, before its head; frozen, for transfer.

Names that need no run: `log-mel` is the mean and the spread of each mel band, and `random:NAME` the
audio tower of the model NAME with random weights. Both are what a trained backbone must beat.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.errors import InputError
from raymtr.model.exact import exact_float32
from raymtr.model.log_mel import LogMel
from raymtr.model.two_towers import TwoTowers, audio_tower_of, fill_audio_tower
from raymtr.mulap.folder import read_mulap
from raymtr.mulap.marker import is_mulap
from raymtr.tower_specs import AudioSpec, AudioTowerSpec

LOG_MEL, RANDOM = "log-mel", "random:"
SETTLED_ON = 64  # noise windows that give a random tower's batch norms their statistics


@dataclass(frozen=True)
class FeatureSpec:
    """The input and output of a backbone: the audio of a window, and the width of its features."""

    audio: AudioSpec
    dim: int


class Backbone:
    """Windows float32 [W, window_samples] -> features float32 [W, dim], one window at a time."""

    def __init__(
        self, spec: FeatureSpec, fingerprint: str, hear: Callable[[Tensor], Tensor]
    ) -> None:
        self.spec, self.fingerprint, self._hear = spec, fingerprint, hear

    @torch.inference_mode()
    def embed_windows(self, windows: np.ndarray) -> np.ndarray:
        """The features of each window; a row has the same bits with any other rows."""
        waves = torch.from_numpy(np.ascontiguousarray(windows, np.float32))
        with exact_float32():
            rows = [self._hear(wave[None])[0] for wave in waves]
        return torch.stack(rows).numpy() if rows else np.empty((0, self.spec.dim), np.float32)


def open_backbone(source: str, *, seed: int = 0) -> Backbone:
    """The backbone of a MuLaP run's or a raymtr model's folder, or of one of the names above.

    `seed` is for random weights. Raises InputError on any other `source`.
    """
    if source == LOG_MEL:
        return _log_mel()
    spec, hear, fingerprint = open_tower(source, seed=seed)
    return Backbone(spec, fingerprint, hear)


def open_tower(source: str, *, seed: int = 0) -> tuple[FeatureSpec, nn.Sequential, str]:
    """The log-mel and the audio tower of `open_backbone` as a module, and their fingerprint.

    The module is in evaluation mode. Raises InputError for `log-mel`, which has no tower.
    """
    if source == LOG_MEL:
        raise InputError(f"{LOG_MEL} has no weights that could be trained; name a run or a model")
    if source.startswith(RANDOM):
        audio, spec, log_mel, tower, fingerprint = _random(source.removeprefix(RANDOM), seed)
    else:
        audio, spec, log_mel, tower, fingerprint = _trained(source)
    return FeatureSpec(audio, spec.dim), nn.Sequential(log_mel, tower).eval(), fingerprint


def _trained(source: str) -> tuple[AudioSpec, AudioTowerSpec, nn.Module, nn.Module, str]:
    """Audio, tower spec, log-mel, tower and fingerprint of a saved model."""
    if is_mulap(source):
        model, fingerprint = read_mulap(source)
        towers = model.towers
        return towers.audio, towers.audio_tower, model.log_mel, model.audio_tower, fingerprint
    from raymtr.model.pretrained import load_model

    loaded = load_model(source, audio_only=True)
    two = loaded.towers
    if not isinstance(two, TwoTowers):
        raise InputError(f"{source} is a CLAP, whose features before the head are not read here")
    spec = two.spec
    return spec.audio, spec.audio_tower, two.log_mel, two.audio_tower, loaded.fingerprint


def _random(source: str, seed: int) -> tuple[AudioSpec, AudioTowerSpec, nn.Module, nn.Module, str]:
    """The tower of `source` before any training; noise gives its batch norms their statistics."""
    audio, spec, log_mel, _, fingerprint = _trained(source)
    spec = replace(spec, trainable=True, weights="random", source="")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        tower = audio_tower_of(spec, audio)
        fill_audio_tower(tower, spec)
        noise = 0.1 * torch.randn(SETTLED_ON, audio.window_samples)
    for module in tower.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics of exactly what follows
    with torch.no_grad():
        tower.train()(log_mel(noise))
    return audio, spec, copy.deepcopy(log_mel), tower, f"random-{seed}-{fingerprint}"


def _log_mel() -> Backbone:
    audio = AudioSpec(window_s=3.0, level="removed")
    log_mel = LogMel(audio)

    def hear(waves: Tensor) -> Tensor:
        mel: Tensor = log_mel(waves)
        return torch.cat([mel.mean(dim=-1), mel.std(dim=-1)], dim=-1)

    return Backbone(FeatureSpec(audio, 2 * audio.n_mels), LOG_MEL, hear)
