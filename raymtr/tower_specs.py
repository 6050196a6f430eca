"""Specs of the two towers: audio input, encoders and heads.

They have every number that must be stored with the weights. The default audio settings are TTMR++'s
(Doh et al., ICASSP 2024, arXiv 2410.03264).
"""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat

from raymtr.errors import InputError
from raymtr.validation import MOST_TOKENS, MOST_WIDE, Count, Width, at_most, spec

PATCH = 16  # side of an AST's patches, in bands and in frames
STRIDE = 32  # total stride of a ResNet, in bands and in frames; a smaller input leaves no output
SEMITONES = 72  # six octaves from A1 on
# The audio that musicnn's networks were trained on (Pons & Serra 2019), and their feature sizes.
MUSICNN_AUDIO: dict[str, Any] = {
    **{"sample_rate": 16_000, "window_s": 3.0, "n_fft": 512, "hop": 256, "n_mels": 96},
    "compression": "log1p",
}
MUSICNN_TAGS = 100  # of both taggers
MUSICNN_DIM = {"musicnn": 3_512, "musicnn-msd": 1_756}  # by kind of audio tower


@spec
class AudioSpec:
    """How audio becomes the log-mel spectrogram of a tower."""

    sample_rate: Annotated[int, Field(ge=1, le=1_000_000)] = 22_050  # Hz, mono
    window_s: Annotated[float, Field(ge=0.1, le=600)] = 10.0  # seconds in one window or clip
    n_fft: Annotated[int, Field(ge=16, le=MOST_WIDE)] = 1024  # samples
    hop: Annotated[int, Field(ge=1, le=1_000_000)] = 220  # samples between frames
    n_mels: Count = 128  # Slaney mel bands
    min_tail_s: NonNegativeFloat = 0.1  # a tail shorter than this gets no separate window
    # Of a clip: "removed" makes the result independent of gain, "kept" is for released weights.
    level: Literal["kept", "removed"] = "kept"
    # "decades": log10 down to 80 dB below the maximum; "log1p": log10(1 + 10,000 power).
    compression: Literal["decades", "log1p"] = "decades"
    semitones: bool = False  # of a ResNet: also hear the semitones (model.semitones)

    def __post_init__(self) -> None:
        at_most(self.window_s, self, "min_tail_s")
        at_most(self.n_fft // 2, self, "n_mels")  # with more bands than bins some bands are empty

    @property
    def window_samples(self) -> int:
        """Samples in one window."""
        return round(self.window_s * self.sample_rate)

    @property
    def frames(self) -> int:
        """Frames of one window: centred STFT with its last frame dropped (Doh et al.)."""
        return self.window_samples // self.hop


@spec
class AudioTowerSpec:
    """CLIP's ModifiedResNet with attention pooling (Radford et al. 2021, as in TTMR++).

    Or pretrained taggers (model.musicnn) of fixed size: "musicnn" has MSD's and MagnaTagATune's,
    "musicnn-msd" only MSD's. Or "ast", a transformer over patches (model.spectrogram_transformer).
    """

    kind: Literal["resnet", "musicnn", "musicnn-msd", "ast"] = "resnet"
    trainable: bool = True
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)  # bottleneck blocks per stage
    width: Annotated[int, Field(ge=2, le=MOST_WIDE)] = 64  # channels of the first stage
    band_input: bool = False  # of a ResNet: see model.resnet.BandInput
    band_statistics: bool = False  # of a ResNet: see model.resnet.BandStatistics
    tempogram: bool = False  # of a ResNet: see model.resnet.Tempogram
    heads: Count = 8  # of the attention pooling, or of each layer of an AST
    dim: Width = 768  # output of the pooling; the width of an AST
    depth: Width = 12  # layers of an AST
    inner: Width = 3072  # width inside the feed-forward part of each
    stride: Annotated[int, Field(ge=1, le=PATCH)] = 10  # of its patches, in bands and frames
    source: str = ""  # pretrained AST: a folder or a hub's name; "": random weights
    weights: Literal["packaged", "random"] = "packaged"  # initial ones of musicnn

    def __post_init__(self) -> None:
        if self.weights == "random" and not self.trainable:
            raise InputError("weights=random of an audio tower need trainable=true")
        if self.dim != MUSICNN_DIM.get(self.kind, self.dim):
            raise InputError(f"dim of kind={self.kind} is {MUSICNN_DIM[self.kind]}, got {self.dim}")
        if self.kind == "ast" and self.dim % self.heads:
            raise InputError(f"dim is a multiple of heads, got {self.dim} and {self.heads}")
        if self.source and self.kind != "ast":
            raise InputError(f"source is for kind=ast, got {self.source!r} with kind={self.kind}")
        if min(self.layers) < 1:
            raise InputError(f"layers count from 1 in each stage, got {list(self.layers)}")
        for name in ("band_input", "band_statistics", "tempogram"):
            if getattr(self, name) and self.kind != "resnet":
                raise InputError(f"{name} is for kind=resnet, got kind={self.kind}")
        if self.kind == "resnet" and (self.width % 2 or self.width * 32 % self.heads):
            raise InputError(
                f"width is even, and 32 times it a multiple of heads, got {self.width} and "
                f"{self.heads}"
            )


