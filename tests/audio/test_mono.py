"""Samples in memory to mono at the spec's rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from raymtr.audio import AudioError, decode, to_mono
from raymtr.audio.mono import mix_and_resample, resampled_length
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

SPEC = AudioSpec()


def test_memory_and_file_agree(music: np.ndarray, encode: Callable[..., bytes]) -> None:
    wav = encode(music, 44_100, format="WAV", subtype="FLOAT")
    assert np.array_equal(to_mono(music, 44_100, SPEC), decode(wav, SPEC).samples)
    assert np.array_equal(to_mono(music[:, 0], 22_050, SPEC), music[:, 0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32])
def test_integers_count_by_their_full_scale(dtype: type) -> None:
    most = np.iinfo(dtype).max
    middle = 128 if dtype is np.uint8 else 0
    samples = np.array([middle, most, middle], dtype)
    assert to_mono(samples, 22_050, SPEC) == pytest.approx([0, 1, 0], abs=0.01)


def test_what_is_rejected() -> None:
    good = np.zeros((1000, 2), np.float32)
    for samples, rate in (
        (good.T, 44_100),
        (good[None], 44_100),
        (np.float32(1), 44_100),
        (good.astype(complex), 44_100),
        (good > 0, 44_100),
        (good, 0),
        (good, -1),
        (good, 44_100.5),
    ):
        with pytest.raises(InputError):
            to_mono(samples, rate, SPEC)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="transpose"):
        to_mono(good.T, 44_100, SPEC)


def test_what_gives_an_error_row() -> None:
    for samples, code in (
        (np.zeros(0), "empty"),
        (np.array([0, np.nan]), "bad_samples"),
        (np.array([1e300, 0]), "bad_samples"),
        (np.array([[np.inf, -np.inf]]), "bad_samples"),
    ):
        with pytest.raises(AudioError) as error:
            to_mono(samples, 22_050, SPEC)
        assert error.value.code == code


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
def test_blocks_make_no_difference(rate: int) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, (rate + 777, 2)).astype(np.float32)
    whole, seconds, *_ = mix_and_resample([(rate, samples)], SPEC)
    parts, *_ = mix_and_resample([(rate, p) for p in np.array_split(samples, 17)], SPEC)
    assert np.array_equal(whole, parts)
    assert seconds == len(samples) / rate
    assert len(whole) == resampled_length(len(samples), rate, SPEC.sample_rate)


def test_the_predicted_length_is_soxrs() -> None:
    for rate in (8_000, 32_000, 44_100, 48_000, 192_000):
        for frames in (*range(1, 400, 37), 640, 160, 30_880, 31_360):
            made, *_ = mix_and_resample([(rate, np.zeros((frames, 1), np.float32))], SPEC)
            assert len(made) == resampled_length(frames, rate, SPEC.sample_rate)
