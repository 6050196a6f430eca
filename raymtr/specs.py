"""Specs: frozen settings of a model's audio input, its towers, its training and the jobs.

They hold every number that must be stored with the weights. Each spec is a frozen, keyword-only
dataclass of plain values, so it needs no framework and converts to and from JSON. `from_dict` is
strict, because a silently ignored key gives a wrong experiment.

The default audio settings are TTMR++'s (Doh et al., ICASSP 2024, arXiv 2410.03264).
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

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def _at_least(least: float, spec: DataclassInstance, *names: str) -> None:
    """Raise InputError where one of these settings is below `least`."""
    for name in names:
        if getattr(spec, name) < least:
            raise InputError(f"{name} is at least {least:g}, got {getattr(spec, name)}")


def _at_most(most: float, spec: DataclassInstance, *names: str) -> None:
    """Raise InputError where one of these settings is above `most`."""
    for name in names:
        if getattr(spec, name) > most:
            raise InputError(f"{name} is at most {most:g}, got {getattr(spec, name)}")


def _above(bound: float, spec: DataclassInstance, *names: str) -> None:
    """Raise InputError where one of these settings is not above `bound`."""
    for name in names:
        if not getattr(spec, name) > bound:
            raise InputError(f"{name} is above {bound:g}, got {getattr(spec, name)}")


def _weights(spec: DataclassInstance, name: str) -> None:
    """Raise InputError on negative weights or weights that are all zero; {} is allowed."""
    weights = getattr(spec, name)
    if weights and (min(weights.values()) < 0 or not sum(weights.values())):
        raise InputError(
            f"{name} takes weights of at least 0, one of them above 0; got {dict(weights)}"
        )


Precision = Literal["fp32", "bf16"]
TEXT_TYPES = ("tags", "caption", "metadata", "similar_artists", "playlist")  # of a track
MOST_WIDE = 65_536  # limit of widths and counts: channels, dimensions, threads, actors
MOST_TOKENS = 1 << 20  # limit of any model's input or output
MOST_SEED = (1 << 63) - 1  # torch's limit
FEWEST_TOKENS = 32  # of prompt and caption together, to fit any
FEWEST_WORDS = 300  # of a toy's vocabulary: bytes, special tokens, and a few merges
PATCH = 16  # side of an AST's patches, in bands and in frames
CONTRASTIVE_ONLY = (  # settings of training that another objective does not read
    *("chunk", "checkpoint_activations", "layer_decay", "lora_audio", "lora_text"),
    "false_negatives",
)
STRIDE = 32  # total stride of a ResNet, in bands and in frames; a smaller input leaves no output
# The audio that musicnn's networks were trained on (Pons & Serra 2019), and their feature sizes.
MUSICNN_AUDIO: dict[str, Any] = {
    **{"sample_rate": 16_000, "window_s": 3.0, "n_fft": 512, "hop": 256, "n_mels": 96},
    "compression": "log1p",
}
MUSICNN_TAGS = 100  # of both taggers
MUSICNN_DIM = {"musicnn": 3_512, "musicnn-msd": 1_756}  # by kind of audio tower


@dataclass(frozen=True, kw_only=True)
class AudioSpec:
    """How audio becomes the log-mel spectrogram of a tower."""

    sample_rate: int = 22_050  # Hz, mono
    window_s: float = 10.0  # seconds in one window or clip
    n_fft: int = 1024  # samples
    hop: int = 220  # samples between frames
    n_mels: int = 128  # Slaney mel bands
    min_tail_s: float = 0.1  # a tail shorter than this gets no window of its own
    # Of a clip: "removed" makes the result independent of gain, "kept" is for released weights.
    level: Literal["kept", "removed"] = "kept"
    # "decades": log10 down to 80 dB below the maximum; "log1p": log10(1 + 10,000 power).
    compression: Literal["decades", "log1p"] = "decades"

    def __post_init__(self) -> None:
        _at_least(1, self, "sample_rate", "hop", "n_mels")
        _at_least(16, self, "n_fft")
        _at_least(0.1, self, "window_s")
        _at_least(0, self, "min_tail_s")
        _at_most(1_000_000, self, "sample_rate", "hop")
        _at_most(MOST_WIDE, self, "n_fft")
        _at_most(600, self, "window_s")
        _at_most(self.window_s, self, "min_tail_s")
        _at_most(self.n_fft // 2, self, "n_mels")  # with more bands than bins some bands are empty

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
    """CLIP's ModifiedResNet with attention pooling (Radford et al. 2021, as in TTMR++).

    Or pretrained taggers (model.musicnn) of fixed size: "musicnn" has MSD's and MagnaTagATune's,
    "musicnn-msd" only MSD's. Or "ast", a transformer over patches (model.spectrogram_transformer).
    """

    kind: Literal["resnet", "musicnn", "musicnn-msd", "ast"] = "resnet"
    trainable: bool = True
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)  # bottleneck blocks per stage
    width: int = 64  # channels of the first stage
    heads: int = 8  # of the attention pooling, or of each layer of an AST
    dim: int = 768  # output of the pooling; the width of an AST
    depth: int = 12  # layers of an AST
    inner: int = 3072  # width inside the feed-forward part of each
    stride: int = 10  # of its patches of PATCH by PATCH, in bands and in frames
    source: str = ""  # pretrained AST: a folder or a hub's name; "": random weights
    weights: Literal["packaged", "random"] = "packaged"  # initial ones of musicnn

    def __post_init__(self) -> None:
        if self.weights == "random" and not self.trainable:
            raise InputError("weights=random of an audio tower need trainable=true")
        if self.dim != MUSICNN_DIM.get(self.kind, self.dim):
            raise InputError(f"dim of kind={self.kind} is {MUSICNN_DIM[self.kind]}, got {self.dim}")
        _at_least(1, self, "heads", "dim", "depth", "inner", "stride")
        _at_least(2, self, "width")
        _at_most(MOST_WIDE, self, "width", "dim", "depth", "inner")
        _at_most(PATCH, self, "stride")
        if self.kind == "ast" and self.dim % self.heads:
            raise InputError(f"dim is a multiple of heads, got {self.dim} and {self.heads}")
        if self.source and self.kind != "ast":
            raise InputError(f"source is for kind=ast, got {self.source!r} with kind={self.kind}")
        if min(self.layers) < 1:
            raise InputError(f"layers count from 1 in each stage, got {list(self.layers)}")
        if self.kind == "resnet" and (self.width % 2 or self.width * 32 % self.heads):
            raise InputError(
                f"width is even, and 32 times it a multiple of heads, got {self.width} and "
                f"{self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class TextTowerSpec:
    """Any `transformers` encoder, by hub name or folder."""

    source: str = "roberta-base"
    max_tokens: int = 128
    pooling: Literal["first", "mean"] = "first"  # first token, or mean over real tokens
    trainable: bool = True

    def __post_init__(self) -> None:
        _at_least(3, self, "max_tokens")  # begin and end token, and one of text
        _at_most(MOST_TOKENS, self, "max_tokens")
        if not self.source.strip():
            raise InputError("source is the name or the folder of a text encoder, got ''")


@dataclass(frozen=True, kw_only=True)
class TowersSpec:
    """Two towers and their heads: everything needed to rebuild the model except its weights."""

    audio: AudioSpec = field(default_factory=AudioSpec)
    audio_tower: AudioTowerSpec = field(default_factory=AudioTowerSpec)
    text_tower: TextTowerSpec = field(default_factory=TextTowerSpec)
    dim: int = 128  # of the joint space
    # linear: TTMR++'s; two_layers: with a hidden layer of HEAD_WIDTH; tags: no learnt head, the
    # joint space is musicnn's tags (model.heads).
    heads: Literal["linear", "two_layers", "tags"] = "linear"
    temperature: float = 0.1  # initial value; the learned logit scale starts at ln(1 / temperature)

    def __post_init__(self) -> None:
        _at_least(1, self, "dim")
        _at_least(1e-3, self, "temperature")
        _at_most(MOST_WIDE, self, "dim")
        _at_most(100, self, "temperature")
        kind = self.audio_tower.kind
        if self.heads == "tags" and (kind != "musicnn" or self.dim != MUSICNN_TAGS):
            raise InputError(f"heads=tags go with audio_tower.kind=musicnn and dim={MUSICNN_TAGS}")
        if kind in MUSICNN_DIM:
            wrong = {k: v for k, v in MUSICNN_AUDIO.items() if getattr(self.audio, k) != v}
            if wrong:
                raise InputError(f"audio: audio_tower.kind={kind} was trained with {wrong}")
        elif self.audio.compression != "decades":
            raise InputError("audio: compression=log1p is for audio_tower.kind=musicnn")
        elif min(self.audio.n_mels, self.audio.frames) < STRIDE:
            raise InputError(
                f"audio: a window of {self.audio.n_mels} mel bands by {self.audio.frames} frames "
                f"is too small: the audio tower needs {STRIDE} of each; raise audio.window_s or "
                "n_mels, or lower hop"
            )


@dataclass(frozen=True, kw_only=True)
class TrainSpec:
    """Training. `global_batch` is over all workers; a step is one global batch."""

    steps: int = 32_768
    global_batch: int = 768  # pairs of sentence and clip, over all workers
    learning_rate: float = 5e-5
    min_learning_rate: float = 1e-9
    warmup_steps: int = 5_000
    weight_decay: float = 0.01
    seed: int = 0
    precision: Precision = "fp32"  # of the towers' forward; weights and loss stay fp32
    batch_norm: Literal["local", "shared", "frozen"] = "local"  # local: 2 workers != 1
    mixture: Mapping[str, float] = field(default_factory=dict)  # dataset -> weight; {}: equal
    # Text type -> weight: one type of those a track has is drawn (MuLan). {}: TTMR++'s sentences.
    texts: Mapping[str, float] = field(default_factory=dict)
    text_filter: bool = False  # leave out captions that name nothing of music (MuLan)
    # masked: rows of one artist, or whose sentences have the same words, are no negatives
    false_negatives: Literal["kept", "masked"] = "kept"
    gain_db: float = 0.0  # each clip is quieter by a random 0 to this many dB
    chunk: int = 0  # rows embedded at a time, by gradient caching; 0: the whole batch
    checkpoint_activations: bool = False  # recompute layers in the backward: less memory
    layer_decay: float = 1.0  # learning rate of each layer, relative to the layer above it
    lora_audio: int = 0  # rank of LoRA on the audio tower, whose own weights stay; 0: no LoRA
    lora_text: int = 0  # the same on the text tower
    objective: Literal["contrastive", "mulap", "musiclm"] = "contrastive"
    schedule: Literal["cosine", "linear"] = "cosine"  # of the learning rate after the warm-up
    beta2: float = 0.999  # of AdamW
    workers: int = 1
    min_workers: int = 0  # start with this many, grow to `workers` when available; 0: all
    threads: int = 1  # torch threads per worker; a setting, because it changes the weights
    use_gpu: bool = False
    checkpoint_every: int = 500  # steps
    validate_every: int = 500  # steps
    keep_checkpoints: int = 2
    cache_gib: float = 50.0  # decoded audio cached per machine; the rest is decoded on demand
    cache_folder: str = ""  # cache path; default: the local workspace or the temporary folder

    def __post_init__(self) -> None:
        _at_least(1, self, "steps", "workers", "threads", "keep_checkpoints")
        _at_least(1, self, "checkpoint_every", "validate_every")
        _at_least(0, self, "min_learning_rate", "warmup_steps", "weight_decay")
        _at_least(0, self, "seed", "min_workers", "cache_gib")
        _above(0, self, "learning_rate")
        _at_most(MOST_SEED, self, "seed")
        _at_most(MOST_WIDE, self, "threads", "workers")
        _at_least(0, self, "beta2")
        _at_most(1, self, "weight_decay", "beta2")
        _at_most(self.workers, self, "min_workers")
        _at_least(0, self, "gain_db", "chunk", "lora_audio", "lora_text")
        _at_most(100, self, "gain_db")
        _at_most(MOST_WIDE, self, "lora_audio", "lora_text")
        _above(0, self, "layer_decay")
        _at_most(1, self, "layer_decay")
        _weights(self, "mixture")
        _weights(self, "texts")
        if unknown := sorted(set(self.texts) - set(TEXT_TYPES)):
            raise InputError(f"texts weighs {', '.join(TEXT_TYPES)}; got {unknown[0]!r}")
        if self.global_batch < max(2, self.workers):
            raise InputError(
                "global_batch is at least 2 and a row for each worker, got "
                f"{self.global_batch} over {self.workers} workers"
            )


@dataclass(frozen=True, kw_only=True)
class MulapSpec:
    """MuLaP's two streams and its three losses (Manco et al., ICASSP 2022).

    The audio tower, the text tower and the length of a chunk (`audio.window_s`) are those of
    `towers`. A frozen text tower still learns its layers after the first co-attention.
    """

    clip_s: float = 20.0  # of a track in one draw, cut into chunks
    text_layers: int = (
        6  # the first ones of the text tower; co-attention stands before the last two
    )
    audio_layers: int = 6  # co-attention stands before the first two
    audio_width: int = 256
    cross_width: int = 1_024  # of the co-attention
    heads: int = 8
    dropout: float = 0.1
    masked: float = 0.15  # share of the words and of the chunks
    mismatched: float = 0.5  # share of rows with a sentence of another track
    words_weight: float = 0.1
    chunks_weight: float = 4.0
    match_weight: float = 2.0

    def __post_init__(self) -> None:
        _at_least(2, self, "text_layers", "audio_layers")
        _at_least(1, self, "heads")
        _at_least(0, self, "dropout", "words_weight", "chunks_weight", "match_weight")
        _above(0, self, "clip_s", "masked", "mismatched")
        _at_most(0.9, self, "dropout", "masked", "mismatched")
        _at_most(600, self, "clip_s")
        _at_most(MOST_WIDE, self, "audio_width", "cross_width", "audio_layers", "text_layers")
        for name in ("audio_width", "cross_width"):
            width = getattr(self, name)
            if width < 2 or width % 2 or width % self.heads:
                raise InputError(
                    f"{name} is even and a multiple of heads, got {width} and {self.heads}"
                )


@dataclass(frozen=True, kw_only=True)
class TokensSpec:
    """How audio becomes tokens (MusicLM, Agostinelli et al., arXiv 2301.11325).

    The parts that are trained here read 16 kHz: a codec of pairs of log-mel frames, 25 a second,
    with a learnt decoder, and k-means over musicnn's middle layer. A hub's part is named by its
    kind and by a source: a hub's name or a folder.
    """

    codec: Literal["mel", "encodec", "dac", "mimi"] = "mel"
    codec_source: str = ""  # of a hub's codec
    levels: int = 12  # of the codec
    codes: int = 1_024  # a level; of a hub's codec its own
    semantic: Literal["musicnn", "hubert", "wav2vec2-bert"] = "musicnn"
    semantic_source: str = ""  # of a hub's encoder
    semantic_layer: int = 7  # of a hub's encoder
    semantic_codes: int = 1_024
    semantic_hz: float = 25.0
    joint_levels: int = 12
    joint_codes: int = 1_024
    fit_tracks: int = 2_000  # training tracks that the parts are fitted on
    fit_s: float = 10.0  # of each of them
    rounds: int = 20  # of k-means over what was sampled
    decoder_width: int = 256  # of the codec's decoder
    decoder_layers: int = 8
    decoder_steps: int = 20_000
    decoder_batch: int = 16  # clips of a second
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(1, self, "levels", "semantic_layer", "joint_levels", "fit_tracks", "rounds")
        _at_least(2, self, "codes", "semantic_codes", "joint_codes", "decoder_width")
        _at_least(1, self, "decoder_layers", "decoder_steps", "decoder_batch", "fit_s")
        _at_most(64, self, "levels", "joint_levels")
        _at_most(32_767, self, "codes", "semantic_codes", "joint_codes")
        _at_most(MOST_WIDE, self, "decoder_width", "decoder_layers")
        _at_most(600, self, "fit_s")
        _above(0, self, "semantic_hz")
        _at_most(50, self, "semantic_hz")
        _at_least(0, self, "seed")
        _at_most(MOST_SEED, self, "seed")
        for name, own in (("codec", "mel"), ("semantic", "musicnn")):
            if (getattr(self, name) == own) == bool(getattr(self, f"{name}_source")):
                raise InputError(
                    f"{name}_source names the weights of a hub's {name}, and {name}={own} has "
                    f"none; got {getattr(self, name)!r} with {getattr(self, f'{name}_source')!r}"
                )


@dataclass(frozen=True, kw_only=True)
class MusicLMSpec:
    """MusicLM's three decoder-only stages, and how they are sampled."""

    layers: int = 24
    heads: int = 16
    width: int = 1_024
    inner: int = 4_096  # width inside the feed-forward part
    dropout: float = 0.1
    coarse: int = 4  # levels of the codec in the coarse stage; the fine stage has the others
    semantic_s: float = 30.0  # crop of each stage
    coarse_s: float = 10.0
    fine_s: float = 3.0
    # Share of rows trained without the condition, and the weight of the condition in sampling
    # (classifier-free guidance); 0 and 1 are the paper's.
    unconditional: float = 0.0
    guidance: float = 1.0
    semantic_temperature: float = 1.0
    coarse_temperature: float = 0.95
    fine_temperature: float = 0.4

    def __post_init__(self) -> None:
        _at_least(1, self, "layers", "heads", "coarse", "guidance")
        _at_least(0, self, "dropout", "unconditional")
        _at_most(0.9, self, "dropout", "unconditional")
        _at_most(100, self, "guidance")
        _at_most(MOST_WIDE, self, "layers", "width", "inner")
        for stage in ("semantic", "coarse", "fine"):
            _at_least(1, self, f"{stage}_s")
            _at_most(600, self, f"{stage}_s")
            _above(0, self, f"{stage}_temperature")
        if self.width < 1 or self.width % self.heads:
            raise InputError(f"width is a multiple of heads, got {self.width} and {self.heads}")
        if self.guidance != 1 and not self.unconditional:
            raise InputError(
                f"guidance={self.guidance:g} compares with rows trained without the condition; set "
                "unconditional, such as 0.1"
            )


