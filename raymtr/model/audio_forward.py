"""Windows -> vectors as fast as this machine can, and always in one shape.

`two_towers` is written to be trained and read; this is the same sum arranged for inference. Batch
norms are folded into the convolutions before them. On a CPU each convolution is one oneDNN call
that also adds the shortcut and rectifies; or, where the extra `fast` is installed, all of them are
OpenVINO graphs. A forward always has the device's fixed batch (the last one is padded), so a
window's vector is byte-equal whatever stands beside it. Pooling and head stay float32.

`bf16` means bfloat16 convolutions where the machine has instructions for them. On a CPU without,
torch would imitate them at a third of float32's speed, so float32 is used and a log line says so.
On a CPU the stem and the first shortcut, which reads it, stay float32. A log-mel is far from zero
everywhere, so a rounded weight moves a whole channel, and all that follows hears it: this
thirteenth of the work makes most of the error.
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
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raymtr.model.clap import ClapTowers
from raymtr.model.model_folder import Towers
from raymtr.model.resnet import Bottleneck, ModifiedResNet, blocks_of
from raymtr.model.two_towers import TwoTowers
from raymtr.specs import Precision

LOG = logging.getLogger("raymtr")
# A CPU core gains nothing from a second window, and its caches lose; a GPU needs many.
WINDOWS_AT_ONCE = {"cpu": 1, "cuda": 64}


class Convolutions(Protocol):
    """The tower up to its pooling: float32 log-mel [B, n_mels, frames] -> map [B, C, H, W]."""

    def __call__(self, mel: Tensor) -> Tensor:
        """The last stage's map."""


class AudioForward:
    """float32 windows [W, S] -> float32 un-normalised vectors [W, dim]. Threads may share it."""

    def __init__(self, towers: Towers, *, precision: Precision, device: torch.device) -> None:
        self.device = device
        self.dim = towers.spec.dim
        self.batch = WINDOWS_AT_ONCE[device.type]
        side = WholeTower if isinstance(towers, ClapTowers) else FoldedTower
        self._embed: Any = side(towers, precision=precision, device=device)  # type: ignore[arg-type]
        self._busy = threading.Lock()
        self._waves = torch.zeros(
            self.batch, towers.spec.audio.window_samples, pin_memory=device.type == "cuda"
        )

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """Vectors of all windows, in order."""
        vectors = np.empty((len(windows), self.dim), dtype=np.float32)
        for start in range(0, len(windows), self.batch):
            part = windows[start : start + self.batch]
            with self._busy:
                staged = self._waves.numpy()
                staged[: len(part)], staged[len(part) :] = part, 0.0
                made = self._forward(self._waves).cpu().numpy()
            vectors[start : start + len(part)] = made[: len(part)]
        return vectors

    @torch.inference_mode()
    def _forward(self, waves: Tensor) -> Tensor:
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with exact:
            vectors: Tensor = self._embed(waves.to(self.device))
        return vectors


class FoldedTower:
    """Waves [B, S] -> vectors [B, dim] by `TwoTowers`' audio side, arranged for this machine."""

    def __init__(self, towers: TwoTowers, *, precision: Precision, device: torch.device) -> None:
        self._convolutions = choose_convolutions(towers, precision=precision, device=device)
        self._log_mel = copy.deepcopy(towers.log_mel).to(device)
        self._pool = copy.deepcopy(towers.audio_tower.attn_pool).to(device)
        self._head = copy.deepcopy(towers.audio_projector).to(device)

    def __call__(self, waves: Tensor) -> Tensor:
        """Pooling and head in float32, whatever the convolutions ran in."""
        vectors: Tensor = self._head(self._pool(self._convolutions(self._log_mel(waves)).float()))
        return vectors


class WholeTower:
    """The same by CLAP's own modules, as they are."""

    def __init__(self, towers: ClapTowers, *, precision: Precision, device: torch.device) -> None:
        self._towers = copy.deepcopy(towers).to(device)
        self._dtype = compute_dtype(precision, device)

    def __call__(self, waves: Tensor) -> Tensor:
        """Half precision, where asked for and there, by autocast."""
        half = self._dtype == torch.bfloat16
        with torch.autocast(waves.device.type, dtype=torch.bfloat16, enabled=half):
            return self._towers.embed_audio(waves).float()


