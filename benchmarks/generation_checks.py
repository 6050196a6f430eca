"""Further targets of a trained MusicLM: stages, stories, windows, memorisation, speed."""

from __future__ import annotations

import time
from collections.abc import Mapping

import librosa
import numpy as np
import pyarrow as pa
import torch
from scipy.ndimage import maximum_filter1d

from benchmarks.figures import Figures
from benchmarks.generation_judge import Judge
from benchmarks.generation_sounds import Counts
from jobs.evaluate_generation import evaluate_memorisation
from raymtr.generation.musiclm import MusicLM, Scene
from raymtr.generation.stages import StageName
from raymtr.generation.token_store import tokens_of
from raymtr.training.musiclm import Crops
from raymtr.workspace import Workspace

ROWS = 64  # held-out crops of each stage
STORIES, STORY_S = 24, 16.0
LONG_S, SHORT_S = 60.0, 10.0
BATCH = 32


def check_stages(
    model: MusicLM, tokens: pa.Table, splits: Mapping[str, np.ndarray], figures: Figures
) -> None:
    """Nats per token of each stage on held-out tunes, and of unigrams and bigrams as controls."""
    spec, coarse = model.parts.spec, model.stages.spec.coarse
    rows = {
        split: [tokens_of(row, spec.levels) for row in tokens.take(places).to_pylist()]
        for split, places in splits.items()
    }
    tokens_of_stage = {
        "semantic": lambda row: row[0][:, None],
        "coarse": lambda row: row[1][:, :coarse],
        "fine": lambda row: row[1][:, coarse:],
        "acoustic": lambda row: row[1],
    }
    crops = Crops(tokens, splits["test"], model.parts, model.stages.spec)
    count = min(ROWS, len(crops))
    rngs = [np.random.default_rng([0, row]) for row in range(count)]
    batch = crops.batch(np.arange(count), rngs)
    for name, crop in batch.stages.items():
        codes = spec.semantic_codes if name == "semantic" else int(model.parts.codec.codes)
        select = tokens_of_stage[name]
        counts = Counts([select(row) for row in rows["train"]], codes)
        unigrams, bigrams = counts.nats([select(row) for row in rows["test"]])
        unconditional = torch.zeros_like(crop.unconditional)
        with torch.inference_mode():
            losses = model.stages.of(name)(crop.conditions, crop.target, unconditional)
        nats, least = float(losses.mean()), min(unigrams, bigrams)
        figures.add(f"{name}: unigrams, nats", unigrams)
        figures.add(f"{name}: bigrams, nats", bigrams)
        figures.add(f"{name}: stage, nats", nats, asked="below both", met=nats < least)


def check_story(model: MusicLM, judge: Judge, prompts: list[str], figures: Figures) -> None:
    """Stories of two instruments: the share of halves with the instrument of their text."""
    half, right = STORY_S / 2, []
    pairs = [(prompts[n % len(prompts)], prompts[(n + 5) % len(prompts)]) for n in range(STORIES)]
    stories = [[Scene(one), Scene(other, half)] for one, other in pairs]
    windows = list(model.stream(stories, STORY_S, list(range(STORIES))))
    for n, pair in enumerate(pairs):
        sound = np.concatenate([part[n] for part in windows])
        middle = len(sound) // 2
        # The second after the change is left out, because the audio before it is its prefix.
        parts = [sound[:middle], sound[middle + model.sample_rate :]]
        right.append([judge.right([part], [kind]) for part, kind in zip(parts, pair, strict=True)])
    for name, share in zip(("first", "second"), np.mean(right, axis=0), strict=True):
        least = 3 / len(prompts)
        met = bool(share >= least)
        figures.add(f"story: {name} half right", float(share), asked=f"{least:.2f}", met=met)


def check_memorisation(workspace: Workspace, model: str, figures: Figures) -> None:
    """Exact and approximate matches with training tunes and with held-out tunes."""
    gaps = []
    for row in evaluate_memorisation(workspace, model)["memorisation"]:
        for kind in ("exact", "approximate"):
            shown = f"{row['training'][kind]:.3f}, held-out {row['held_out'][kind]:.3f}"
            figures.add(f"{kind} matches after {row['prefix']} tokens", shown)
        gaps.append(row["training"]["exact"] - row["held_out"]["exact"])
    most = max(gaps)
    figures.add("exact, training over held-out", most, asked="below 0.05", met=most < 0.05)