@dataclass(frozen=True, kw_only=True)
class EmbedSpec:
    """The embedding job: its parallelism and its limits."""

    actors: int = 1  # model replicas; fewer for few tracks
    min_actors: int = 0  # start with this many, grow to `actors` when available; 0: all
    threads: int = 1  # torch threads of one replica
    use_gpu: bool = False
    gpu_share: float = 1.0  # of a GPU, of one replica; below 1, several share one
    precision: Precision = "fp32"
    windows_per_block: int = 384  # unit of retries and memory; the model's batch is another
    partitions: int = 0  # of the catalog, each with its own driver; 0: by the catalog's size
    drivers: int = 1  # partitions at once; the replicas are shared out among them
    max_track_s: float = 3_600.0  # a longer track becomes an error row
    max_file_mb: float = 2_000.0
    max_decode_s: float = 600.0  # a decoder that takes longer is hung: an error row

    def __post_init__(self) -> None:
        _at_least(1, self, "actors", "threads", "windows_per_block", "max_decode_s", "drivers")
        _at_least(0, self, "max_track_s", "max_file_mb", "min_actors", "partitions")
        _above(0, self, "gpu_share")
        _at_most(1, self, "gpu_share")
        _at_most(self.actors, self, "min_actors")
        _at_most(MOST_WIDE, self, "actors", "threads")


