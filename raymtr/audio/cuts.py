"""Cuts tracks: random clips for training, fixed windows for indexing.

Pure functions of samples and the spec. Decoder and cache share them, so that both cut identically.
"""

from __future__ import annotations

import numpy as np

from raymtr.audio.mono import is_silent
from raymtr.audio.source import AudioError
from raymtr.tower_specs import AudioSpec


def clip_start(total: int, window: int, draw: float) -> int:
    """First sample of the clip that `draw`, uniform in [0, 1), selects among all that fit."""
    return int(draw * (max(0, total - window) + 1))


def window_start(total: int, window: int, draw: float) -> int:
    """First sample of the window that `draw`, uniform in [0, 1), selects.

    Windows are end to end, as in `windows`; the last one ends with the track.
    """
    count = max(1, -(-total // window))
    return max(0, min(int(draw * count) * window, total - window))


def loop_to(samples: np.ndarray, length: int) -> np.ndarray:
    """`samples` [n], repeated from their start until there are `length` of them."""
    return samples if len(samples) == length else np.resize(samples, length)


def window_starts(total: int, spec: AudioSpec) -> list[int]:
    """First samples of the windows of a track of `total` samples, as in `windows`; at least one."""
    size = spec.window_samples
    starts = list(range(0, total - size + 1, size)) or [0]
    tail = total - (starts[-1] + size)
    if tail > 0 and tail >= spec.min_tail_s * spec.sample_rate:
        starts.append(total - size)
    return starts


def windows(samples: np.ndarray, spec: AudioSpec) -> tuple[np.ndarray, np.ndarray]:
    """The audible windows of a track: starts in s float64 [W], float32 [W, window_samples].

    Windows start every `window_s`. Where a tail of at least `min_tail_s` remains, one more window
    ends exactly with the track, overlapping its predecessor. A track shorter than a window is
    repeated from its start until it fills one. A silent window is left out, because its vector
    would not describe the track. Raises AudioError if there are no samples, or all are silent.
    """
    if not len(samples):
        raise AudioError("empty", "there are no samples")
    size = spec.window_samples
    starts = [
        start
        for start in window_starts(len(samples), spec)
        if not is_silent(samples[start : start + size])
    ]
    if not starts:
        raise AudioError("silent", "it is silent")
    cut = np.stack([loop_to(samples[s : s + size], size) for s in starts])
    return np.array(starts) / spec.sample_rate, cut.astype(np.float32, copy=False)
