"""Whether clips follow the melody that conditions them: the source's rank among 20 held-out tunes.

Each tune is generated on an instrument that its source does not have. Two similarities compare the
clip with every source: vectors of the model's melody part, which conditioned it, and chroma, which
is independent of the model. Controls are the same tunes rendered on that instrument (an upper
bound), and clips without a melody (chance).
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
Encode = Callable[[np.ndarray], np.ndarray]  # mono float32 [S] -> vectors [T, D] over time


@dataclass(frozen=True)
class Tunes:
    """Held-out tunes on two instruments, float32 [S] at RATE; `texts` are prompts for `others`."""

    sources: Sounds
    others: Sounds
    texts: list[str]


def held_out_tunes(workspace: Workspace) -> Tunes:
    """The first TUNES tunes of split `test`, from a manifest with two renderings per tune."""
    rows = pq.read_table(f"{workspace.root}/manifest.parquet").to_pylist()
    by_tune: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["split"] == "test":
            by_tune.setdefault(row["tune"], []).append(row)
    pairs = [by_tune[name] for name in sorted(by_tune) if len(by_tune[name]) == 2][:TUNES]
    assert len(pairs) == TUNES, (
        f"{len(pairs)} held-out tunes have two renderings, {TUNES} are needed"
    )
    one, other = (
        [audio.decode(pair[side]["uri"], AUDIO).samples[: round(SECONDS * RATE)] for pair in pairs]
        for side in (0, 1)
    )
    return Tunes(one, other, [pair[1]["instrument"] for pair in pairs])


def check_melody(model: MusicLM, tunes: Tunes, figures: Figures) -> None:
    """Shares of clips whose source is ranked first, by both similarities, and the controls."""
    melody = model.parts.melody
    assert melody is not None, "`train --melody` trains it"
    with_melody = [
        clip for seed in range(SEEDS) for clip in generate(model, tunes, seed, melody=True)
    ]
    without = generate(model, tunes, SEEDS, melody=False)
    encoders: tuple[tuple[str, Encode], ...] = (
        ("own part", lambda samples: melody_vectors(melody, samples)),
        ("chroma", chroma),
    )
    for name, encode in encoders:
        for what, clips in (("the tune itself", tunes.others), ("no melody given", without)):
            figures.add(f"melody by {name}: {what}", first_of(clips, tunes.sources, encode))
        share, least = first_of(with_melody, tunes.sources, encode), 3 * CHANCE
        met = share >= least
        figures.add(
            f"melody by {name}: source first of {TUNES}", share, asked=f"{least:.2f}", met=met
        )


def generate(model: MusicLM, tunes: Tunes, seed: int, *, melody: bool) -> Sounds:
    """A clip per tune at RATE, on its other instrument, with or without its melody."""
    stories = [[Scene(text)] for text in tunes.texts]
    seeds = [seed * TUNES + n for n in range(len(stories))]
    melodies = tunes.sources if melody else []
    windows = list(model.stream(stories, SECONDS, seeds, melodies=melodies))
    clips = [np.concatenate([part[row] for part in windows]) for row in range(len(stories))]
    return [audio.to_mono(clip, model.sample_rate, AUDIO) for clip in clips]


def melody_vectors(melody: MelodyTokens, samples: np.ndarray) -> np.ndarray:
    """The melody part's vectors of the windows, [T, D]."""
    return np.asarray(melody.vectors(samples, track_starts(len(samples) / RATE)).numpy())


def chroma(samples: np.ndarray) -> np.ndarray:
    """Centred unit chroma vectors of frames of 128 ms, [T, 12]."""
    frames = librosa.feature.chroma_stft(y=samples, sr=RATE, n_fft=4_096, hop_length=2_048).T
    frames = frames - frames.mean(axis=0)
    return np.asarray(frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-9))


def first_of(clips: Sequence[np.ndarray], sources: Sequence[np.ndarray], encode: Encode) -> float:
    """The share of clips that are nearest to their source, which for clip n is n % len(sources)."""
    encoded = [encode(source) for source in sources]
    first = []
    for number, clip in enumerate(clips):
        vectors = encode(clip)
        length = min(len(vectors), *(len(source) for source in encoded))
        cosines = [float((vectors[:length] * source[:length]).sum()) for source in encoded]
        first.append(int(np.argmax(cosines)) == number % len(sources))
    return float(np.mean(first))