def choose_convolutions(
    towers: TwoTowers, *, precision: Precision, device: torch.device
) -> Convolutions:
    """The fastest way this machine has, said in the log."""
    dtype = compute_dtype(precision, device)
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
    """What `precision` is computed in on `device`: bfloat16 only where there is hardware for it."""
    if precision == "fp32":
        return torch.float32
    if device.type == "cpu" and not _cpu_has_bfloat16():
        LOG.info("this CPU has no bfloat16 instructions: bf16 is computed in float32")
        return torch.float32
    return torch.bfloat16


def _cpu_has_bfloat16() -> bool:
    """Whether there are instructions for it, and oneDNN, which can be told of fewer, uses them."""
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    if not (has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16")):
        return False
    onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return not onednn or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class TorchConvolutions:
    """A folded tower's convolutions, each one call with what follows it."""

    def __init__(self, tower: ModifiedResNet, device: torch.device, dtype: torch.dtype) -> None:
        start = torch.float32 if device.type == "cpu" else dtype
        self._stem_dtype = start
        stem = (tower.conv1, tower.conv2, tower.conv3)
        self._stem = [_Convolution(module, device, start) for module in stem]
        self._pool = tower.avgpool
        self._blocks = [
            _Bottleneck(block, device, dtype, shortcut=dtype if number else start)
            for number, block in enumerate(blocks_of(tower))
        ]

    def __call__(self, mel: Tensor) -> Tensor:
        """The last stage's map."""
        x = mel.to(self._stem_dtype).unsqueeze(1).contiguous(memory_format=torch.channels_last)
        for convolution in self._stem:
            x = convolution(x)
        x = self._pool(x)
        for block in self._blocks:
            x = block(x)
        return x


class _Bottleneck:
    """A folded bottleneck, whose shortcut may be of higher precision."""

    def __init__(
        self, block: Bottleneck, device: torch.device, dtype: torch.dtype, *, shortcut: torch.dtype
    ) -> None:
        self._dtype, self._pool = dtype, block.avgpool
        self._first = _Convolution(block.conv1, device, dtype)
        self._second = _Convolution(block.conv2, device, dtype)
        self._third = _Convolution(block.conv3, device, dtype)
        down: Any = block.downsample  # a pool, a convolution, and what is left of its norm
        self._shortcut = None if down is None else _Convolution(down[1], device, shortcut)

    def __call__(self, x: Tensor) -> Tensor:
        """The block's output; it may lie where `x` lay, which nobody else reads."""
        onto = x if self._shortcut is None else self._shortcut(self._pool(x), rectify=False)
        y = self._pool(self._second(self._first(x.to(self._dtype))))
        return self._third(y, onto=onto.to(self._dtype))


class _Convolution:
    """Convolution, bias, sum, ReLU: one oneDNN call on a CPU, torch's own calls elsewhere."""

    def __init__(self, module: nn.Conv2d, device: torch.device, dtype: torch.dtype) -> None:
        self._stride, self._padding = list(module.stride), [int(p) for p in module.padding]
        weight = module.weight.detach().to(device, dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        assert module.bias is not None  # folding gave it one
        self._bias = module.bias.detach().to(device, dtype)
        self._packed: Tensor | None = None
        onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self._onednn = device.type == "cpu" and onednn

    def __call__(self, x: Tensor, *, onto: Tensor | None = None, rectify: bool = True) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W'], added onto `onto` in place where there is one."""
        if self._onednn:
            return self._call_onednn(x, onto, "relu" if rectify else "none")
        y = functional.conv2d(x, self._weight, self._bias, self._stride, self._padding)
        y = y if onto is None else onto.add_(y)
        return y.relu_() if rectify else y

    def _call_onednn(self, x: Tensor, onto: Tensor | None, then: str) -> Tensor:
        """The calls TorchInductor emits for a frozen convolution."""
        onednn: Any = torch.ops.mkldnn
        where = (self._padding, self._stride, [1, 1], 1)
        if self._packed is None:  # the best layout depends on the input's shape
            self._packed = onednn._reorder_convolution_weight(self._weight, *where, list(x.shape))
            self._weight = torch.empty(0)
        arguments = (x, self._packed, self._bias, *where)
        if onto is None:
            y: Tensor = onednn._convolution_pointwise(*arguments, then, [], "")
        else:
            y = onednn._convolution_pointwise_.binary(onto, *arguments, "add", None, then, [], "")
        return y


def folded(tower: ModifiedResNet) -> ModifiedResNet:
    """A copy of `tower` whose convolutions carry their batch norms' scale and shift."""
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
