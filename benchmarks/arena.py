"""The published recipe against ours, on equal terms: same tracks, steps, size, seeds and search.

    python benchmarks/arena.py --data ../shared/data [--workspace arena-workspace] [--toy]

Three recipes are trained on one catalog: clips of rendered MIDI with exact truth, clips of freely
licensed recordings, and the synthetic catalog. Splits are by artist.

    published    TTMR++ scaled down: a ResNet from random weights, MiniLM trained too, linear
                 heads, the clip's level kept
    ours         the same towers, with what won here (`ours` below); parameters within 5 %
    pretrained   ours with musicnn's trunk in the ResNet's place, frozen: a row of its own

Each gets the same small search over learning rates by validation R@10, with the first seed; then
all seeds are trained with its rate. Every test query is asked of every model. A query's figure is
its mean over seeds, and two recipes are compared query by query: difference, 95 % bootstrap
interval and p-value of a randomisation test, by kind of query. Real recordings are a pool of their
own. Level: the same test files 12 dB quieter. Models stay in `towers/<recipe>-<seed>/model`.

It states nothing about the recipes on other data. `--toy` shows in minutes that all of it runs; its
figures mean nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from raymtr import metrics, storage
from raymtr.audio import decode_span
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.catalog.manifest import read_manifest
from raymtr.catalog.similar_artists import join_similar_artists, read_graph
from raymtr.catalog.sources import midi_tracks, real_music_tracks
from raymtr.catalog.splits import assign_splits
from raymtr.evaluation.benchmarks import Benchmark
from raymtr.evaluation.catalog_benchmark import catalog_benchmark
from raymtr.evaluation.comparison import per_query
from raymtr.evaluation.quality import rank_pool
from raymtr.model.model import Model
from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import TwoTowers, build_towers
from raymtr.recipes import laptop, ttmrpp_small
from raymtr.specs import Settings
from raymtr.synthetic.synthesize import synthesize
from raymtr.track import check_tracks
from raymtr.training.batches import Batches
from raymtr.training.step import TrainStep
from raymtr.training.tracks import audio_cache_of, fill_audio_cache, read_training_tracks
from raymtr.training.validation import Validation
from raymtr.workspace import Workspace

SEEDS = (0, 1, 2)
RATES = (3e-4, 1e-3, 3e-3)
QUIETER_DB = 12.0
LONGEST_S = 600.0  # of a test file
FIGURES = ("r_at_10", "ndcg_at_10")


@dataclass(frozen=True)
class Size:
    """How much is made and trained."""

    pieces: int = 400
    clips: int = 10_000  # of MIDI, and of recordings
    steps: int = 400
    seeds: tuple[int, ...] = SEEDS
    rates: tuple[float, ...] = RATES


TOY = Size(pieces=12, clips=12, steps=2, seeds=(0, 1), rates=(1e-3,))


def published() -> Settings:
    """TTMR++'s recipe at the size of `ttmrpp-small`, MiniLM in RoBERTa's place, trained too."""
    small = ttmrpp_small()
    towers = replace(
        small.towers,
        audio=replace(small.towers.audio, level="kept"),
        text_tower=replace(small.towers.text_tower, trainable=True, pooling="first"),
    )
    return replace(small, towers=towers)


def ours() -> Settings:
    """The published recipe with each change that is kept; every one has its reason here.

    The level is removed, because a quieter copy is the same music. Rows of one artist or of the
    same words are no negatives. MiniLM is read by its mean, as it was trained to be.
    """
    paper = published()
    towers = replace(
        paper.towers,
        audio=replace(paper.towers.audio, level="removed"),
        text_tower=replace(paper.towers.text_tower, pooling="mean"),
    )
    return replace(paper, towers=towers, train=replace(paper.train, false_negatives="masked"))


def pretrained() -> Settings:
    """Ours from the packaged trunk: musicnn's MSD tagger, frozen, under a two-layer head."""
    own, trunk = ours(), laptop().towers
    towers = replace(
        own.towers, audio=trunk.audio, audio_tower=trunk.audio_tower, heads=trunk.heads
    )
    return replace(own, towers=towers)


