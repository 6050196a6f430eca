"""The ResNet audio tower: CLIP's ModifiedResNet with attention pooling, over a log-mel spectrogram.

Radford et al. 2021 (arXiv 2103.00020) in the form TTMR++ uses (Doh et al., ICASSP 2024): one input
channel (with `band_input` two), a stem of three convolutions, an average pool before the
convolution in place of every stride, and a pooling whose query is the mean of the map. With
`band_statistics`, `tempogram` and semitones linear maps of timbre, rhythm and pitch are added to
the pooled vector. Parameters have CLIP's names, so the released weights load unchanged. Batch norms
are plain `nn.BatchNorm2d`; training over several workers replaces them. Log-mel, projection heads
and precision are not part of this file.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.tower_specs import SEMITONES, AudioTowerSpec

OCTAVE = 12  # semitones
EXPANSION = 4  # output channels of a bottleneck per inner channel
ONSET_GROUPS = 3  # of bands: low, middle, high
LAGS = 128  # frames; 3 s at the hop of `raymtr-small`
LEAST_ENERGY = 1e-6  # of a group's onsets, below which their autocorrelation fades to 0


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with a shortcut; [B, C, H, W] -> [B, 4 width, H/s, W/s]."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * EXPANSION
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample: nn.Sequential | None = None
        if stride > 1 or channels != out:
            self.downsample = nn.Sequential(
                OrderedDict(
                    [
                        ("-1", nn.AvgPool2d(stride) if stride > 1 else nn.Identity()),
                        ("0", nn.Conv2d(channels, out, 1, bias=False)),
                        ("1", nn.BatchNorm2d(out)),
                    ]
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """The block's output, with the ReLU after the sum."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(self.avgpool(y)))
        y = y + (x if self.downsample is None else self.downsample(x))
        return functional.relu(y, inplace=True)


