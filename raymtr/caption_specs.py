"""Specs of captioners: fine-tuning one, its toy base model, and writing captions with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat

from raymtr.errors import InputError
from raymtr.validation import (
    MOST_TOKENS,
    MOST_WIDE,
    Count,
    DropoutRate,
    Precision,
    Seed,
    Share,
    Width,
    at_most,
    check_weights,
    spec,
)

FEWEST_TOKENS = 32  # of prompt and caption together, to fit any
FEWEST_WORDS = 300  # of a toy's vocabulary: bytes, special tokens, and a few merges
TokenCount = Annotated[int, Field(ge=FEWEST_TOKENS, le=MOST_TOKENS)]


@spec
class ToyLlamaSpec:
    """The base model trained where none is given: its size and its pretraining."""

    width: Annotated[int, Field(le=MOST_WIDE)] = 256
    layers: Width = 4
    heads: Width = 4
    inner: Width = 512  # of the gated feed-forward layers
    vocabulary: Annotated[int, Field(ge=FEWEST_WORDS, le=1 << 20)] = 4_096
    max_tokens: TokenCount = 512
    steps: Count = 1_400
    learning_rate: PositiveFloat = 1.5e-3
    sentences: Share = 0.34  # share of template sentences over random tags, which teach copying
    people: NonNegativeFloat = 0.25  # weight of a pair by people: LoRA is to learn from those

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % (2 * self.heads):
            raise InputError(
                f"width is a multiple of twice the heads, got {self.width} and {self.heads}"
            )


@spec
class FinetuneSpec:
    """LoRA on a Llama-family base; TTMR++'s values where the paper states them."""

    rank: Width = 8
    alpha: Width = 32
    dropout: DropoutRate = 0.05
    targets: str = "q_proj,v_proj"  # linear layers, comma-separated
    quantization: Literal["none", "8bit", "4bit"] = "none"  # of the frozen base; needs a GPU
    steps: Count = 2_000
    batch: int = 12  # examples, over all workers
    learning_rate: PositiveFloat = 2e-5
    warmup: Share = 0.05  # share of the steps
    max_tokens: TokenCount = 256  # of prompt and caption together
    mixture: Mapping[str, float] = field(default_factory=dict)  # source -> weight of its pairs
    faithful: Share = 0.9  # share of pairs whose tags are changed to match the caption
    sentences: Share = 0.0  # share of template sentences in LoRA's examples, as for the toy base
    judged: bool = False  # LoRA learns only from pairs that the judge accepts
    upper_layers: NonNegativeInt = 0  # the adapter is on this many upper layers; 0: on all
    accumulate: Count = 1  # parts of a batch, computed in turn, to save memory
    checkpointing: bool = False  # recompute activations in the backward pass, to save memory
    patience: NonNegativeInt = 0  # validations without a lower loss before LoRA stops; 0: no limit
    preference_steps: NonNegativeInt = 0  # DPO on judged drafts, after LoRA; 0: none
    seed: Seed = 0
    precision: Precision = "fp32"
    strategy: Literal["ddp", "fsdp"] = "ddp"
    workers: Width = 1
    min_workers: NonNegativeInt = 0  # start with these, grow to `workers` when available; 0: all
    threads: Width = 1
    use_gpu: bool = False
    checkpoint_every: Count = 200  # steps
    validate_every: Count = 200
    toy: ToyLlamaSpec = field(default_factory=ToyLlamaSpec)

    def __post_init__(self) -> None:
        if not any(name.strip() for name in self.targets.split(",")):
            raise InputError(
                f"targets names linear layers, such as q_proj,v_proj; got {self.targets!r}"
            )
        at_most(self.workers, self, "min_workers")
        check_weights(self, "mixture")
        if self.batch < self.workers * self.accumulate:
            raise InputError(
                f"batch is over all workers and parts (accumulate): at least "
                f"{self.workers * self.accumulate}, got {self.batch}"
            )
        if self.preference_steps and self.strategy == "fsdp":
            raise InputError("strategy=fsdp writes no drafts; set preference_steps=0")
        if self.quantization != "none" and self.strategy == "fsdp":
            raise InputError("strategy=fsdp shards whole weights; leave quantization=none")


@spec
class CaptionSpec:
    """How a fine-tuned model writes captions: sampling, draws, and parallelism."""

    temperature: Annotated[float, Field(ge=0, le=100)] = 1.0
    top_k: NonNegativeInt = 50
    # Added to the scores of a tag's tokens until the word is written.
    tag_bias: Annotated[float, Field(ge=0, le=100)] = 0.0
    # Subtracted from the score of a token already written.
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] = 0.0
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_TOKENS)] = 128
    draws: Width = 2  # candidates per caption and round; the best is kept
    passes: Width = 3  # most rounds; those after the first only for what the judge rejected
    batch: Width = 32  # prompts per batch of `transformers`
    serve: Literal["merged", "adapter"] = "merged"  # adapter: passed to vLLM with each row
    actors: Width = 1
    threads: Width = 1
    use_gpu: bool = False
    tensor_parallel: Count = 1  # GPUs of one node that share a model in vLLM, per actor
    max_num_seqs: Count = 256  # most captions that a vLLM engine writes at once
    gpu_memory: float = 0.9  # share of a GPU's memory for vLLM's weights and cache
    cache_mib: Count = 512  # vLLM's key-value cache on a CPU

    def __post_init__(self) -> None:
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
