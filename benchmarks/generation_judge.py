"""A classifier of instruments that is independent of MusicLM's parts: librosa and scikit-learn.

It classifies statistics of 64 mel bands over time with logistic regression. It is trained on the
renderings of other tunes, each with one augmented copy, for robustness.
"""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

RATE = 16_000
QUIET = 1e-4  # power relative to the loudest band; lower values are raised to it
QUANTILES = (0.25, 0.5, 0.9)


def features(samples: np.ndarray) -> np.ndarray:
    """Mono float32 [S] at RATE -> float64 [320]: level, change and quantiles of each mel band."""
    mel = librosa.feature.melspectrogram(y=samples, sr=RATE, n_fft=1_024, hop_length=256, n_mels=64)
    level = np.log10(np.maximum(mel / max(float(mel.max()), 1e-9), QUIET))
    change = np.abs(np.diff(level, axis=1)).mean(axis=1)
    return np.concatenate([level.mean(axis=1), change, *np.quantile(level, QUANTILES, axis=1)])


def augmented(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Half of the clip, with some noise and a random spectral tilt."""
    half = len(samples) // 2
    first = int(rng.integers(half + 1))
    part = samples[first : first + half].astype(np.float64)
    part = part + rng.uniform(-0.3, 0.3) * np.concatenate([[0.0], part[:-1]])
    noise = rng.normal(size=len(part)) * np.std(part) * 10 ** rng.uniform(-3, -1.3)
    return (part + noise).astype(np.float32)


class Judge:
    """Classifies the leading instrument of clips."""

    def __init__(self, clips: Sequence[np.ndarray], instruments: Sequence[str], seed: int) -> None:
        """`clips` are mono float32 [S] at RATE, of training tunes."""
        rng = np.random.default_rng(seed)
        rows = [features(clip) for clip in clips]
        rows += [features(augmented(clip, rng)) for clip in clips]
        self._classifier: Pipeline = make_pipeline(
            StandardScaler(), LogisticRegression(C=0.05, max_iter=2_000)
        )
        self._classifier.fit(np.stack(rows), [*instruments, *instruments])

    def right(self, clips: Sequence[np.ndarray], instruments: Sequence[str]) -> float:
        """The share of clips that are classified as their instrument."""
        predicted = self._classifier.predict(np.stack([features(clip) for clip in clips]))
        return float((predicted == np.array(instruments)).mean())
