"""Captions per second: vLLM through Ray Data, `transformers` as in TTMR++, and bare vLLM.

    python -m benchmarks.captions --captioner w/captioner --pairs pairs.jsonl --prompts 2000
    python -m benchmarks.captions --base smollm2 --pairs pairs.jsonl --prompts 100

All sides use the same merged weights and the same prompts, sampled at the same temperature.
`transformers` runs as in TTMR++: batches of 32, left padding, at most 512 new tokens, stop at the
end token. vLLM through Ray Data is timed at two sizes: the slope is its rate, the remainder is its
start-up time. Bare `LLM.generate` is timed without its start-up.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time

import pyarrow as pa

from raymtr.caption_specs import CaptionSpec
from raymtr.captions.captioner import Weights, merge, open_captioner
from raymtr.captions.gguf_base import plain_base
from raymtr.captions.learning.pairs import read_pairs
from raymtr.captions.writing.drafts import plan_drafts
from raymtr.captions.writing.templates import TRACK
from raymtr.captions.writing.transformers_writer import Writer
from raymtr.captions.writing.vllm_engine import MOST_TOKENS

SPEC = CaptionSpec(temperature=0.7, max_new_tokens=512, draws=1, batch=32, threads=2)


def plan(pairs: str, count: int) -> pa.Table:
    """`count` drafts of the pairs' tags, in order, repeated as needed."""
    known = read_pairs(pairs)
    empty = dict.fromkeys(TRACK)
    rows = [
        {**empty, "track_id": f"t{i}", "tags": list(known[i % len(known)].tags)}
        for i in range(count)
    ]
    return plan_drafts(pa.Table.from_pylist(rows), per_track=1, seed=0, draws=range(1))


def with_transformers(weights: Weights, drafts: pa.Table) -> float:
    """Seconds, without loading the model."""
    writer = Writer(weights, SPEC)
    started = time.perf_counter()
    writer(drafts)
    return time.perf_counter() - started


def with_ray_data(weights: Weights, drafts: pa.Table) -> float:
    """Seconds, including the engine's start."""
    import ray.data

    from raymtr.captions.writing.engine import write_drafts

    started = time.perf_counter()
    blocks = ray.data.from_arrow(drafts).repartition(target_num_rows_per_block=256)
    count = sum(len(b) for b in _batches(write_drafts(blocks, "vllm", weights, SPEC)))
    assert count == len(drafts)
    return time.perf_counter() - started


def _batches(dataset):  # type: ignore[no-untyped-def]
    return dataset.iter_batches(batch_size=None, batch_format="pyarrow")


def with_bare_vllm(weights: Weights, sizes: dict[int, pa.Table]) -> dict[int, float]:
    """Seconds for each size, without the engine's start."""
    from vllm import LLM, SamplingParams

    llm = LLM(
        weights.model,
        dtype="float32",
        kv_cache_memory_bytes=SPEC.cache_mib << 20,
        enforce_eager=True,
        max_model_len=512,
        enable_chunked_prefill=False,
        max_num_batched_tokens=MOST_TOKENS,
    )
    seconds = {}
    for count, drafts in sizes.items():
        sampling = [
            SamplingParams(
                temperature=SPEC.temperature,
                top_k=SPEC.top_k,
                max_tokens=SPEC.max_new_tokens,
                seed=seed,
            )
            for seed in drafts["seed"].to_pylist()
        ]
        started = time.perf_counter()
        llm.generate(drafts["prompt"].to_pylist(), sampling, use_tqdm=False)
        seconds[count] = time.perf_counter() - started
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--captioner")
    model.add_argument("--base", help="a base as it is, such as smollm2")
    parser.add_argument("--pairs", required=True)
    parser.add_argument("--prompts", type=int, default=2000)
    arguments = parser.parse_args()
    from jobs.cluster import start_ray

    weights = Weights(plain_base(arguments.base)) if arguments.base else None
    if weights is None:
        weights = Weights(tempfile.mkdtemp(prefix="merged-"))
        merge(open_captioner(arguments.captioner), weights.model, "fp32")
    sizes = {n: plan(arguments.pairs, n) for n in (arguments.prompts // 2, 2 * arguments.prompts)}
    few, many = sizes
    planned = plan(arguments.pairs, arguments.prompts)
    plain = with_transformers(weights, planned)
    bare = with_bare_vllm(weights, sizes)
    start_ray()
    through_ray = {count: with_ray_data(weights, drafts) for count, drafts in sizes.items()}
    slope = (many - few) / (through_ray[many] - through_ray[few])
    bare_slope = (many - few) / (bare[many] - bare[few])
    fixed = through_ray[few] - few / slope
    print(
        json.dumps(
            {
                "prompts": arguments.prompts,
                "transformers_per_s": arguments.prompts / plain,
                "vllm_ray_data_per_s": slope,
                "vllm_ray_data_fixed_s": fixed,
                "vllm_ray_data_with_start_per_s": arguments.prompts
                / (fixed + arguments.prompts / slope),
                "bare_vllm_per_s": bare_slope,
                "ray_data_over_transformers": slope * plain / arguments.prompts,
                "ray_data_over_bare": slope / bare_slope,
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