@dataclass(frozen=True, kw_only=True)
class ToyLlamaSpec:
    """The base model trained where none is given: its size and its pretraining."""

    width: int = 256
    layers: int = 4
    heads: int = 4
    inner: int = 512  # of the gated feed-forward layers
    vocabulary: int = 4_096
    max_tokens: int = 512
    steps: int = 1_400
    learning_rate: float = 1.5e-3
    sentences: float = 0.34  # share of template sentences over random tags, which teach copying
    people: float = 0.25  # weight of a pair by people: LoRA is to learn from those

    def __post_init__(self) -> None:
        _at_least(1, self, "layers", "heads", "inner", "steps")
        _at_least(FEWEST_WORDS, self, "vocabulary")
        _at_least(FEWEST_TOKENS, self, "max_tokens")
        _at_least(0, self, "sentences", "people")
        _above(0, self, "learning_rate")
        _at_most(1, self, "sentences")
        _at_most(MOST_WIDE, self, "width", "layers", "heads", "inner")
        _at_most(MOST_TOKENS, self, "max_tokens")
        _at_most(1 << 20, self, "vocabulary")
        if self.width < 1 or self.width % (2 * self.heads):
            raise InputError(
                f"width is a multiple of twice the heads, got {self.width} and {self.heads}"
            )


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec:
    """LoRA on a Llama-family base; TTMR++'s values where the paper states them."""

    rank: int = 8
    alpha: int = 32
    dropout: float = 0.05
    targets: str = "q_proj,v_proj"  # linear layers, comma-separated
    quantization: Literal["none", "8bit", "4bit"] = "none"  # of the frozen base; needs a GPU
    steps: int = 2_000
    batch: int = 12  # examples, over all workers
    learning_rate: float = 2e-5
    warmup: float = 0.05  # share of the steps
    max_tokens: int = 256  # of prompt and caption together
    mixture: Mapping[str, float] = field(default_factory=dict)  # source -> weight of its pairs
    faithful: float = 0.9  # share of pairs whose tags are changed to match the caption
    sentences: float = 0.0  # share of template sentences in LoRA's examples, as for the toy base
    judged: bool = False  # LoRA learns only from pairs that the judge accepts, whoever wrote them
    upper_layers: int = 0  # the adapter is on this many upper layers; 0: on all
    accumulate: int = 1  # parts that a batch is read in, one after another, to save memory
    checkpointing: bool = False  # recompute activations in the backward pass, to save memory
    patience: int = 0  # validations without a lower loss before LoRA stops; 0: it never does
    preference_steps: int = 0  # DPO on judged drafts, after LoRA; 0: none
    seed: int = 0
    precision: Precision = "fp32"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    workers: int = 1
    min_workers: int = 0  # start with this many, grow to `workers` when available; 0: all
    threads: int = 1
    use_gpu: bool = False
    checkpoint_every: int = 200  # steps
    validate_every: int = 200
    toy: ToyLlamaSpec = field(default_factory=ToyLlamaSpec)

    def __post_init__(self) -> None:
        _at_least(1, self, "rank", "alpha", "steps", "workers", "threads")
        _at_least(1, self, "checkpoint_every", "validate_every")
        _at_least(FEWEST_TOKENS, self, "max_tokens")
        _at_least(0, self, "warmup", "dropout", "faithful", "sentences", "seed")
        _at_least(0, self, "upper_layers", "patience", "preference_steps")
        _at_least(1, self, "accumulate")
        _above(0, self, "learning_rate")
        _at_most(MOST_SEED, self, "seed")
        _at_most(MOST_TOKENS, self, "max_tokens")
        _at_most(MOST_WIDE, self, "rank", "alpha", "workers", "threads")
        if not any(name.strip() for name in self.targets.split(",")):
            raise InputError(
                f"targets names linear layers, such as q_proj,v_proj; got {self.targets!r}"
            )
        _at_least(0, self, "min_workers")
        _at_most(self.workers, self, "min_workers")
        _at_most(1, self, "warmup", "faithful", "sentences")
        _at_most(0.9, self, "dropout")
        _weights(self, "mixture")
        if self.batch < self.workers * self.accumulate:
            raise InputError(
                f"batch is over all workers and parts (accumulate): at least "
                f"{self.workers * self.accumulate}, got {self.batch}"
            )
        if self.preference_steps and self.strategy == "fsdp":
            raise InputError("strategy=fsdp writes no drafts; set preference_steps=0")
        if self.quantization != "none" and self.strategy == "fsdp":
            raise InputError("strategy=fsdp shards whole weights; leave quantization=none")


