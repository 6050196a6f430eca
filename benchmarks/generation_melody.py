"""Whether sound follows the melody it was given: the source's rank among 20 held-out tunes.

Each tune is asked for on the instrument that its source does not have. Two ears compare the made
clip with every source: the model's own melody part, which conditioned it, and chroma, which shares
nothing with it. Beside them the same tunes as they are on that instrument (the most an ear can
find), and clips that were given no melody (chance).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import librosa
import numpy as np
import pyarrow.parquet as pq

from benchmarks.figures import Figures
from raymtr import audio
from raymtr.generation.melody import AUDIO, MelodyTokens, track_starts
from raymtr.generation.musiclm import MusicLM, Scene
from raymtr.workspace import Workspace

TUNES, SEEDS = 20, 3
SECONDS = 8.0
CHANCE = 1 / TUNES
RATE = AUDIO.sample_rate

Sounds = list[np.ndarray]
Ear = Callable[[np.ndarray], np.ndarray]  # mono float32 [S] -> [T, D], frames or windows in time


@dataclass(frozen=True)
class Tunes:
    """Held-out tunes on two instruments, float32 [S] at RATE; `texts` name the second."""

    sources: Sounds
    others: Sounds
    texts: list[str]


def held_out_tunes(workspace: Workspace) -> Tunes:
    """The first TUNES tunes of split `test` in a manifest of tunes that were played twice."""
    rows = pq.read_table(f"{workspace.root}/manifest.parquet").to_pylist()
    by_tune: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["split"] == "test":
            by_tune.setdefault(row["tune"], []).append(row)
    pairs = [by_tune[name] for name in sorted(by_tune) if len(by_tune[name]) == 2][:TUNES]
    assert len(pairs) == TUNES, f"{len(pairs)} held-out tunes are played twice, {TUNES} are needed"
    one, other = (
        [audio.decode(pair[side]["uri"], AUDIO).samples[: round(SECONDS * RATE)] for pair in pairs]
        for side in (0, 1)
    )
    return Tunes(one, other, [pair[1]["instrument"] for pair in pairs])


def check_melody(model: MusicLM, tunes: Tunes, figures: Figures) -> None:
    """Shares of clips whose source is ranked first, by both ears, beside the controls."""
    melody = model.parts.melody
    assert melody is not None, "asked for by `train --melody`"
    told = [clip for seed in range(SEEDS) for clip in made(model, tunes, seed, told=True)]
    untold = made(model, tunes, SEEDS, told=False)
    for name, ear in (("own part", lambda sound: own_ear(melody, sound)), ("chroma", chroma)):
        for what, clips in (
            ("the tune itself", tunes.others),
            ("no melody given", untold),
        ):
            figures.add(f"melody by {name}: {what}", first_of(clips, tunes.sources, ear))
        share, least = first_of(told, tunes.sources, ear), 3 * CHANCE
        met = share >= least
        figures.add(
            f"melody by {name}: source first of {TUNES}", share, asked=f"{least:.2f}", met=met
        )


def made(model: MusicLM, tunes: Tunes, seed: int, *, told: bool) -> Sounds:
    """A clip for each tune at RATE, on its other instrument, with or without its melody."""
    stories = [[Scene(text)] for text in tunes.texts]
    seeds = [seed * TUNES + n for n in range(len(stories))]
    melodies = tunes.sources if told else []
    windows = list(model.stream(stories, SECONDS, seeds, melodies=melodies))
    clips = [np.concatenate([part[row] for part in windows]) for row in range(len(stories))]
    return [audio.to_mono(clip, model.sample_rate, AUDIO) for clip in clips]


def own_ear(melody: MelodyTokens, sound: np.ndarray) -> np.ndarray:
    """The melody part's vectors of the windows, [T, D]."""
    return np.asarray(melody.vectors(sound, track_starts(len(sound) / RATE)).numpy())


def chroma(sound: np.ndarray) -> np.ndarray:
    """Unit chroma vectors of frames of 128 ms, less their mean, [T, 12]."""
    frames = librosa.feature.chroma_stft(y=sound, sr=RATE, n_fft=4_096, hop_length=2_048).T
    frames = frames - frames.mean(axis=0)
    return np.asarray(frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-9))


def first_of(clips: Sequence[np.ndarray], sources: Sequence[np.ndarray], ear: Ear) -> float:
    """The share of clips that are nearest to their source; clip n is of source n, in turns."""
    heard = [ear(source) for source in sources]
    right = []
    for number, clip in enumerate(clips):
        mine = ear(clip)
        length = min(len(mine), *(len(theirs) for theirs in heard))
        near = [float((mine[:length] * theirs[:length]).sum()) for theirs in heard]
        right.append(int(np.argmax(near)) == number % len(sources))
    return float(np.mean(right))
