"""`raymtr finetune`: tags-to-caption pairs -> a captioner, by Ray Train.

The work happens in a run folder named by its inputs (pairs, base, settings). The same command again
resumes from the last state, or answers at once. Only a finished run is copied to `captioner/`: the
adapter, the base if it was created by this run, the held-out pairs, and, written last,
`captioner.json`. A captioner that can be opened is therefore complete.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypedDict

from jobs.cluster import require_gpus, start_ray
from raymtr import storage
from raymtr.caption_specs import FinetuneSpec
from raymtr.errors import UnusableError
from raymtr.specs import Settings
from raymtr.trained_on import RECORD, pair_names, record_of, to_bytes
from raymtr.validation import to_dict
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.captions.learning.loop import FittedCaptioner, Sample

EXAMPLE = "raymtr finetune --pairs pairs.jsonl --workspace w"

# Settings that do not identify the run.
HOW_IT_RUNS = ("workers", "min_workers", "use_gpu", "validate_every", "accumulate", "checkpointing")
TOY = "made on the spot"
# Recipes whose settings suit such a base.
FOR_TOYS = ("laptop", "ttmrpp-small", "raymtr-small", "raymtr-multilingual", "tiny")
LOG = logging.getLogger("raymtr")
TERM_COUNT = 3  # pairs a tag must occur in to count as a musical term


class FinetuneAnswer(TypedDict):
    """A finished fine-tuning, its last figures and samples, and the folder of the captioner."""

    resumed_from_step: int  # 0: from the start
    metrics: dict[str, Any]  # of the last step
    samples: list[Sample]  # of the last step
    pairs: int
    held_out: int
    seconds: float
    captioner: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `finetune`."""
    parser.add_argument("--pairs", required=True, metavar="JSONL", help="lines of tags and caption")
    parser.add_argument(
        "--base",
        help="a Llama-family model: a folder, a hub name, a GGUF file or `smollm2` (its package); "
        "without it a toy model is pretrained",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> FinetuneAnswer:
    """The command-line entry point."""
    if arguments.base and settings.recipe in FOR_TOYS:
        LOG.warning(
            "the recipe %s is for a base made on the spot; a real one has the recipe of its size: "
            "captions-135m, captions-1b or captions-7b",
            settings.recipe,
        )
    return finetune_captioner(
        workspace, settings.finetune, pairs=arguments.pairs, base=arguments.base
    )


def finetune_captioner(
    workspace: Workspace, spec: FinetuneSpec, *, pairs: str, base: str | None = None
) -> FinetuneAnswer:
    """Fine-tunes `base` (or a toy one, pretrained here) on `pairs`; the workspace's captioner.

    Raises InputError on invalid pairs, settings or base, UnusableError if GPUs are missing or
    training cannot continue, and LostError if its workers keep being lost.
    """
    from raymtr.captions.base_model import (
        base_identity,
        check_positions,
        check_vocabulary,
        load_tokenizer,
    )
    from raymtr.captions.gguf_base import plain_base
    from raymtr.captions.learning.pairs import hold_out, read_pairs
    from raymtr.captions.prompt import prompt_hash

    started = time.monotonic()
    if not storage.is_remote(pairs):
        pairs = os.path.abspath(storage.local_path(pairs))
    sets = hold_out(read_pairs(pairs))
    if base is not None:
        base = plain_base(base, f"{workspace.captioner}/bases")
        base = os.path.abspath(base) if os.path.isdir(base) else base.rstrip("/")
        check_vocabulary(base, load_tokenizer(base))  # before any cluster starts
    check_positions(base, spec)
    identity = {
        "settings": {k: v for k, v in to_dict(spec).items() if k not in HOW_IT_RUNS},
        "pairs": hashlib.sha256(storage.read_bytes(pairs)).hexdigest()[:16],
        "base": base_identity(base) if base else TOY,
        "prompt": prompt_hash(),
    }
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
    folder = f"{workspace.captioner}/runs/{name}"
    pairs, base = within_reach(folder, pairs, base)
    if not storage.exists(f"{folder}/answer.json"):
        start_ray()
        require_gpus(fewest_workers(spec) if spec.use_gpu else 0)
        storage.write_json(f"{folder}/asked.json", identity)
        fitted = fit(folder, spec, pairs=pairs, base=base)
        counts = {"pairs": len(sets.train), "held_out": len(sets.held_out)}
        seconds = round(time.monotonic() - started, 3)
        storage.write_json(f"{folder}/answer.json", {**fitted, **counts, "seconds": seconds})
    answer: FinetuneAnswer = storage.read_json(f"{folder}/answer.json")
    publish(folder, workspace.captioner, identity | {"base_path": base, "answer": answer}, sets)
    return {**answer, "captioner": workspace.captioner}


def within_reach(folder: str, pairs: str, base: str | None) -> tuple[str, str | None]:
    """`pairs` and `base` readable by workers on any node; None is the base in `folder`.

    A run in an object store may have workers elsewhere, so local files are copied to it.
    """
    if not storage.is_remote(folder):
        return pairs, base
    if not storage.is_remote(pairs):
        storage.write_bytes(f"{folder}/pairs.jsonl", storage.read_bytes(pairs))
        pairs = f"{folder}/pairs.jsonl"
    if base is None or not os.path.isdir(base):
        return pairs, base
    if not storage.exists(f"{folder}/base/config.json"):
        storage.copy_folder(base, f"{folder}/base", last="config.json")
    return pairs, None


def fit(folder: str, spec: FinetuneSpec, *, pairs: str, base: str | None) -> FittedCaptioner:
    """Runs the loop on Ray Train's workers; rank 0's answer.

    After the loss of a worker, all workers restart from the last state. If the run started with
    fewer workers, they also restart from there when more are available. Raises as `run_trainer`.
    """
    from ray.train.v2.api.config import ScalingConfig

    from jobs.trainer import run_trainer
    from raymtr.captions.learning.loop import finetune_worker

    threads, fewest = cores_of(spec), fewest_workers(spec)
    return run_trainer(
        finetune_worker,
        {
            "spec": to_dict(replace(spec, threads=threads)),
            "folder": folder,
            "pairs": pairs,
            "base": base,
        },
        folder=folder,
        scaling=ScalingConfig(
            num_workers=spec.workers if fewest == spec.workers else (fewest, spec.workers),
            use_gpu=spec.use_gpu,
            resources_per_worker={"CPU": threads, **({"GPU": 1} if spec.use_gpu else {})},
        ),
    )


def fewest_workers(spec: FinetuneSpec) -> int:
    """The minimum number of workers to start fine-tuning."""
    return spec.min_workers or spec.workers


def cores_of(spec: FinetuneSpec) -> int:
    """Threads of a worker: the requested number, limited by this cluster."""
    import ray

    fewest = fewest_workers(spec)
    cores = int(ray.cluster_resources().get("CPU", 1.0) / fewest)
    if not cores:
        raise UnusableError(f"{fewest} workers need a CPU each; set finetune.workers lower")
    return min(spec.threads, cores)


def kept_base(captioner: str, base: str | None, identity: str) -> str:
    """The base as a captioner names it: a hub name, a URI, or a folder inside the captioner.

    A base in a local folder is copied there, so that the captioner can be moved.
    """
    if base is None:
        return "base"
    if storage.is_remote(base) or not os.path.isdir(base):
        return base
    inside = os.path.relpath(base, storage.local_path(captioner))
    if not inside.startswith(os.pardir):
        return inside
    if not storage.exists(f"{captioner}/bases/{identity}/config.json"):
        storage.copy_folder(base, f"{captioner}/bases/{identity}", last="config.json")
    return f"bases/{identity}"


def publish(folder: str, captioner: str, made: dict[str, Any], sets: Any) -> None:
    """Copies the finished run in `folder` to `captioner/`, unless it is there already."""
    from collections import Counter

    from raymtr.captions.base_model import base_identity
    from raymtr.captions.captioner import FACTS, VOCABULARY

    answer = made["answer"]
    facts = {
        "base": kept_base(captioner, made["base_path"], made["base"]),
        "toy": made["base_path"] is None and made["base"] == TOY,
        "base_identity": base_identity(made["base_path"] or f"{folder}/base"),
        "prompt": made["prompt"],
        "pairs": made["pairs"],
        "settings": made["settings"],
        "metrics": answer["metrics"],
        "samples": answer["samples"],
    }
    marker, record = f"{captioner}/{FACTS}", f"{captioner}/{RECORD}"
    if storage.exists(record) and storage.exists(marker) and storage.read_json(marker) == facts:
        return
    storage.delete(marker)
    for part, last in (("adapter", "adapter_config.json"), ("base", "config.json")):
        target = captioner if part == "adapter" else f"{captioner}/{part}"
        if storage.exists(f"{folder}/{part}"):
            if part == "base":
                storage.delete(target)  # another base's files would count as its weights
            storage.copy_folder(f"{folder}/{part}", target, last=last)
    tags = Counter(tag.casefold() for pair in sets.train for tag in pair.tags)
    common = sorted(tag for tag, count in tags.items() if count >= TERM_COUNT)
    storage.write_json(f"{captioner}/{VOCABULARY}", common)
    names = (name for p in sets.train for name in pair_names(p.clip, p.tags, p.caption))
    storage.write_bytes(record, to_bytes(record_of(names)))
    lines = [
        json.dumps({"ytid": p.clip, "tags": p.tags, "caption": p.caption}, ensure_ascii=False)
        for p in sets.held_out
    ]
    storage.write_bytes(f"{captioner}/held_out.jsonl", "".join(f"{x}\n" for x in lines).encode())
    for name in ("metrics.jsonl", "samples.jsonl"):
        storage.write_bytes(f"{captioner}/{name}", storage.read_bytes(f"{folder}/{name}"))
    storage.write_json(marker, facts)


def describe(answer: FinetuneAnswer) -> str:
    """The answer as text."""
    figures = answer["metrics"]
    lines = [
        f"{answer['pairs']} pairs, {answer['held_out']} more held out, in "
        f"{answer['seconds']:.0f} s: loss {figures['loss']:.3f}, "
        f"validation {figures['valid_loss']:.3f}"
    ]
    for sample in answer["samples"]:
        lines.append(f"  {', '.join(sample['tags'])}\n    -> {sample['caption']}")
    return "\n".join([*lines, f"captioner: {answer['captioner']}"])


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