RECIPES = {"published": published, "ours": ours, "pretrained": pretrained}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with midi/ and real_music/")
    parser.add_argument("--workspace", default="arena-workspace")
    parser.add_argument("--toy", action="store_true", help="minutes: to see that it runs")
    arguments = parser.parse_args()
    size = TOY if arguments.toy else Size()
    workspace = Workspace.open(arguments.workspace, create=True)
    catalog = make_catalog(workspace, arguments.data, size)
    real = pc.equal(pc.fill_null(catalog["dataset"], ""), "real_music")
    test = catalog.filter(pc.equal(catalog["split"], "test"))
    pools = {
        "rendered": _ids(catalog.filter(pc.invert(real)), test),
        "real": _ids(catalog.filter(real), test),
    }
    asked = {
        name: catalog_benchmark(catalog, seed=0, pool=ids) for name, ids in pools.items() if ids
    }
    answers = {name: compete(name, workspace, size, asked, test) for name in RECIPES}
    report(asked, answers)


def _ids(part: pa.Table, test: pa.Table) -> list[str]:
    kept = set(part["track_id"].to_pylist())
    return [track_id for track_id in test["track_id"].to_pylist() if track_id in kept]


def make_catalog(workspace: Workspace, data: str, size: Size) -> pa.Table:
    """The three sources as one catalog with splits by artist, and two captions for each track."""
    made = synthesize(workspace.path("music"), pieces=size.pieces, seed=0)
    graph = read_graph(workspace.path("music/similar_artists.tsv"))
    synthetic, _ = join_similar_artists(read_manifest(made["manifest"]), graph)
    rng = np.random.default_rng(0)
    parts = [
        synthetic.set_column(
            synthetic.column_names.index("dataset"),
            "dataset",
            pa.array(["synthetic"] * len(synthetic)),
        )
    ]
    for source in (midi_tracks(f"{data}/midi"), real_music_tracks(f"{data}/real_music")):
        chosen = np.sort(rng.permutation(len(source))[: size.clips])
        parts.append(source.take(chosen).select(synthetic.schema.names[:14]))
    catalog = assign_splits(check_tracks(pa.concat_tables(parts, promote_options="permissive")))
    storage.replace_tables(workspace.tracks, catalog)
    storage.replace_tables(workspace.captions, caption_tracks(catalog, per_track=2, seed=0))
    return catalog


