"""The step inside Ray Train against the bare torch step over the same batches, kept in memory.

    python benchmarks/train_step.py [--rounds 3] [--steps 12] [--set train.global_batch=32]

A B A B: (A) builds the towers and steps over batches prepared in advance. (B) is `train_towers`
itself, whose every step draws its sentences and cuts its clips from the decoded cache. Both do the
same arithmetic, so their losses must agree. In both, idle threads sleep, because our Ray workers
are configured that way (OMP_WAIT_POLICY) for the sake of busy neighbours. On idle cores sleeping
costs some 7 % of the step. The ratio is bare over Ray Train's, of the median step and of
CPU-seconds per step. Start-up, validation, checkpoints and the two first steps of each round are
excluded. Below 0.95 is a miss.
"""

from __future__ import annotations

import os

from jobs.cluster import QUIET

os.environ |= QUIET  # before torch reads it

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import pyarrow.compute as pc
import torch

from jobs.scan_catalog import scan_catalog
from jobs.train_towers import train_towers
from jobs.write_captions import write_captions
from raymtr import storage
from raymtr.audio_cache import AudioCache
from raymtr.model.two_towers import build_towers
from raymtr.settings import load_settings
from raymtr.specs import Settings
from raymtr.synthetic.synthesize import synthesize
from raymtr.training.batches import Batches
from raymtr.training.step import TrainStep
from raymtr.workspace import Workspace

TARGET = 0.95
WARM_UP = 2  # first steps of a round, not counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--pieces", type=int, default=120)
    parser.add_argument("--set", dest="assignments", action="append", default=[])
    arguments = parser.parse_args()
    settings = load_settings("ttmrpp-small", assignments=arguments.assignments)
    never = 10 * arguments.steps
    train = dataclasses.replace(
        settings.train, steps=arguments.steps, checkpoint_every=never, validate_every=never
    )
    settings = dataclasses.replace(settings, train=train)
    torch.set_num_threads(train.threads)
    bare: list[dict[str, float]] = []
    through: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.open(f"{folder}/w", create=True)
        pieces = synthesize(f"{folder}/made", pieces=arguments.pieces)
        scan_catalog(workspace, settings, pieces["manifest"])
        write_captions(workspace, settings)
        for turn in range(arguments.rounds):
            run = f"round{turn}"
            train_towers(workspace, settings, run=run)
            lines = Path(workspace.run(run), "metrics.jsonl").read_text().splitlines()
            through += (rows := [json.loads(line) for line in lines])[WARM_UP:]
            bare += (own := bare_steps(workspace, settings, run))[WARM_UP:]
            apart = max(abs(a["loss"] - b["loss"]) for a, b in zip(rows, own, strict=True))
            assert apart < 1e-4, f"the two did not do the same work: losses {apart} apart"
    report(bare, through, settings)


def bare_steps(workspace: Workspace, settings: Settings, run: str) -> list[dict[str, float]]:
    """The same steps over the same batches, all prepared before the first."""
    tracks = storage.read_tables(f"{workspace.run(run)}/tracks")
    tracks = tracks.filter(pc.equal(tracks["split"], "train"))
    towers = build_towers(settings.towers, seed=settings.train.seed)
    cache = AudioCache(workspace.audio_cache, settings.towers.audio)
    batches = Batches(tracks, cache, towers.tokenize, settings.train, any_words=False)
    resident = [batches.make(step) for step in range(settings.train.steps)]
    trainer = TrainStep(towers, settings.train, torch.device("cpu"))
    rows = []
    for step, batch in enumerate(resident):
        wall, busy = time.perf_counter(), time.process_time()
        figures = trainer(batch, step)
        figures["seconds"] = time.perf_counter() - wall
        figures["cpu_seconds"] = time.process_time() - busy
        rows.append(figures)
    return rows


def report(
    bare: list[dict[str, float]], through: list[dict[str, float]], settings: Settings
) -> None:
    spec = settings.train
    print(
        f"torch {torch.__version__}, {spec.threads} threads, batch {spec.global_batch}, "
        f"{len(bare)} steps each"
    )
    for clock in ("seconds", "cpu_seconds"):
        sides = [[row[clock] for row in rows] for rows in (bare, through)]
        least, middle = [min(side) for side in sides], [statistics.median(s) for s in sides]
        print(
            f"{clock:12} bare min {least[0]:.3f} median {middle[0]:.3f} | Ray Train min "
            f"{least[1]:.3f} median {middle[1]:.3f} | ratio of minima {least[0] / least[1]:.3f}, "
            f"of medians {middle[0] / middle[1]:.3f} (target {TARGET})"
        )


if __name__ == "__main__":
    main()
