"""A judge of instruments that shares nothing with MusicLM's parts: librosa and a linear classifier.

It hears the spectrum of a clip (levels of 64 mel bands over time) and has learnt the renderings of
other tunes, each once as it is and once a little changed, so that it does not hang on details.
"""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

RATE = 16_000
QUIET = 1e-4  # of the loudest band: what is below is not heard
QUANTILES = (0.25, 0.5, 0.9)


def features(samples: np.ndarray) -> np.ndarray:
    """Mono float32 [S] at RATE -> float64 [320]: of each mel band how loud, and how it changes."""
    mel = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=1_024, hop_length=256, n_mels=64)
    level = np.log10(np.maximum(mel / max(float(mel.max()), 1e-9), QUIET))
    moves = np.abs(np.diff(level, axis=1)).mean(axis=1)
    return np.concatenate([level.mean(axis=1), moves, *np.quantile(level, QUANTILES, axis=1)])


def changed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A part of the clip with some noise and another balance of high and low."""
    half = len(samples) // 2
    first = int(rng.integers(half + 1))
    part = samples[first : first + half].astype(np.float64)
    part = part + rng.uniform(-0.3, 0.3) * np.concatenate([[0.0], part[:-1]])
    noise = rng.normal(size=len(part)) * np.std(part) * 10 ** rng.uniform(-3, -1.3)
    return (part + noise).astype(np.float32)


class Judge:
    """Says which instrument leads a clip."""

    def __init__(self, clips: Sequence[np.ndarray], instruments: Sequence[str], seed: int) -> None:
        """`clips` are mono float32 [S] at RATE, of training tunes."""
        rng = np.random.default_rng(seed)
        rows = [features(clip) for clip in clips]
        rows += [features(changed(clip, rng)) for clip in clips]
        self._known: Pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.05, max_iter=2_000)
        )
        self._known.fit(np.stack(rows), [*instruments, *instruments])

    def right(self, clips: Sequence[np.ndarray], instruments: Sequence[str]) -> float:
        """The share of clips whose instrument it names."""
        named = self._known.predict(np.stack([features(clip) for clip in clips]))
        return float((named == np.array(instruments)).mean())
