"""MusicLM on folk tunes with known instruments: audio from text next to every control.

    python -m benchmarks.generation train   --data ../shared/data/midi --workspace w
    python -m benchmarks.generation measure --data ../shared/data/midi --workspace w

`train` renders 12 instruments, holds tunes out, and runs the verbs on Ray: scan, caption, train
(towers), tokenize, train (`--recipe`, musiclm-depth by default). `measure` needs no Ray. For 120
prompts it prints how often an independent classifier recognises the instrument, the mean cosine of
prompt and clip (MCC), the same with another prompt, and FAD, for audio from text and for every
control. Then it checks the targets of the codec, the stages, windows, stories, batches and the
cache. With `train --melody` each tune is rendered on two instruments and a melody part is trained,
and `measure` ranks the source of clips that follow a melody.
"""

from __future__ import annotations

import argparse
import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.figures import Figures
from benchmarks.generation_checks import (
    check_memorisation,
    check_speed,
    check_stages,
    check_story,
    check_windows,
)
from benchmarks.generation_judge import RATE, Judge
from benchmarks.generation_melody import check_melody, held_out_tunes
from benchmarks.generation_sounds import Counts, distance_db, griffin_lim_of
from benchmarks.real_input import Clock, midi_catalog
from raymtr import audio, storage
from raymtr.evaluation.generation import frechet_distance, prompt_figures
from raymtr.generation.codec import MelCodec
from raymtr.generation.marker import choose_musiclm
from raymtr.generation.musiclm import MusicLM
from raymtr.generation.musiclm_folder import read_musiclm
from raymtr.generation.token_store import tokens_of
from raymtr.recipes import RECIPES, laptop
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace

SECONDS = 5.0
PER_INSTRUMENT, SEEDS = 10, (0, 1, 2)  # prompts per instrument; seeds of the samples
JUDGE_CLIPS = 800  # training clips of the judge
CHANCE = 1 / 12
MELODY_STEPS = 1_000
Sounds = list[np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("train", "measure"))
    parser.add_argument("--data", required=True)
    parser.add_argument("--workspace", required=True, help="folder; reused if it exists")
    parser.add_argument("--steps", type=int, default=160, help="training steps of the towers")
    parser.add_argument("--tunes", type=int, help="number of tunes; all by default")
    parser.add_argument("--melody", action="store_true", help="train a melody part")
    parser.add_argument(
        "--recipe", choices=("musiclm-depth", "musiclm-small"), default="musiclm-depth"
    )
    arguments = parser.parse_args()
    workspace = Workspace.open(arguments.workspace, create=True)
    if arguments.what == "train":
        train(
            workspace,
            Path(arguments.data),
            steps=arguments.steps,
            tunes=arguments.tunes,
            melody=arguments.melody,
            recipe=arguments.recipe,
        )
        return
    torch.manual_seed(0)
    figures = Figures()
    clips = held_out_clips(workspace)
    folder = choose_musiclm(workspace, arguments.recipe)
    model = read_musiclm(folder)
    measure(workspace, clips, model, figures)
    if model.parts.melody is not None:
        check_melody(model, held_out_tunes(workspace), figures)
    check_memorisation(workspace, folder, figures)
    figures.save()


def train(
    workspace: Workspace,
    data: Path,
    *,
    steps: int,
    tunes: int | None,
    melody: bool = False,
    recipe: str,
) -> None:
    """Runs the verbs; each continues where it was stopped."""
    from jobs.cluster import start_ray
    from jobs.scan_catalog import scan_catalog
    from jobs.tokenize_catalog import describe, tokenize_catalog
    from jobs.train_towers import train_towers
    from jobs.write_captions import write_captions

    clock, manifest = Clock(), f"{workspace.root}/manifest.parquet"
    if not storage.exists(manifest):
        with clock("render"):
            catalog = midi_catalog(data, Path(workspace.root, "audio"), tunes, twice=melody)
            pq.write_table(catalog, manifest)
    settings = RECIPES[recipe]()
    if melody:
        part = dataclasses.replace(settings.tokens.melody, steps=MELODY_STEPS)
        tokens = dataclasses.replace(settings.tokens, melody=part)
        settings = dataclasses.replace(settings, tokens=tokens)
    start_ray()
    towers = dataclasses.replace(laptop(), train=dataclasses.replace(laptop().train, steps=steps))
    with clock("scan, caption"):
        scan_catalog(workspace, towers, manifest)
        write_captions(workspace, towers)
    with clock("train towers"):
        train_towers(workspace, towers, run="towers")
    with clock("tokenize"):
        print(describe(tokenize_catalog(workspace, settings, model="towers")))
    with clock(f"train {recipe}"):
        train_towers(workspace, settings, run=recipe)
    print("seconds:", ", ".join(f"{name} {s:.0f}" for name, s in clock.seconds.items()))


