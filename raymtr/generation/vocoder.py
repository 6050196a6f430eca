"""The vocoder: log-mel frames to audio, by a learned inverse STFT and rounds of Griffin-Lim.

The network has the design of Vocos (Siuzdak, arXiv 2306.00814): ConvNeXt blocks at the frame rate,
then magnitude and phase of each bin, then one inverse STFT. The magnitude is that of the mel bands,
spread over their bins, times a factor from the network, so that the network need not learn the
filter bank. Decoding ends with some rounds of Griffin-Lim on this spectrum. Training uses quantised
frames with a random number of RVQ levels, so that every number of levels can be decoded. The loss
compares magnitudes at several resolutions. There is no discriminator, unlike in Vocos, because it
would multiply the cost of training.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.generation.fitting import fit_network
from raymtr.generation_specs import TokensSpec
from raymtr.model.log_mel import mel_filters
from raymtr.tower_specs import AudioSpec

KERNEL = 7  # frames
MOST_LOG_MAGNITUDE = 6.0  # of a predicted bin; a full-scale sine has 5.5 with 1,024 samples
RESOLUTIONS = (512, 1_024, 2_048)  # window lengths of the loss in samples
QUIETEST = 1.0  # lower bound of the norm that divides the spectral convergence
LEARNING_RATE = 1e-3
TINIEST = 1e-5
ROUNDS, MOMENTUM = 32, 0.99  # of Griffin-Lim on the decoder's own spectrum
QUIETEST_POWER = 1e-9  # lower bound of a bin's power, for bins outside of all bands


class Vocoder(nn.Module):
    """Log-mel [B, n_mels, F] -> waves [B, F * hop]."""

    window: Tensor
    spread: Tensor  # [bins, n_mels], distributes a band's power over its bins

    def __init__(self, audio: AudioSpec, width: int, layers: int) -> None:
        super().__init__()
        self.audio = audio
        self.first = nn.Conv1d(audio.n_mels, width, KERNEL, padding=KERNEL // 2)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList([_Block(width, layers) for _ in range(layers)])
        self.last_norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, audio.n_fft + 2)  # log magnitude and phase of each bin
        self.register_buffer("window", torch.hann_window(audio.n_fft), persistent=False)
        bank = torch.from_numpy(mel_filters(audio)).float()  # [n_mels, bins]
        share = bank / bank.sum(dim=0).clamp_min(TINIEST)
        spread = (share / bank.sum(dim=1, keepdim=True)).T.contiguous()
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """The waves, without Griffin-Lim; differentiable."""
        return self._wave(self._spectrum(mel))

    def refine(self, mel: Tensor) -> Tensor:
        """As `forward`, followed by ROUNDS of fast Griffin-Lim (Perraudin et al. 2013).

        Griffin-Lim starts from the predicted phases and keeps the predicted magnitudes. It makes
        the phases consistent. Not differentiable.
        """
        spectrum = self._spectrum(mel)
        magnitude, wave, last = spectrum.abs(), self._wave(spectrum), torch.zeros_like(spectrum)
        for _ in range(ROUNDS):
            consistent = torch.fft.rfft(self._frames(wave))
            phase = torch.add(consistent, last, alpha=-MOMENTUM / (1 + MOMENTUM))
            power = phase.real.square() + phase.imag.square()
            wave = self._wave(phase * (magnitude * power.clamp_min_(TINIEST**2).rsqrt_()))
            last = consistent
        return wave

    def _frames(self, wave: Tensor) -> Tensor:
        """The windowed frames of a centred STFT, [B, S] -> [B, F + 1, n_fft]."""
        audio = self.audio
        padded = functional.pad(wave, (audio.n_fft // 2, audio.n_fft // 2), mode="reflect")
        return padded.unfold(1, audio.n_fft, audio.hop) * self.window

    def _wave(self, spectrum: Tensor) -> Tensor:
        """The inverse of a centred STFT, complex [B, F + 1, bins] -> [B, F * hop].

        Spectra are stored frame by frame, unlike those of `torch.stft`: without the transposition
        a round of Griffin-Lim takes half the time.
        """
        audio, count = self.audio, spectrum.shape[1]
        wave = overlap_add(torch.fft.irfft(spectrum, audio.n_fft) * self.window, audio.hop)
        weight = overlap_add(self.window.square().expand(1, count, -1), audio.hop)
        inside = slice(audio.n_fft // 2, audio.n_fft // 2 + (count - 1) * audio.hop)
        return wave[:, inside] / weight[:, inside]

    def _spectrum(self, mel: Tensor) -> Tensor:
        """Complex [B, F + 1, bins]. The last frame is repeated, as a centred STFT has one more."""
        mel = torch.cat([mel, mel[:, :, -1:]], dim=2)
        x = self.norm(self.first(mel).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        log_gain, phase = self.last(self.last_norm(x)).chunk(2, dim=2)
        magnitude = (self._mel_magnitude(mel) + log_gain).clamp(max=MOST_LOG_MAGNITUDE).exp()
        return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())

    def _mel_magnitude(self, mel: Tensor) -> Tensor:
        """The log magnitude [B, F, bins] of each bin, from the mel bands [B, n_mels, F]."""
        power = torch.pow(10.0, 4 * mel.transpose(1, 2) - 4) @ self.spread.T
        magnitude: Tensor = 0.5 * power.clamp_min(QUIETEST_POWER).log()
        return magnitude


def overlap_add(frames: Tensor, hop: int) -> Tensor:
    """The sum of frames [B, F, N] that start `hop` samples apart, [B, S].

    S is (F - 1) * hop + N, rounded up to whole hops.
    """
    rows, count, size = frames.shape
    steps = -(-size // hop)  # hops per frame
    wave = frames.new_zeros(rows, count + steps - 1, hop)
    for step, part in enumerate(torch.split(frames, hop, dim=2)):
        wave[:, step : step + count, : part.shape[2]] += part
    return wave.flatten(1)


class _Block(nn.Module):
    """A ConvNeXt block over time, [B, F, W] -> the same."""

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()
        self.mix = nn.Conv1d(width, width, KERNEL, padding=KERNEL // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 3 * width)
        self.narrow = nn.Linear(3 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1 / layers))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.mix(x.transpose(1, 2)).transpose(1, 2))
        output: Tensor = x + self.scale * self.narrow(functional.gelu(self.wide(mixed)))
        return output


def fit_vocoder(
    vocoder: Vocoder,
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
    spec: TokensSpec,
) -> float:
    """Train `vocoder` in place; `draw(rows, generator)` returns mel [B, n_mels, F], waves [B, S].

    Returns the mean loss of the last tenth of the steps. Raises UnusableError if a loss is not
    finite.
    """

    def loss_of(generator: torch.Generator) -> Tensor:
        mel, waves = draw(spec.decoder_batch, generator)
        return spectral_loss(vocoder(mel), waves)

    return fit_network(
        vocoder,
        loss_of,
        what="decoder",
        steps=spec.decoder_steps,
        learning_rate=LEARNING_RATE,
        betas=(0.8, 0.99),
        seed=spec.seed,
        cure="lower tokens.decoder_width",
    )


def spectral_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Multi-resolution STFT loss of waves [B, S]: spectral convergence + log L1 (Yamamoto 2020)."""
    total = predicted.new_zeros(())
    for size in RESOLUTIONS:
        window = torch.hann_window(size, device=predicted.device)
        found, target = (_magnitudes(waves, size, window) for waves in (predicted, true))
        error = (target - found).square().sum(dim=(1, 2)).sqrt()
        norm = target.square().sum(dim=(1, 2)).sqrt().clamp_min(QUIETEST)
        total = total + (error / norm).mean()
        total = total + functional.l1_loss(found.log(), target.log())
    return total / len(RESOLUTIONS)


def _magnitudes(waves: Tensor, size: int, window: Tensor) -> Tensor:
    spectrum = torch.stft(waves, size, size // 4, window=window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + TINIEST**2).sqrt()
