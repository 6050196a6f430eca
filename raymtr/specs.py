"""Frozen facts: what a model hears, what it is made of, how it was trained.

One home for every number that must travel with the weights. Each spec is a frozen, keyword-only
dataclass of plain values, so it imports nothing, prints itself, and goes to and from JSON without
a framework; `from_dict` is strict, because a silently ignored key is a wrong experiment.

The audio numbers of the defaults are TTMR++'s (Doh et al., ICASSP 2024, arXiv 2410.03264).
"""

from __future__ import annotations

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from raymtr.errors import InputError

T = TypeVar("T")


def _at_least(least: float, spec: Any, *names: str) -> None:
    """Raise InputError where one of these settings lies below `least`."""
    for name in names:
        if getattr(spec, name) < least:
            raise InputError(f"{name} is at least {least:g}, got {getattr(spec, name)}")


Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class AudioSpec:
    """How audio becomes the log-mel picture a tower sees."""

    sample_rate: int = 22_050  # Hz, mono
    window_s: float = 10.0  # seconds in one window or clip
    n_fft: int = 1024  # samples
    hop: int = 220  # samples between frames
    n_mels: int = 128  # Slaney mel bands
    min_tail_s: float = 0.1  # a tail shorter than this gets no window of its own

    def __post_init__(self) -> None:
        _at_least(1, self, "sample_rate", "n_fft", "hop", "n_mels")
        _at_least(0.1, self, "window_s")
        _at_least(0, self, "min_tail_s")

    @property
    def window_samples(self) -> int:
        """Samples in one window."""
        return round(self.window_s * self.sample_rate)

    @property
    def frames(self) -> int:
        """Frames of one window: centred STFT with its last frame dropped (Doh et al.)."""
        return self.window_samples // self.hop


@dataclass(frozen=True, kw_only=True)
class AudioTowerSpec:
    """CLIP's ModifiedResNet with attention pooling (Radford et al. 2021, as in TTMR++)."""

    layers: tuple[int, int, int, int] = (3, 4, 6, 3)  # bottleneck blocks per stage
    width: int = 64  # channels of the first stage
    heads: int = 8  # of the attention pooling
    dim: int = 768  # output of the pooling


@dataclass(frozen=True, kw_only=True)
class TextTowerSpec:
    """Any `transformers` encoder, by hub name or folder."""

    source: str = "roberta-base"
    max_tokens: int = 128
    pooling: Literal["first", "mean"] = "first"  # first token, or mean over real tokens
    trainable: bool = True


@dataclass(frozen=True, kw_only=True)
class TowersSpec:
    """Two towers and their heads: everything needed to rebuild the model but its weights."""

    audio: AudioSpec = field(default_factory=AudioSpec)
    audio_tower: AudioTowerSpec = field(default_factory=AudioTowerSpec)
    text_tower: TextTowerSpec = field(default_factory=TextTowerSpec)
    dim: int = 128  # of the joint space
    temperature: float = 0.1  # start of the learned logit scale, ln(1 / temperature)


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Contrastive training. `global_batch` is over all workers; a step is one global batch."""

    steps: int = 32_768
    global_batch: int = 768  # sentences and clips, over all workers
    learning_rate: float = 5e-5
    min_learning_rate: float = 1e-9
    warmup_steps: int = 5_000
    weight_decay: float = 0.01
    seed: int = 0
    precision: Precision = "fp32"  # of the towers' forward; weights and loss stay fp32
    batch_norm: Literal["local", "shared", "frozen"] = "local"  # local: two workers != one
    mixture: Mapping[str, float] = field(default_factory=dict)  # dataset -> weight; {}: all alike
    workers: int = 1
    threads: int = 1  # torch threads of a worker; part of the settings, for it changes the weights
    use_gpu: bool = False
    checkpoint_every: int = 500  # steps
    validate_every: int = 500  # steps
    keep_checkpoints: int = 2

    def __post_init__(self) -> None:
        _at_least(1, self, "steps", "workers", "threads", "keep_checkpoints")
        _at_least(1, self, "checkpoint_every", "validate_every")
        _at_least(0, self, "learning_rate", "min_learning_rate", "warmup_steps", "weight_decay")
        _at_least(0, self, "seed")
        if self.global_batch < 2 or self.global_batch % self.workers:
            raise InputError(
                "global_batch is at least 2 and a multiple of workers, got "
                f"{self.global_batch} over {self.workers} workers"
            )


@dataclass(frozen=True, kw_only=True)
class EmbedSpec:
    """The embedding job: how wide it runs and what it refuses."""

    actors: int = 1  # model replicas; fewer for few tracks
    threads: int = 1  # torch threads of one replica
    use_gpu: bool = False
    precision: Precision = "fp32"
    tracks_per_block: int = 16  # unit of retry and of memory
    max_track_s: float = 3_600.0  # a longer track becomes an error row
    max_file_mb: float = 2_000.0
    max_decode_s: float = 600.0  # a decoder that is not done by then hangs; the track's error row

    def __post_init__(self) -> None:
        _at_least(1, self, "actors", "threads", "tracks_per_block", "max_decode_s")
        _at_least(0, self, "max_track_s", "max_file_mb")


@dataclass(frozen=True, kw_only=True)
class ToyLlamaSpec:
    """The base model made on the spot where none is given: its size and its pretraining."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    inner: int = 512  # of the gated feed-forward layers
    vocabulary: int = 4_096
    max_tokens: int = 512
    steps: int = 1_400
    learning_rate: float = 1.5e-3
    sentences: float = 0.34  # share of template sentences over random tags: they teach copying
    people: float = 0.25  # weight of a pair that people wrote: LoRA is to learn from those


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """LoRA on a Llama-family base; TTMR++'s values where the paper states them."""

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.05
    targets: str = "q_proj,v_proj"  # names of linear layers, with commas
    quantization: Literal["none", "8bit", "4bit"] = "none"  # of the frozen base; wants a GPU
    steps: int = 2_000
    batch: int = 12  # examples, over all workers
    learning_rate: float = 2e-5
    warmup: float = 0.05  # share of the steps
    max_tokens: int = 256  # of prompt and caption together
    mixture: Mapping[str, float] = field(default_factory=dict)  # source -> weight of its pairs
    faithful: float = 0.9  # share of pairs whose tags are made to fit the caption
    sentences: float = 0.0  # share of such sentences that LoRA learns from, as the toy base does
    seed: int = 0
    precision: Precision = "fp32"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    workers: int = 1
    threads: int = 1
    use_gpu: bool = False
    checkpoint_every: int = 200  # steps
    validate_every: int = 200
    toy: ToyLlamaSpec = field(default_factory=ToyLlamaSpec)