class AttentionPool(nn.Module):
    """[B, C, H, W] -> [B, dim]: the mean of the map attends to itself and to every place.

    CLIP has a position embedding for every place; TTMR++ has one row, added to all places. There is
    one query, so the places' keys and values are never formed: q.(W_k x) = (W_k' q).x, and the
    weighted mean of W_v x is W_v of the weighted mean. The result is the same with two fewer matrix
    products per place (a twelfth of the tower's work).
    """

    def __init__(self, channels: int, heads: int, dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.positional_embedding = nn.Parameter(torch.randn(1, channels) / channels**0.5)
        self.k_proj = nn.Linear(channels, channels)
        self.q_proj = nn.Linear(channels, channels)
        self.v_proj = nn.Linear(channels, channels)
        self.c_proj = nn.Linear(channels, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Pool the map to one vector."""
        batch, channels = x.shape[:2]
        size = channels // self.heads  # of one head
        tokens = x.flatten(2).transpose(1, 2)  # [B, HW, C]
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + self.positional_embedding
        query = self.q_proj(tokens[:, 0]).view(batch, self.heads, size) * size**-0.5
        keys = self.k_proj.weight.view(self.heads, size, channels)
        q_keys = torch.einsum("bhs,hsc->bhc", query, keys)
        # The key bias shifts all scores of a head equally; it is kept so that every weight is used.
        shift = (query * self.k_proj.bias.view(self.heads, size)).sum(-1, keepdim=True)
        attention = torch.softmax(q_keys @ tokens.transpose(1, 2) + shift, dim=-1)  # [B, h, 1 + HW]
        values = self.v_proj.weight.view(self.heads, size, channels)
        attended = torch.einsum("bhc,hsc->bhs", attention @ tokens, values)
        pooled: Tensor = self.c_proj(attended.reshape(batch, channels) + self.v_proj.bias)
        return pooled


class PlainInput(nn.Module):
    """Log-mel [B, n_mels, frames], and any rows after its bands -> [B, 1, n_mels, frames]."""

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The bands alone."""
        return spectrogram[:, None, : self.n_mels]


class BandInput(nn.Module):
    """As PlainInput -> [B, 2, n_mels, frames]: normalised bands, and their places.

    Each band is normalised by its mean and variance (as in PANNs, Kong et al. 2020). The second
    channel is the place of the band, -1 to 1 (CoordConv, Liu et al. 2018). A convolution does not
    know where in the spectrum it is, and TTMR++'s pooling has one position for all places, so that
    it hears intervals better than pitch and register.
    """

    places: Tensor

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.norm = nn.BatchNorm2d(n_mels)
        places = torch.linspace(-1.0, 1.0, n_mels)[None, None, :, None]
        self.register_buffer("places", places, persistent=False)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The two channels."""
        mel = spectrogram[:, : self.n_mels]
        bands = self.norm(mel.unsqueeze(2)).transpose(1, 2)  # [B, 1, n_mels, frames]
        return torch.cat([bands, self.places.to(bands).expand_as(bands)], dim=1)


class BandStatistics(nn.Module):
    """As PlainInput -> [B, dim]: a linear map of each band's statistics over time.

    They are the mean, the standard deviation, and that of the difference of successive frames: the
    timbre, the dynamics and the rate of change that a small catalog can teach at once, while the
    convolutions still learn (a wide part beside the deep one, Cheng et al. 2016).
    """

    def __init__(self, n_mels: int, dim: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.norm = nn.BatchNorm2d(3 * n_mels)
        self.projection = nn.Linear(3 * n_mels, dim)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The vectors to add."""
        mel = spectrogram[:, : self.n_mels]
        deviations = [part.std(2, correction=0) for part in (mel, mel.diff(dim=2))]
        statistics = torch.cat([mel.mean(2), *deviations], dim=1)
        vectors: Tensor = self.projection(self.norm(statistics[:, :, None, None]).flatten(1))
        return vectors


class Tempogram(nn.Module):
    """As PlainInput -> [B, dim]: a linear map of the onsets' autocorrelation.

    The onset strength of a frame is the mean rise of a group of bands since the frame before. Its
    autocorrelation over a window shows tempo and metre as peaks (Grosche, Müller and Kurth 2010).
    There are three groups, because bass and cymbals keep different time. Convolutions with an
    average pool hear little of lags as long as a bar.
    """

    def __init__(self, n_mels: int, dim: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.norm = nn.BatchNorm2d(ONSET_GROUPS * LAGS)
        self.projection = nn.Linear(ONSET_GROUPS * LAGS, dim)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The vectors to add."""
        correlations = autocorrelations(spectrogram[:, : self.n_mels]).flatten(1)[:, :, None, None]
        vectors: Tensor = self.projection(self.norm(correlations).flatten(1))
        return vectors


def autocorrelations(mel: Tensor) -> Tensor:
    """Of each group's onset strength, at lags of 1 to LAGS frames: [B, ONSET_GROUPS, LAGS].

    They are normalised by lag 0. Without onsets, and at lags beyond the window, they are 0.
    """
    rises = mel.float().diff(dim=2).clamp(min=0.0)
    onsets = torch.stack([group.mean(1) for group in rises.tensor_split(ONSET_GROUPS, dim=1)], 1)
    onsets = onsets - onsets.mean(2, keepdim=True)
    length = 2 * max(onsets.shape[2], LAGS + 1)  # zeros, so that the end does not meet the start
    power = torch.view_as_real(torch.fft.rfft(onsets, length)).square().sum(-1)
    products: Tensor = torch.fft.irfft(power, length)[..., : LAGS + 1]
    return products[..., 1:] / products[..., :1].clamp(min=LEAST_ENERGY)


class PitchStatistics(nn.Module):
    """Log-mel and semitones [B, n_mels + SEMITONES, frames] -> [B, dim]: a linear map of pitch.

    It reads the mean and the standard deviation over time of each semitone, where melody, bass and
    register show, and of each pitch class, where the key does.
    """

    def __init__(self, n_mels: int, dim: int) -> None:
        super().__init__()
        self.n_mels = n_mels
        self.norm = nn.BatchNorm2d(2 * (SEMITONES + OCTAVE))
        self.projection = nn.Linear(2 * (SEMITONES + OCTAVE), dim)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """The vectors to add."""
        semitones = spectrogram[:, self.n_mels :].float()
        rows = torch.cat([semitones, pitch_classes(semitones)], dim=1)
        statistics = torch.cat([rows.mean(2), rows.std(2, correction=0)], dim=1)
        vectors: Tensor = self.projection(self.norm(statistics[:, :, None, None]).flatten(1))
        return vectors


def pitch_classes(semitones: Tensor) -> Tensor:
    """The share of each pitch class in the amplitude of a frame, A first: [B, 12, T].

    `semitones`, [B, SEMITONES, T], are those of model.semitones.
    """
    power = torch.pow(10.0, 4.0 * semitones)
    octaves = power.view(len(power), -1, OCTAVE, power.shape[2])
    amplitude = octaves.sum(1).sqrt()
    return amplitude / amplitude.sum(1, keepdim=True)


class ModifiedResNet(nn.Module):
    """A LogMel's output -> [B, dim]: log-mel [B, n_mels, frames], and semitones after its bands."""

    def __init__(self, spec: AudioTowerSpec, n_mels: int = 128, *, semitones: bool = False) -> None:
        super().__init__()
        width, channels = spec.width, 2 if spec.band_input else 1
        self.input = BandInput(n_mels) if spec.band_input else PlainInput(n_mels)
        self.conv1 = nn.Conv2d(channels, width // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        stages, channels = [], width
        for depth, blocks in enumerate(spec.layers):
            inner = width * 2**depth
            stage = [Bottleneck(channels, inner, stride=1 if depth == 0 else 2)]
            channels = inner * EXPANSION
            stage += [Bottleneck(channels, inner, stride=1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.attn_pool = AttentionPool(channels, spec.heads, spec.dim)
        self.statistics = BandStatistics(n_mels, spec.dim) if spec.band_statistics else None
        self.tempogram = Tempogram(n_mels, spec.dim) if spec.tempogram else None
        self.pitch = PitchStatistics(n_mels, spec.dim) if semitones else None
        self._initialise()

    def _initialise(self) -> None:
        """CLIP's initialisation: each block is its shortcut, projections are 1 / sqrt(channels)."""
        for module in self.modules():
            if isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)
            elif isinstance(module, AttentionPool):
                for linear in (module.k_proj, module.q_proj, module.v_proj, module.c_proj):
                    nn.init.normal_(linear.weight, std=linear.in_features**-0.5)

    def forward(self, spectrogram: Tensor) -> Tensor:
        """Return one vector for each spectrogram."""
        x = self.input(spectrogram)  # [B, 1 or 2, n_mels, frames]
        x = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        x = functional.relu(self.bn2(self.conv2(x)), inplace=True)
        x = functional.relu(self.bn3(self.conv3(x)), inplace=True)
        x = self.avgpool(x)  # [B, width, n_mels / 4, frames / 4]
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return pooled(self.attn_pool, self.wide_parts(), x, spectrogram)

    def wide_parts(self) -> list[nn.Module]:
        """The linear maps of the spectrogram whose vectors are added to the pooled one."""
        return [part for part in (self.statistics, self.tempogram, self.pitch) if part is not None]


def pooled(
    attention: AttentionPool, wide: Sequence[nn.Module], x: Tensor, spectrogram: Tensor
) -> Tensor:
    """The vectors [B, dim] of the last stage's maps [B, C, H, W] and their spectrograms."""
    vectors: Tensor = attention(x)
    for part in wide:
        vectors = vectors + part(spectrogram)
    return vectors


def blocks_of(tower: ModifiedResNet) -> list[Bottleneck]:
    """All bottlenecks, in order."""
    return [module for module in tower.modules() if isinstance(module, Bottleneck)]