def compete(
    name: str, workspace: Workspace, size: Size, asked: dict[str, Benchmark], test: pa.Table
) -> dict[str, dict[str, np.ndarray]]:
    """Tune, train and ask one recipe: pool (or pool at -12 dB) -> figure -> [seeds, queries]."""
    settings = RECIPES[name]()
    settings = replace(
        settings, train=replace(settings.train, steps=size.steps, warmup_steps=size.steps // 10)
    )
    tuned = [
        (validated(_train(_with(settings, rate, size.seeds[0]), workspace)), rate)
        for rate in size.rates
    ]
    rate = max(tuned)[1]
    print(f"{name}: rates {[(r, round(v, 3)) for v, r in tuned]}, taken {rate:g}")
    found: dict[str, dict[str, list[np.ndarray]]] = {}
    for seed in size.seeds:
        trained = _train(_with(settings, rate, seed), workspace)
        towers: TwoTowers = trained.step.towers
        save_towers(towers, f"{workspace.run(f'{name}-{seed}')}/model")
        if seed == size.seeds[0]:
            count = sum(p.numel() for p in towers.parameters())
            learned = sum(p.numel() for p in trained.step.learned)
            print(f"{name}: {count:,} parameters, {learned:,} of them trained")
        model = Model(towers)
        for quiet in (0.0, QUIETER_DB):
            vectors = embedded(model, test, quiet)
            for pool, benchmark in asked.items():
                key = f"{pool} -{quiet:g} dB" if quiet else pool
                for figure, values in answered(model, benchmark, vectors).items():
                    found.setdefault(key, {}).setdefault(figure, []).append(values)
    return {k: {f: np.stack(v) for f, v in figures.items()} for k, figures in found.items()}


@dataclass(frozen=True)
class Trained:
    """A finished training with its validation."""

    step: TrainStep
    validation: Validation


def _with(settings: Settings, rate: float, seed: int) -> Settings:
    return replace(settings, train=replace(settings.train, learning_rate=rate, seed=seed))


def validated(trained: Trained) -> float:
    """R@10 on the validation split."""
    return trained.validation(trained.step)["valid_text_to_audio_r_at_10"]


def _train(settings: Settings, workspace: Workspace) -> Trained:
    """The steps of `raymtr train` on one worker, without Ray."""
    spec = settings.train
    torch.set_num_threads(spec.threads)
    tracks = read_training_tracks(workspace, spec)
    decoded = fill_audio_cache(tracks, workspace, settings, hung=workspace.path("hung"))
    assert not decoded["code"].drop_null(), "a clip of the arena cannot be decoded"
    tracks = tracks.append_column("samples", decoded["samples"])
    in_training = pc.equal(tracks["split"], "train")
    towers = build_towers(settings.towers, seed=spec.seed)
    cache = audio_cache_of(workspace, settings)
    batches = Batches(
        *(tracks.filter(in_training), cache, towers.tokenize, spec),
        anywhere=settings.towers.audio_tower.trainable,
    )
    step_of = TrainStep(towers, spec, torch.device("cpu"))
    for step, batch in batches.ahead(0, spec.steps, then=step_of.read_ahead):
        step_of(batch, step)
    valid = tracks.filter(pc.invert(in_training))
    return Trained(step_of, Validation(valid, towers.tokenize, settings.towers.audio))


def embedded(model: Model, test: pa.Table, quieter_db: float) -> dict[str, np.ndarray]:
    """Track -> unit vector of its file, made quieter."""
    gain, spec = 10 ** (-quieter_db / 20), model.spec.audio
    found = {}
    for row in test.select(["track_id", "uri"]).to_pylist():
        samples = decode_span(row["uri"], spec, start_s=0.0, length_s=LONGEST_S)
        found[row["track_id"]] = model.encode_audio([(gain * samples, spec.sample_rate)])[0]
    return found


def answered(
    model: Model, benchmark: Benchmark, vectors: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Each of FIGURES for every query in the benchmark's order, [Q]."""
    texts = model.encode_text([query.sentence for query in benchmark.queries])
    scores = texts @ np.stack([vectors[track_id] for track_id in benchmark.pool]).T
    run = rank_pool(benchmark, benchmark.queries, scores)
    right = {query.query_id: benchmark.right[query.query_id] for query in benchmark.queries}
    figures = per_query(run, right, "towers")
    return {name: figures[name] for name in FIGURES}


def report(
    asked: dict[str, Benchmark], answers: dict[str, dict[str, dict[str, np.ndarray]]]
) -> None:
    """Print each recipe's means by kind of query, and ours against the published, paired."""
    rng = np.random.default_rng(0)
    for pool, benchmark in asked.items():
        kinds = [query.kind for query in benchmark.queries]
        print(f"\n{pool}: {len(benchmark.pool)} tracks, {len(kinds)} queries, text to audio")
        for figure in FIGURES:
            for kind in benchmark.kinds():
                here = np.array([k == kind for k in kinds])
                means = {
                    name: figures[pool][figure][:, here].mean(axis=0)
                    for name, figures in answers.items()
                }
                print(f"{figure:11}{kind:15}{here.sum():5}  {_line(means, rng)}")
        for name, figures in answers.items():
            loud, quiet = (figures[key]["r_at_10"].mean() for key in (pool, f"{pool} -12 dB"))
            print(f"level       {name:15} R@10 {loud:.3f}, 12 dB quieter {quiet:.3f}")


def _line(means: dict[str, np.ndarray], rng: np.random.Generator) -> str:
    shown = "  ".join(f"{name} {values.mean():.3f}" for name, values in means.items())
    told = metrics.paired_difference(means["published"], means["ours"], rng)
    return f"{shown}  ours - published {_interval(told)}"


def _interval(told: dict[str, float]) -> str:
    return "{difference:+.3f} [{low:+.3f}, {high:+.3f}] p {p:.3f}".format(**told)


if __name__ == "__main__":
    main()
