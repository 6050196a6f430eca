"""The check of every loaded model that its text vectors distinguish sentences.

A text tower can be collapsed: it loads, its vectors are finite, and all of them are nearly the
same, so every query finds the same tracks. A published music CLAP has this fault in transformers
(cosines of 0.999 between any two texts). It is detected here before anything is embedded.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from raymtr.errors import UnusableError


class ReadsText(Protocol):
    """The part of a model that the check needs."""

    def encode_text(self, sentences: list[str]) -> np.ndarray:
        """float32 [N, D]."""


SENTENCES = (
    "a slow piano ballad",
    "fast heavy metal with double bass drums",
    "a woman sings over a calm acoustic guitar",
    "dance music for a party",
    "solo violin",
    "an orchestra plays a march",
    "sad jazz with a muted trumpet",
    "happy song",
)
MOST_ALIKE = 0.99  # mean cosine of different sentences; towers of this project have 0.1 to 0.7


def require_apart(model: ReadsText, name: str) -> float:
    """The mean cosine of SENTENCES to one another.

    Raises UnusableError, naming the model, where it is above MOST_ALIKE or not finite.
    """
    vectors = np.asarray(model.encode_text(list(SENTENCES)), np.float64)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    others = ~np.eye(len(vectors), dtype=bool)
    alike = float((vectors @ vectors.T)[others].mean())
    if not alike <= MOST_ALIKE:
        raise UnusableError(
            f"model {name} gives {len(SENTENCES)} different sentences nearly the same vector (mean "
            f"cosine {alike:.4f}, at most {MOST_ALIKE}): its text tower is collapsed and would "
            "find the same tracks for every query; use other weights, or train it with a lower "
            "train.learning_rate"
        )
    return alike
