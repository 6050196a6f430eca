"""`raymtr finetune`: tags-to-caption pairs -> a captioner, by Ray Train.

The work is done in a run's folder named by what was asked (pairs, base, settings): asked again, it
goes on from its last state, or answers at once. Only a finished run is brought to `captioner/`:
the adapter, the base where it was made on the spot, the held-out pairs, and, written last,
`captioner.json`; so a captioner that can be opened is whole.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from dataclasses import replace
from typing import Any

from jobs.cluster import require_gpus, start_ray
from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.specs import FinetuneSpec, Settings, to_dict
from raymtr.workspace import Workspace

EXAMPLE = "raymtr finetune --pairs pairs.jsonl --workspace w"

MOST_FAILURES = 3  # of workers, before the run is given up
TERM_COUNT = 3  # pairs a tag must stand in, to be a musical term


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `finetune` alone."""
    parser.add_argument("--pairs", required=True, metavar="JSONL", help="lines of tags and caption")
    parser.add_argument(
        "--base",
        help="a Llama-family model: a folder, a hub name, a GGUF file or `smollm2` (its package); "
        "made on the spot where left out",
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The command line's way in."""
    return finetune_captioner(
        workspace, settings.finetune, pairs=arguments.pairs, base=arguments.base
    )


def finetune_captioner(
    workspace: Workspace, spec: FinetuneSpec, *, pairs: str, base: str | None = None
) -> dict[str, Any]:
    """Tune `base` (or a toy one, pretrained here) on `pairs`; the workspace's captioner.

    Raises InputError on pairs, settings or a base that cannot be, UnusableError where GPUs are
    missing or training cannot go on.
    """
    from raymtr.captions.base_model import base_identity, load_tokenizer
    from raymtr.captions.gguf_base import plain_base
    from raymtr.captions.pairs import hold_out, read_pairs
    from raymtr.captions.prompt import prompt_hash

    started = time.monotonic()
    if not storage.is_remote(pairs):
        pairs = os.path.abspath(storage.local_path(pairs))
    sets = hold_out(read_pairs(pairs))
    if base is not None:
        base = plain_base(base, f"{workspace.captioner}/bases")
        base = os.path.abspath(base) if os.path.isdir(base) else base.rstrip("/")
        load_tokenizer(base)  # refuses what is no model before any cluster starts
    asked = {
        "settings": to_dict(spec),
        "pairs": hashlib.sha256(storage.read_bytes(pairs)).hexdigest()[:16],
        "base": base_identity(base) if base else "made on the spot",
        "prompt": prompt_hash(),
    }
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    folder = f"{workspace.captioner}/runs/{name}"
    pairs, base = within_reach(folder, pairs, base)
    if not storage.exists(f"{folder}/answer.json"):
        start_ray()
        require_gpus(spec.workers if spec.use_gpu else 0)
        storage.write_json(f"{folder}/asked.json", asked)
        fitted = fit(folder, workspace, spec, pairs=pairs, base=base)
        counts = {"pairs": len(sets.train), "held_out": len(sets.held_out)}
        seconds = round(time.monotonic() - started, 3)
        storage.write_json(f"{folder}/answer.json", {**fitted, **counts, "seconds": seconds})
    answer: dict[str, Any] = storage.read_json(f"{folder}/answer.json")
    publish(folder, workspace.captioner, asked | {"base_path": base, "answer": answer}, sets)
    return answer | {"captioner": workspace.captioner}


def within_reach(folder: str, pairs: str, base: str | None) -> tuple[str, str | None]:
    """`pairs` and `base` as workers on any node read them; None is the base in `folder`.

    A run in an object store may have workers elsewhere, so what lies on this machine goes with it.
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


def fit(
    folder: str, workspace: Workspace, spec: FinetuneSpec, *, pairs: str, base: str | None
) -> dict[str, Any]:
    """Run the loop on Ray Train's workers; rank 0's answer.

    A worker that dies is started again, and all go on from the last state. Raises UnusableError
    where workers keep dying, or where trying again is of no use.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from raymtr.captions.loop import finetune_worker

    filesystem, path = storage.open_filesystem(f"{workspace.captioner}/runs")
    threads = cores_of(spec)
    trainer = TorchTrainer(
        finetune_worker,
        train_loop_config={
            "spec": to_dict(replace(spec, threads=threads)),
            "folder": folder,
            "pairs": pairs,
            "base": base,
        },
        scaling_config=ScalingConfig(
            num_workers=spec.workers,
            use_gpu=spec.use_gpu,
            resources_per_worker={"CPU": threads, **({"GPU": 1} if spec.use_gpu else {})},
        ),
        run_config=RunConfig(
            name=folder.rpartition("/")[2],
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MOST_FAILURES),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        answer: dict[str, Any] = trainer.fit().return_value
    except TrainingFailedError as error:
        raise UnusableError(
            f"fine-tuning failed {MOST_FAILURES + 1} times; the same command goes on from the "
            f"last state once the cause is gone: {error}"
        ) from error
    if "failed" in answer:
        raise UnusableError(answer["failed"])
    return answer


def cores_of(spec: FinetuneSpec) -> int:
    """Threads of a worker: what was asked, as far as this cluster has them."""
    import ray

    cores = int(ray.cluster_resources().get("CPU", 1.0) / spec.workers)
    if not cores:
        raise UnusableError(f"{spec.workers} workers want a CPU each; set finetune.workers lower")
    return min(spec.threads, cores)


def publish(folder: str, captioner: str, made: dict[str, Any], sets: Any) -> None:
    """Bring the finished run in `folder` to `captioner/`, unless it is there already."""
    from collections import Counter

    from raymtr.captions.base_model import base_identity
    from raymtr.captions.captioner import FACTS, VOCABULARY

    answer = made["answer"]
    facts = {
        "base": made["base_path"] or "base",
        "base_identity": base_identity(made["base_path"] or f"{folder}/base"),
        "prompt": made["prompt"],
        "pairs": made["pairs"],
        "settings": made["settings"],
        "metrics": answer["metrics"],
        "samples": answer["samples"],
    }
    marker = f"{captioner}/{FACTS}"
    if storage.exists(marker) and storage.read_json(marker) == facts:
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
    lines = [
        json.dumps({"ytid": p.clip, "tags": p.tags, "caption": p.caption}, ensure_ascii=False)
        for p in sets.held_out
    ]
    storage.write_bytes(f"{captioner}/held_out.jsonl", "".join(f"{x}\n" for x in lines).encode())
    for name in ("metrics.jsonl", "samples.jsonl"):
        storage.write_bytes(f"{captioner}/{name}", storage.read_bytes(f"{folder}/{name}"))
    storage.write_json(marker, facts)


def describe(answer: dict[str, Any]) -> str:
    """The answer in words."""
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
