"""Batch norm over all workers, on any device, and the three batch-norm modes of a run.

`nn.SyncBatchNorm` refuses CPU tensors. Two workers with separate statistics do not train the same
weights as one worker. `SharedBatchNorm2d` all-reduces the sum and then the centred squares, with
gradient. The one-message form E[x^2] - E[x]^2 cancels in float32, so two messages are used.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from raymtr.training.contrastive_loss import workers

BatchNormMode = Literal["local", "shared", "frozen"]


class _Sum(torch.autograd.Function):
    """The sum over workers; the gradient is the sum of all workers' gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


def _sum(value: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
    return total


class SharedBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` over all workers' [b, C, H, W] together; the same state dict."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise by the mean and variance of the whole batch while training."""
        if not self.training or workers() == 1:
            return super().forward(x)
        values = x.float()
        local_count = values.new_full((1,), values.numel() // values.shape[1])
        sums = _sum(torch.cat([values.sum((0, 2, 3)), local_count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = _sum(centred.square().sum((0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach() * count / (count - 1))
        scale = torch.rsqrt(variance + self.eps) * self.weight
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(x.dtype)

    def _remember(self, mean: Tensor, unbiased_variance: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(unbiased_variance, self.momentum)
        self.num_batches_tracked.add_(1)


def use_batch_norm(module: nn.Module, mode: BatchNormMode) -> None:
    """Prepare `module` in place: under `shared` its batch norms cover all workers' batches."""
    if mode != "shared":
        return
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
            shared.load_state_dict(child.state_dict())
            setattr(module, name, shared)
        else:
            use_batch_norm(child, mode)


def training_mode(module: nn.Module, mode: BatchNormMode) -> None:
    """`module.train()`, but `frozen` batch norms keep their running statistics.

    Their scale and shift are still trained, as in fine-tuning from a released model.
    """
    module.train()
    if mode == "frozen":
        for child in module.modules():
            if isinstance(child, _BatchNorm):
                child.eval()
