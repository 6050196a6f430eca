"""Unit vectors: the one place that scales vectors to length 1, and tells whether they are."""

from __future__ import annotations

import numpy as np

SHORTEST = 1e-12  # length below which a vector has no direction
TOLERANCE = 2e-3  # of a unit vector's length; rounding to float16 changes it by up to 5e-4


def unit(vectors: np.ndarray) -> np.ndarray:
    """Rows [..., D] of any float type, scaled to length 1, float32; a zero row stays zero."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.maximum(lengths, SHORTEST), np.float32)


def is_unit(vectors: np.ndarray) -> np.ndarray:
    """Which rows [..., D] have length 1, bool [...]; a row that is not finite has not."""
    lengths = np.linalg.norm(np.asarray(vectors, np.float32), axis=-1)
    return np.asarray(np.abs(lengths - 1.0) <= TOLERANCE)
