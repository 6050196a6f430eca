"""`raymtr train`: catalog + captions + audio -> two towers, by Ray Train.

First whatever can be wrong is looked at: settings, tracks, the text tower, which comes into the
workspace here, GPUs. Then three steps: settle the tracks (decode each once, in parallel; what
fails goes to the run's `dead_letter/`), train on up to `train.workers` workers, keep the answer.
The run's folder is Ray's (storage_path, name): started again with the same name and settings it
goes on from its last checkpoint, on as many workers to the very weights an uninterrupted run has;
finished, it answers at once.
"""

from __future__ import annotations

import argparse
import logging
import time
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.cluster import require_gpus, start_ray
from raymtr import storage
from raymtr.progress import Progress
from raymtr.specs import Settings, TrainSpec, to_dict
from raymtr.track import DEAD_LETTER
from raymtr.workspace import Workspace

LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr train --workspace w --run first --set train.steps=1000"

TRACKS_PER_BLOCK = 16  # decoded by one task: the unit of retry and of progress


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
    catalog has too little to train on, the text tower or GPUs are missing, or training cannot go
    on, and LostError where its workers keep being lost.
    """
    from raymtr.training.identity import identity_of, may_resume
    from raymtr.training.tracks import read_training_tracks

    started = time.monotonic()
    name = run or settings.recipe
    folder = workspace.run(name)
    candidates = read_training_tracks(workspace, settings.train)
    identity = identity_of(settings, candidates)
    finished = storage.exists(f"{folder}/model") and storage.exists(f"{folder}/answer.json")
    if may_resume(folder, identity) and finished:
        answer: dict[str, Any] = storage.read_json(f"{folder}/answer.json")
        return answer
    text_tower = settle_text_tower(workspace, settings)
    identity["text_tower"] = text_tower["digest"]
    start_ray()
    require_gpus(fewest_workers(settings.train) if settings.train.use_gpu else 0)
    if not may_resume(folder, identity):
        settle_tracks(candidates, folder, workspace, settings)
        storage.write_json(f"{folder}/run.json", identity)
    failed = storage.read_tables(f"{folder}/dead_letter")
    answer = {
        "run": name,
        "steps": settings.train.steps,
        **fit(folder, workspace, settings, text_tower["folder"]),
        "model": f"{folder}/model",
        "failed": len(failed) if failed else 0,
        "error_rate": len(failed) / len(candidates) if failed else 0.0,
        "seconds": round(time.monotonic() - started, 3),
    }
    storage.write_json(f"{folder}/answer.json", answer)
    return answer


def settle_text_tower(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The workspace's copy of the text tower, brought on first use, once towers stand on it.

    Raises InputError where the two do not go together, UnusableError where no copy can be had.
    """
    from raymtr.model.fetched import fetch_text_tower
    from raymtr.model.two_towers import blank_towers
    from raymtr.workspace import FETCHED

    facts = fetch_text_tower(settings.towers.text_tower, workspace)
    blank_towers(settings.towers, storage.local_copy(facts["folder"], last=FETCHED))
    return facts


def settle_tracks(
    candidates: pa.Table, folder: str, workspace: Workspace, settings: Settings
) -> None:
    """Decode every candidate; what succeeds is written as the run's `tracks/`, with its length."""
    import ray.data

    from raymtr.training.tracks import AUDIO_COLUMNS, DECODED, check_trainable, fill_audio_cache

    decoded = (
        ray.data.from_arrow(candidates.select(AUDIO_COLUMNS))
        .repartition(target_num_rows_per_block=TRACKS_PER_BLOCK)
        .map_batches(
            partial(fill_audio_cache, workspace=workspace, settings=settings),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
    )
    progress = Progress("decode", len(candidates), unit="tracks")
    done, failed = DECODED.empty_table(), 0
    for block in decoded.iter_batches(batch_size=None, batch_format="pyarrow"):
        done = pa.concat_tables([done, block])
        failed += len(block) - block["code"].null_count
        progress.advance(len(block), note=f"{failed} failed" if failed else "")
    failures = done.filter(pc.is_valid(done["code"])).select(DEAD_LETTER.names).cast(DEAD_LETTER)
    failures = failures.sort_by("track_id")
    if len(failures):
        storage.write_table(f"{folder}/dead_letter/decode.parquet", failures)
    places = pc.index_in(candidates["track_id"], value_set=done["track_id"].combine_chunks())
    tracks = candidates.append_column("samples", done["samples"].take(places))
    sounds = storage.read_tables(workspace.tracks, ["track_id", "audio_digest"])
    if sounds is not None and "audio_digest" in sounds.column_names:  # catalogs of before have none
        places = pc.index_in(tracks["track_id"], value_set=sounds["track_id"].combine_chunks())
        tracks = tracks.append_column("audio_digest", sounds["audio_digest"].take(places))
    tracks = tracks.filter(pc.is_valid(tracks["samples"]))
    check_trainable(tracks, settings.train, failures)
    storage.write_table(f"{folder}/tracks/tracks.parquet", tracks)


def fewest_workers(spec: TrainSpec) -> int:
    """With how many workers training may start."""
    return spec.min_workers or spec.workers


def worker_cores(spec: TrainSpec) -> float:
    """Cores that a worker reserves: its threads, or what there is for the fewest, on one node."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [node.get("CPU", 0.0) for node in nodes if node.get("GPU") or not spec.use_gpu]
    share = min(max(cores, default=0.0), sum(cores) / fewest_workers(spec))
    if not share:  # nothing has joined yet; an autoscaler will see what is asked for
        return spec.threads
    return float(min(spec.threads, int(share) or share))


def fit(folder: str, workspace: Workspace, settings: Settings, text_tower: str) -> dict[str, Any]:
    """Run the train loop on Ray Train's workers; rank 0's answer.

    A worker that dies is started again, from the last checkpoint. Where fewer workers are enough
    to start, Ray takes more as nodes come: all stop, and go on from the last checkpoint.
    """
    from ray.train import ScalingConfig

    from jobs.trainer import run_trainer
    from raymtr.training.loop import mend_list_of_ray, train_worker

    spec, fewest = settings.train, fewest_workers(settings.train)
    mend_list_of_ray(folder)
    each = {"CPU": worker_cores(spec)} | ({"GPU": 1} if spec.use_gpu else {})
    LOG.info("training waits for %d to %d workers, each with %s", fewest, spec.workers, each)
    return run_trainer(
        train_worker,
        {
            "settings": to_dict(settings),
            "folder": folder,
            "text_tower": text_tower,
            "workspace": workspace.root,
        },
        folder=folder,
        scaling=ScalingConfig(
            num_workers=spec.workers if fewest == spec.workers else (fewest, spec.workers),
            use_gpu=spec.use_gpu,
            resources_per_worker=each,
        ),
        keep_checkpoints=spec.keep_checkpoints,
    )


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
    if len(answer.get("workers", ())) > 1:
        counts = ", ".join(f"{w['workers']} from step {w['from_step']}" for w in answer["workers"])
        lines.append(f"workers: {counts}; not the bits of a run whose workers stay")
    if answer["failed"]:
        lines.append(f"{answer['failed']} tracks could not be decoded; see the run's dead_letter/")
    return "\n".join([*lines, f"model: {answer['model']}"])


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
