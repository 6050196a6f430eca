"""musicnn: convolutional music taggers trained on 200,000 songs, in torch (Pons & Serra, 2019).

The network of "musicnn: Pre-trained convolutional neural networks for music audio tagging" (ISMIR
2019 late breaking, arXiv 1909.06654), with the authors' weights from the PyPI package `musicnn`
(ISC licence), read without TensorFlow. One network was trained on the 50 most common tags of the
Million Song Dataset, the other on the 50 of MagnaTagATune. Both read patches of 3 s.

Vertical filters over part of the bands detect timbre at any pitch; horizontal ones over time detect
rhythm. Each filter's output is the maximum over bands. Three convolutions over time follow, with
residuals. The channels of all layers are pooled by maximum and mean.

`MusicnnTower` is both networks as the audio tower of a model (specs.AudioTowerSpec). Frozen, it
keeps the authors' weights; trainable, all of it is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.errors import UnusableError
from raymtr.model.tf_checkpoint import read_tf_checkpoint
from raymtr.tower_specs import MUSICNN_AUDIO, AudioSpec, AudioTowerSpec

PACKAGE, VERSION = "musicnn", "0.1.0"
CURE = (
    f"python -m pip install --no-deps {PACKAGE}=={VERSION} (--no-deps: it requires a TensorFlow "
    "of 2019, and only its weights are read)"
)
MSD = (
    *("rock", "pop", "alternative", "indie", "electronic", "female vocalists", "dance", "00s"),
    *("alternative rock", "jazz", "beautiful", "metal", "chillout", "male vocalists"),
    *("classic rock", "soul", "indie rock", "Mellow", "electronica", "80s", "folk", "90s"),
    *("chill", "instrumental", "punk", "oldies", "blues", "hard rock", "ambient", "acoustic"),
    *("experimental", "female vocalist", "guitar", "Hip-Hop", "70s", "party", "country"),
    *("easy listening", "sexy", "catchy", "funk", "electro", "heavy metal", "Progressive rock"),
    *("60s", "rnb", "indie pop", "sad", "House", "happy"),
)
MTAT = (
    *("guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast"),
    *("piano", "ambient", "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male"),
    *("singing", "vocals", "no vocals", "harpsichord", "loud", "quiet", "flute", "woman"),
    *("male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man", "classic", "choir"),
    *("voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello"),
    *("no voice", "weird", "country", "metal", "female voice", "choral"),
)
TAGGERS = {"musicnn-msd": ("MSD_musicnn", MSD), "musicnn-mtat": ("MTT_musicnn", MTAT)}
AUDIO = AudioSpec(**MUSICNN_AUDIO)
PATCH = AUDIO.frames  # 187 frames, 3 s
CHANNELS = 753  # of all layers together, pooled over time
TIMBRE_BANDS, TIMBRE, RHYTHM_FRAMES, RHYTHM, MIDDLE, DENSE = (
    (38, 67),
    204,
    (128, 64, 32),
    51,
    64,
    200,
)
EPSILON = 1e-3  # of TensorFlow's batch norms
BANDS = 8  # convolved at a time; all at once, a batch of 16 takes 1.5 times as long on a CPU


class MusicnnOutput(NamedTuple):
    """The outputs of one network for a batch of patches."""

    max_pool: Tensor  # float32 [B, 753], over time
    mean_pool: Tensor  # float32 [B, 753]
    pooled: Tensor  # float32 [B, 1506], both interleaved, standardised by the training music
    dense: Tensor  # float32 [B, 200], the last layer before the tags
    logits: Tensor  # float32 [B, 50], before the sigmoid


class Musicnn(nn.Module):
    """Log-mel patches [B, 96, frames] -> MusicnnOutput."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1, EPSILON)
        self.front = nn.ModuleList(
            [_Front(TIMBRE, (bands, 7)) for bands in TIMBRE_BANDS]
            + [_Front(RHYTHM, (1, frames)) for frames in RHYTHM_FRAMES]
        )
        widths = (2 * TIMBRE + 3 * RHYTHM, MIDDLE, MIDDLE)
        self.middle = nn.ModuleList([nn.Conv1d(w, MIDDLE, 7, padding=3) for w in widths])
        self.middle_norms = nn.ModuleList([nn.BatchNorm1d(MIDDLE, EPSILON) for _ in widths])
        self.pool_norm = nn.BatchNorm1d(2 * CHANNELS, EPSILON)
        self.dense = nn.Linear(2 * CHANNELS, DENSE)
        self.dense_norm = nn.BatchNorm1d(DENSE, EPSILON)
        self.tags = nn.Linear(DENSE, len(MSD))

    def forward(self, mel: Tensor) -> MusicnnOutput:
        """The pooled features and tag logits of each patch."""
        features = torch.cat(self._layers(mel), dim=1)  # [B, 753, T]
        max_pool, mean_pool = features.amax(dim=2), features.mean(dim=2)
        pooled = self.pool_norm(torch.stack((max_pool, mean_pool), dim=2).flatten(1))
        dense = self.dense_norm(functional.relu(self.dense(pooled)))
        return MusicnnOutput(max_pool, mean_pool, pooled, dense, self.tags(dense))

    def frames(self, mel: Tensor) -> Tensor:
        """The last middle layer of each frame, [B, 64, T]; T is free."""
        return self._layers(mel)[-1]

    def _layers(self, mel: Tensor) -> list[Tensor]:
        """All layers over time: the front [B, 561, T], and three of the middle [B, 64, T]."""
        picture = self.norm(mel[:, None])  # [B, 1, 96, T]
        layers = [torch.cat([branch(picture) for branch in self.front], dim=1)]  # [B, 561, T]
        for number, (layer, norm) in enumerate(zip(self.middle, self.middle_norms, strict=True)):
            output = norm(functional.relu(layer(layers[-1])))
            layers.append(output + layers[-1] if number else output)
        return layers


