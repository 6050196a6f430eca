"""Specs of MusicLM: how audio is tokenised, and the stages that model the tokens."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat

from raymtr.errors import InputError
from raymtr.validation import MOST_WIDE, Count, DropoutRate, Seed, Width, spec

Levels = Annotated[int, Field(ge=1, le=64)]
Codes = Annotated[int, Field(ge=2, le=32_767)]  # stored as int16
Seconds = Annotated[float, Field(ge=1, le=600)]
Temperature = Annotated[float, Field(gt=0)]


@spec
class MelodySpec:
    """The encoder of melodies and its tokens (MusicLM, section 3.4).

    It is optional: `steps` above 0 trains it, on tracks that share a `tune`.
    """

    steps: NonNegativeInt = 0  # of its training; 0: no melody part
    batch: Annotated[int, Field(ge=2)] = 64  # tunes per step
    learning_rate: PositiveFloat = 3e-4
    layers: Width = 12
    heads: Count = 8
    width: Annotated[int, Field(ge=1, le=MOST_WIDE)] = 512
    inner: Width = 2_048  # width inside the feed-forward part
    dim: Width = 192  # of a window's vector
    levels: Levels = 24
    codes: Codes = 512  # per level
    rounds: Count = 20  # epochs of k-means

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise InputError(f"width is a multiple of heads, got {self.width} and {self.heads}")


@spec
class TokensSpec:
    """How audio is tokenised (MusicLM, Agostinelli et al., arXiv 2301.11325).

    The parts that are trained here use 16 kHz: a codec over pairs of log-mel frames, 25 per second,
    with a learned decoder, and k-means over an intermediate layer of musicnn. A pretrained part is
    selected by its kind and a source: a name on the hub or a folder.
    """

    codec: Literal["mel", "encodec", "dac", "mimi"] = "mel"
    codec_source: str = ""  # of a hub's codec
    levels: Levels = 12  # of the codec
    codes: Codes = 1_024  # per level; ignored for a hub's codec
    semantic: Literal["musicnn", "hubert", "wav2vec2-bert"] = "musicnn"
    semantic_source: str = ""  # of a hub's encoder
    semantic_layer: Count = 7  # of a hub's encoder
    semantic_codes: Codes = 1_024
    semantic_hz: Annotated[float, Field(gt=0, le=50)] = 25.0
    joint_levels: Levels = 12
    joint_codes: Codes = 1_024
    melody: MelodySpec = field(default_factory=MelodySpec)
    fit_tracks: Count = 2_000  # training tracks that the parts are fitted on
    fit_s: Seconds = 10.0  # clip of each of them
    rounds: Count = 20  # epochs of k-means
    decoder_width: Annotated[int, Field(ge=2, le=MOST_WIDE)] = 256  # of the codec's decoder
    decoder_layers: Width = 8
    decoder_steps: Count = 20_000
    decoder_batch: Count = 16  # clips of a second
    seed: Seed = 0

    def __post_init__(self) -> None:
        for name, builtin in (("codec", "mel"), ("semantic", "musicnn")):
            if (getattr(self, name) == builtin) == bool(getattr(self, f"{name}_source")):
                raise InputError(
                    f"{name}_source is required, except with {name}={builtin}, which has none; "
                    f"got {getattr(self, name)!r} with {getattr(self, f'{name}_source')!r}"
                )


@spec
class MusicLMSpec:
    """MusicLM's three decoder-only stages, and how they are sampled.

    With `depth_layers` one acoustic stage replaces the coarse and the fine stage (frame_stage.py).
    """

    layers: Width = 24
    heads: Count = 16
    width: Annotated[int, Field(le=MOST_WIDE)] = 1_024
    inner: Width = 4_096  # width inside the feed-forward part
    dropout: DropoutRate = 0.1
    hears_semantic: bool = True  # false: the paper's ablation, no semantic stage
    depth_layers: NonNegativeInt = 0  # of the transformer over levels; 0: as in the paper
    coarse: Count = 4  # levels of the codec in the coarse stage; the fine stage has the others
    semantic_s: Seconds = 30.0  # crop of each stage
    coarse_s: Seconds = 10.0
    fine_s: Seconds = 3.0
    acoustic_s: Seconds = 10.0
    # Of a story: seconds of sound before a change of its text that stay as the prefix, at most half
    # a crop. Semantic tokens always do, so that the tune goes on.
    story_prefix_s: Annotated[float, Field(ge=0, le=600)] = 15.0
    # Classifier-free guidance: share of rows trained without M_A, and weight of M_A in sampling.
    # The paper does not use it: 0 and 1.
    unconditional: DropoutRate = 0.0
    guidance: Annotated[float, Field(ge=1, le=100)] = 1.0
    semantic_temperature: Temperature = 1.0
    coarse_temperature: Temperature = 0.95  # also of these levels in the acoustic stage
    fine_temperature: Temperature = 0.4

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % self.heads:
            raise InputError(f"width is a multiple of heads, got {self.width} and {self.heads}")
        if self.guidance != 1 and not self.unconditional:
            raise InputError(
                f"guidance={self.guidance:g} needs rows that are trained without the condition; "
                "set unconditional, such as 0.1"
            )
