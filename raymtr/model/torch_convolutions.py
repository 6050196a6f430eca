"""The audio tower's convolutions in torch, on a CPU and on a GPU.

Both use the same precisions: stem and first shortcut in float32, the rest in the requested one
(see `audio_forward`). On a CPU each convolution is one oneDNN call with the operations after it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.model.resnet import Bottleneck, ModifiedResNet, blocks_of


class TorchConvolutions:
    """A folded tower's convolutions, each fused with the operations after it.

    Without `fused` a CPU uses torch's own calls, as a GPU does. bfloat16 then means float32
    arithmetic on rounded numbers: slow, and the same on every CPU.
    """

    def __init__(
        self,
        tower: ModifiedResNet,
        device: torch.device,
        dtype: torch.dtype,
        *,
        fused: bool = True,
    ) -> None:
        def start(module: nn.Conv2d) -> _Convolution:
            return _Convolution(module, device, torch.float32, fused=fused)

        def rest(module: nn.Conv2d) -> _Convolution:
            return _Convolution(module, device, dtype, fused=fused)

        self._input = copy.deepcopy(tower.input).to(device)
        self._stem = [start(module) for module in (tower.conv1, tower.conv2, tower.conv3)]
        self._pool = tower.avgpool
        first, *others = blocks_of(tower)
        self._blocks = [_Bottleneck(first, dtype, rest, shortcut=start)]
        self._blocks += [_Bottleneck(block, dtype, rest, shortcut=rest) for block in others]

    def __call__(self, mel: Tensor) -> Tensor:
        """The last stage's feature map."""
        x: Tensor = self._input(mel).contiguous(memory_format=torch.channels_last)
        for convolution in self._stem:
            x = convolution(x)
        x = self._pool(x)
        for block in self._blocks:
            x = block(x)
        return x


Make = Callable[[nn.Conv2d], "_Convolution"]


class _Bottleneck:
    """A folded bottleneck whose shortcut may have higher precision."""

    def __init__(
        self, block: Bottleneck, dtype: torch.dtype, made: Make, *, shortcut: Make
    ) -> None:
        self._dtype, self._pool = dtype, block.avgpool
        self._first, self._second = made(block.conv1), made(block.conv2)
        self._third = made(block.conv3)
        down: Any = block.downsample  # a pool, a convolution, and an identity in place of its norm
        self._shortcut = None if down is None else shortcut(down[1])

    def __call__(self, x: Tensor) -> Tensor:
        """The block's output; it may overwrite `x`, which nothing else reads."""
        onto = x if self._shortcut is None else self._shortcut(self._pool(x), rectify=False)
        y = self._pool(self._second(self._first(x.to(self._dtype))))
        return self._third(y, onto=onto.to(self._dtype))


class _Convolution:
    """Convolution, bias, sum, ReLU: one oneDNN call on a CPU, torch's own calls elsewhere."""

    def __init__(
        self, module: nn.Conv2d, device: torch.device, dtype: torch.dtype, *, fused: bool
    ) -> None:
        self._stride, self._padding = list(module.stride), [int(p) for p in module.padding]
        weight = module.weight.detach().to(device, dtype)
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        assert module.bias is not None  # set by folding
        self._bias = module.bias.detach().to(device, dtype)
        self._packed: Tensor | None = None
        onednn = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        self._onednn = fused and device.type == "cpu" and onednn
        self._sum = torch.float32 if device.type == "cpu" else dtype  # dtype of the arithmetic

    def __call__(self, x: Tensor, *, onto: Tensor | None = None, rectify: bool = True) -> Tensor:
        """[B, C, H, W] -> [B, C', H', W'], added to `onto` in place where given."""
        if self._onednn:
            return self._call_onednn(x, onto, "relu" if rectify else "none")
        weight, bias = self._weight.to(self._sum), self._bias.to(self._sum)
        output = functional.conv2d(x.to(self._sum), weight, bias, self._stride, self._padding)
        y = output.to(x.dtype)
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
