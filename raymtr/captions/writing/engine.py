"""The two ways drafts get their text in Ray Data: vLLM through `ray.data.llm`, or `transformers`.

Both take DRAFT rows and give DRAFT rows. Which one ran is chosen once, said in the log and kept
with every caption: they draw from the same distribution, but not the same words.

Weights travel as URIs: every node that runs an engine brings them home itself, and one task makes
the merged ones for all. What the cluster cannot give is refused before anything starts.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal

import ray
import ray.data

from raymtr.captions.captioner import (
    Captioner,
    Weights,
    bytes_to_merge,
    is_merged,
    merge,
    planned_weights,
)
from raymtr.captions.writing.transformers_writer import Writer
from raymtr.errors import InputError, UnusableError
from raymtr.specs import CaptionSpec

LOG = logging.getLogger("raymtr")
Engine = Literal["vllm", "transformers"]


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


def require_room(engine: Engine, spec: CaptionSpec) -> None:
    """Refuse, in words, engines that this cluster has no GPUs for.

    Raises UnusableError, or InputError where the engine cannot do what was set.
    """
    wide = spec.tensor_parallel
    if engine == "transformers" and wide > 1:
        raise InputError(f"caption.tensor_parallel={wide} is vLLM's; set it to 1, or --engine vllm")
    if not spec.use_gpu:
        return
    found = [int(node.get("GPU", 0)) for node in _nodes()]
    if sum(count // wide for count in found) < spec.actors:
        raise UnusableError(
            f"caption.actors={spec.actors} times caption.tensor_parallel={wide} asks for "
            f"{spec.actors * wide} GPUs, {wide} on one node each; this Ray cluster has "
            f"{sum(found)} ({max(found, default=0)} on one node at most); set them lower, add GPU "
            "nodes, or set caption.use_gpu=false to run on CPUs"
        )


def made_weights(captioner: Captioner, spec: CaptionSpec, *, home: str) -> Weights:
    """What the engines run, made now unless it is there: merged weights, by one task on one node.

    `home` is a folder that every node reaches. Raises InputError where the adapter does not fit
    its base, UnusableError where no node has the memory.
    """
    weights = planned_weights(captioner, spec, home=home)
    if is_merged(weights):
        return weights
    wanted = bytes_to_merge(captioner, spec.precision)
    most = max(int(node.get("memory", 0)) for node in _nodes() if node.get("CPU", 0) >= 1)
    if wanted > most:
        raise UnusableError(
            f"merging {captioner.uri} with its base wants {wanted / 2**30:.1f} GiB on one node, "
            f"and the largest of this Ray cluster has {most / 2**30:.1f}; add memory, or set "
            "caption.serve=adapter"
        )
    LOG.info("merging the adapter with its base -> %s", weights.model)
    task = ray.remote(merge).options(num_cpus=1, memory=wanted, max_retries=1)
    try:
        ray.get(task.remote(captioner, weights.model, spec.precision))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, (InputError, UnusableError)):
            raise error.cause from None
        raise
    return weights


def write_drafts(
    drafts: ray.data.Dataset, engine: Engine, weights: Weights, spec: CaptionSpec
) -> ray.data.Dataset:
    """`drafts` with their `text`, or the `error` of a row."""
    if engine == "vllm":
        from raymtr.captions.writing.vllm_engine import write_with_vllm

        return write_with_vllm(drafts, weights, spec)
    cores = ray.cluster_resources().get("CPU", 1.0)
    return drafts.map_batches(
        Writer,
        fn_constructor_args=(weights, spec),
        batch_size=spec.batch,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=spec.actors),
        # One CPU stays free for the steps around the writers, or nothing would ever move.
        num_cpus=max(0, min(spec.threads, (cores - 1) // spec.actors)),
        num_gpus=1 if spec.use_gpu else 0,
    )


def _nodes() -> list[dict[str, float]]:
    """What each node of the cluster has."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