@dataclass(frozen=True, kw_only=True)
class CaptionSpec:
    """How a fine-tuned model writes captions: sampling, draws, and parallelism."""

    temperature: float = 1.0
    top_k: int = 50
    tag_bias: float = 0.0  # added to the scores of a tag's tokens until the word is written
    presence_penalty: float = 0.0  # subtracted from the score of a token already written
    max_new_tokens: int = 128
    draws: int = 2  # candidates per caption and round; the best is kept
    passes: int = 3  # most rounds; those after the first only for what the judge refused
    batch: int = 32  # prompts per batch of `transformers`
    serve: Literal["merged", "adapter"] = "merged"  # adapter: passed to vLLM with each row
    actors: int = 1
    threads: int = 1
    use_gpu: bool = False
    tensor_parallel: int = 1  # GPUs of one node that share a model in vLLM, per actor
    max_num_seqs: int = 256  # most captions that a vLLM engine writes at once
    gpu_memory: float = 0.9  # share of a GPU's memory for vLLM's weights and cache
    cache_mib: int = 512  # vLLM's key-value cache on a CPU

    def __post_init__(self) -> None:
        _at_least(1, self, "max_new_tokens", "draws", "passes", "batch", "actors", "threads")
        _at_least(1, self, "tensor_parallel", "max_num_seqs", "cache_mib")
        _at_least(0, self, "temperature", "top_k", "tag_bias")
        _at_most(100, self, "temperature", "tag_bias")
        _at_most(MOST_TOKENS, self, "max_new_tokens")
        _at_most(MOST_WIDE, self, "draws", "passes", "batch", "actors", "threads")
        _at_least(-2, self, "presence_penalty")
        _at_most(2, self, "presence_penalty")
        if not 0 < self.gpu_memory <= 1:
            raise InputError(f"gpu_memory is over 0 and at most 1, got {self.gpu_memory}")
        if self.tensor_parallel > 1 and not self.use_gpu:
            raise InputError(
                f"tensor_parallel={self.tensor_parallel} counts GPUs; set use_gpu=true, "
                "or tensor_parallel=1"
            )

    @property
    def precision(self) -> Precision:
        """The dtype of the weights during writing."""
        return "bf16" if self.use_gpu else "fp32"


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """How a table is indexed and searched."""

    exact_below: int = 200_000  # vectors; up to this many, an exact in-memory search is faster
    target_recall: float = 0.99  # at 10, on text and on audio queries; no index below it is used
    keep_versions: int = 2  # published builds kept for rollback, including the live one

    def __post_init__(self) -> None:
        _at_least(0, self, "exact_below", "target_recall")
        if self.target_recall > 1:
            raise InputError(f"target_recall is at most 1, got {self.target_recall}")
        _at_least(1, self, "keep_versions")


