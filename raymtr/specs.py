"""The settings of a recipe: its towers, its training and its jobs, each a frozen spec."""

from __future__ import annotations

import dataclasses
import importlib
import warnings
from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from raymtr.caption_specs import CaptionSpec, FinetuneSpec
from raymtr.errors import InputError
from raymtr.generation_specs import MusicLMSpec, TokensSpec
from raymtr.tower_specs import AudioSpec, TowersSpec
from raymtr.validation import (
    MOST_WIDE,
    Count,
    DropoutRate,
    Precision,
    Rank,
    Seed,
    Share,
    Width,
    at_most,
    check_weights,
    spec,
)

HOMES = ("raymtr.tower_specs", "raymtr.caption_specs", "raymtr.validation")  # split off from here
TEXT_TYPES = ("tags", "caption", "metadata", "similar_artists", "playlist")  # of a track
CONTRASTIVE_ONLY = (  # settings of training that another objective does not read
    *("chunk", "checkpoint_activations", "layer_decay", "lora_audio", "lora_text"),
    *("false_negatives", "text_rate", "windows"),
)


@spec
class TrainSpec:
    """Training. `global_batch` is over all workers; a step is one global batch."""

    steps: Count = 32_768
    global_batch: int = 768  # pairs of sentence and clip, over all workers
    learning_rate: PositiveFloat = 5e-5
    min_learning_rate: NonNegativeFloat = 1e-9
    warmup_steps: NonNegativeInt = 5_000
    weight_decay: Share = 0.01
    seed: Seed = 0
    precision: Precision = "fp32"  # of the towers' forward; weights and loss stay fp32
    batch_norm: Literal["local", "shared", "frozen"] = "local"  # local: 2 workers != 1
    mixture: Mapping[str, float] = field(default_factory=dict)  # dataset -> weight; {}: equal
    # Text type -> weight: one type of those a track has is drawn (MuLan). {}: TTMR++'s sentences.
    texts: Mapping[str, float] = field(default_factory=dict)
    text_filter: bool = False  # leave out captions that are not about music (MuLan)
    # masked: rows of one artist, or with sentences of the same words, are not negatives
    false_negatives: Literal["kept", "masked"] = "kept"
    # Each clip is quieter by a random 0 to this many dB.
    gain_db: Annotated[float, Field(ge=0, le=100)] = 0.0
    # Half of the clips are amplified by a random 0 to this many dB over full scale, and clipped.
    overdrive_db: Annotated[float, Field(ge=0, le=100)] = 0.0
    # Windows of a track in one draw, pooled as those of a whole track are.
    windows: Annotated[int, Field(ge=1, le=64)] = 1
    chunk: NonNegativeInt = 0  # rows embedded at a time, by gradient caching; 0: the whole batch
    checkpoint_activations: bool = False  # recompute layers in the backward: less memory
    # Learning rate of each layer, relative to the layer above it.
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    # Learning rate of the text tower, relative to `learning_rate`: it is pretrained.
    text_rate: Annotated[float, Field(gt=0, le=1)] = 1.0
    lora_audio: Rank = 0  # rank of LoRA on the audio tower, whose own weights stay; 0: no LoRA
    lora_text: Rank = 0  # the same on the text tower
    objective: Literal["contrastive", "mulap", "musiclm"] = "contrastive"
    schedule: Literal["cosine", "linear"] = "cosine"  # of the learning rate after the warm-up
    beta2: Share = 0.999  # of AdamW
    workers: Width = 1
    min_workers: NonNegativeInt = 0  # start with these, grow to `workers` when available; 0: all
    threads: Width = 1  # torch threads per worker; a setting, because it changes the weights
    use_gpu: bool = False
    checkpoint_every: Count = 500  # steps
    validate_every: Count = 500  # steps
    keep_checkpoints: Count = 2
    # Decoded audio cached per machine; the rest is decoded on demand.
    cache_gib: NonNegativeFloat = 50.0
    cache_folder: str = ""  # cache path; default: the local workspace or the temporary folder

    def __post_init__(self) -> None:
        at_most(self.workers, self, "min_workers")
        check_weights(self, "mixture")
        check_weights(self, "texts")
        if unknown := sorted(set(self.texts) - set(TEXT_TYPES)):
            raise InputError(f"texts weighs {', '.join(TEXT_TYPES)}; got {unknown[0]!r}")
        if self.global_batch < max(2, self.workers):
            raise InputError(
                "global_batch is at least 2 and a row for each worker, got "
                f"{self.global_batch} over {self.workers} workers"
            )


