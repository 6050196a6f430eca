"""The audio tower arranged for fast inference: windows -> vectors, in fixed batches.

`two_towers` is the module for training. This file computes the same function faster. Batch norms
are folded into the convolutions before them. On a CPU each convolution is one oneDNN call that also
adds the shortcut and applies the ReLU. Where the extra `fast` is installed, all convolutions are
OpenVINO graphs. A forward always runs the device's fixed batch size; the last batch is padded. So a
window's vector is byte-equal in any batch. Pooling and head stay float32.

`bf16` means bfloat16 convolutions where the machine has instructions for them. On a CPU without
them torch would emulate bfloat16 at a third of float32's speed, so float32 is used and a log line
reports it. On all machines the stem and the first shortcut, which reads the stem's output, stay
float32. Log-mel values are far from zero, so rounding one weight shifts a whole channel and every
later layer. These layers are a thirteenth of the work, and in bfloat16 they would cause most of the
error. CPUs and GPUs share a fingerprint, so both use this arrangement, with TF32 off. The golden
vectors of `raymtr.model.golden` detect any other arrangement.
"""

from __future__ import annotations

import copy
import logging
import threading
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raymtr.model.clap import ClapTowers
from raymtr.model.exact import exact_float32
from raymtr.model.music_coca import MusicCocaTowers
from raymtr.model.resnet import Bottleneck, ModifiedResNet, blocks_of, pooled
from raymtr.model.torch_convolutions import TorchConvolutions
from raymtr.model.two_towers import TwoTowers
from raymtr.validation import Precision

Towers = TwoTowers | ClapTowers | MusicCocaTowers
LOG = logging.getLogger("raymtr")
# A larger batch is no faster on a CPU core and uses its caches worse; a GPU needs many windows.
WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 64}


class Convolutions(Protocol):
    """The tower before its pooling: float32 log-mel [B, n_mels, frames] -> map [B, C, H, W]."""

    def __call__(self, mel: Tensor) -> Tensor:
        """The last stage's feature map."""


class AudioForward:
    """float32 windows [W, S] -> float32 un-normalised vectors [W, dim]. Thread-safe.

    For musicnn, `features` appends the tower's features to the vectors: [W, dim + width].
    """

    def __init__(
        self,
        towers: Towers,
        *,
        precision: Precision,
        device: torch.device,
        features: bool = False,
    ) -> None:
        self.device = device
        self.dim = towers.spec.dim + (towers.spec.audio_tower.dim if features else 0)
        self.batch = WINDOWS_AT_ONCE[device.type]
        self._embed: Any
        if isinstance(towers.audio_tower, ModifiedResNet):
            assert isinstance(towers, TwoTowers) and not features
            self._embed = FoldedTower(towers, precision=precision, device=device)
        else:
            self._embed = WholeTower(towers, precision=precision, device=device, features=features)
        self._busy = threading.Lock()

    def __call__(self, windows: np.ndarray, scales: np.ndarray | None = None) -> np.ndarray:
        """Return the vectors in input order; a GPU computes one batch while the next is copied.

        Windows are float32, or int16 with `scales` float32 [W], which the device multiplies.
        """
        vectors = np.empty((len(windows), self.dim), dtype=np.float32)
        shape = (self.batch, windows.shape[1])
        kind = torch.float32 if scales is None else torch.int16
        pinned = self.device.type == "cuda"
        staged, other = (torch.empty(shape, dtype=kind, pin_memory=pinned) for _ in range(2))
        waiting: tuple[np.ndarray, Tensor] | None = None  # output rows, vectors in progress
        for start in range(0, len(windows), self.batch):
            part = windows[start : start + self.batch]
            staged.numpy()[: len(part)], staged.numpy()[len(part) :] = part, 0
            factors = None if scales is None else scales[start : start + self.batch]
            begun = vectors[start : start + len(part)], self._begin(staged, factors)
            if waiting:
                _finish(*waiting)  # frees its buffer for the next batch
            waiting, staged, other = begun, other, staged
        if waiting:
            _finish(*waiting)
        return vectors

    @torch.inference_mode()
    def _begin(self, staged: Tensor, scales: np.ndarray | None) -> Tensor:
        """Start one batch; on a GPU the result is ready once it is copied to the CPU."""
        with self._busy, exact_float32():
            waves = staged.to(self.device, non_blocking=True)
            if scales is not None:
                factors = torch.ones(len(waves), 1)
                factors[: len(scales), 0] = torch.from_numpy(scales.copy())
                waves = waves * factors.to(self.device)
            vectors: Tensor = self._embed(waves)
        return vectors


