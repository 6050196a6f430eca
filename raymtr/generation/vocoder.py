"""From log-mel frames to sound: a learnt inverse STFT, and Griffin-Lim to compare it with.

The decoder is built as Vocos (Siuzdak, arXiv 2306.00814): ConvNeXt blocks at the rate of the
frames, then magnitude and phase of each bin, and one inverse STFT. The magnitude is that of the
mel bands spread over their bins, times what the network says, so that it need not learn the bands.
Decoding ends with some rounds of Griffin-Lim on that spectrum. It is trained on quantised
frames with a random number of levels, so that it knows what each number of levels sounds like. Its
loss compares magnitudes of several resolutions; a discriminator, which Vocos has too, would cost
several times the training.
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

KERNEL = 7  # frames that a block mixes
MOST_LOG_MAGNITUDE = 6.0  # of a predicted bin; a full-scale sine has 5.5 in 1,024 samples
RESOLUTIONS = (512, 1_024, 2_048)  # samples in a window of the loss
QUIETEST = 1.0  # norm of a clip's magnitudes below which the convergence is not relative
LEARNING_RATE = 1e-3
TINIEST = 1e-5
ROUNDS, MOMENTUM = 16, 0.99  # of Griffin-Lim on the decoder's own spectrum
QUIETEST_POWER = 1e-9  # of a bin outside of all bands


class Vocoder(nn.Module):
    """Log-mel [B, n_mels, F] -> waves [B, F * hop]."""

    window: Tensor
    spread: Tensor  # [bins, n_mels], of a band's power over its bins

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
        """Return the waves."""
        return self._wave(self._spectrum(mel))

    def polished(self, mel: Tensor) -> Tensor:
        """As `forward`, with phases that agree better with one another.

        They are ROUNDS of fast Griffin-Lim (Perraudin et al. 2013) from the learnt ones, with the
        learnt magnitudes. No gradient passes.
        """
        spectrum = self._spectrum(mel)
        magnitude, wave, last = spectrum.abs(), self._wave(spectrum), torch.zeros_like(spectrum)
        audio = self.audio
        for _ in range(ROUNDS):
            heard = torch.stft(
                wave, audio.n_fft, audio.hop, window=self.window, return_complex=True
            )
            phase = heard - MOMENTUM / (1 + MOMENTUM) * last
            wave = self._wave(magnitude * phase / phase.abs().clamp_min(TINIEST))
            last = heard
        return wave

    def _wave(self, spectrum: Tensor) -> Tensor:
        length = (spectrum.shape[2] - 1) * self.audio.hop
        wave: Tensor = torch.istft(
            spectrum, self.audio.n_fft, self.audio.hop, window=self.window, length=length
        )
        return wave

    def _spectrum(self, mel: Tensor) -> Tensor:
        """Complex [B, bins, F + 1]: a centred STFT has one frame more, so the last is repeated."""
        x = self.first(torch.cat([mel, mel[:, :, -1:]], dim=2)).transpose(1, 2)
        x = self.norm(x)
        for block in self.blocks:
            x = block(x)
        louder, phase = self.last(self.last_norm(x)).transpose(1, 2).chunk(2, dim=1)
        magnitude = (self._rough(mel) + louder).clamp(max=MOST_LOG_MAGNITUDE).exp()
        return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())

    def _rough(self, mel: Tensor) -> Tensor:
        """The log magnitude [B, bins, F + 1] that the bands' powers alone give each bin."""
        power = torch.pow(10.0, 4 * torch.cat([mel, mel[:, :, -1:]], dim=2) - 4)
        rough: Tensor = 0.5 * (self.spread @ power).clamp_min(QUIETEST_POWER).log()
        return rough


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
        made: Tensor = x + self.scale * self.narrow(functional.gelu(self.wide(mixed)))
        return made


def fit_vocoder(
    vocoder: Vocoder,
    draw: Callable[[int, torch.Generator], tuple[Tensor, Tensor]],
    spec: TokensSpec,
) -> float:
    """Train `vocoder` in place; `draw(rows, generator)` gives mel [B, n_mels, F] and waves [B, S].

    Returns the loss of the last tenth of the steps. Raises UnusableError where it is not finite.
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


def spectral_loss(made: Tensor, true: Tensor) -> Tensor:
    """The distance of magnitudes over RESOLUTIONS: convergence and logarithm (Yamamoto 2020)."""
    total = made.new_zeros(())
    for size in RESOLUTIONS:
        window = torch.hann_window(size, device=made.device)
        ours, theirs = (_magnitudes(waves, size, window) for waves in (made, true))
        far = (theirs - ours).square().sum(dim=(1, 2)).sqrt()
        total = total + (far / theirs.square().sum(dim=(1, 2)).sqrt().clamp_min(QUIETEST)).mean()
        total = total + functional.l1_loss(ours.log(), theirs.log())
    return total / len(RESOLUTIONS)


def _magnitudes(waves: Tensor, size: int, window: Tensor) -> Tensor:
    spectrum = torch.stft(waves, size, size // 4, window=window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + TINIEST**2).sqrt()
