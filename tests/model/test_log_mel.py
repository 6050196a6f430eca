"""The log-mel: the paper's formula, once, and blind to its neighbours."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from raymtr.errors import InputError
from raymtr.model.log_mel import LogMel, mel_filters
from raymtr.tower_specs import AudioSpec

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "ttmrpp_reference.npz"
ODD = AudioSpec(sample_rate=16_000, window_s=0.7, n_fft=512, hop=130, n_mels=45)


def plain(waves: torch.Tensor, spec: AudioSpec) -> torch.Tensor:
    """The formula as it stands in the paper's code, one clip at a time."""
    pictures = []
    for wave in waves:
        window = torch.hann_window(spec.n_fft)
        spectrum = torch.stft(wave, spec.n_fft, spec.hop, window=window, return_complex=True)
        power = spectrum[..., :-1].abs() ** 2
        mel = torch.from_numpy(mel_filters(spec)).float() @ power
        mel = mel.clamp(min=1e-10).log10()
        pictures.append((torch.maximum(mel, mel.max() - 8.0) + 4.0) / 4.0)
    return torch.stack(pictures)


def test_equals_the_published_log_mel() -> None:
    expected = np.load(REFERENCE)
    wave = torch.from_numpy(expected["clip0_int16"][None].astype(np.float32) / 32767)
    made = LogMel(AudioSpec())(wave)
    assert made.shape == (1, 128, 1002)
    assert np.abs(made.numpy() - expected["log_mel_clip0"]).max() < 1e-4


@pytest.mark.parametrize("spec", [AudioSpec(window_s=0.5), ODD], ids=["ttmrpp", "odd sizes"])
def test_equals_the_plain_formula(spec: AudioSpec) -> None:
    waves = torch.randn(3, spec.window_samples, generator=torch.Generator().manual_seed(1))
    made = LogMel(spec)(waves)
    assert made.shape == (3, spec.n_mels, spec.frames)
    assert (made - plain(waves, spec)).abs().max() < 1e-5


def test_filters_are_slaneys() -> None:
    """Equal areas; a peak at 1 kHz in mel 15; the edges that librosa gives, by their formula."""
    spec = AudioSpec()
    bank = mel_filters(spec)
    assert bank.shape == (128, 513)
    area = bank.sum(axis=1) * spec.sample_rate / spec.n_fft
    assert np.abs(area[80:] - 1.0).max() < 0.01  # lower triangles span only a few bins
    top = 15.0 + math.log(11.025) / (math.log(6.4) / 27)  # Nyquist in Slaney mels
    centre = 1000.0 * math.exp((top * 100 / 129 - 15.0) * math.log(6.4) / 27)
    assert abs(bank[99].argmax() * spec.sample_rate / spec.n_fft - centre) < 22_050 / 1024


def test_a_loud_neighbour_changes_nothing() -> None:
    spec = AudioSpec(window_s=0.5)
    quiet = 1e-3 * torch.randn(1, spec.window_samples, generator=torch.Generator().manual_seed(2))
    loud = 1e3 * torch.randn(1, spec.window_samples, generator=torch.Generator().manual_seed(3))
    alone = LogMel(spec)(quiet)
    assert torch.equal(LogMel(spec)(torch.cat([loud, quiet, loud]))[1:2], alone)
    assert alone.min() < alone.max() - 0.5  # it has a picture to lose


@pytest.mark.parametrize("gain", [2.0**-5, 0.3, 7.0])
def test_without_its_level_a_clip_is_one_picture_at_every_gain(gain: float) -> None:
    spec = dataclasses.replace(ODD, level="removed")
    wave = torch.from_numpy(np.random.default_rng(0).normal(0, 0.1, (1, spec.window_samples)))
    wave = wave.float() * torch.linspace(0.01, 1, spec.window_samples)
    one, other = LogMel(spec)(wave), LogMel(spec)(gain * wave)
    assert torch.allclose(one, other, atol=1e-5) and one.max() == 1.0 and one.min() >= -1.0
    kept = LogMel(ODD)
    assert not torch.allclose(kept(wave), kept(gain * wave), atol=0.1)


def test_silence_and_a_single_click() -> None:
    spec = AudioSpec(window_s=0.5)
    waves = torch.zeros(2, spec.window_samples)
    waves[1, 5_000] = 1.0
    silent, click = LogMel(spec)(waves)
    assert torch.all(silent == -1.5)  # log10(1e-10), shifted
    assert click.max() - click.min() == pytest.approx(2.0)  # 8 decades, divided by 4


def test_autocast_does_not_reach_it() -> None:
    spec = AudioSpec(window_s=0.5)
    waves = torch.randn(1, spec.window_samples)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = LogMel(spec)(waves)
    assert torch.equal(inside, LogMel(spec)(waves))


def test_an_empty_batch_is_empty() -> None:
    assert LogMel(ODD)(torch.zeros(0, ODD.window_samples)).shape == (0, 45, ODD.frames)


def test_a_window_shorter_than_half_a_frame_is_rejected() -> None:
    with pytest.raises(InputError, match=r"audio\.window_s"):
        LogMel(AudioSpec(window_s=0.1, n_fft=8192))
