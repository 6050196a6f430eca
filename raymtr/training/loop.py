"""What each Ray Train worker runs: towers, the steps left to do, checkpoints, the finished model.

A run is resumed from the newest checkpoint folder whose file is whole. Ray uploads, lists and
prunes these folders, but its list is not asked which is newest: it lags a kill by one, and it is
rewritten in place, so a kill can tear it. A torn checkpoint cannot pass for a whole one, because
the zip files of torch end with their table of contents.
"""

from __future__ import annotations

import io
import logging
import pickle
import tempfile
import time
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray.train
import ray.train.torch
import torch

from raymtr import storage
from raymtr.audio_cache import AudioCache
from raymtr.errors import UnusableError
from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import build_towers
from raymtr.specs import Settings, from_dict
from raymtr.training.batches import Batches
from raymtr.training.identity import CHECKPOINT
from raymtr.training.run_log import RunLog
from raymtr.training.step import TrainStep
from raymtr.training.validation import Validation

LOG = logging.getLogger("raymtr")
STATE = "state.pt"
TORN = (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError)  # of torch.load
LIST_OF_RAY = "checkpoint_manager_snapshot.json"


def train_worker(config: dict[str, Any]) -> dict[str, Any]:
    """Train from the newest checkpoint to the last step, then (rank 0) save the model.

    `config` holds `settings` (of specs.to_dict), the run's `folder` with its `tracks/`, and the
    `cache` of decoded audio. Rank 0's answer is the run's; it has `failed`, a sentence, where
    trying again is of no use.
    """
    logging.getLogger().setLevel(logging.WARNING)  # Ray Train's workers print INFO, to stderr
    LOG.setLevel(logging.INFO)
    settings: Settings = from_dict(Settings, config["settings"])
    spec, folder = settings.train, config["folder"]
    torch.set_num_threads(spec.threads)
    rank = ray.train.get_context().get_world_rank()
    device = ray.train.torch.get_device() if spec.use_gpu else torch.device("cpu")
    towers = build_towers(settings.towers, seed=spec.seed)
    step_of = TrainStep(towers, spec, device)
    first = resume(step_of, folder)
    train, valid = _tracks(folder)
    cache = AudioCache(config["cache"], settings.towers.audio)
    batches = Batches(train, cache, towers.tokenize, spec, rank=rank)
    log = RunLog(folder, first=first, steps=spec.steps) if rank == 0 else None
    validation = Validation(valid, towers.tokenize, settings.towers.audio) if rank == 0 else None
    began, busy = time.perf_counter(), time.process_time()
    for step, batch in batches.ahead(first, spec.steps):
        try:
            figures = step_of(batch, step)
        except UnusableError as error:  # all workers are here: they share the loss
            return {"failed": str(error)}
        figures["seconds"] = time.perf_counter() - began  # of this step, its wait for data included
        figures["cpu_seconds"] = time.process_time() - busy  # of all this worker's threads
        done = step + 1
        if validation and _due(done, spec.validate_every, spec.steps):
            figures |= validation(step_of)
        if log:
            log.add(step, figures)
        if _due(done, spec.checkpoint_every, spec.steps):
            if log:
                log.save()
            _report(step_of, done, figures, rank)
        began, busy = time.perf_counter(), time.process_time()
    if not log:
        return {}
    log.close()
    save_towers(
        towers, f"{folder}/model", provenance={"source": "raymtr train", "steps": spec.steps}
    )
    return {"resumed_from_step": first, "metrics": log.rows[-1]}


def resume(step_of: TrainStep, folder: str) -> int:
    """Restore the run's newest whole checkpoint; how many steps it has done, 0 without one."""
    names = [name for name in storage.list_folders(folder) if name.startswith(CHECKPOINT)]
    for name in reversed(names):
        try:
            data = io.BytesIO(storage.read_bytes(f"{folder}/{name}/{STATE}"))
            state = torch.load(data, map_location="cpu", weights_only=True)
        except TORN as error:
            LOG.warning("checkpoint %s is not whole (%s); trying the one before", name, error)
            continue
        step_of.restore(state)
        return int(state["steps"])
    return 0


def mend_list_of_ray(folder: str) -> None:
    """Drop Ray's list of the run's checkpoints where it is torn or names one that is gone.

    Ray would refuse to start; without the list it starts one anew.
    """
    path = f"{folder}/{LIST_OF_RAY}"
    if not storage.exists(path):
        return
    try:
        listed = [
            entry["checkpoint_dir_name"] for entry in storage.read_json(path)["checkpoint_results"]
        ]
    except (ValueError, KeyError, TypeError):
        listed = [STATE]  # of no folder
    if not all(storage.exists(f"{folder}/{name}") for name in listed):
        storage.delete(path)


def _report(step_of: TrainStep, done: int, figures: dict[str, float], rank: int) -> None:
    """Hand rank 0's checkpoint to Ray; a barrier for all workers."""
    name = f"{CHECKPOINT}{done:09d}"
    if rank:
        ray.train.report(figures, checkpoint_dir_name=name)
        return
    with tempfile.TemporaryDirectory() as scratch:
        torch.save({"steps": done, **step_of.state()}, f"{scratch}/{STATE}")
        checkpoint = ray.train.Checkpoint.from_directory(scratch)
        ray.train.report(figures, checkpoint=checkpoint, checkpoint_dir_name=name)


def _tracks(folder: str) -> tuple[pa.Table, pa.Table]:
    """The run's tracks to train and to validate on."""
    tracks = storage.read_tables(f"{folder}/tracks")
    assert tracks is not None, "the job writes them before any worker starts"
    in_training = pc.equal(tracks["split"], "train")
    return tracks.filter(in_training), tracks.filter(pc.invert(in_training))


def _due(done: int, every: int, steps: int) -> bool:
    return done % every == 0 or done == steps