@dataclass(frozen=True, kw_only=True)
class ScanSpec:
    """Folder names that a scan skips, ignoring case."""

    skip_folders: tuple[str, ...] = (
        *("$RECYCLE.BIN", "RECYCLER", "#recycle", "@Recycle", "Network Trash Folder"),  # deleted
        *("@eaDir", "__MACOSX", "System Volume Information", "lost+found", "Temporary Items"),
        *("#snapshot", "@snapshot", "@Recently-Snapshot", "~snapshot", "GMT-*"),  # older states
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of a recipe, and the root of every `--set key=value`."""

    recipe: str
    towers: TowersSpec = field(default_factory=TowersSpec)
    train: TrainSpec = field(default_factory=TrainSpec)
    mulap: MulapSpec = field(default_factory=MulapSpec)
    tokens: TokensSpec = field(default_factory=TokensSpec)
    musiclm: MusicLMSpec = field(default_factory=MusicLMSpec)
    embed: EmbedSpec = field(default_factory=EmbedSpec)
    search: SearchSpec = field(default_factory=SearchSpec)
    finetune: FinetuneSpec = field(default_factory=FinetuneSpec)
    caption: CaptionSpec = field(default_factory=CaptionSpec)
    scan: ScanSpec = field(default_factory=ScanSpec)

    def __post_init__(self) -> None:
        train = self.train
        if train.warmup_steps > train.steps:
            raise InputError(
                "train.warmup_steps is at most train.steps, or the rate never reaches its maximum; "
                f"got {train.warmup_steps} of {train.steps}"
            )
        if train.min_learning_rate > train.learning_rate:
            raise InputError(
                "train.min_learning_rate is at most train.learning_rate, got "
                f"{train.min_learning_rate:g} and {train.learning_rate:g}"
            )
        _check_training(self.towers, train)
        if train.objective == "mulap":
            _check_mulap(self.towers, train, self.mulap)
        if train.objective == "musiclm":
            _refuse_contrastive_settings(train)
            _refuse_word_settings(train)
            if self.tokens.levels <= self.musiclm.coarse:
                raise InputError(
                    "tokens.levels is above musiclm.coarse, or nothing is left for the fine stage; "
                    f"got {self.tokens.levels} and {self.musiclm.coarse}"
                )

    @property
    def clip(self) -> AudioSpec:
        """The audio settings with the length of a training clip in the place of a window."""
        if self.train.objective == "contrastive":
            return self.towers.audio
        return dataclasses.replace(self.towers.audio, window_s=self.mulap.clip_s)


def _check_training(towers: TowersSpec, train: TrainSpec) -> None:
    """Raise InputError where a setting of training does not fit the towers."""
    tower = towers.audio_tower
    live = tower.trainable and tower.kind != "ast" and train.batch_norm != "frozen"
    for name in ("chunk", "checkpoint_activations"):
        if getattr(train, name) and live:
            raise InputError(
                f"train.{name} computes the audio tower in parts or twice, and batch norm in "
                f"training sees the whole batch once; set train.batch_norm=frozen, or leave {name}"
            )
    if train.gain_db and (towers.audio.level == "removed" or not tower.trainable):
        raise InputError(
            "train.gain_db changes nothing where towers.audio.level=removed, and a frozen audio "
            "tower reads the same windows again; leave it at 0"
        )
    for name, trainable in (
        ("lora_audio", tower.trainable),
        ("lora_text", towers.text_tower.trainable),
    ):
        if getattr(train, name) and not trainable:
            side = name.removeprefix("lora_")
            raise InputError(
                f"train.{name} trains the {side} tower; set towers.{side}_tower.trainable=true"
            )


def _check_mulap(towers: TowersSpec, train: TrainSpec, mulap: MulapSpec) -> None:
    """Raise InputError where a setting of training does not fit MuLaP."""
    if mulap.clip_s < towers.audio.window_s:
        raise InputError(
            "mulap.clip_s is at least towers.audio.window_s, one chunk; got "
            f"{mulap.clip_s:g} and {towers.audio.window_s:g}"
        )
    _refuse_contrastive_settings(train)


def _refuse_contrastive_settings(train: TrainSpec) -> None:
    for name in CONTRASTIVE_ONLY:
        if (value := getattr(train, name)) != TrainSpec.__dataclass_fields__[name].default:
            raise InputError(
                f"train.{name} is for train.objective=contrastive; leave it out, got {value!r}"
            )


def _refuse_word_settings(train: TrainSpec) -> None:
    """Raise InputError on settings of words or of the decoded clip: MusicLM learns from tokens."""
    for name, default in (("texts", {}), ("text_filter", False), ("gain_db", 0.0)):
        if (value := getattr(train, name)) != default:
            raise InputError(
                f"train.{name} is not for train.objective=musiclm, which learns from tokens of "
                f"audio alone; leave it out, got {value!r}"
            )


def to_dict(spec: DataclassInstance) -> dict[str, Any]:
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
    except InputError as error:  # the spec's own checks do not know its path
        raise InputError(f"setting {where}{error}") from None


def _typed(hint: Any, value: Any, name: str) -> Any:
    """`value` checked against the type `hint`, and converted from JSON."""
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
