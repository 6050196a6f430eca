"""One training step: embed, compare with everyone, average gradients, update.

Torch alone, so that it runs on a bare GPU machine, and a function of its arguments alone: the
learning rate follows from the step's number, dropout from (seed, step, rank). Whoever restores
`state` and calls with the next step gets the weights an uninterrupted run would have had.

Gradients are averaged in one flat message and not by DistributedDataParallel: the towers have no
one `forward` to wrap, DDP regroups its messages after the first step, so that a resumed run would
add floats in another order, and the loss rides along for nothing. Given up: sending gradients
while others are still being computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raymtr.model.finite import require_finite, weights_norm
from raymtr.specs import TrainSpec
from raymtr.training.batch_norm import training_mode, use_batch_norm
from raymtr.training.contrastive_loss import contrastive_loss, right_answers, shares, workers


class Towers(Protocol):
    """What a step asks of a model; it is an `nn.Module` too."""

    logit_scale: nn.Parameter

    def embed_audio(self, waves: Tensor) -> Tensor:
        """float32 [B, samples] -> [B, dim]."""

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [B, T] each -> [B, dim]."""


@dataclass(frozen=True)
class Batch:
    """One worker's part of a global batch: clips, and their sentences in the same order.

    Sentences come in groups, each padded to its own longest, so that a batch sorted by length
    spends little on padding.
    """

    waves: Tensor  # float32 [b, samples]
    # Of each group input_ids and attention_mask, int64 [g, T]; or, where a frozen tower has read
    # it, its states, float32 [g, hidden]. The sum of all g is b.
    texts: Sequence[Mapping[str, Tensor]]
    # int64 [b, 2]: each row's track and sentence, as numbers; None where no row can be another's.
    names: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(
            waves=self.waves.to(device, non_blocking=True),
            texts=[
                {name: tokens.to(device, non_blocking=True) for name, tokens in group.items()}
                for group in self.texts
            ],
            names=None if self.names is None else self.names.to(device, non_blocking=True),
        )


class TrainStep:
    """The towers with their optimizer; call it once a step, on every worker."""

    def __init__(self, towers: nn.Module, spec: TrainSpec, device: torch.device) -> None:
        """Moves `towers` to `device` and makes their batch norms `spec.batch_norm`.

        Convolutions get channels-last weights: half the time on a CPU, and what tensor cores want.
        """
        use_batch_norm(towers, spec.batch_norm)
        towers.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.towers: Any = towers  # an nn.Module that keeps the Towers protocol
        self.spec, self.device = spec, device
        self.learned = [p for p in towers.parameters() if p.requires_grad]
        self.changing = [*self.learned, *(b for b in towers.buffers() if b.is_floating_point())]
        self.optimizer = torch.optim.AdamW(
            self.learned, lr=spec.learning_rate, weight_decay=spec.weight_decay
        )

    def __call__(self, batch: Batch, step: int) -> dict[str, float]:
        """Take step number `step` (from 0); the metrics are of the whole global batch.

        Raises UnusableError, on all workers alike, when the loss or, after the update, the weights
        are no longer finite: what a step leaves can be saved.
        """
        spec, rate = self.spec, learning_rate(step, self.spec)
        training_mode(self.towers, spec.batch_norm)
        torch.manual_seed(_dropout_seed(spec.seed, step))
        self.optimizer.zero_grad(set_to_none=True)
        batch = batch.to(self.device)
        sizes = shares(spec.global_batch, workers()) if workers() > 1 else None
        shared = None if batch.names is None else right_answers(batch.names, sizes)
        audio, text = self._forward(batch)
        own_loss = contrastive_loss(audio, text, self.towers.logit_scale, sizes, shared)
        own_loss.backward()  # type: ignore[no-untyped-call]
        many = own_loss.new_zeros(()) if shared is None else shared.any(1).float().mean()
        own_figures = torch.stack([own_loss.detach(), many])
        loss, many_rows = average_gradients(self.learned, own_figures).tolist()
        cure = (
            f" at step {step}, learning rate {rate:.3g}; train under another --run with a lower "
            "train.learning_rate or more train.warmup_steps"
        )
        require_finite(loss, "the loss", cure)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        require_finite(weights_norm(self.changing), "the norm of the weights", cure)
        temperature = float(torch.exp(-self.towers.logit_scale.detach().double()))
        return {
            "loss": loss,
            "learning_rate": rate,
            "temperature": temperature,
            "shared": many_rows,  # share of rows with another right answer in the batch
        }

    @torch.no_grad()
    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Audio and text of `batch`, [b, dim] each, un-normalised, as a finished model has them."""
        self.towers.eval()
        return self._forward(batch.to(self.device))

    @torch.no_grad()
    def read_ahead(self, batch: Batch) -> Batch:
        """`batch` with its sentences read, where training does not change the tower that reads.

        For a thread of its own: a step on a CPU is many short pieces that wait for the slowest
        core, and this work fills the gaps.
        """
        if self.towers.text_tower.spec.trainable:
            return batch
        batch = batch.to(self.device)
        with self._autocast():
            read = [{"states": self.towers.text_tower(**group)} for group in batch.texts]
        return replace(batch, texts=read)

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Audio and text, [b, dim] each, in `spec.precision`; the loss is always in fp32."""
        with self._autocast():
            audio = self.towers.embed_audio(batch.waves)
            text = torch.cat([self._embed_text(group) for group in batch.texts])
        return audio, text

    def _embed_text(self, group: Mapping[str, Tensor]) -> Tensor:
        embed = self.towers.embed_states if "states" in group else self.towers.embed_text
        vectors: Tensor = embed(**group)
        return vectors

    def _autocast(self) -> torch.autocast:
        bf16 = self.spec.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)

    def state(self) -> dict[str, Any]:
        """All that training changes: frozen weights are not among it."""
        frozen = {name for name, p in self.towers.named_parameters() if not p.requires_grad}
        towers = {k: v for k, v in self.towers.state_dict().items() if k not in frozen}
        return {"towers": towers, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state` of towers built from the same spec."""
        self.towers.load_state_dict(state["towers"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])


def learning_rate(step: int, spec: TrainSpec) -> float:
    """Linear warm-up, then half a cosine down to the minimum (Doh et al., ICASSP 2024)."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    height = (1 + math.cos(math.pi * min(done, 1.0))) / 2
    return spec.min_learning_rate + (spec.learning_rate - spec.min_learning_rate) * height


def average_gradients(parameters: Iterable[nn.Parameter], figures: Tensor) -> Tensor:
    """Make every gradient the mean over workers, in place; returns the mean of `figures` [n]."""
    if workers() == 1:
        return figures
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([figures, *(gradient.reshape(-1) for gradient in gradients)])
    dist.all_reduce(flat)
    flat /= workers()
    sizes = [len(figures), *(gradient.numel() for gradient in gradients)]
    mean, *parts = torch.split(flat, sizes)
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
    return mean


def _dropout_seed(seed: int, step: int) -> int:
    rank = dist.get_rank() if workers() > 1 else 0
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])
