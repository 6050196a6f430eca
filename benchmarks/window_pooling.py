"""A track's vector as the mean of its windows, or by attention over them, on long tracks.

    python benchmarks/window_pooling.py --data ../shared/data [--workspace pooling-workspace]

Two pools of tracks: whole tunes of up to a minute, and medleys, whose three sections of 10 s are
of three tunes, each on its own instrument, and whose tags are those of all. The recipe `laptop` is
trained on both, with one window a draw (the recipe's own), with four and their mean, and with four
and attention; two seeds each. Tunes are split by title. A query's nDCG@10 is its mean over seeds;
attention is compared with each mean query by query: difference and 95 % bootstrap interval.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import soundfile
from arena import answers_of, trained
from arena_data import decoded
from arena_report import AS_MADE
from real_input import Player, is_test, lead_of, truth_of

from raymtr import metrics, storage
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.evaluation.benchmarks import Benchmark
from raymtr.evaluation.catalog_benchmark import catalog_benchmark
from raymtr.recipes import laptop
from raymtr.specs import Settings
from raymtr.synthetic.render import SAMPLE_RATE
from raymtr.track import KNOWN, check_tracks
from raymtr.workspace import Workspace

STARTS_S = tuple(range(0, 60, 10))
# Of the tunes for testing, or of the others; a third as many medleys.
TUNES = {"train": slice(150), "valid": slice(150, 180), "test": slice(90)}
SECTIONS = 3
SEEDS = (0, 1)
STEPS, BATCH = 200, 64
VARIANTS = {
    "one window, mean": (1, "mean"),
    "four windows, mean": (4, "mean"),
    "four windows, attention": (4, "attention"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="the folder with midi/")
    parser.add_argument("--workspace", default="pooling-workspace")
    arguments = parser.parse_args()
    workspace = Workspace.open(arguments.workspace, create=True)
    catalog = make_catalog(workspace, Path(arguments.data, "midi"))
    test = catalog.filter(pc.equal(catalog["split"], "test"))
    asked = {
        pool: catalog_benchmark(
            catalog, seed=0, pool=test.filter(pc.equal(test["album"], pool))["track_id"].to_pylist()
        )
        for pool in ("whole tunes", "medleys")
    }
    found = {name: answers(name, workspace, asked, test) for name in VARIANTS}
    report(asked, found)


def make_catalog(workspace: Workspace, data: Path) -> pa.Table:
    """Whole tunes and medleys, two captions each; an existing one is reused."""
    if (made := storage.read_tables(workspace.tracks)) is not None:
        return made
    folder = Path(workspace.path("audio"))
    folder.mkdir(parents=True, exist_ok=True)
    with open(data / "midi_tracks.csv", newline="", encoding="utf-8") as table:
        tunes = [row for row in csv.DictReader(table) if row["set"] == "nottingham"]
    programs = {lead_of(tune): int(float(tune["render_program"])) for tune in tunes}
    order, play = np.random.default_rng(0).permutation(len(tunes)), Player()
    rows: list[dict[str, Any]] = []
    for split, part in TUNES.items():
        mine = [tunes[n] for n in order if is_test(tunes[n]) == (split == "test")][part]
        sounds = {
            tune["track_id"]: list(play(data / "src" / tune["file"], programs[lead], STARTS_S))
            for tune in mine
            for lead in [lead_of(tune)]
        }
        for row, clips in (*whole_tunes(mine, sounds), *medleys(mine, sounds)):
            uri = str(folder / f"{row['track_id']}.flac")
            soundfile.write(uri, np.concatenate(clips), SAMPLE_RATE)
            rows.append(row | {"uri": uri, "split": split})
    catalog = check_tracks(pa.Table.from_pylist(rows))
    catalog = catalog.select([name for name in KNOWN if name in catalog.column_names])
    storage.replace_tables(workspace.captions, caption_tracks(catalog, per_track=2, seed=0))
    storage.replace_tables(workspace.tracks, catalog)
    return catalog


Sounds = Mapping[str, list[np.ndarray]]  # tune -> its clips
Made = Iterator[tuple[dict[str, Any], list[np.ndarray]]]


def whole_tunes(tunes: list[dict[str, str]], sounds: Sounds) -> Made:
    """Every tune with all its clips."""
    for tune in tunes:
        truth = truth_of(tune, lead_of(tune))
        facts = {name: truth[name] for name in ("title", "tags", "dataset")}
        yield (
            facts | {"track_id": tune["track_id"], "album": "whole tunes"},
            sounds[tune["track_id"]],
        )


def medleys(tunes: list[dict[str, str]], sounds: Sounds) -> Made:
    """SECTIONS tunes after one another, with the first clip and the tags of each."""
    for number in range(len(tunes) // SECTIONS):
        parts = tunes[number * SECTIONS :][:SECTIONS]
        tags = [tag for part in parts for tag in truth_of(part, lead_of(part))["tags"]]
        facts = {"track_id": f"medley-{parts[0]['track_id']}", "album": "medleys"}
        facts |= {"title": f"Medley {parts[0]['title']}", "dataset": "midi"}
        yield facts | {"tags": list(dict.fromkeys(tags))}, [sounds[p["track_id"]][0] for p in parts]


def settings_of(name: str, seed: int) -> Settings:
    """`laptop` with a variant's pooling."""
    windows, pooling = VARIANTS[name]
    recipe = laptop()
    train = replace(
        recipe.train,
        steps=STEPS,
        warmup_steps=STEPS // 10,
        global_batch=BATCH,
        texts={"tags": 1.0, "caption": 1.0},
        windows=windows,
        seed=seed,
        threads=1,
    )
    return replace(recipe, train=train, towers=replace(recipe.towers, window_pooling=pooling))


def answers(
    name: str, workspace: Workspace, asked: dict[str, Benchmark], test: pa.Table
) -> dict[str, np.ndarray]:
    """Each pool's nDCG@10 by query, the mean over seeds."""
    seeds = []
    for seed in SEEDS:
        settings = settings_of(name, seed)
        folder = workspace.run(f"{name.replace(' ', '-').replace(',', '')}-{seed}")
        trained(settings, workspace, folder)
        sounds = decoded(test, settings.towers.audio)
        seeds.append(answers_of(folder, asked, sounds, (AS_MADE,)))
    return {
        pool: np.mean([one[pool, AS_MADE, "ndcg_at_10"] for one in seeds], axis=0) for pool in asked
    }


def report(asked: dict[str, Benchmark], found: dict[str, dict[str, np.ndarray]]) -> None:
    """One line per pool, kind of query and variant."""
    rng = np.random.default_rng(0)
    *means, attention = found
    for pool, benchmark in asked.items():
        kinds = np.array([query.kind for query in benchmark.queries])
        for kind in ("caption", "tag"):
            here = kinds == kind
            ours = found[attention][pool][here]
            print(f"{pool}, {len(benchmark.pool)} tracks, {here.sum()} queries of kind {kind}:")
            print(f"    {attention:24} nDCG@10 {ours.mean():.3f}")
            for name in means:
                other = found[name][pool][here]
                difference = metrics.paired_difference(other, ours, rng)
                print(
                    f"    {name:24} nDCG@10 {other.mean():.3f}  attention - this "
                    "{difference:+.3f} [{low:+.3f}, {high:+.3f}]".format(**difference)
                )


if __name__ == "__main__":
    main()
