"""MuLaP on folk tunes of known truth: probes of frozen features, and re-ranking.

    python -m benchmarks.mulap --data ../shared/data/midi --workspace w [--seeds 3] [--steps 300]
        [--packaged]

It renders the tunes (or takes a workspace that `benchmarks.generation` made). For each seed it
trains `mulap-small`, and two towers by contrast alone, with the same audio tower, steps, tracks and
captions. Tunes of split `test` are held out of all of it. It prints balanced accuracy of probes for
each task, model and number of labels, and nDCG@10 of the two towers' search with and without
re-ranking. The weight of re-ranking is chosen on half of the queries and measured on the others.
With `--packaged` only probes are printed: of musicnn's packaged MSD weights before and after MuLaP.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import zlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tinysoundfont

from benchmarks.figures import Figures
from benchmarks.real_input import CLIP_S, TEST_STARTS_S, TRAIN_STARTS_S, Clock, midi_catalog
from raymtr import metrics, storage
from raymtr.evaluation.probe_tasks import THIRDS
from raymtr.recipes import mulap_small, ttmrpp_small
from raymtr.specs import Settings
from raymtr.tower_specs import MUSICNN_AUDIO, MUSICNN_DIM, AudioSpec, AudioTowerSpec
from raymtr.workspace import Workspace

TASKS = ("instrument", "key", "mode", "metre", "dance", "density")
LABELS = "0,1,5,20,all"
DRAWS = 3  # of the labelled tracks
K, DEPTH = 10, 50
PACKAGED_RATE = 1e-4  # the paper's; weights that are trained already
MIXES = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
KINDS = ("instrument", "key", "metre", "dance")  # of truth that queries combine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--workspace", required=True, help="folder; reused if it exists")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=mulap_small().train.steps)
    parser.add_argument("--packaged", action="store_true", help="musicnn's MSD weights")
    arguments = parser.parse_args()
    workspace = Workspace.open(arguments.workspace, create=True)
    clock = Clock()
    make_catalog(workspace, Path(arguments.data), clock)
    density = write_density(workspace, Path(arguments.data))
    seeds = range(arguments.seeds)
    if arguments.packaged:
        probe_packaged(workspace, seeds, arguments.steps, density)
        return
    for seed in seeds:
        with clock(f"train, seed {seed}"):
            train(workspace, seed, arguments.steps)
    print("seconds:", ", ".join(f"{name} {s:.0f}" for name, s in clock.seconds.items()))
    figures = Figures()
    for seed in seeds:
        print_losses(workspace, seed, figures)
    probe(workspace, seeds, density, figures)
    rerank(workspace, seeds, figures)
    figures.save()


def make_catalog(workspace: Workspace, data: Path, clock: Clock) -> None:
    """Renders the tunes, scans and captions them; each continues where it was stopped."""
    from jobs.cluster import start_ray
    from jobs.scan_catalog import scan_catalog
    from jobs.write_captions import write_captions

    manifest = f"{workspace.root}/manifest.parquet"
    if not storage.exists(manifest):
        with clock("render"):
            pq.write_table(midi_catalog(data, Path(workspace.root, "audio")), manifest)
    start_ray()
    with clock("scan, caption"):
        scan_catalog(workspace, mulap_small(), manifest)
        write_captions(workspace, mulap_small())


def recipes(seed: int, steps: int) -> dict[str, Settings]:
    """The two trainings of a seed by the name of their run; they differ by the objective alone."""
    mulap = mulap_small()
    mulap = dataclasses.replace(
        mulap, train=dataclasses.replace(mulap.train, seed=seed, steps=steps)
    )
    contrast = dataclasses.replace(
        ttmrpp_small(),
        towers=dataclasses.replace(
            ttmrpp_small().towers,
            audio=mulap.towers.audio,
            audio_tower=mulap.towers.audio_tower,
        ),
        train=dataclasses.replace(
            ttmrpp_small().train, seed=seed, steps=steps, global_batch=mulap.train.global_batch
        ),
    )
    return {f"mulap-{seed}": mulap, f"contrast-{seed}": contrast}


def models_of(seed: int) -> dict[str, str]:
    """The towers that are probed, by their names in the figures."""
    return {
        "MuLaP": f"mulap-{seed}",
        "random": f"random:mulap-{seed}",
        "contrast": f"contrast-{seed}",
        "log-mel": "log-mel",
    }


def train(workspace: Workspace, seed: int, steps: int) -> None:
    """Trains both; stores the features of every tower that is probed, once for all tasks."""
    from jobs.embed_features import embed_features
    from jobs.train_towers import train_towers

    for name, settings in recipes(seed, steps).items():
        train_towers(workspace, settings, run=name)
    for model in models_of(seed).values():
        embed_features(workspace, mulap_small(), model=model)


def probe_packaged(workspace: Workspace, seeds: Sequence[int], steps: int, density: str) -> None:
    """Every task for musicnn's MSD weights, and for them after each seed of MuLaP."""
    from jobs.embed_features import embed_features
    from jobs.evaluate_probe import describe, evaluate_probe
    from jobs.train_towers import train_towers
    from raymtr.model.model_folder import save_towers
    from raymtr.model.two_towers import build_towers

    audio = AudioSpec(**MUSICNN_AUDIO, level="removed")
    tower = AudioTowerSpec(kind="musicnn-msd", dim=MUSICNN_DIM["musicnn-msd"])
    towers = dataclasses.replace(mulap_small().towers, audio=audio, audio_tower=tower)
    models = [f"{workspace.root}/msd"]
    save_towers(build_towers(towers, seed=0), models[0])
    for seed in seeds:
        settings = recipes(seed, steps)[f"mulap-{seed}"]
        train = dataclasses.replace(settings.train, learning_rate=PACKAGED_RATE)
        settings = dataclasses.replace(settings, towers=towers, train=train)
        models.append(f"mulap-msd-{seed}")
        train_towers(workspace, settings, run=models[-1])
    for model in models:
        embed_features(workspace, mulap_small(), model=model)
    for task in TASKS:
        of = density if task == "density" else task
        print(describe(evaluate_probe(workspace, of, models, labels=LABELS, seeds=DRAWS)))