@spec
class TextTowerSpec:
    """Any `transformers` encoder, by hub name or folder."""

    source: str = "roberta-base"
    max_tokens: Annotated[int, Field(ge=3, le=MOST_TOKENS)] = 128
    pooling: Literal["first", "mean"] = "first"  # first token, or mean over real tokens
    trainable: bool = True

    def __post_init__(self) -> None:
        if not self.source.strip():
            raise InputError("source is the name or the folder of a text encoder, got ''")


@spec
class TowersSpec:
    """Two towers and their heads: everything needed to rebuild the model except its weights."""

    audio: AudioSpec = field(default_factory=AudioSpec)
    audio_tower: AudioTowerSpec = field(default_factory=AudioTowerSpec)
    text_tower: TextTowerSpec = field(default_factory=TextTowerSpec)
    dim: Width = 128  # of the joint space
    # linear: TTMR++'s; two_layers: with a hidden layer of HEAD_WIDTH; tags: no learnt head, the
    # joint space is musicnn's tags (model.heads).
    heads: Literal["linear", "two_layers", "tags"] = "linear"
    # Of a track's windows: their mean, or a learned weight for each (model.window_attention).
    window_pooling: Literal["mean", "attention"] = "mean"
    # Initial value: the learned logit scale starts at ln(1 / temperature).
    temperature: Annotated[float, Field(ge=1e-3, le=100)] = 0.1

    def __post_init__(self) -> None:
        kind = self.audio_tower.kind
        if self.heads == "tags" and (kind != "musicnn" or self.dim != MUSICNN_TAGS):
            raise InputError(f"heads=tags go with audio_tower.kind=musicnn and dim={MUSICNN_TAGS}")
        if kind in MUSICNN_DIM:
            wrong = {k: v for k, v in MUSICNN_AUDIO.items() if getattr(self.audio, k) != v}
            if wrong:
                raise InputError(f"audio: audio_tower.kind={kind} was trained with {wrong}")
        elif self.audio.compression != "decades":
            raise InputError("audio: compression=log1p is for audio_tower.kind=musicnn")
        if self.audio.semitones and kind != "resnet":
            raise InputError(f"audio: semitones are for audio_tower.kind=resnet, got kind={kind}")
        elif min(self.audio.n_mels, self.audio.frames) < STRIDE:
            raise InputError(
                f"audio: a window of {self.audio.n_mels} mel bands by {self.audio.frames} frames "
                f"is too small: the audio tower needs {STRIDE} of each; raise audio.window_s or "
                "n_mels, or lower hop"
            )
