"""The code of each Ray Train worker: an objective, the steps left, checkpoints, the model.

The loop, the sampler, the checkpoints and resuming are the same for every objective
(training.objectives).

A run resumes from the newest checkpoint folder whose file is complete. Ray uploads, lists and
prunes these folders. Its list is not used to find the newest: after a kill it lags by one, and it
is rewritten in place, so a kill can truncate it. A truncated checkpoint is always detected, because
torch's zip files end with their directory.
"""

from __future__ import annotations

import io
import logging
import pickle
import tempfile
import time
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import ray.train.torch
import torch

from raymtr import storage
from raymtr.progress import speak_to_driver
from raymtr.specs import Settings, TrainSpec
from raymtr.trained_on import record_of, track_names
from raymtr.training.identity import CHECKPOINT
from raymtr.training.objectives import OBJECTIVES
from raymtr.training.run_log import RunLog
from raymtr.training.step import TrainStep
from raymtr.training.tracks import audio_cache_of
from raymtr.validation import from_dict
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
STATE = "state.pt"
TORN = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError)  # from torch.load
RAY_CHECKPOINT_LIST = "checkpoint_manager_snapshot.json"


class FittedTowers(TypedDict):
    """The result of a finished training."""

    resumed_from_step: int  # 0: from the start
    workers: list[dict[str, int]]  # `workers` of them `from_step`
    metrics: dict[str, float]  # of the last step


def train_worker(config: dict[str, Any]) -> FittedTowers | None:
    """Train from the newest checkpoint to the last step, then (rank 0) save the model.

    `config` has `settings` (of specs.to_dict), the run's `folder` with its `tracks/`, the `base`
    that it starts from (training.objectives), and the root of its `workspace`. Rank 0 returns the
    run's result. Raises InputError or UnusableError where a retry cannot help.
    """
    speak_to_driver()
    settings: Settings = from_dict(Settings, config["settings"])
    spec, folder = settings.train, config["folder"]
    torch.set_num_threads(spec.threads)
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = ray.train.torch.get_device() if spec.use_gpu else torch.device("cpu")
    objective = OBJECTIVES[spec.objective](settings, config["base"], device)
    trainer = objective.step
    first, history = resume(trainer, folder)
    if not history or history[-1]["workers"] != workers:
        history.append({"from_step": first, "workers": workers})
    if rank == 0:
        log_world_size(history, spec)
    train, valid = _tracks(folder)
    cache = audio_cache_of(Workspace(config["workspace"]), settings)
    objective.ready(train, cache, rank=rank, local_rank=context.get_local_rank())
    batches = objective.batches(train, cache, rank=rank, workers=workers)
    log = RunLog(folder, first=first, steps=spec.steps) if rank == 0 else None
    validation = objective.validation(valid) if rank == 0 else None
    began, busy = time.perf_counter(), time.process_time()
    for step, batch in batches.ahead(first, spec.steps, then=trainer.read_ahead):
        figures = trainer(batch, step)
        figures["seconds"] = time.perf_counter() - began  # including its wait for data
        figures["cpu_seconds"] = time.process_time() - busy  # of all this worker's threads
        done = step + 1
        if validation and _due(done, spec.validate_every, spec.steps):
            figures |= validation(trainer)
        if log:
            log.add(step, figures)
        if _due(done, spec.checkpoint_every, spec.steps):
            if log:
                log.save()
            _report({"steps": done, "workers": history, **trainer.state()}, figures, rank)
        began, busy = time.perf_counter(), time.process_time()
    if not log:
        return None
    log.close()
    objective.save(
        f"{folder}/model",
        provenance={"source": "raymtr train", "steps": spec.steps},
        trained_on=record_of(_names(train)),
    )
    return {"resumed_from_step": first, "workers": history, "metrics": log.rows[-1]}


def log_world_size(history: list[dict[str, int]], spec: TrainSpec) -> None:
    """Log the number of workers, and the consequence where it has changed."""
    now = history[-1]["workers"]
    if spec.min_workers:
        LOG.info("training on %d workers of at most %d", now, spec.workers)
    if len(history) > 1:
        local = now > 1 or history[-2]["workers"] > 1
        LOG.warning(
            "from step %d the run has %d workers instead of %d: the batches are the same, but sums "
            "are added in another order%s, so the weights differ in rounding from those of a run "
            "with a constant number of workers",
            history[-1]["from_step"],
            now,
            history[-2]["workers"],
            ", and batch norm is over other parts of them" * (local and spec.batch_norm == "local"),
        )


def resume(trainer: TrainStep, folder: str) -> tuple[int, list[dict[str, int]]]:
    """Restore the run's newest complete checkpoint.

    Returns the number of steps done, 0 without a checkpoint, and from which step on how many
    workers did them.
    """
    names = [name for name in storage.list_folders(folder) if name.startswith(CHECKPOINT)]
    for name in reversed(names):
        try:
            data = io.BytesIO(storage.read_bytes(f"{folder}/{name}/{STATE}"))
            state = torch.load(data, map_location="cpu", weights_only=True)
        except TORN as error:
            LOG.warning("checkpoint %s is incomplete (%s); trying the one before", name, error)
            continue
        trainer.restore(state)
        return int(state["steps"]), state.get("workers", [])
    return 0, []


def repair_checkpoint_list(folder: str) -> None:
    """Delete Ray's list of the run's checkpoints where it is damaged or names a missing one.

    Ray would refuse to start; without the list it starts a new one.
    """
    path = f"{folder}/{RAY_CHECKPOINT_LIST}"
    if not storage.exists(path):
        return
    try:
        listed = [
            entry["checkpoint_dir_name"] for entry in storage.read_json(path)["checkpoint_results"]
        ]
    except (ValueError, KeyError, TypeError):
        listed = [STATE]  # names no folder, so that the list is deleted
    if not all(storage.exists(f"{folder}/{name}") for name in listed):
        storage.delete(path)


def _report(state: dict[str, object], figures: dict[str, float], rank: int) -> None:
    """Report rank 0's checkpoint to Ray; a barrier for all workers."""
    name = f"{CHECKPOINT}{state['steps']:09d}"
    if rank:
        ray.train.report(figures, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        torch.save(state, f"{scratch}/{STATE}")
        checkpoint = ray.train.Checkpoint.from_directory(scratch)
        ray.train.report(figures, checkpoint=checkpoint, checkpoint_dir_name=name)


def _tracks(folder: str) -> tuple[pa.Table, pa.Table]:
    """The run's training tracks and validation tracks."""
    tracks = storage.read_tables(f"{folder}/tracks")
    assert tracks is not None, "the job writes them before any worker starts"
    in_training = pc.equal(tracks["split"], "train")
    return tracks.filter(in_training), tracks.filter(pc.invert(in_training))


def _names(train: pa.Table) -> Iterator[str]:
    """The names by which tracks are recorded; runs of an older version have no audio digests."""
    sounds = train["audio_digest"].to_pylist() if "audio_digest" in train.column_names else ()
    for track_id, sound in zip_longest(train["track_id"].to_pylist(), sounds):
        yield from track_names(track_id, sound)


def _due(done: int, every: int, steps: int) -> bool:
    return done % every == 0 or done == steps