def _finish(rows: np.ndarray, made: Tensor) -> None:
    """Wait for a batch and write its vectors into `rows`, without those of padding."""
    rows[:] = made.cpu().numpy()[: len(rows)]


class FoldedTower:
    """Waves [B, S] -> vectors [B, dim]: the audio side of `TwoTowers`, arranged for speed."""

    def __init__(self, towers: TwoTowers, *, precision: Precision, device: torch.device) -> None:
        self._convolutions = choose_convolutions(towers, precision=precision, device=device)
        self._log_mel = copy.deepcopy(towers.log_mel).to(device)
        tower: Any = towers.audio_tower
        self._pool = copy.deepcopy(tower.attn_pool).to(device)
        self._wide = [copy.deepcopy(part).eval().to(device) for part in tower.wide_parts()]
        self._head = copy.deepcopy(towers.audio_projector).to(device)

    def __call__(self, waves: Tensor) -> Tensor:
        """Compute the vectors; pooling and head are float32 in either precision."""
        mel = self._log_mel(waves)
        x = self._convolutions(mel).float()
        vectors: Tensor = self._head(pooled(self._pool, self._wide, x, mel))
        return vectors


class WholeTower:
    """Waves [B, S] -> vectors [B, dim] through a model's unchanged modules: CLAP's and others'."""

    def __init__(
        self,
        towers: Towers,
        *,
        precision: Precision,
        device: torch.device,
        features: bool,
    ) -> None:
        self._towers: Any = copy.deepcopy(towers).to(device)
        self._dtype = compute_dtype(precision, device)
        self._features = features

    def __call__(self, waves: Tensor) -> Tensor:
        """Compute the vectors; bfloat16 runs under autocast where requested and supported."""
        half = self._dtype == torch.bfloat16
        with torch.autocast(waves.device.type, dtype=torch.bfloat16, enabled=half):
            if not self._features:
                vectors: Tensor = self._towers.embed_audio(waves)
                return vectors.float()
            heard = self._towers.audio_features(waves)
            vectors = self._towers.embed_features(heard)
        return torch.cat([vectors.float(), heard.float()], dim=1)


def choose_convolutions(
    towers: TwoTowers, *, precision: Precision, device: torch.device
) -> Convolutions:
    """Choose the fastest implementation available on this machine, and log it."""
    dtype = compute_dtype(precision, device)
    assert isinstance(towers.audio_tower, ModifiedResNet)
    tower = folded(towers.audio_tower)
    if device.type == "cpu" and find_spec("openvino") is not None:
        from raymtr.model.openvino_convolutions import OpenVinoConvolutions

        chosen: Convolutions = OpenVinoConvolutions(tower, towers.spec.audio, dtype)
    else:
        chosen = TorchConvolutions(tower, device, dtype)
    LOG.info(
        "audio tower: %s on %s, %s, %d threads",
        type(chosen).__name__,
        device,
        str(dtype).removeprefix("torch."),
        torch.get_num_threads(),
    )
    return chosen


def compute_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype for `precision` on `device`: bfloat16 only where the hardware supports it."""
    if precision == "fp32":
        return torch.float32
    if device.type == "cpu" and not _cpu_has_bfloat16():
        LOG.info("this CPU has no bfloat16 instructions: bf16 is computed in float32")
        return torch.float32
    return torch.bfloat16


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has bfloat16 instructions and oneDNN, which can be restricted, uses them."""
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not (has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")):
        return False
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return not onednn or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def folded(tower: ModifiedResNet) -> ModifiedResNet:
    """A copy of `tower` with its batch norms' scale and shift folded into the convolutions."""
    tower = copy.deepcopy(tower).eval()
    for module in (tower, *blocks_of(tower)):
        for number in "123":
            _fold(module, f"conv{number}", f"bn{number}")
        if isinstance(module, Bottleneck) and module.downsample is not None:
            _fold(module.downsample, "0", "1")
    return tower


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    fused = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
    setattr(module, convolution, fused)
    setattr(module, norm, nn.Identity())
