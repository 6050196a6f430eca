"""The vocoder's STFT is torch's, and so is Griffin-Lim on it."""

from __future__ import annotations

import pytest
import torch

from raymtr.generation import vocoder as vocoder_module
from raymtr.generation.codec import AUDIO
from raymtr.generation.vocoder import MOMENTUM, Vocoder

STFT = {"n_fft": AUDIO.n_fft, "hop_length": AUDIO.hop}


@pytest.mark.parametrize("rounds", [0, 3])
@torch.inference_mode()
def test_griffin_lim_is_that_of_torch(rounds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocoder_module, "ROUNDS", rounds)
    torch.manual_seed(0)
    vocoder, mel = Vocoder(AUDIO, 8, 1), torch.rand(2, AUDIO.n_mels, 30)
    spectrum = vocoder._spectrum(mel).transpose(1, 2)
    length, window = 30 * AUDIO.hop, vocoder.window

    def wave_of(spectrum: torch.Tensor) -> torch.Tensor:
        return torch.istft(spectrum, **STFT, window=window, length=length)

    wave, last = wave_of(spectrum), torch.zeros_like(spectrum)
    for _ in range(rounds):
        consistent = torch.stft(wave, **STFT, window=window, return_complex=True)
        phase = consistent - MOMENTUM / (1 + MOMENTUM) * last
        wave, last = wave_of(spectrum.abs() * phase / phase.abs()), consistent
    torch.testing.assert_close(vocoder.refine(mel), wave, atol=1e-4, rtol=0)
    if not rounds:
        torch.testing.assert_close(vocoder(mel), wave, atol=1e-5, rtol=0)