def print_losses(workspace: Workspace, seed: int, figures: Figures) -> None:
    """The last step's losses beside their trivial baselines."""
    last = storage.read_json(f"{workspace.run(f'mulap-{seed}')}/answer.json")["metrics"]
    for loss in ("words", "chunks", "match"):
        value, baseline = last[loss], last[f"{loss}_baseline"]
        figures.add(f"seed {seed}, {loss}", f"{value:.3f} (baseline {baseline:.3f})")
    figures.add(f"seed {seed}, spread of features", last["spread"])
    figures.add(f"seed {seed}, right in training", last["match_right"])


def write_density(workspace: Workspace, data: Path) -> str:
    """A task's file: whether a clip has few, some or many notes, by thirds of the clips."""
    with open(data / "midi_tracks.csv", newline="", encoding="utf-8") as table:
        files = {row["track_id"]: data / "src" / row["file"] for row in csv.DictReader(table)}
    rows = catalog_of(workspace)
    counts = {row["track_id"]: _notes(row, files) for row in rows}
    cuts = np.quantile(list(counts.values()), (1 / 3, 2 / 3))
    path = f"{workspace.root}/density.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("track_id", "label", "split"))
        for row in rows:
            label = THIRDS[int(np.searchsorted(cuts, counts[row["track_id"]]))]
            writer.writerow((row["track_id"], label, row["split"]))
    return path


def _notes(row: Mapping[str, Any], files: Mapping[str, Path]) -> int:
    """The notes that begin in a clip."""
    tune, clip = row["track_id"].split("_")[:2]
    start = (TEST_STARTS_S if row["split"] == "test" else TRAIN_STARTS_S)[int(clip)]
    events = tinysoundfont.midi.load(str(files[tune]))
    return sum(
        type(event.action).__name__ == "NoteOn"
        and event.action.velocity > 0
        and start <= event.t < start + CLIP_S
        for event in events
    )


def catalog_of(workspace: Workspace) -> list[dict[str, Any]]:
    """The rows of the catalog."""
    catalog = storage.read_tables(workspace.tracks)
    assert catalog is not None
    rows: list[dict[str, Any]] = catalog.to_pylist()
    return rows


def probe(workspace: Workspace, seeds: Sequence[int], density: str, figures: Figures) -> None:
    """Every cell of every task, then MuLaP against its baselines over all of them."""
    from jobs.evaluate_probe import describe, evaluate_probe

    cells: dict[tuple[str, str, str], list[float]] = {}  # (model, task, labels) -> a figure a draw
    for task in TASKS:
        for seed in seeds:
            models = models_of(seed)
            answer = evaluate_probe(
                workspace,
                density if task == "density" else task,
                list(models.values()),
                labels=LABELS,
                seeds=DRAWS,
            )
            print(describe(answer), flush=True)
            for name, model in models.items():
                found = answer["models"][model]
                for labels, cell in found["logistic"].items():
                    cells.setdefault((name, task, labels), []).extend(cell["seeds"])
                if name == "MuLaP" and task == "instrument":
                    share = found["zero_shot"]["balanced_accuracy"] / answer["chance"]
                    figures.add(
                        f"seed {seed}, zero-shot instrument over chance",
                        share,
                        asked="at least 4",
                        met=share >= 4,
                    )
    rng = np.random.default_rng(0)
    for other, by in (("random", 0.10), ("log-mel", 0.05)):
        gain = paired(cells, other, [("instrument", "5")], rng)
        figures.add(
            f"MuLaP over {other}, instrument at 5 labels",
            shown(gain),
            asked=f"at least {by}",
            met=gain["difference"] >= by,
        )
    all_cells = sorted({key[1:] for key in cells})
    gain = paired(cells, "random", all_cells, rng)
    figures.add(
        "MuLaP over random, mean of cells",
        shown(gain),
        asked="interval above 0",
        met=gain["low"] > 0,
    )
    better = [np.mean(cells["MuLaP", *c]) >= np.mean(cells["contrast", *c]) for c in all_cells]
    figures.add(
        "cells where MuLaP is no worse than contrast",
        float(np.mean(better)),
        asked="to reach for: 0.5",
        met=float(np.mean(better)) >= 0.5,
    )


