"""Samples as 16-bit integers, half the size, for the way from a decoder to a model elsewhere.

Each window has its own scale, so its rounding error is 96 dB below its loudest sample. A
log-mel spectrogram ends 80 dB below its maximum.
"""

from __future__ import annotations

import numpy as np

LOUDEST = 32_767


def packed(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 windows [W, S], none silent -> int16 [W, S], and their scales float32 [W]."""
    scales = np.abs(windows).max(axis=1) / np.float32(LOUDEST)
    return np.rint(windows / scales[:, None]).astype(np.int16), scales
