"""`raymtr train`: catalog + captions + audio -> two towers, by Ray Train; or tokens -> MusicLM.

First it checks everything that can be wrong: settings, tracks, GPUs, and the text tower, which is
fetched into the workspace here. Then there are three steps: decode each track once, in parallel
(failures go to the run's `dead_letter/`); train on up to `train.workers` workers; store the answer.
The run's folder is Ray's (storage_path, name). Started again with the same name and settings, a run
resumes from its last checkpoint. On the same number of workers it then reaches exactly the weights
of an uninterrupted run. A finished run answers at once. With `train.objective=musiclm` the base is
a folder of tokens instead of a text tower, and nothing is decoded.
"""

from __future__ import annotations

import argparse
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from jobs.cluster import require_gpus, start_ray
from jobs.ray_calls import arrow_batches
from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.progress import Progress
from raymtr.specs import Settings, TrainSpec
from raymtr.track import DEAD_LETTER
from raymtr.validation import to_dict
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.training.loop import FittedTowers

LOG = logging.getLogger("raymtr")
EXAMPLE = "raymtr train --workspace w --run first --set train.steps=1000"

TRACKS_PER_BLOCK = 16  # decoded by one task: the unit of retry and of progress


class TrainAnswer(TypedDict):
    """A finished run, its last figures, and its model."""

    run: str
    steps: int
    resumed_from_step: int  # 0: from the start
    workers: list[dict[str, int]]  # `workers` of them `from_step`
    metrics: dict[str, float]  # of the last step
    model: str
    failed: int  # tracks that could not be decoded
    error_rate: float  # of the candidates
    seconds: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `train`."""
    parser.add_argument(
        "--run", help="the run's name, by default the recipe's; the same name resumes"
    )


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> TrainAnswer:
    """The command-line entry point."""
    return train_towers(workspace, settings, run=arguments.run)


def train_towers(
    workspace: Workspace, settings: Settings, *, run: str | None = None
) -> TrainAnswer:
    """Trains the towers of `settings`, or resumes; the run's folder then contains `model/`.

    Raises InputError on invalid settings or settings that differ from the run's, UnusableError if
    the catalog has too little to train on, the text tower or GPUs are missing, or training cannot
    continue, and LostError if its workers keep being lost.
    """
    from raymtr.training.identity import identity_of, may_resume
    from raymtr.training.tracks import read_training_tracks

    answer: TrainAnswer
    started = time.monotonic()
    name = run or settings.recipe
    folder = workspace.run(name)
    of_tokens = settings.train.objective == "musiclm"
    if of_tokens:
        base, candidates = tokens_to_train_on(workspace, settings)
    else:
        candidates = read_training_tracks(workspace, settings.train)
    identity = identity_of(settings, candidates)
    finished = storage.exists(f"{folder}/model") and storage.exists(f"{folder}/answer.json")
    if may_resume(folder, identity) and finished:
        answer = storage.read_json(f"{folder}/answer.json")
        return answer
    if not of_tokens:
        base = choose_text_tower(workspace, settings)
    identity["parts" if of_tokens else "text_tower"] = base["digest"]
    start_ray()
    require_gpus(fewest_workers(settings.train) if settings.train.use_gpu else 0)
    if not may_resume(folder, identity):
        if of_tokens:
            storage.write_table(f"{folder}/tracks/tracks.parquet", candidates)
        else:
            prepare_tracks(candidates, folder, workspace, settings)
        storage.write_json(f"{folder}/run.json", identity)
    failed = storage.read_tables(f"{folder}/dead_letter")
    fitted = fit(folder, workspace, settings, base["folder"])
    answer = {
        "run": name,
        "steps": settings.train.steps,
        "resumed_from_step": fitted["resumed_from_step"],
        "workers": fitted["workers"],
        "metrics": fitted["metrics"],
        "model": f"{folder}/model",
        "failed": len(failed) if failed else 0,
        "error_rate": len(failed) / len(candidates) if failed else 0.0,
        "seconds": round(time.monotonic() - started, 3),
    }
    storage.write_json(f"{folder}/answer.json", answer)
    return answer


class Base(TypedDict):
    """What training starts from: a text tower's folder, or one of tokens."""

    folder: str
    digest: str


def tokens_to_train_on(workspace: Workspace, settings: Settings) -> tuple[Base, pa.Table]:
    """The folder of tokens made with these settings, and its training and validation tracks.

    Raises InputError where there are none, UnusableError where too few are of split `train`.
    """
    from raymtr.generation.token_store import find_tokens, token_tracks

    tokens = find_tokens(workspace, settings.tokens)
    tracks = token_tracks(workspace, tokens)
    if (count := pc.sum(pc.equal(tracks["split"], "train")).as_py() or 0) < 2:
        raise UnusableError(
            f"training needs at least 2 tracks of split 'train' with tokens, {tokens.folder} has "
            f"{count}; scan more music and run `raymtr tokenize`"
        )
    return {"folder": tokens.folder, "digest": tokens.made_by.fingerprint}, tracks


