"""`raymtr train`: catalog + captions + audio -> two towers, by Ray Train.

Three steps: settle the tracks (decode each once, in parallel, into the cache; what fails goes to
the run's `dead_letter/`), train on `train.workers` workers, keep the answer. The run's folder is
Ray's (storage_path, name): started again with the same name and settings it goes on from its last
checkpoint to the very weights an uninterrupted run has; finished, it answers at once.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.cluster import require_gpus, start_ray
from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.progress import Progress
from raymtr.specs import Settings, to_dict
from raymtr.track import DEAD_LETTER
from raymtr.workspace import Workspace

EXAMPLE = "raymtr train --workspace w --run first --set train.steps=1000"

TRACKS_PER_BLOCK = 16  # decoded by one task: the unit of retry and of progress
MOST_FAILURES = 3  # of workers, before the run is given up


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `train` alone."""
    parser.add_argument(
        "--run", help="the run's name, by default the recipe's; the same name resumes"
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The command line's way in."""
    return train_towers(workspace, settings, run=arguments.run)


def train_towers(
    workspace: Workspace, settings: Settings, *, run: str | None = None
) -> dict[str, Any]:
    """Train, or go on training, the towers of `settings`; the run's folder ends with `model/`.

    Raises InputError on settings that cannot be or differ from the run's, UnusableError where the
    catalog has too little to train on, GPUs are missing, or training cannot go on.
    """
    from raymtr.training.identity import identity_of, may_resume
    from raymtr.training.tracks import read_training_tracks

    started = time.monotonic()
    name = run or settings.recipe
    folder = workspace.run(name)
    candidates = read_training_tracks(workspace, settings.train)
    identity = identity_of(settings, candidates)
    resumes = may_resume(folder, identity)
    if resumes and storage.exists(f"{folder}/model") and storage.exists(f"{folder}/answer.json"):
        answer: dict[str, Any] = storage.read_json(f"{folder}/answer.json")
        return answer
    start_ray()
    require_gpus(settings.train.workers if settings.train.use_gpu else 0)
    if not resumes:
        settle_tracks(candidates, folder, workspace, settings)
        storage.write_json(f"{folder}/run.json", identity)
    failed = storage.read_tables(f"{folder}/dead_letter")
    answer = {
        "run": name,
        "steps": settings.train.steps,
        **fit(folder, workspace, settings),
        "model": f"{folder}/model",
        "failed": len(failed) if failed else 0,
        "error_rate": len(failed) / len(candidates) if failed else 0.0,
        "seconds": round(time.monotonic() - started, 3),
    }
    storage.write_json(f"{folder}/answer.json", answer)
    return answer


def cache_folder(workspace: Workspace) -> str:
    """Where decoded audio is kept: in a local workspace, else on each machine's own disk.

    There a machine decodes what it has not seen when it first trains on it.
    """
    if not storage.is_remote(workspace.root):
        return workspace.audio_cache
    name = hashlib.sha256(workspace.root.encode()).hexdigest()[:16]
    return os.path.join(tempfile.gettempdir(), f"raymtr-audio-{name}")


def settle_tracks(
    candidates: pa.Table, folder: str, workspace: Workspace, settings: Settings
) -> None:
    """Decode every candidate into the cache; what succeeds is written as the run's `tracks/`."""
    import ray.data

    from raymtr.training.tracks import AUDIO_COLUMNS, check_trainable, fill_audio_cache

    decoded = (
        ray.data.from_arrow(candidates.select(AUDIO_COLUMNS))
        .repartition(target_num_rows_per_block=TRACKS_PER_BLOCK)
        .map_batches(
            partial(
                fill_audio_cache,
                folder=cache_folder(workspace),
                spec=settings.towers.audio,
                max_s=settings.embed.max_track_s,
            ),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
    )
    progress = Progress("decode", len(candidates), unit="tracks")
    failures = DEAD_LETTER.empty_table()
    for block in decoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        bad = block.filter(pc.is_valid(block["code"])).cast(DEAD_LETTER)
        failures = pa.concat_tables([failures, bad])
        progress.advance(len(block), note=f"{len(failures)} failed" if len(failures) else "")
    failures = failures.sort_by("track_id")
    if len(failures):
        storage.write_table(f"{folder}/dead_letter/decode.parquet", failures)
    good = pc.invert(pc.is_in(candidates["track_id"], failures["track_id"].combine_chunks()))
    tracks = candidates.filter(good)
    check_trainable(tracks, settings.train, failures)
    storage.write_table(f"{folder}/tracks/tracks.parquet", tracks)


def fit(folder: str, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Run the train loop on Ray Train's workers; rank 0's answer.

    A worker that dies is started again, from the last checkpoint. Raises UnusableError where
    workers keep dying, or where trying again is of no use.
    """
    import ray
    from ray.train import (
        CheckpointConfig,
        FailureConfig,
        RunConfig,
        ScalingConfig,
        TrainingFailedError,
    )
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    from raymtr.training.loop import mend_list_of_ray, train_worker

    spec = settings.train
    filesystem, path = storage.open_filesystem(workspace.towers)
    mend_list_of_ray(folder)
    cores = ray.cluster_resources().get("CPU", 1.0) / spec.workers
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={
            "settings": to_dict(settings),
            "folder": folder,
            "cache": cache_folder(workspace),
        },
        scaling_config=ScalingConfig(
            num_workers=spec.workers,
            use_gpu=spec.use_gpu,
            resources_per_worker={
                "CPU": min(spec.threads, int(cores) or cores),
                **({"GPU": 1} if spec.use_gpu else {}),
            },
        ),
        run_config=RunConfig(
            name=folder.rpartition("/")[2],
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=MOST_FAILURES),
            checkpoint_config=CheckpointConfig(num_to_keep=spec.keep_checkpoints),
            logging_config=LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        answer: dict[str, Any] = trainer.fit().return_value
    except TrainingFailedError as error:
        raise UnusableError(
            f"training failed {MOST_FAILURES + 1} times; the same command goes on from the last "
            f"checkpoint once the cause is gone: {error}"
        ) from error
    if "failed" in answer:
        raise UnusableError(answer["failed"])
    return answer


def describe(answer: dict[str, Any]) -> str:
    """The answer in words."""
    figures = answer["metrics"]
    lines = [
        f"run {answer['run']}: {answer['steps']} steps in {answer['seconds']:.0f} s, loss "
        f"{figures['loss']:.3f}"
        + (f", resumed from step {answer['resumed_from_step']}" * bool(answer["resumed_from_step"]))
    ]
    if "valid_pool" in figures:
        lines.append(
            f"validation: text-to-audio R@10 {figures['valid_text_to_audio_r_at_10']:.3f} (chance "
            f"{figures['valid_chance_r_at_10']:.3f}), median rank "
            f"{figures['valid_median_rank']:.0f} of {figures['valid_pool']:.0f} tracks"
        )
    if answer["failed"]:
        lines.append(f"{answer['failed']} tracks could not be decoded; see the run's dead_letter/")
    return "\n".join([*lines, f"model: {answer['model']}"])


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
