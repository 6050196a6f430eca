"""`raymtr evaluate probe --task T --model A --model B`: how well frozen features fit a task.

The features of each model are those that `embed --output features` stored, else computed here. Each
pair of model and label count is fitted over several seeds, as Ray tasks. `--finetune` trains each
backbone too, on the same labels. Output: `evaluation/probe.json`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NotRequired, TypedDict, final

import numpy as np

from jobs.cluster import start_ray
from jobs.embed_features import named_source
from jobs.ray_calls import ray_task
from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation.opened import cut, finetuned
from raymtr.evaluation.probe_tasks import Task, read_task
from raymtr.evaluation.probes import OBJECTIVES, PROBES, Figures, probe
from raymtr.evaluation.zero_shot import ZeroShot, zero_shot
from raymtr.mulap.backbone import LOG_MEL, RANDOM, Backbone, FeatureSpec, open_backbone
from raymtr.mulap.store import open_features
from raymtr.workspace import Workspace

OWN = ("task", "model", "labels", "seeds", "finetune")
LABELS, SEEDS = "1,5,20,all", 3
ALL = "all"
TRACKS_PER_TASK = 32


class Cell(TypedDict):
    """The task's main figure over draws of labels."""

    mean: float
    seeds: list[float]  # of each draw
    pr_auc: NotRequired[float]  # the mean of tags' second figure


Cells = dict[str, Cell]  # labels per class (`all`: every one) -> its cell


class ModelCells(TypedDict):
    """A model's cells by kind of probe."""

    logistic: Cells
    mlp: Cells
    finetuned: NotRequired[Cells]  # the backbone trained on the labels too
    zero_shot: NotRequired[ZeroShot | None]  # None for a backbone without words


