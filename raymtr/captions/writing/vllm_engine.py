"""Caption writing with vLLM, through `ray.data.llm`.

`ray.data.llm` takes a model by a path that exists on every node, or downloads it itself from some
object stores, once and never again. Here the stage's actor downloads the weights with
`storage.local_copy` before its engine starts. The driver needs only the configuration.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
import ray.data

from raymtr import storage
from raymtr.caption_specs import CaptionSpec
from raymtr.captions.base_model import here, load_tokenizer
from raymtr.captions.captioner import CONFIG, Weights, adapter_here
from raymtr.captions.writing.drafts import DRAFT
from raymtr.captions.writing.tag_words import IN_VLLM, extra_args, tag_words
from raymtr.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FAILED = "__inference_error__"  # the column for ray.data.llm's error of a row
LETTERS_LIMIT = 300  # characters of an error's text
BATCH = 64  # rows per call of the engine, which forms its own batches
MOST_TOKENS = 4_096  # in one step of the engine, on a CPU
MOST_RESTARTS = 2  # of an engine that dies, before the job fails
PROMPT_ROOM = 384  # tokens for a prompt of twenty tags


def write_with_vllm(
    drafts: ray.data.Dataset, weights: Weights, spec: CaptionSpec
) -> ray.data.Dataset:
    """`drafts` with their `text`, or an `error` where a row failed.

    Raises InputError where the model cannot be split over so many GPUs.
    """
    return writer(weights, spec)(drafts).map_batches(as_drafts, batch_format="numpy")


def writer(weights: Weights, spec: CaptionSpec) -> Callable[[ray.data.Dataset], ray.data.Dataset]:
    """The ray.data.llm processor: its engines, requests and answers."""
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    own_gpus = [{"CPU": 1, "GPU": 1}, *([{"GPU": 1}] * (spec.tensor_parallel - 1))]
    config = vLLMEngineProcessorConfig(
        model_source=here(weights.model, weights=False),
        engine_kwargs=engine_options(weights, spec),
        batch_size=BATCH,
        # Enough batches to fill the engine, and as many again waiting.
        max_concurrent_batches=max(8, -(-2 * spec.max_num_seqs // BATCH)),
        concurrency=spec.actors,
        placement_group_config={"bundles": own_gpus if spec.use_gpu else [{"CPU": 1}]},
        runtime_env={
            "env_vars": {
                # On a CPU the default of 1,024 cached primitives takes half a GiB and is no faster.
                "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
                "VLLM_LOGGING_LEVEL": "WARNING",
                "VLLM_NO_USAGE_STATS": "1",
                "VLLM_USE_V2_MODEL_RUNNER": "1" if spec.use_gpu else "0",
            }
        },
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
        should_continue_on_error=True,
        log_engine_metrics=False,
    )
    sampling = {
        "temperature": spec.temperature,
        "top_k": spec.top_k or -1,
        "presence_penalty": spec.presence_penalty,
        "max_tokens": spec.max_new_tokens,
    }

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        own: dict[str, Any] = {"seed": row["seed"]}
        if spec.tag_bias:
            words = tag_words(_tokenizer(weights.model), json.loads(row["tags"]))
            own["extra_args"] = extra_args(words, spec.tag_bias)
        return {"sampling_params": sampling | own}

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"text": row["generated_text"]}

    processor = build_processor(config, preprocess=ask, postprocess=answer)
    stage = processor.get_stage_by_name("vLLMEngineStage")
    stage.fn = _on_its_node(stage.fn, weights)
    # Setting `fn` validated the stage again, which then counted its bundles as one GPU.
    holds = {"num_cpus": 1, "num_gpus": spec.tensor_parallel if spec.use_gpu else 0}
    # By default Ray restarts an engine without limit, even one that always dies.
    restarts = {"max_restarts": MOST_RESTARTS, "max_task_retries": MOST_RESTARTS}
    stage.map_batches_kwargs.update(holds | restarts)
    return processor


def engine_options(weights: Weights, spec: CaptionSpec) -> dict[str, Any]:
    """The engine's start options.

    Raises InputError where the model cannot be split over so many GPUs.
    """
    from transformers import AutoConfig

    model = AutoConfig.from_pretrained(here(weights.model, weights=False))
    options: dict[str, Any] = {
        "enforce_eager": not spec.use_gpu,
        "max_model_len": min(PROMPT_ROOM + spec.max_new_tokens, int(model.max_position_embeddings)),
        "max_num_seqs": spec.max_num_seqs,
        "enable_prefix_caching": True,  # all draws of a caption share its prompt
        "tensor_parallel_size": spec.tensor_parallel,
    }
    if model.num_attention_heads % spec.tensor_parallel:
        raise InputError(
            f"caption.tensor_parallel={spec.tensor_parallel} does not divide the model's "
            f"{model.num_attention_heads} attention heads"
        )
    if spec.use_gpu:
        options["dtype"] = "bfloat16"
        options["gpu_memory_utilization"] = spec.gpu_memory
    else:
        options["dtype"] = "float32"
        options["kv_cache_memory_bytes"] = spec.cache_mib << 20  # else it takes all memory
        # On a CPU the engine dies when it splits the prompt of a row with its own seed.
        options["enable_chunked_prefill"] = False
        options["max_num_batched_tokens"] = max(MOST_TOKENS, options["max_model_len"])
    if spec.tensor_parallel > 1:
        # Processes of one actor on one node, which has all their GPUs, share its weights.
        options["distributed_executor_backend"] = "mp"
    if spec.tag_bias:
        runner = "V2" if spec.use_gpu else "V1"  # as VLLM_USE_V2_MODEL_RUNNER is set
        options["logits_processors"] = [IN_VLLM.format(runner=runner)]
    if weights.adapter:
        rank = int(storage.read_json(f"{weights.adapter}/{CONFIG}")["r"])
        options |= {"enable_lora": True, "max_lora_rank": rank}
    return options


def _on_its_node(stage: Any, weights: Weights) -> Any:
    """A subclass of ray.data.llm's actor class `stage` that first copies `weights` to its node."""

    class OnItsNode(stage):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options | {"model": here(weights.model)})
            self._adapter = weights.adapter and adapter_here(weights.adapter)

        async def udf(self, batch: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
            for row in batch if self._adapter else ():
                row["model"] = self._adapter
            async for row in super().udf(batch):
                yield row

    return OnItsNode


def as_drafts(batch: dict[str, np.ndarray]) -> pa.Table:
    """Rows from ray.data.llm, failed or not, in the fixed schema."""
    count = len(batch["track_id"])
    columns: dict[str, list[Any]] = {f.name: [None] * count for f in DRAFT}
    for name in ("caption", "draw", "seed"):
        columns[name] = list(batch[name])
    for name in ("track_id", "uri", "tags", "names", "prompt", "text", "pending"):
        # Missing values arrive as NaN.
        values = batch.get(name, columns[name])
        columns[name] = [value if isinstance(value, str) else None for value in values]
    failed = batch.get(FAILED, [""] * count)
    columns["error"] = [str(why)[:LETTERS_LIMIT] if why else None for why in failed]
    return pa.Table.from_pydict(columns, DRAFT)


@lru_cache(maxsize=1)
def _tokenizer(model: str) -> PreTrainedTokenizerBase:
    """The model's tokenizer, loaded once per worker."""
    return load_tokenizer(model)