@dataclass(frozen=True, kw_only=True)
class CaptionSpec:
    """How a fine-tuned model writes: sampling, how often it is drawn again, how wide it runs."""

    temperature: float = 1.0
    top_k: int = 50
    tag_bias: float = 0.0  # added to the scores of a tag's word until it is written, piece by piece
    presence_penalty: float = 0.0  # taken from the score of a token that is already written
    max_new_tokens: int = 128
    draws: int = 4  # candidates for a caption; the best is kept
    passes: int = 2  # times that the unacceptable are drawn again, the first pass included
    batch: int = 32  # prompts given to `transformers` at once
    serve: Literal["merged", "adapter"] = "merged"  # adapter: vLLM gets it with each row
    actors: int = 1
    threads: int = 1
    use_gpu: bool = False
    cache_mib: int = 512  # vLLM's key-value cache on a CPU


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How a table is indexed and searched."""

    exact_below: int = 200_000  # vectors; up to here an in-memory matrix is exact and faster
    target_recall: float = 0.99  # at 10, on text and on audio queries; below it no index serves
    keep_versions: int = 2  # published builds kept for rollback, the live one included

    def __post_init__(self) -> None:
        _at_least(0, self, "exact_below", "target_recall")
        if self.target_recall > 1:
            raise InputError(f"target_recall is at most 1, got {self.target_recall}")
        _at_least(1, self, "keep_versions")


@dataclass(frozen=True, kw_only=True)
class ScanSpec:
    """Which folders of a library are no part of it, by name; case does not count."""

    skip_folders: tuple[str, ...] = (
        *("$RECYCLE.BIN", "RECYCLER", "#recycle", "@Recycle", "Network Trash Folder"),  # deleted
        *("@eaDir", "__MACOSX", "System Volume Information", "lost+found", "Temporary Items"),
        *("#snapshot", "@snapshot", "@Recently-Snapshot", "~snapshot", "GMT-*"),  # older states
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All of one recipe, and the root of every `--set key=value`."""

    recipe: str
    towers: TowersSpec = field(default_factory=TowersSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    embed: EmbedSpec = field(default_factory=EmbedSpec)
    search: SearchSpec = field(default_factory=SearchSpec)
    finetune: FinetuneSpec = field(default_factory=FinetuneSpec)
    caption: CaptionSpec = field(default_factory=CaptionSpec)
    scan: ScanSpec = field(default_factory=ScanSpec)


def to_dict(spec: Any) -> dict[str, Any]:
    """A spec as plain JSON values; the inverse of `from_dict`."""
    return typing.cast(dict[str, Any], _plain(spec))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def from_dict(cls: type[T], values: Mapping[str, Any], *, where: str = "") -> T:
    """Build a spec from plain values; absent keys keep their defaults.

    Raises InputError, naming the key and the accepted ones, on an unknown key or a wrong type.
    """
    hints = typing.get_type_hints(cls)
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    built: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{where}{key}"
        if key not in known:
            raise InputError(f"unknown setting {name!r}; accepted here: {', '.join(known)}")
        built[key] = _typed(hints[key], value, name)
    for key, item in known.items():
        required = (
            item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        )
        if required and key not in built:
            raise InputError(f"setting {where}{key!r} is missing")
    try:
        return cls(**built)
    except InputError as error:  # of the spec's own checks, which do not know where it stands
        raise InputError(f"setting {where}{error}") from None


def _typed(hint: Any, value: Any, name: str) -> Any:
    """`value` checked against (and, from JSON, turned into) the type `hint`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise InputError(f"setting {name!r} is a group of settings, got {value!r}")
        return from_dict(typing.cast(type, hint), value, where=f"{name}.")
    if origin is Literal:
        if value not in arguments:
            raise InputError(f"setting {name!r} accepts {', '.join(arguments)}; got {value!r}")
        return value
    if origin is tuple and arguments[-1] is Ellipsis:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"setting {name!r} is a list, got {value!r}")
        return tuple(_typed(arguments[0], item, name) for item in value)
    if origin is tuple:
        if not isinstance(value, (list, tuple)) or len(value) != len(arguments):
            raise InputError(f"setting {name!r} is a list of {len(arguments)}, got {value!r}")
        return tuple(_typed(a, v, name) for a, v in zip(arguments, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise InputError(f"setting {name!r} is a mapping, got {value!r}")
        return {str(k): _typed(arguments[1], v, f"{name}.{k}") for k, v in value.items()}
    if origin is types.UnionType:
        return None if value is None else _typed(arguments[0], value, name)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise InputError(f"setting {name!r} is a {hint.__name__}, got {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"setting {name!r} is a finite number, got {value!r}")
    return value
