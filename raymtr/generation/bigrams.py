"""Bigrams of training tokens: how likely a code is after another one of its level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MOST_TRACKS = 4_096  # counted; more would change little
SMOOTHING = 64.0  # tokens of the unigrams added to the counts after each code


def log_bigrams(tracks: Sequence[np.ndarray], codes: int) -> np.ndarray:
    """Log-probabilities float32 [levels, codes + 1, codes] from tokens int64 [F, levels] of tracks.

    The second axis is the code of the same level one frame earlier; its last row is for the first
    frame, and has the unigrams.
    """
    levels = tracks[0].shape[1]
    chances = np.empty((levels, codes + 1, codes), np.float32)
    for level in range(levels):
        pairs = np.zeros(codes * codes, np.int64)
        single = np.zeros(codes, np.int64)
        for track in tracks:
            tokens = track[:, level]
            single += np.bincount(tokens, minlength=codes)
            pairs += np.bincount(tokens[:-1] * codes + tokens[1:], minlength=codes * codes)
        unigrams = (single + 1.0 / codes) / (single.sum() + 1.0)  # no code is impossible
        after = pairs.reshape(codes, codes) + SMOOTHING * unigrams
        chances[level, :codes] = after / after.sum(axis=1, keepdims=True)
        chances[level, codes] = unigrams
    return np.log(chances)
