"""TTMR++ as a module: two towers, two heads, one scale (Doh et al., ICASSP 2024).

Both sides return **un-normalised** vectors of the joint space. The loss and the index normalise. A
track's vector is the mean of its windows' un-normalised vectors, or a weighted mean. The log-mel is
part of the module, so callers pass waveforms.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from raymtr.errors import InputError
from raymtr.model.heads import build_heads
from raymtr.model.identity import rules_of
from raymtr.model.log_mel import LogMel
from raymtr.model.musicnn import MusicnnTower
from raymtr.model.resnet import ModifiedResNet
from raymtr.model.spectrogram_transformer import SpectrogramTransformer
from raymtr.model.text_tower import NoTextTower, TextTower, load_text_tower, read_text_tower
from raymtr.model.window_attention import WindowAttention
from raymtr.tower_specs import AudioSpec, AudioTowerSpec, TowersSpec

TEXT_PART = "text_tower"  # folder of a saved model: the text encoder's config and tokenizer


class TwoTowers(nn.Module):
    """Audio and text to [B, dim], un-normalised; `logit_scale` is the logarithm of the scale."""

    def __init__(
        self, spec: TowersSpec, text_tower: TextTower, audio_tower: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.spec = spec
        self.log_mel = LogMel(spec.audio)
        self.audio_tower = audio_tower or audio_tower_of(spec.audio_tower, spec.audio)
        self.text_tower = text_tower
        self.audio_projector, self.text_projector = build_heads(spec, text_tower.hidden)
        attends = spec.window_pooling == "attention"
        self.window_attention = WindowAttention(spec.dim) if attends else None
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1.0 / spec.temperature)))

    def embed_audio(self, waves: Tensor) -> Tensor:
        """float32 waves [B, window_samples] -> [B, dim]."""
        return self.embed_features(self.audio_features(waves))

    def audio_features(self, waves: Tensor) -> Tensor:
        """Audio-tower features of waves [B, window_samples]: [B, tower width]."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.spec.audio_tower.trainable):
            features: Tensor = self.audio_tower(self.log_mel(waves))
        return features

    def embed_features(self, features: Tensor) -> Tensor:
        """Audio-tower features [B, tower width] -> [B, dim]."""
        vectors: Tensor = self.audio_projector(features)
        return vectors

    def pool(self, windows: Tensor) -> Tensor:
        """Vectors of the windows of tracks [B, W, dim] -> vectors of the tracks [B, dim]."""
        if self.window_attention is None:
            return windows.mean(dim=1)
        vectors: Tensor = self.window_attention(windows)
        return vectors

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Tokens [B, T] -> [B, dim]."""
        return self.embed_states(self.text_tower(input_ids, attention_mask))

    def embed_states(self, states: Tensor) -> Tensor:
        """Text-tower states [B, hidden] -> [B, dim]."""
        vectors: Tensor = self.text_projector(states)
        return vectors

    def tokenize(self, sentences: list[str]) -> dict[str, Tensor]:
        """The text tower's `input_ids` and `attention_mask`, int64 [B, T], on the CPU."""
        return self.text_tower.tokenize(sentences)

    def rules(self) -> dict[str, Any]:
        """The settings, other than weights, windows and `spec.audio`, behind an audio vector."""
        return rules_of(self.spec)

    def save_parts(self, folder: Path) -> None:
        """Write everything but the weights into the model folder `folder`."""
        self.text_tower.config.save_pretrained(folder / TEXT_PART)
        self.text_tower.tokenizer.save_pretrained(folder / TEXT_PART)


def audio_tower_of(spec: AudioTowerSpec, audio: AudioSpec) -> nn.Module:
    """A new audio tower of the kind that `spec` names: a LogMel's output -> [B, dim]."""
    if spec.kind == "resnet":
        return ModifiedResNet(spec, audio.n_mels, semitones=audio.semitones)
    if spec.kind == "ast":
        return SpectrogramTransformer(spec, audio)
    return MusicnnTower(spec)


def build_towers(spec: TowersSpec, *, seed: int, text_folder: str | None = None) -> TwoTowers:
    """A new audio tower and the pretrained text tower in `text_folder`, or that the spec names.

    A ResNet's weights are random; musicnn's are its authors', unless the spec wants random ones; an
    AST's are those of its source. The same spec and seed give the same weights. The global random
    state is not changed. A ResNet is stored channels last, which makes a training step on a CPU 1.5
    times faster.
    """
    text_tower = load_text_tower(spec.text_tower, text_folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        towers = TwoTowers(spec, text_tower)
    fill_audio_tower(towers.audio_tower, spec.audio_tower)
    return towers


def fill_audio_tower(tower: nn.Module, spec: AudioTowerSpec) -> None:
    """Give a new tower its initial weights and memory layout, in place; see `build_towers`."""
    if isinstance(tower, ModifiedResNet):
        tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    elif isinstance(tower, SpectrogramTransformer) or (
        isinstance(tower, MusicnnTower) and spec.weights == "packaged"
    ):
        tower.read_weights()


def blank_towers(spec: TowersSpec, text_folder: str | None = None) -> TwoTowers:
    """Towers with uninitialised weights, for a checkpoint that fills every one.

    The text tower's config and tokenizer come from `text_folder`, or as `spec` names them.
    """
    with UnfilledWeights():
        return TwoTowers(spec, read_text_tower(spec.text_tower, text_folder))


def blank_audio_side(spec: TowersSpec, *, text_hidden: int) -> TwoTowers:
    """As `blank_towers`, without a text tower; the text head is kept, since it is small."""
    with UnfilledWeights():
        return TwoTowers(spec, NoTextTower(text_hidden))


class NoAudioTower(nn.Module):
    """A placeholder for an audio tower that is not loaded; it has no weights and rejects audio."""

    def forward(self, mel: Tensor) -> Tensor:
        """Raises InputError."""
        raise InputError("this model was loaded with text_only=True: it hears no audio")


def blank_text_side(spec: TowersSpec, text_folder: str) -> TwoTowers:
    """As `blank_towers`, without an audio tower; the audio head is kept, since it is small."""
    with UnfilledWeights():
        text_tower = read_text_tower(spec.text_tower, text_folder)
        return TwoTowers(spec, text_tower, NoAudioTower())


class UnfilledWeights(TorchFunctionMode):
    """Skip random initialisation; saves six seconds where RoBERTa's weights are overwritten."""

    FILLS = frozenset({"normal_", "uniform_", "kaiming_uniform_", "trunc_normal_"})

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or return its target unchanged where `func` only fills it."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in self.FILLS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)