def paired(
    cells: Mapping[tuple[str, str, str], list[float]],
    other: str,
    which: Sequence[tuple[str, str]],
    rng: np.random.Generator,
) -> dict[str, float]:
    """MuLaP minus `other` over the draws of some cells, with its 95 % interval."""
    first = [value for cell in which for value in cells[other, *cell]]
    second = [value for cell in which for value in cells["MuLaP", *cell]]
    return metrics.paired_difference(first, second, rng)


def shown(gain: Mapping[str, float]) -> str:
    """`+0.123 [0.100, 0.150]`."""
    return f"{gain['difference']:+.3f} [{gain['low']:.3f}, {gain['high']:.3f}]"


def queries_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, frozenset[str]]]:
    """Words for each value of the truth, and each pair of values, with the clips they fit."""
    for kinds in [(kind,) for kind in KINDS] + list(combinations(KINDS, 2)):
        fit: dict[tuple[str, ...], set[str]] = {}
        for row in rows:
            if all(row[kind] for kind in kinds):
                fit.setdefault(tuple(row[kind] for kind in kinds), set()).add(row["track_id"])
        for values, ids in sorted(fit.items()):
            if 2 <= len(ids) < len(rows) / 3:
                yield ", ".join(values), frozenset(ids)


def rerank(workspace: Workspace, seeds: Sequence[int], figures: Figures) -> None:
    """nDCG@10 of held-out clips by the contrastive towers, alone and mixed with MuLaP's head."""
    from jobs.build_index import build_index
    from jobs.embed_catalog import embed_catalog
    from raymtr.search.searcher import Searcher

    rows = [row for row in catalog_of(workspace) if row["split"] == "test"]
    queries = list(queries_of(rows))
    dev = np.array([zlib.crc32(text.encode()) % 2 == 0 for text, _ in queries])
    plain: list[float] = []
    mixed: list[float] = []
    took: list[float] = []
    for seed in seeds:
        settings = recipes(seed, mulap_small().train.steps)[f"contrast-{seed}"]
        embedded = embed_catalog(workspace, settings, model=f"contrast-{seed}")
        build_index(workspace, settings, fingerprint=embedded["fingerprint"])
        searcher = Searcher(workspace)
        found = np.array(
            [[_ndcg(searcher, f"mulap-{seed}", q, mix, took) for q in queries] for mix in MIXES]
        )
        best = int(found[:, dev].mean(axis=1).argmax())
        figures.add(
            f"seed {seed}, nDCG@10 on dev by weight",
            ", ".join(f"{m:g}: {v:.3f}" for m, v in zip(MIXES, found[:, dev].mean(1), strict=True)),
        )
        plain += found[0, ~dev].tolist()
        mixed += found[best, ~dev].tolist()
    gain = metrics.paired_difference(plain, mixed, np.random.default_rng(0))
    figures.add("queries, dev and measured", f"{int(dev.sum())}, {int((~dev).sum())}")
    figures.add("nDCG@10 of the first stage", float(np.mean(plain)))
    figures.add(
        "gain of re-ranking, weight of dev",
        shown(gain),
        asked="not below 0; to reach for: 0.03",
        met=gain["high"] >= 0,
    )
    middle = float(np.median(took))
    figures.add(f"re-ranking {DEPTH} hits", middle, unit="ms", asked="at most 60", met=middle <= 60)


def _ndcg(
    searcher: Any, run: str, query: tuple[str, frozenset[str]], mix: float, took: list[float]
) -> float:
    text, right = query
    again = {"rerank": {"depth": DEPTH, "run": run, "mix": mix}} if mix else {}
    answer = searcher.search(text, mode="semantic", where="split = 'test'", k=K, **again)
    if mix and len(took) < 1_000:
        took.append(answer["took_ms"]["rerank"])
    ids = [hit["track_id"] for hit in answer["hits"]]
    gains = [float(track_id in right) / np.log2(rank + 2) for rank, track_id in enumerate(ids)]
    best = sum(1 / np.log2(rank + 2) for rank in range(min(K, len(right))))
    return float(sum(gains) / best)


if __name__ == "__main__":
    main()