def choose_text_tower(workspace: Workspace, settings: Settings) -> Base:
    """The workspace's copy of the text tower, fetched on first use; checks that towers fit it.

    Raises InputError if the two do not match, UnusableError if no copy can be fetched.
    """
    from raymtr.model.fetched import fetch_text_tower
    from raymtr.model.two_towers import blank_towers
    from raymtr.workspace import FETCHED

    facts = fetch_text_tower(settings.towers.text_tower, workspace)
    folder = storage.local_copy(facts["folder"], last=FETCHED)
    if settings.train.objective == "mulap":
        from raymtr.mulap.network import blank_mulap

        blank_mulap(settings.towers, settings.mulap, folder)
    else:
        blank_towers(settings.towers, folder)
    return {"folder": facts["folder"], "digest": facts["digest"]}


def prepare_tracks(
    candidates: pa.Table, folder: str, workspace: Workspace, settings: Settings
) -> None:
    """Decodes every candidate; decodable tracks are written as the run's `tracks/`, with length."""
    import ray.data

    from raymtr.training.tracks import AUDIO_COLUMNS, DECODED, check_trainable, fill_audio_cache

    decoded = (
        ray.data.from_arrow(candidates.select(AUDIO_COLUMNS))
        .repartition(target_num_rows_per_block=TRACKS_PER_BLOCK)
        .map_batches(
            partial(
                fill_audio_cache, workspace=workspace, settings=settings, hung=f"{folder}/hung"
            ),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=1,
        )
    )
    progress = Progress("decode", len(candidates), unit="tracks")
    done, failed = DECODED.empty_table(), 0
    for block in arrow_batches(decoded):
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
    if sounds is not None and "audio_digest" in sounds.column_names:  # older catalogs have none
        places = pc.index_in(tracks["track_id"], value_set=sounds["track_id"].combine_chunks())
        tracks = tracks.append_column("audio_digest", sounds["audio_digest"].take(places))
    tracks = tracks.filter(pc.is_valid(tracks["samples"]))
    check_trainable(tracks, settings.train, failures)
    storage.write_table(f"{folder}/tracks/tracks.parquet", tracks)


def fewest_workers(spec: TrainSpec) -> int:
    """The minimum number of workers to start training."""
    return spec.min_workers or spec.workers


def worker_cores(spec: TrainSpec) -> float:
    """Cores of a worker: its threads, limited to one node and to its share of the cluster."""
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cores = [node.get("CPU", 0.0) for node in nodes if node.get("GPU") or not spec.use_gpu]
    share = min(max(cores, default=0.0), sum(cores) / fewest_workers(spec))
    if not share:  # no node has joined yet; an autoscaler sees this request
        return spec.threads
    return float(min(spec.threads, int(share) or share))


def fit(folder: str, workspace: Workspace, settings: Settings, base: str) -> FittedTowers:
    """Runs the train loop on Ray Train's workers; rank 0's answer.

    After the loss of a worker, training resumes from the last checkpoint. If the run started with
    fewer workers, Ray adds more as nodes join: all workers stop, and resume from the last
    checkpoint.
    """
    from ray.train.v2.api.config import ScalingConfig

    from jobs.trainer import run_trainer
    from raymtr.training.loop import repair_checkpoint_list, train_worker

    spec, fewest = settings.train, fewest_workers(settings.train)
    repair_checkpoint_list(folder)
    each = {"CPU": worker_cores(spec)} | ({"GPU": 1} if spec.use_gpu else {})
    LOG.info("training waits for %d to %d workers, each with %s", fewest, spec.workers, each)
    return run_trainer(
        train_worker,
        {
            "settings": to_dict(settings),
            "folder": folder,
            "base": base,
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


def describe(answer: TrainAnswer) -> str:
    """The answer as text."""
    figures = answer["metrics"]
    lines = [
        f"run {answer['run']}: {answer['steps']} steps in {answer['seconds']:.0f} s, loss "
        f"{figures['loss']:.3f}"
        + (f", resumed from step {answer['resumed_from_step']}" * bool(answer["resumed_from_step"]))
    ]
    if "valid_match_auc" in figures:
        lines += [
            f"{name}: loss {figures[name]:.3f}, of the baseline {figures[f'{name}_baseline']:.3f}"
            for name in ("words", "chunks", "match", "align")
            if name in figures
        ]
        lines.append(
            f"validation: true sentences over untrue ones, area under the ROC curve "
            f"{figures['valid_match_auc']:.3f} (chance 0.5), {figures['valid_tracks']:.0f} tracks"
        )
    lines += [
        f"{name}: loss {figures[name]:.3f}"
        + (f", validation {figures[f'valid_{name}']:.3f}" if f"valid_{name}" in figures else "")
        + " (nats per token)"
        for name in ("semantic", "coarse", "fine", "acoustic")
        if name in figures
    ]
    if "valid_pool" in figures:
        lines.append(
            f"validation: text-to-audio R@10 {figures['valid_text_to_audio_r_at_10']:.3f} (chance "
            f"{figures['valid_chance_r_at_10']:.3f}), median rank "
            f"{figures['valid_median_rank']:.0f} of {figures['valid_pool']:.0f} tracks"
        )
    if len(answer.get("workers", ())) > 1:
        counts = ", ".join(f"{w['workers']} from step {w['from_step']}" for w in answer["workers"])
        lines.append(f"workers: {counts}; not bit-identical to a run on a fixed number")
    if answer["failed"]:
        lines.append(f"{answer['failed']} tracks could not be decoded; see the run's dead_letter/")
    return "\n".join([*lines, f"model: {answer['model']}"])


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
