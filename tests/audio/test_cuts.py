"""Where windows and clips lie."""

from __future__ import annotations

import numpy as np
import pytest

from raymtr.audio import AudioError, clip_start, loop_to, windows
from raymtr.tower_specs import AudioSpec

SPEC = AudioSpec(sample_rate=100, window_s=1.0, min_tail_s=0.1)  # 100 samples, tails of 10


@pytest.mark.parametrize(
    ("length", "starts"),
    [
        (100, [0]),
        (200, [0, 100]),
        (209, [0, 100]),  # a tail of 0.09 s is dropped
        (210, [0, 100, 110]),  # one of 0.10 s is kept, right-aligned
        (350, [0, 100, 200, 250]),
        (101, [0]),
        (110, [0, 10]),
        (99, [0]),
        (7, [0]),
        (1, [0]),
    ],
)
def test_windows(length: int, starts: list[int]) -> None:
    samples = np.arange(1, length + 1, dtype=np.float32)
    starts_s, cut = windows(samples, SPEC)
    assert starts_s.dtype == np.float64 and cut.dtype == np.float32
    assert cut.shape == (len(starts), 100)
    assert starts_s.tolist() == [start / 100 for start in starts]
    for start, window in zip(starts, cut, strict=True):
        expected = samples[start : start + 100] if length >= 100 else np.resize(samples, 100)
        assert np.array_equal(window, expected)


def test_no_tail_is_too_short_where_the_spec_says_so() -> None:
    spec = AudioSpec(sample_rate=100, window_s=1.0, min_tail_s=0.0)
    assert windows(np.ones(101, np.float32), spec)[0].tolist() == [0, 0.01]
    assert windows(np.ones(200, np.float32), spec)[0].tolist() == [0, 1]


def test_no_samples_give_no_window() -> None:
    with pytest.raises(AudioError) as error:
        windows(np.zeros(0, np.float32), SPEC)
    assert error.value.code == "empty"


def test_a_silent_window_is_left_out() -> None:
    samples = np.ones(300, np.float32)
    samples[100:200] = 1e-5
    assert windows(samples, SPEC)[0].tolist() == [0, 2]
    with pytest.raises(AudioError) as error:
        windows(np.full(300, 1e-5, np.float32), SPEC)
    assert error.value.code == "silent"


def test_clips_start_everywhere_and_fit() -> None:
    rng = np.random.default_rng(0)
    starts = {clip_start(105, 100, rng.random()) for _ in range(500)}
    assert starts == {0, 1, 2, 3, 4, 5}
    assert clip_start(100, 100, 0.999_999) == clip_start(3, 100, 0.999_999) == 0
    assert clip_start(105, 100, np.nextafter(1, 0)) == 5


def test_looping() -> None:
    assert loop_to(np.array([1, 2, 3]), 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert loop_to(np.array([1, 2, 3]), 3).tolist() == [1, 2, 3]