@final
class ProbeAnswer(TypedDict):
    """The task's sizes, each model's cells, and where they were written."""

    task: str
    measure: str  # main figure: balanced_accuracy, roc_auc of tags, r2 of a number
    classes: list[str]  # or tags; [] for a number
    chance: float  # of the main figure
    train: int  # tracks
    held_out: int
    models: dict[str, ModelCells]
    file: str


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the arguments of `probe`."""
    parser.add_argument(
        "--task",
        help="instrument, key, mode, metre, a column of the catalog (number:COLUMN predicts its "
        "numbers), or a CSV file",
    )
    parser.add_argument(
        "--model",
        action="append",
        help=f"a run, a model folder, {LOG_MEL}, or {RANDOM}RUN (untrained); repeatable",
    )
    parser.add_argument(
        "--labels", metavar="LIST", help=f"labelled tracks per class; 0: zero-shot ({LABELS})"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help=f"draws of labels ({SEEDS})")
    parser.add_argument(
        "--finetune",
        action="store_true",
        default=None,
        help="train each backbone on the labels too",
    )


def run(arguments: argparse.Namespace, workspace: Workspace) -> ProbeAnswer:
    """The command-line entry point."""
    if not arguments.task or not arguments.model:
        raise InputError("`raymtr evaluate probe` needs --task, and --model once or more")
    return evaluate_probe(
        workspace,
        arguments.task,
        arguments.model,
        labels=arguments.labels or LABELS,
        seeds=SEEDS if arguments.seeds is None else arguments.seeds,
        finetune=bool(arguments.finetune),
        out=arguments.out,
    )


def evaluate_probe(
    workspace: Workspace,
    task: str,
    models: Sequence[str],
    *,
    labels: str = LABELS,
    seeds: int = SEEDS,
    finetune: bool = False,
    out: str | None = None,
) -> ProbeAnswer:
    """The task's figure on held-out tunes, by model, kind of probe and number of labels.

    Raises InputError where the task cannot be measured or an argument is wrong.
    """
    if seeds < 1:
        raise InputError(f"--seeds is at least 1, got {seeds}")
    counts = _counts(labels)
    catalog = storage.read_tables(workspace.tracks)
    if catalog is None:
        raise InputError(f"no catalog in {workspace.root}; run `raymtr scan` first")
    rows = catalog.to_pylist()
    labelled = read_task(task, rows)
    uris = {row["track_id"]: row["uri"] for row in rows}
    start_ray()
    answer: ProbeAnswer = {
        "task": task,
        "classes": list(labelled.classes),
        "measure": OBJECTIVES[labelled.kind].main,
        "chance": OBJECTIVES[labelled.kind].chance(labelled),
        "train": int(labelled.train.sum()),
        "held_out": int((~labelled.train).sum()),
        "models": {},
        "file": f"{out or workspace.path('evaluation')}/probe.json",
    }
    for name in models:
        source = named_source(workspace, name)
        features = _features(workspace, source, labelled, uris)
        cells = _frozen(labelled, features, counts, seeds)
        if finetune and name != LOG_MEL:
            cells["finetuned"] = _finetuned(labelled, source, uris, counts, seeds)
        if 0 in counts:
            cells["zero_shot"] = zero_shot(labelled, source, features)
        answer["models"][name] = cells
    storage.write_json(answer["file"], answer)
    return answer


def _cell(found: list[Figures]) -> Cell:
    main = [next(iter(figures.values())) for figures in found]
    cell: Cell = {"mean": float(np.mean(main)), "seeds": main}
    if "pr_auc" in found[0]:
        cell["pr_auc"] = float(np.mean([figures["pr_auc"] for figures in found]))
    return cell


def _frozen(
    task: Task, features: list[np.ndarray], counts: Sequence[int | None], seeds: int
) -> ModelCells:
    """The cells of each kind of probe on frozen features, a Ray task for each figure."""
    import ray

    fit, shared = ray_task(probe, num_cpus=1), ray.put(features)
    waiting = {
        (kind, count): [fit(task, shared, kind, count, seed=s) for s in range(seeds)]
        for kind in PROBES
        for count in counts
        if count != 0
    }
    cells: dict[str, Cells] = {kind: {} for kind in PROBES}
    for (kind, count), tasks in waiting.items():
        cells[kind][str(count or ALL)] = _cell(ray.get(tasks))
    return {"logistic": cells["logistic"], "mlp": cells["mlp"]}


def _finetuned(
    task: Task, source: str, uris: dict[str, str], counts: Sequence[int | None], seeds: int
) -> Cells:
    """The cells of the backbone trained on the labels, a Ray task for each count and seed."""
    import ray

    fit = ray_task(finetuned, num_cpus=1)
    files = [uris[track_id] for track_id in task.track_ids]
    waiting = {
        str(count or ALL): [fit(task, source, files, count, seed=s) for s in range(seeds)]
        for count in counts
        if count != 0
    }
    return {count: _cell(ray.get(tasks)) for count, tasks in waiting.items()}


def _counts(labels: str) -> list[int | None]:
    """`0,5,all` -> [0, 5, None]."""
    counts: list[int | None] = []
    for part in labels.split(","):
        if part.strip() != ALL and not part.strip().isdigit():
            raise InputError(f"--labels is a list such as {LABELS}, got {labels!r}")
        counts.append(None if part.strip() == ALL else int(part))
    return counts


def _features(
    workspace: Workspace, source: str, task: Task, uris: dict[str, str]
) -> list[np.ndarray]:
    """Features [W, D] of the task's tracks: stored ones, and the others computed as Ray tasks."""
    import ray

    backbone = open_backbone(source)
    found: dict[str, np.ndarray] = {}
    store = open_features(workspace, backbone)
    if storage.exists(f"{store.folder}/run.json"):
        found = store.reader().read(list(task.track_ids))
    left = [track_id for track_id in task.track_ids if track_id not in found]
    hear = ray_task(_hear, num_cpus=1)
    shared = ray.put(backbone.spec)
    parts = [left[n : n + TRACKS_PER_TASK] for n in range(0, len(left), TRACKS_PER_TASK)]
    tasks = [hear(source, shared, [uris[i] for i in part]) for part in parts]
    for part, made in zip(parts, ray.get(tasks), strict=True):
        found |= dict(zip(part, made, strict=True))
    return [found[track_id] for track_id in task.track_ids]


def _hear(source: str, spec: FeatureSpec, uris: Sequence[str]) -> list[np.ndarray]:
    """Features of these files; raises UnusableError where one cannot be decoded."""
    backbone: Backbone = open_backbone(source)
    return [backbone.embed_windows(cut(uri, spec.audio)) for uri in uris]


def describe(answer: ProbeAnswer) -> str:
    """A line per model and kind of probe."""
    sizes = f"{answer['train']} tracks to train on, {answer['held_out']} held out by tune"
    counted = f"{len(answer['classes'])} classes or tags, " if answer["classes"] else ""
    measure = answer["measure"].replace("_", " ")
    lines = [f"{answer['task']}: {counted}{sizes}; {measure} (chance {answer['chance']:.2f})"]
    for name, cells in answer["models"].items():
        kinds = {"logistic": cells["logistic"], "mlp": cells["mlp"]}
        if "finetuned" in cells:
            kinds["finetuned"] = cells["finetuned"]
        for kind, by_count in kinds.items():
            shown = [f"{count}: {cell['mean']:.2f}" for count, cell in by_count.items()]
            lines.append(f"{name:24} {kind:9} {', '.join(shown)}")
        if zero := cells.get("zero_shot"):
            accuracy = zero.get("balanced_accuracy")
            shown_first = "" if accuracy is None else f"{accuracy:.2f}, "
            lines.append(
                f"{name:24} zero-shot {shown_first}ROC-AUC {zero['roc_auc']:.2f} by {zero['by']}"
            )
    return "\n".join([*lines, f"written to {answer['file']}"])
