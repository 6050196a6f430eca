"""The two ways drafts get their text in Ray Data: vLLM through `ray.data.llm`, or `transformers`.

Both take DRAFT rows and give DRAFT rows. Which one ran is chosen once, said in the log and kept
with every caption: they draw from the same distribution, but not the same words.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
import ray.data

from raymtr.captions.base_model import load_tokenizer
from raymtr.captions.drafts import DRAFT
from raymtr.captions.generate import Captioner, Writer, merged_folder
from raymtr.captions.tag_words import IN_VLLM, extra_args, tag_words
from raymtr.errors import UnusableError
from raymtr.specs import CaptionSpec, FinetuneSpec

LOG = logging.getLogger("raymtr")
Engine = Literal["vllm", "transformers"]
ENGINES = ("auto", "vllm", "transformers")
FAILED = "__inference_error__"  # the column in which ray.data.llm says why a row failed
LETTERS_LIMIT = 300  # of an error's text
VLLM_BATCH = 64  # rows Ray hands the engine at once; it batches them as it likes
MOST_TOKENS = 4_096  # in one step of the engine, on a CPU
MOST_RESTARTS = 2  # of an engine that dies, before the job is given up
PROMPT_ROOM = 384  # tokens for a prompt of twenty tags


def choose_engine(asked: str) -> Engine:
    """The engine for `asked`: auto takes vLLM where it is installed.

    Raises UnusableError where vLLM was asked for and is not.
    """
    present = importlib.util.find_spec("vllm") is not None
    if asked == "vllm" and not present:
        raise UnusableError(
            "vLLM is not installed here; `pip install 'raymtr[captions]'` on Linux, "
            "or --engine transformers"
        )
    engine: Engine = "vllm" if present and asked != "transformers" else "transformers"
    why = "asked for" if asked != "auto" else f"vLLM is {'' if present else 'not '}installed"
    LOG.info("captions are written by %s (%s)", engine, why)
    return engine


def write_drafts(
    drafts: ray.data.Dataset, engine: Engine, captioner: Captioner, spec: CaptionSpec
) -> ray.data.Dataset:
    """`drafts` with their `text`, or the `error` of a row."""
    if engine == "vllm":
        return _with_vllm(drafts, captioner, spec)
    cores = ray.cluster_resources().get("CPU", 1.0)
    return drafts.map_batches(
        Writer,
        fn_constructor_args=(captioner, spec),
        batch_size=spec.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=spec.actors),
        # One CPU stays free for the steps around the writers, or nothing would ever move.
        num_cpus=max(0, min(spec.threads, (cores - 1) // spec.actors)),
        num_gpus=1 if spec.use_gpu else 0,
    )


def _with_vllm(
    drafts: ray.data.Dataset, captioner: Captioner, spec: CaptionSpec
) -> ray.data.Dataset:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    adapter = captioner.folder if spec.serve == "adapter" else None
    precision = FinetuneSpec(precision="bf16" if spec.use_gpu else "fp32")
    model = captioner.base if adapter else merged_folder(captioner, precision)
    options: dict[str, Any] = {
        "enforce_eager": not spec.use_gpu,
        "max_model_len": min(PROMPT_ROOM + spec.max_new_tokens, _positions(model)),
        "enable_prefix_caching": True,  # all draws of a caption share its prompt
    }
    if not spec.use_gpu:
        options["dtype"] = "float32"
        options["kv_cache_memory_bytes"] = spec.cache_mib << 20  # else it asks for all memory
        # On a CPU the engine cannot split the prompt of a row that has its own seed: it dies.
        options["enable_chunked_prefill"] = False
        options["max_num_batched_tokens"] = max(MOST_TOKENS, options["max_model_len"])
    runner = "V2" if spec.use_gpu else "V1"  # it has an interface of its own
    if spec.tag_bias:
        options["logits_processors"] = [IN_VLLM.format(runner=runner)]
    if adapter:
        options |= {"enable_lora": True, "max_lora_rank": _rank(captioner)}
    config = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=options,
        batch_size=VLLM_BATCH,
        concurrency=spec.actors,
        placement_group_config={"bundles": [{"GPU" if spec.use_gpu else "CPU": 1}]},
        runtime_env={
            "env_vars": {
                # On a CPU its 1,024 compiled products are half a GiB, and no faster for it.
                "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64",
                "VLLM_LOGGING_LEVEL": "WARNING",
                "VLLM_USE_V2_MODEL_RUNNER": "1" if runner == "V2" else "0",
                "VLLM_NO_USAGE_STATS": "1",
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
    served = {"model": adapter} if adapter else {}

    def ask(row: dict[str, Any]) -> dict[str, Any]:
        own: dict[str, Any] = {"seed": row["seed"]}
        if spec.tag_bias:
            words = tag_words(_tokenizer(model), json.loads(row["tags"]))
            own["extra_args"] = extra_args(words, spec.tag_bias)
        return {"sampling_params": sampling | own, **served}

    def answer(row: dict[str, Any]) -> dict[str, Any]:
        return row | {"text": row["generated_text"]}

    processor = build_processor(config, preprocess=ask, postprocess=answer)
    # Ray would start an engine that dies every time again for ever.
    again = {"max_restarts": MOST_RESTARTS, "max_task_retries": MOST_RESTARTS}
    processor.get_stage_by_name("vLLMEngineStage").map_batches_kwargs.update(again)
    return processor(drafts).map_batches(as_drafts, batch_format="numpy")


def as_drafts(batch: dict[str, np.ndarray]) -> pa.Table:
    """Rows as ray.data.llm leaves them, failed or not, in the fixed schema."""
    count = len(batch["track_id"])
    columns: dict[str, list[Any]] = {f.name: [None] * count for f in DRAFT}
    for name in ("caption", "draw", "seed"):
        columns[name] = list(batch[name])
    for name in ("track_id", "uri", "tags", "names", "prompt", "text", "held"):
        # What is absent comes as NaN.
        values = batch.get(name, columns[name])
        columns[name] = [value if isinstance(value, str) else None for value in values]
    failed = batch.get(FAILED, [""] * count)
    columns["error"] = [str(why)[:LETTERS_LIMIT] if why else None for why in failed]
    return pa.Table.from_pydict(columns, DRAFT)


@lru_cache(maxsize=1)
def _tokenizer(model: str) -> Any:
    """The model's tokenizer, once a worker."""
    return load_tokenizer(model)


def _positions(model: str) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).max_position_embeddings)


def _rank(captioner: Captioner) -> int:
    from peft import PeftConfig

    return int(PeftConfig.from_pretrained(captioner.folder).r)
