"""Caption engines in Ray Data: vLLM through `ray.data.llm`, or `transformers`.

Both take DRAFT rows and return DRAFT rows. The engine is chosen once, logged, and stored with every
caption: both sample from the same distribution but write different words.

Weights are passed as URIs. Every node with an engine downloads them, and one task builds the merged
weights for all. A request beyond the cluster's resources is an error before anything starts.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Literal

import ray
import ray.data

from raymtr.caption_specs import CaptionSpec
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

LOG = logging.getLogger("raymtr")
Engine = Literal["vllm", "transformers"]


def choose_engine(name: str) -> Engine:
    """The engine of that name: auto takes vLLM where it is installed.

    Raises UnusableError where vLLM is requested but not installed.
    """
    present = importlib.util.find_spec("vllm") is not None
    if name == "vllm" and not present:
        raise UnusableError(
            "vLLM is not installed here; `pip install 'raymtr[captions]'` on Linux, "
            "or --engine transformers"
        )
    engine: Engine = "vllm" if present and name != "transformers" else "transformers"
    why = "asked for" if name != "auto" else f"vLLM is {'' if present else 'not '}installed"
    LOG.info("captions are written by %s (%s)", engine, why)
    return engine


def require_room(engine: Engine, spec: CaptionSpec) -> None:
    """Check that this cluster has the GPUs for the engines.

    Raises UnusableError, or InputError where the engine does not support a setting.
    """
    wide = spec.tensor_parallel
    if engine == "transformers" and wide > 1:
        raise InputError(
            f"caption.tensor_parallel={wide} needs vLLM; set it to 1, or --engine vllm"
        )
    if not spec.use_gpu:
        return
    found = [int(node.get("GPU", 0)) for node in _nodes()]
    if sum(count // wide for count in found) < spec.actors:
        raise UnusableError(
            f"caption.actors={spec.actors} times caption.tensor_parallel={wide} needs "
            f"{spec.actors * wide} GPUs, {wide} on one node each; this Ray cluster has "
            f"{sum(found)} ({max(found, default=0)} on one node at most); set them lower, add GPU "
            "nodes, or set caption.use_gpu=false to run on CPUs"
        )


def prepare_weights(captioner: Captioner, spec: CaptionSpec, *, home: str) -> Weights:
    """The engines' weights; merged weights are built, if missing, by one task on one node.

    `home` is a folder that every node can reach. Raises InputError where the adapter does not fit
    its base, UnusableError where no node has the memory.
    """
    weights = planned_weights(captioner, spec, home=home)
    if is_merged(weights):
        return weights
    wanted = bytes_to_merge(captioner, spec.precision)
    most = max(int(node.get("memory", 0)) for node in _nodes() if node.get("CPU", 0) >= 1)
    if wanted > most:
        raise UnusableError(
            f"merging {captioner.uri} with its base needs {wanted / 2**30:.1f} GiB on one node, "
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
    """`drafts` with their `text`, or an `error` where a row failed."""
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
        # One CPU stays free for the steps around the writers; otherwise the pipeline would
        # deadlock.
        num_cpus=max(0, min(spec.threads, (cores - 1) // spec.actors)),
        num_gpus=1 if spec.use_gpu else 0,
    )


def _nodes() -> list[dict[str, float]]:
    """The resources of each live node of the cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]