@spec
class MulapSpec:
    """MuLaP's two streams and its losses (Manco et al., ICASSP 2022).

    The audio tower, the text tower and the length of a chunk (`audio.window_s`) are those of
    `towers`. A frozen text tower still learns its layers after the first co-attention.
    """

    clip_s: Annotated[float, Field(gt=0, le=600)] = 20.0  # of a track in one draw, cut into chunks
    # The first layers of the text tower; co-attention comes before the last two.
    text_layers: Annotated[int, Field(ge=2, le=MOST_WIDE)] = 6
    # Co-attention comes before the first two.
    audio_layers: Annotated[int, Field(ge=2, le=MOST_WIDE)] = 6
    audio_width: Annotated[int, Field(le=MOST_WIDE)] = 256
    cross_width: Annotated[int, Field(le=MOST_WIDE)] = 1_024  # of the co-attention
    heads: Count = 8
    dropout: DropoutRate = 0.1
    masked: Annotated[float, Field(gt=0, le=0.9)] = 0.15  # share of the words and of the chunks
    mismatched: Annotated[float, Field(gt=0, le=0.9)] = 0.5  # share of rows with another's sentence
    words_weight: NonNegativeFloat = 0.1
    chunks_weight: NonNegativeFloat = 4.0
    match_weight: NonNegativeFloat = 2.0
    # Contrast of both streams before they meet (ALBEF, Li et al. 2021); 0 as published.
    align_weight: NonNegativeFloat = 0.0

    def __post_init__(self) -> None:
        for name in ("audio_width", "cross_width"):
            width = getattr(self, name)
            if width < 2 or width % 2 or width % self.heads:
                raise InputError(
                    f"{name} is even and a multiple of heads, got {width} and {self.heads}"
                )


@spec
class EmbedSpec:
    """The embedding job: its parallelism and its limits."""

    actors: Width = 1  # model replicas; fewer for few tracks
    min_actors: NonNegativeInt = 0  # start with this many, grow to `actors` when available; 0: all
    threads: Width = 1  # torch threads of one replica
    use_gpu: bool = False
    gpu_share: Annotated[float, Field(gt=0, le=1)] = 1.0  # of a GPU, of one replica
    precision: Precision = "fp32"
    windows_per_block: Count = 384  # unit of retries and memory; the model's batch is another
    partitions: NonNegativeInt = 0  # of the catalog, each with its own driver; 0: by its size
    drivers: Count = 1  # partitions at once; the replicas are shared out among them
    max_track_s: NonNegativeFloat = 3_600.0  # a longer track becomes an error row
    max_file_mb: NonNegativeFloat = 2_000.0
    # A decoder that takes longer is hung: an error row.
    max_decode_s: Annotated[float, Field(ge=1)] = 600.0

    def __post_init__(self) -> None:
        at_most(self.actors, self, "min_actors")


@spec
class SearchSpec:
    """How a table is indexed and searched."""

    exact_below: NonNegativeInt = 200_000  # vectors; up to this many, an exact search is faster
    target_recall: Share = 0.99  # at 10, on text and on audio queries; no index below it is used
    keep_versions: Count = 2  # published builds kept for rollback, including the live one
    shards: Count = 1  # of the tables, by a hash of the track id; each may be served on its own
    index_workers: Count = 1  # Ray tasks that write and index at once; 1: this process, without Ray
    # Of one process that builds an index. A larger table is indexed in more segments.
    index_memory_gb: Annotated[float, Field(ge=2)] = 8.0


@spec
class ScanSpec:
    """Folder names that a scan skips, ignoring case."""

    skip_folders: tuple[str, ...] = (
        *("$RECYCLE.BIN", "RECYCLER", "#recycle", "@Recycle", "Network Trash Folder"),  # deleted
        *("@eaDir", "__MACOSX", "System Volume Information", "lost+found", "Temporary Items"),
        *("#snapshot", "@snapshot", "@Recently-Snapshot", "~snapshot", "GMT-*"),  # older states
    )


@spec
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
                    "tokens.levels is above musiclm.coarse, or no fine level is left; "
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
    if train.overdrive_db and not tower.trainable:
        raise InputError(
            "train.overdrive_db changes nothing where a frozen audio tower reads the same windows "
            "again; leave it at 0"
        )
    if towers.window_pooling == "attention" and train.windows < 2:
        raise InputError(
            "towers.window_pooling=attention learns from several windows of a track; set "
            "train.windows=4 or so"
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
        if (value := getattr(train, name)) != getattr(TrainSpec(), name):
            raise InputError(
                f"train.{name} is for train.objective=contrastive; leave it out, got {value!r}"
            )


def _refuse_word_settings(train: TrainSpec) -> None:
    """Raise InputError on settings of words or of the decoded clip: MusicLM learns from tokens."""
    for name in ("texts", "text_filter", "gain_db", "overdrive_db"):
        if (value := getattr(train, name)) != getattr(TrainSpec(), name):
            raise InputError(
                f"train.{name} is not for train.objective=musiclm, which learns from tokens of "
                f"audio alone; leave it out, got {value!r}"
            )


def __getattr__(name: str) -> Any:
    """A name that has moved from here to one of HOMES, with a DeprecationWarning."""
    for home in HOMES:
        if not name.startswith("_") and hasattr(moved := importlib.import_module(home), name):
            warnings.warn(f"raymtr.specs.{name} is {home}.{name}", DeprecationWarning, stacklevel=2)
            return getattr(moved, name)
    raise AttributeError(f"module 'raymtr.specs' has no attribute {name!r}")