@dataclasses.dataclass(frozen=True)
class Clips:
    """Clips of SECONDS at RATE with their instruments."""

    training: Sounds  # clips of training tunes
    training_kinds: list[str]
    real: Sounds  # held-out clips, PER_INSTRUMENT of each instrument
    rest: Sounds  # the audio after the `real` clips
    kinds: list[str]  # instruments of `real`


def held_out_clips(workspace: Workspace) -> Clips:
    """The clips of a workspace after `train`."""
    rows = pq.read_table(f"{workspace.root}/manifest.parquet").to_pylist()
    rows.sort(key=lambda row: zlib.crc32(row["track_id"].encode()))
    training = [row for row in rows if row["split"] == "train"][:JUDGE_CLIPS]
    held_out, counts = [], dict.fromkeys((row["instrument"] for row in rows), 0)
    for row in rows:
        if row["split"] == "test" and counts[row["instrument"]] < PER_INSTRUMENT:
            counts[row["instrument"]] += 1
            held_out.append(row)
    full = [_samples(row["uri"]) for row in held_out]
    length = round(SECONDS * RATE)
    return Clips(
        training=[_samples(row["uri"])[:length] for row in training],
        training_kinds=[row["instrument"] for row in training],
        real=[clip[:length] for clip in full],
        rest=[clip[length:] for clip in full],
        kinds=[row["instrument"] for row in held_out],
    )


def _samples(uri: str) -> np.ndarray:
    return audio.decode(uri, AudioSpec(sample_rate=RATE)).samples