def check_windows(model: MusicLM, prompts: list[str], figures: Figures) -> None:
    """The spectral flux between the parts of clips of a minute, and the time to the first audio.

    Music itself has frames above the 99th percentile of the flux, so the control is all frames: a
    join is not heard if joins are above it no more often.
    """
    seeds = list(range(len(prompts)))
    parts = list(model.stream([[Scene(text)] for text in prompts], LONG_S, seeds))
    joins, hop = np.cumsum([len(part[0]) for part in parts])[:-1], 512
    at_joins, at_all = [], []
    for sound in map(np.concatenate, zip(*parts, strict=True)):
        flux = librosa.onset.onset_strength(y=sound, sr=model.sample_rate, hop_length=hop)
        inside = maximum_filter1d(flux, 3) <= np.quantile(flux, 0.99)
        at_joins.append(inside[joins // hop])
        at_all.append(inside)
    share, control = (float(np.concatenate(rows).mean()) for rows in (at_joins, at_all))
    count = len(joins) * len(prompts)
    noise = 2 * (control * (1 - control) / count) ** 0.5
    name, asked = f"{count} joins inside the 99th percentile", f"all frames: {control:.3f}, noise"
    figures.add(name, share, asked=f"{asked} {noise:.3f}", met=share >= control - noise)
    for seconds in (LONG_S, SHORT_S):
        first = _first_share(model, seconds)
        name = f"first sound of {seconds:g} s, share of the time"
        figures.add(name, first, asked="below 0.5", met=first < 0.5)


def _first_share(model: MusicLM, seconds: float) -> float:
    """The time to the first part of a clip as a share of the whole time."""
    started = time.perf_counter()
    at_s = [time.perf_counter() - started for _ in model.stream([[Scene("flute")]], seconds, [7])]
    return at_s[0] / at_s[-1]


def check_speed(model: MusicLM, figures: Figures) -> None:
    """Speed-up by batching, and by the key-value cache."""
    model.generate(["flute"], 5.0, [0])  # the first call is slower
    started = time.process_time()
    for seed in range(3):
        model.generate(["flute"], 5.0, [seed])
    single = 3 / (time.process_time() - started)
    started = time.process_time()
    model.generate(["flute"] * BATCH, 5.0, list(range(BATCH)))
    batched = BATCH / (time.process_time() - started)
    gain = batched / single
    figures.add(f"{BATCH} in a batch, clips a CPU second", gain, unit="x", asked="8", met=gain >= 8)
    cached, plain = (_steps(model, cache=cache) for cache in (True, False))
    figures.add("cache", plain / cached, unit="x", asked="4", met=plain / cached >= 4)


@torch.inference_mode()
def _steps(model: MusicLM, *, cache: bool) -> float:
    """CPU seconds of one crop of the acoustic or the coarse stage, sampled token by token."""
    spec, parts = model.stages.spec, model.parts
    name: StageName = "acoustic" if spec.depth_layers else "coarse"
    stage, crop_s = model.stages.of(name), model.stages.crop_s(name)
    levels, frames = stage.output.levels, round(crop_s * parts.codec.frame_hz)
    conditions = [torch.zeros(1, 1, parts.spec.joint_levels, dtype=torch.int64)]
    conditions += model.stages.no_melody(1, crop_s)
    if spec.hears_semantic:
        count = round(crop_s * parts.semantic.frame_hz)
        conditions.append(torch.zeros(1, count, 1, dtype=torch.int64))
    conditional, tokens = torch.tensor([False]), torch.zeros(1, frames, levels, dtype=torch.int64)
    started = time.process_time()
    if cache:
        window, last = stage.begin(conditions, tokens[:, :0], frames, conditional), None
        for _ in range(frames * levels):
            last = window.logits(last).argmax(dim=1)
    else:
        for place in range(frames * levels):
            stage(conditions, tokens[:, : place // levels + 1], conditional)
    return time.process_time() - started
