"""VGGish (Hershey et al., arXiv 1609.09430): the embedding of FAD's paper, from a file of weights.

The file is `vggish-10086976.pth` of torchvggish (Apache-2.0), Google's weights in PyTorch's names.
The package does not include it, and torchvggish would fetch it while it runs. An embedding is that
before PCA, as FAD is published (Kilgour et al., arXiv 1812.08466).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

AUDIO = AudioSpec(sample_rate=16_000)
WINDOW, HOP, N_FFT = 400, 160, 512  # samples
BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7_500.0
FRAMES = 96  # of a window of 0.96 s
OFFSET = 0.01  # added to a band before its logarithm
CHANNELS: tuple[tuple[int, ...], ...] = ((64,), (128,), (256, 256), (512, 512))
DIM, HIDDEN = 128, 4_096


class VGGish(nn.Module):
    """Log-mel windows float32 [N, FRAMES, BANDS] -> [N, DIM]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = 1
        for block in CHANNELS:
            for wider in block:
                layers += [nn.Conv2d(width, wider, 3, padding=1), nn.ReLU()]
                width = wider
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        shrunk = 2 ** len(CHANNELS)
        self.embeddings = nn.Sequential(
            *(nn.Linear(width * (FRAMES // shrunk) * (BANDS // shrunk), HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, HIDDEN), nn.ReLU()),
            *(nn.Linear(HIDDEN, DIM), nn.ReLU()),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """See the class."""
        maps = self.features(windows[:, None])  # [N, channels, frames, bands]
        vectors: Tensor = self.embeddings(maps.permute(0, 2, 3, 1).flatten(1))
        return vectors

    @torch.inference_mode()
    def encode(self, samples: np.ndarray) -> np.ndarray:
        """Mono float32 [S] at 16 kHz -> float32 [N, DIM]; an incomplete last window is dropped."""
        return np.asarray(self(torch.from_numpy(log_mel_windows(samples))).numpy())


def read_vggish(path: str) -> VGGish:
    """The network with the weights of a file. Raises InputError if they are not VGGish's."""
    model = VGGish()
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(weights)
    except FileNotFoundError:
        raise InputError(f"there is no file {path} with VGGish's weights") from None
    except Exception as error:  # a damaged pickle raises exceptions of any kind
        raise InputError(
            f"{path} does not have VGGish's weights (vggish-10086976.pth of torchvggish): "
            f"{str(error).partition(chr(10))[0]}"
        ) from error
    return model.eval()


def log_mel_windows(samples: np.ndarray) -> np.ndarray:
    """Mono float32 [S] at 16 kHz -> VGGish's input, float32 [N, FRAMES, BANDS]."""
    count = max(0, (len(samples) - WINDOW) // HOP + 1) // FRAMES * FRAMES
    if not count:
        return np.empty((0, FRAMES, BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP][:count]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)
    magnitudes = np.abs(np.fft.rfft(frames * window, N_FFT))
    mel: np.ndarray = np.log(magnitudes @ _filters() + OFFSET).astype(np.float32)
    return mel.reshape(-1, FRAMES, BANDS)


def _filters() -> np.ndarray:
    """Triangles in mel, as VGGish has them (most others are triangles in Hz), [bins, BANDS]."""

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return np.asarray(1_127.0 * np.log1p(np.asarray(hz) / 700.0))

    bins = mel(np.fft.rfftfreq(N_FFT, 1 / AUDIO.sample_rate))[:, None]
    edges = np.linspace(mel(LOWEST_HZ), mel(HIGHEST_HZ), BANDS + 2)
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    filters: np.ndarray = np.maximum(0.0, np.minimum(rising, falling))
    return filters