class Table:
    """One row of figures per kind of audio, by the judge and by the joint towers."""

    def __init__(self, judge: Judge, model: MusicLM, clips: Clips, figures: Figures) -> None:
        self.judge, self.model, self.kinds, self.figures = judge, model, clips.kinds, figures
        self.prompts = sorted(set(clips.kinds))
        self._texts = model.joint.encode_text(self.prompts)
        self._real = self._vectors(clips.rest)

    def _vectors(self, sounds: Sequence[np.ndarray]) -> np.ndarray:
        return self.model.joint.encode_audio([(sound, RATE) for sound in sounds])

    def add(self, name: str, sounds: Sequence[np.ndarray]) -> dict[str, float]:
        """Add the figures of `sounds`: one per clip in order, for one or several seeds."""
        kinds = self.kinds * (len(sounds) // len(self.kinds))
        vectors = self._vectors(sounds)
        prompts = np.array([self.prompts.index(kind) for kind in kinds])
        agreement = prompt_figures(vectors, self._texts, prompts)
        row = {
            "right": self.judge.right(sounds, kinds),
            "mcc": agreement["mcc"],
            "shuffled": agreement["mcc_shuffled"],
            "fad": frechet_distance(vectors, self._real),
        }
        for column, value in row.items():
            self.figures.add(f"{name}: {column}", value)
        return row


def measure(workspace: Workspace, clips: Clips, model: MusicLM, figures: Figures) -> None:
    """All figures of the trained model except melody and memorisation."""
    judge = Judge(clips.training, clips.training_kinds, 0)
    table = Table(judge, model, clips, figures)
    tokens = storage.read_tables(f"{workspace.tokens(model.parts.fingerprint)}/tracks")
    catalog = storage.read_tables(workspace.tracks, ["track_id", "split"])
    assert tokens is not None and catalog is not None, "train wrote both"
    places = {row["track_id"]: n for n, row in enumerate(tokens.select(["track_id"]).to_pylist())}
    splits = {
        split: np.array(
            [
                places[row["track_id"]]
                for row in catalog.to_pylist()
                if row["split"] == split and row["track_id"] in places
            ]
        )
        for split in ("train", "test")
    }
    training = tokens.take(splits["train"]).to_pylist()
    codec_row = measure_codec(table, clips, figures)
    acoustic = [tokens_of(row, model.parts.spec.levels)[1] for row in training]
    measure_generation(table, clips, figures, acoustic, codec_row)
    check_stages(model, tokens, splits, figures)
    check_story(model, judge, table.prompts, figures)
    check_windows(model, table.prompts, figures)
    check_speed(model, figures)


def measure_codec(table: Table, clips: Clips, figures: Figures) -> dict[str, float]:
    """Real clips, the codec by number of levels, and Griffin-Lim of the same tokens.

    Returns the row of the codec with all levels.
    """
    codec = table.model.parts.codec
    assert isinstance(codec, MelCodec), "the recipe's own codec"
    table.add("real held-out", clips.real)
    tokens = [codec.encode(clip) for clip in clips.real]
    distances_db = []
    for levels in range(1, codec.levels + 1):
        name = f"codec, {levels} of {codec.levels} levels"
        decoded = [codec.decode(part[:, :levels]) for part in tokens]
        row = table.add(name, decoded)
        pairs = zip(decoded, clips.real, strict=True)
        distances_db.append(np.mean([distance_db(*pair) for pair in pairs]))
        figures.add(f"{name}: distance", float(distances_db[-1]), unit="dB")
    plain = table.add("Griffin-Lim of the tokens", [griffin_lim_of(codec, part) for part in tokens])
    gain = row["right"] - plain["right"]
    figures.add("codec over Griffin-Lim", gain, asked="0.05", met=gain >= 0.05)
    figures.add("codec right", row["right"], asked="0.85, to reach for", met=row["right"] >= 0.85)
    least = float(-np.diff(distances_db).max())
    figures.add("least gain of a level", least, unit="dB", asked="above 0", met=least > 0)
    return row


def measure_generation(
    table: Table,
    clips: Clips,
    figures: Figures,
    acoustic: Sequence[np.ndarray],
    codec_row: dict[str, float],
) -> None:
    """Audio from text and from audio-side tokens over SEEDS, and the controls."""
    model, codec, rng = table.model, table.model.parts.codec, np.random.default_rng(0)
    vectors = model.joint.encode_audio([(clip, RATE) for clip in clips.real])
    audio_tokens = model.parts.joint.of_audio(vectors)
    text_tokens = model.parts.joint.of_text(model.joint.encode_text(clips.kinds))
    mismatched = audio_tokens[other_kind(clips.kinds)]
    side = table.add("audio-side tokens", generate(model, audio_tokens))
    text = table.add("from text", generate(model, text_tokens))
    wrong = table.add("another's tokens", generate(model, mismatched, seeds=SEEDS[:1]))
    counts = Counts(acoustic, int(codec.codes))
    frames = round(SECONDS * codec.frame_hz)
    drawn = [codec.decode(counts.unigrams(frames, rng)) for _ in clips.real]
    unigrams = table.add("unigrams", drawn)
    table.add("bigrams", [codec.decode(counts.bigrams(frames, rng)) for _ in clips.real])
    noise = [rng.normal(size=len(clip)).astype(np.float32) / 8 for clip in clips.real]
    table.add("noise", noise)
    for name, value, least in (
        ("right from text", text["right"], 0.5),
        ("text over the codec", text["right"] / codec_row["right"], 0.5),
        ("text over the audio side", text["right"] / side["right"], 0.8),
        ("MCC over shuffled", text["mcc"] - text["shuffled"], 0.25),
    ):
        figures.add(name, value, asked=f"at least {least}", met=value >= least)
    for name, part, most in (("codec's", codec_row, 2.0), ("unigrams'", unigrams, 0.4)):
        ratio = text["fad"] / part["fad"]
        figures.add(f"FAD of the {name}", ratio, asked=f"at most {most}", met=ratio <= most)
    share = wrong["right"]
    figures.add("mismatched", share, asked="at chance", met=share <= 2 * CHANCE)


def other_kind(kinds: Sequence[str]) -> np.ndarray:
    """For each clip, the index of the next one with another instrument."""
    twice = [*kinds, *kinds]
    indices = [
        next(n for n in range(at, len(twice)) if twice[n] != kind) for at, kind in enumerate(kinds)
    ]
    return np.array(indices) % len(kinds)


def generate(model: MusicLM, joint: np.ndarray, seeds: Sequence[int] = SEEDS) -> Sounds:
    """Clips for M_A int64 [N, levels], one per row and seed."""
    tokens, clips = torch.from_numpy(joint)[:, None], []
    for seed in seeds:
        for first in range(0, len(tokens), 32):
            batch = tokens[first : first + 32]
            row_seeds = [len(joint) * seed + first + n for n in range(len(batch))]
            windows = list(model.sound([batch], [0.0], SECONDS, row_seeds))
            clips += [np.concatenate([part[n] for part in windows]) for n in range(len(batch))]
    return clips


if __name__ == "__main__":
    main()