class _Front(nn.Module):
    """A convolution over the spectrogram, padded in time, then the maximum over bands [B, C, T]."""

    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.pad = ((kernel[1] - 1) // 2, kernel[1] // 2)  # TensorFlow's "same" padding
        self.conv = nn.Conv2d(1, channels, kernel)
        self.norm = nn.BatchNorm2d(channels, EPSILON)

    def forward(self, picture: Tensor) -> Tensor:
        padded = functional.pad(picture, self.pad)
        if self.training:
            output: Tensor = self.norm(functional.relu(self.conv(padded)))
            return output.amax(dim=2)
        # Equivalent, but the maximum comes first: the batch norm is monotonic per channel, rising
        # or, with a negative weight, falling. A few output bands at a time stay in a CPU's cache.
        norm, conv = self.norm, self.conv
        sign = torch.where(norm.weight < 0, -1.0, 1.0)
        weight = conv.weight * sign[:, None, None, None]
        height = weight.shape[2]
        last = padded.shape[2] - height + 1
        maxima = [
            functional.conv2d(padded[:, :, b : b + BANDS + height - 1], weight).amax(dim=2)
            for b in range(0, last, BANDS)
        ]
        assert conv.bias is not None
        loudest = torch.stack(maxima).amax(dim=0) * sign[:, None] + conv.bias[:, None]
        loudest = functional.relu(loudest)
        return functional.batch_norm(
            loudest, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
        )


class MusicnnTower(nn.Module):
    """Log-mel windows [B, 96, 187] -> [B, dim]: pooled and dense features of each network, logits.

    `kind="musicnn-msd"` has one network, `"musicnn"` both. The tags' logits come last: MSD's 50,
    then MagnaTagATune's.
    """

    def __init__(self, spec: AudioTowerSpec) -> None:
        super().__init__()
        self.names = list(TAGGERS) if spec.kind == "musicnn" else [spec.kind]
        self.networks = nn.ModuleList([Musicnn() for _ in self.names])
        self.trainable = spec.trainable
        self.requires_grad_(spec.trainable)
        self.train()

    def train(self, mode: bool = True) -> MusicnnTower:
        """As for any module, but a frozen tower keeps its batch-norm statistics."""
        super().train(mode and self.trainable)
        return self

    def forward(self, mel: Tensor) -> Tensor:
        """Return one row for each window."""
        outputs = [network(mel) for network in self.networks]
        parts = [part for out in outputs for part in (out.pooled, out.dense)]
        return torch.cat([*parts, *(out.logits for out in outputs)], dim=1)

    def read_weights(self) -> None:
        """Load the authors' weights. Raises UnusableError as `read_musicnn` does."""
        for network, name in zip(self.networks, self.names, strict=True):
            network.load_state_dict(read_musicnn(name).state_dict())


def read_musicnn(name: str) -> Musicnn:
    """The authors' network `name` (a key of TAGGERS), from the installed package.

    Raises UnusableError where the package is missing or damaged.
    """
    folder, _ = TAGGERS[name]
    package = find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise UnusableError(f"{name} needs the weights in the pip package {PACKAGE}: {CURE}")
    place = Path(package.origin).parent / folder
    try:
        variables = read_tf_checkpoint(place / ".index", place / ".data-00000-of-00001")
        network = Musicnn()
        network.load_state_dict(torch_weights(variables), strict=False)
    except (OSError, ValueError, KeyError, IndexError, RuntimeError) as error:
        raise UnusableError(
            f"{place} is damaged ({type(error).__name__}: {error}); {CURE}"
        ) from error
    return network.eval().requires_grad_(False)


def torch_weights(variables: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """TensorFlow's variables, numbered in layer order, under our parameter names."""
    convolutions = [f"front.{n}.conv" for n in range(5)] + [f"middle.{n}" for n in range(3)]
    norms = ["norm", *(f"front.{n}.norm" for n in range(5))]
    norms += [*(f"middle_norms.{n}" for n in range(3)), "pool_norm", "dense_norm"]
    layers = {"conv2d": convolutions, "batch_normalization": norms, "dense": ["dense", "tags"]}
    parts = {"kernel": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}
    parts |= {"moving_mean": "running_mean", "moving_variance": "running_var"}
    weights = {}
    for kind, names in layers.items():
        for number, ours in enumerate(names):
            layer = f"{kind}_{number}" if number else kind
            for part, our_part in parts.items():
                if (array := variables.get(f"{layer}/{part}")) is not None:
                    weights[f"{ours}.{our_part}"] = _in_torch_order(array, ours)
    return weights


def _in_torch_order(array: np.ndarray, layer: str) -> Tensor:
    """Kernels [frames, bands, in, out] in torch's order; [in, out] transposed; others unchanged."""
    if array.ndim == 4:
        array = array.transpose(3, 2, 1, 0)  # [out, 1, bands, frames]
        array = array[:, 0] if layer.startswith("middle") else array
    elif array.ndim == 2:
        array = array.T
    return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
