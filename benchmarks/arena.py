"""The published recipe against ours, on equal terms: same tracks, steps, size, seeds and search.

    python benchmarks/arena.py --data ../shared/data [--workspace arena-workspace] [--size small]

Three recipes are trained on one catalog: clips of rendered MIDI with exact truth, clips of freely
licensed recordings, and the synthetic catalog. Splits are by artist or title (arena_data).

    published    TTMR++ scaled down: a ResNet from random weights, MiniLM trained too, linear
                 heads, the clip's level kept
    ours         the recipe `raymtr-small`; parameters within 5 %
    pretrained   ours over musicnn's trunk and MiniLM, both frozen: a separate row

Each gets the same small search over learning rates by validation R@10, with the first seed; then
all seeds are trained with its rate. Every model answers every test query. A query's figure is
its mean over seeds, and two recipes are compared query by query: difference, 95 % bootstrap
interval and p-value of a randomisation test, by kind of query. Real recordings are a pool of their
own. Level: the first seed answers again for the same test files at other levels. Models stay in
`towers/<recipe>-<seed>/model`. A killed run continues; finished work is not repeated.

It states nothing about the recipes on other data. `--size toy` shows in minutes that all of it
runs, and its figures mean nothing; `small` takes about an hour of one core.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from arena_data import LEVELS, SIZES, Size, decoded, described, make_catalog, questions
from arena_report import AS_MADE, FIGURES, Answers, report

import raymtr
from raymtr import storage
from raymtr.evaluation.benchmarks import Benchmark
from raymtr.evaluation.comparison import per_query
from raymtr.evaluation.quality import rank_pool
from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import build_towers
from raymtr.specs import Settings
from raymtr.tower_recipes import laptop, raymtr_small, ttmrpp_small
from raymtr.training.batches import Batches
from raymtr.training.step import TrainStep
from raymtr.training.tracks import audio_cache_of, fill_audio_cache, read_training_tracks
from raymtr.training.validation import Validation
from raymtr.validation import to_dict
from raymtr.workspace import Workspace

RECEIPT = "trained.json"  # of a training, written last


def published() -> Settings:
    """TTMR++'s recipe at the size of `raymtr-small`, MiniLM in RoBERTa's place, trained too."""
    small = ttmrpp_small()
    towers = replace(
        small.towers,
        audio=replace(raymtr_small().towers.audio, level="kept", semitones=False),
        text_tower=replace(small.towers.text_tower, trainable=True, pooling="first"),
    )
    return replace(small, towers=towers)


def pretrained() -> Settings:
    """Ours from the packaged trunk: the towers of `laptop`, frozen under two-layer heads."""
    ours = raymtr_small()
    train = replace(ours.train, overdrive_db=0.0)  # a frozen trunk reads the same windows again
    return replace(ours, towers=laptop().towers, train=train)


RECIPES = {"published": published, "ours": raymtr_small, "pretrained": pretrained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with midi/ and real_music/")
    parser.add_argument("--workspace", default="arena-workspace")
    parser.add_argument("--size", choices=tuple(SIZES), default="full")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    workspace = Workspace.open(arguments.workspace, create=True)
    catalog = make_catalog(workspace, arguments.data, size)
    test, asked = questions(catalog)
    print(f"{len(catalog)} tracks, {len(test)} of them for testing; {described(size)}", flush=True)
    answers = {name: compete(name, workspace, size, asked, test) for name in RECIPES}
    report(asked, answers)


def compete(
    name: str, workspace: Workspace, size: Size, asked: dict[str, Benchmark], test: pa.Table
) -> list[Answers]:
    """Tune, train and evaluate one recipe; the answers of each seed."""
    recipe = RECIPES[name]()
    spec = replace(
        recipe.train,
        steps=size.steps,
        warmup_steps=size.steps // 10,
        global_batch=size.batch,
        threads=size.threads,
    )
    settings, tuned = replace(recipe, train=spec), []
    for rate in size.rates:
        own = _with(settings, rate, size.seeds[0])
        folder = workspace.path("tuning", f"{name}-{rate:g}")
        tuned.append((trained(own, workspace, folder), rate, folder))
    _, rate, best = max(tuned)
    shown = ", ".join(f"{r:g}: {v:.3f}" for v, r, _ in tuned)
    print(f"{name}: validation R@10 by rate {shown}; taken {rate:g}", flush=True)
    folders = [workspace.run(f"{name}-{seed}") for seed in size.seeds]
    if receipt_of(folders[0], _with(settings, rate, size.seeds[0])) is None:
        storage.delete(folders[0])
        storage.copy_folder(best, folders[0], last=RECEIPT)
    for seed, folder in zip(size.seeds[1:], folders[1:], strict=True):
        trained(_with(settings, rate, seed), workspace, folder)
    sounds = decoded(test, settings.towers.audio)
    return [
        answers_of(folder, asked, sounds, LEVELS if folder == folders[0] else (AS_MADE,))
        for folder in folders
    ]


def _with(settings: Settings, rate: float, seed: int) -> Settings:
    return replace(settings, train=replace(settings.train, learning_rate=rate, seed=seed))


def receipt_of(folder: str, settings: Settings) -> float | None:
    """Validation R@10 of the model that these settings trained into `folder`; None without one."""
    if not storage.exists(f"{folder}/{RECEIPT}"):
        return None
    seen = storage.read_json(f"{folder}/{RECEIPT}")
    return float(seen["valid_r_at_10"]) if seen["settings"] == _plain(settings) else None


def _plain(settings: Settings) -> object:
    return json.loads(json.dumps(to_dict(settings)))


def trained(settings: Settings, workspace: Workspace, folder: str) -> float:
    """Train into `folder`/model, unless these settings did; R@10 on the validation split."""
    if (done := receipt_of(folder, settings)) is not None:
        return done
    storage.delete(folder)
    spec = settings.train
    torch.set_num_threads(spec.threads)
    tracks = read_training_tracks(workspace, spec)
    filled = fill_audio_cache(tracks, workspace, settings, hung=workspace.path("hung"))
    assert not filled["code"].drop_null(), "a clip of the arena cannot be decoded"
    tracks = tracks.append_column("samples", filled["samples"])
    in_training = pc.equal(tracks["split"], "train")
    towers = build_towers(settings.towers, seed=spec.seed)
    cache = audio_cache_of(workspace, settings)
    batches = Batches(
        *(tracks.filter(in_training), cache, towers.tokenize, spec),
        anywhere=settings.towers.audio_tower.trainable,
    )
    trainer = TrainStep(towers, spec, torch.device("cpu"))
    for step, batch in batches.ahead(0, spec.steps, then=trainer.read_ahead):
        trainer(batch, step)
    valid = Validation(
        tracks.filter(pc.invert(in_training)), towers.tokenize, settings.towers.audio
    )
    figure = valid(trainer)["valid_text_to_audio_r_at_10"]
    save_towers(towers, f"{folder}/model")
    count, learned = (sum(p.numel() for p in ps) for ps in (towers.parameters(), trainer.learned))
    storage.write_json(
        f"{folder}/{RECEIPT}",
        {
            "settings": _plain(settings),
            "valid_r_at_10": figure,
            "parameters": count,
            "learned": learned,
        },
    )
    print(f"{folder}: {count:,} parameters, {learned:,} learned, R@10 {figure:.3f}", flush=True)
    return float(figure)


def answers_of(
    folder: str,
    asked: dict[str, Benchmark],
    sounds: dict[str, np.ndarray],
    levels: Iterable[str],
) -> Answers:
    """Each of FIGURES for every query, by the folder's model; earlier answers are reused."""
    file = f"{folder}/answers.npz"
    if storage.exists(file):
        with np.load(io.BytesIO(storage.read_bytes(file))) as held:
            return {_named(key): held[key] for key in held}
    model = raymtr.load_model(f"{folder}/model")
    found: Answers = {}
    for level in levels:
        rng, rate = np.random.default_rng(0), model.spec.audio.sample_rate
        vectors = {
            track_id: model.encode_audio([(LEVELS[level](samples, rng), rate)])[0]
            for track_id, samples in sounds.items()
        }
        for pool, benchmark in asked.items():
            texts = model.encode_text([query.sentence for query in benchmark.queries])
            scores = texts @ np.stack([vectors[track_id] for track_id in benchmark.pool]).T
            run = rank_pool(benchmark, benchmark.queries, scores)
            right = {query.query_id: benchmark.right[query.query_id] for query in benchmark.queries}
            figures = per_query(run, right, "towers")
            found |= {(pool, level, name): figures[name] for name in FIGURES}
    buffer = io.BytesIO()
    np.savez(buffer, **{"|".join(key): values for key, values in found.items()})  # type: ignore[arg-type]
    storage.write_bytes(file, buffer.getvalue())
    return found


def _named(key: str) -> tuple[str, str, str]:
    pool, level, figure = key.split("|")
    return pool, level, figure


if __name__ == "__main__":
    main()
