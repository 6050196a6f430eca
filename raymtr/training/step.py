"""One training step: embed, compare with all rows, average gradients, update.

It uses torch alone, so it runs on a bare GPU machine. It is a function of its arguments alone: the
learning rate follows from the step's number, dropout from (seed, step, rank). Restoring `state` and
calling with the next step gives the weights of an uninterrupted run.

Gradients are averaged in one flat message, not by DistributedDataParallel, for three reasons. The
towers have no single `forward` to wrap. DDP regroups its messages after the first step, so a
resumed run would add floats in another order. The loss is sent in the same message at no cost.
Trade-off: gradients are not sent while others are still being computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raymtr.model.finite import require_finite, weights_norm
from raymtr.model.two_towers import TwoTowers
from raymtr.specs import TrainSpec
from raymtr.training.batch_norm import training_mode, use_batch_norm
from raymtr.training.contrastive_loss import contrastive_loss, right_answers, shares, workers
from raymtr.training.feature_cache import FeatureCache
from raymtr.training.gradient_cache import Parts, cached_backward
from raymtr.training.layers import checkpoint_layers, rate_groups
from raymtr.training.lora import add_lora


class Towers(Protocol):
    """The model interface that a step needs; the model is an `nn.Module` too."""

    logit_scale: nn.Parameter

    def embed_audio(self, waves: Tensor) -> Tensor:
        """float32 [B, samples] -> [B, dim]."""

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [B, T] each -> [B, dim]."""


@dataclass(frozen=True)
class Batch:
    """One worker's part of a global batch: clips, and their sentences in the same order.

    Sentences come in groups, each padded to its own longest, so a batch sorted by length has little
    padding.
    """

    # float32 [b, samples], or features of a frozen audio tower, [b, width]; of several windows a
    # track [b, windows, samples or width].
    waves: Tensor
    # Per group input_ids and attention_mask, int64 [g, T]; or the states of a frozen text tower,
    # float32 [g, hidden]. The sum of all g is b.
    texts: Sequence[Mapping[str, Tensor]]
    # int64 [b, 2]: each row's track and sentence, as numbers; None where rows share neither.
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
    """The towers with their optimizer; call it once per step, on every worker.

    Another objective overrides `backward`, `facts` and `read_ahead` (training.mulap).
    """

    def __init__(self, towers: nn.Module, spec: TrainSpec, device: torch.device) -> None:
        """Moves `towers` to `device` and sets their batch norms to `spec.batch_norm`.

        Their memory layout stays: `build_towers` stores a ResNet channels last, which would make
        musicnn's tall filters 1.7 times slower on a CPU.
        """
        use_batch_norm(towers, spec.batch_norm)
        add_lora(towers, spec)
        if spec.checkpoint_activations:
            checkpoint_layers(towers)
        towers.to(device)
        self.towers: Any = towers  # an nn.Module that implements the Towers protocol
        self.spec, self.device = spec, device
        self.features: FeatureCache | None = None
        if isinstance(towers, TwoTowers) and not towers.spec.audio_tower.trainable:
            self.features = FeatureCache(towers.audio_features)
        self.states: FeatureCache | None = None
        if isinstance(towers, TwoTowers) and not towers.text_tower.spec.trainable:
            self.states = FeatureCache(lambda ids: towers.text_tower(ids, torch.ones_like(ids)))
        self.learned = [p for p in towers.parameters() if p.requires_grad]
        self.changing = [*self.learned, *(b for b in towers.buffers() if b.is_floating_point())]
        self.optimizer = torch.optim.AdamW(
            rate_groups(towers, spec.layer_decay, spec.text_rate),
            lr=spec.learning_rate,
            betas=(0.9, spec.beta2),
            weight_decay=spec.weight_decay,
        )

    def __call__(self, batch: Any, step: int) -> dict[str, float]:
        """Take step number `step` (from 0); the metrics cover the whole global batch.

        Raises UnusableError, on all workers, when the loss or, after the update, the weights are
        not finite. So the weights after a step can always be saved.
        """
        spec, rate = self.spec, learning_rate(step, self.spec)
        training_mode(self.towers, spec.batch_norm)
        torch.manual_seed(_dropout_seed(spec.seed, step))
        self.optimizer.zero_grad(set_to_none=True)
        local = self.backward(batch.to(self.device))
        means = average_gradients(self.learned, torch.stack(list(local.values()))).tolist()
        figures: dict[str, float] = dict(zip(local, means, strict=True))
        cure = (
            f" at step {step}, learning rate {rate:.3g}; train under another --run with a lower "
            "train.learning_rate or more train.warmup_steps"
        )
        require_finite(figures["loss"], "the loss", cure)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)
        self.optimizer.step()
        require_finite(weights_norm(self.changing), "the norm of the weights", cure)
        return figures | {"learning_rate": rate} | self.facts(figures, cure)

    def backward(self, batch: Any) -> dict[str, Tensor]:
        """Add this worker's gradients of the contrastive loss of a Batch.

        Returns figures, `loss` first; the mean of each over the workers is the whole batch's.
        """
        sizes = shares(self.spec.global_batch, workers()) if workers() > 1 else None
        shared = None if batch.names is None else right_answers(batch.names, sizes)

        def loss_of(audio: Tensor, text: Tensor) -> Tensor:
            return contrastive_loss(audio, text, self.towers.logit_scale, sizes, shared)

        if self.spec.chunk:
            own_loss = cached_backward(*self._chunks(batch), loss_of, self.device)
        else:
            own_loss = loss_of(*self._forward(batch))
            own_loss.backward()  # type: ignore[no-untyped-call]
        many = own_loss.new_zeros(()) if shared is None else shared.any(1).float().mean()
        return {"loss": own_loss.detach(), "shared": many}  # share of rows with further positives

    def facts(self, figures: dict[str, float], cure: str) -> dict[str, float]:
        """Further figures of a step whose weights are updated; `cure` ends an error's message."""
        return {"temperature": float(torch.exp(-self.towers.logit_scale.detach().double()))}

    @torch.no_grad()
    def embed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Audio and text of `batch`, [b, dim] each, un-normalised, in evaluation mode."""
        self.towers.eval()
        return self._forward(batch.to(self.device))

    @torch.no_grad()
    def read_ahead(self, batch: Any) -> Any:
        """Apply the frozen towers to `batch` ahead of its step.

        It runs in a separate thread. A step on a CPU is many short operations that wait for the
        slowest core, and this work fills the gaps.
        """
        if not self.features and not self.states:
            return batch
        batch = batch.to(self.device)
        if self.features:
            batch = replace(batch, waves=by_window(self.features, batch.waves))
        if self.states:
            read = [{"states": self.states(_without_padding(**group))} for group in batch.texts]
            batch = replace(batch, texts=read)
        return batch

    def _forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Audio and text, [b, dim] each, in `spec.precision`; the loss is always in fp32."""
        with self._autocast():
            audio = self._embed_audio(batch.waves)
            text = torch.cat([self._embed_text(group) for group in batch.texts])
        return audio, text

    def _chunks(self, batch: Batch) -> tuple[Parts, Parts]:
        """The forwards of `batch`, at most `spec.chunk` rows each, in order: audio, then text."""

        def part(embed: Callable[..., Tensor], rows: Any) -> Tensor:
            with self._autocast():
                return embed(rows)

        pieces = [
            {name: values[first : first + self.spec.chunk] for name, values in group.items()}
            for group in batch.texts
            for first in range(0, len(next(iter(group.values()))), self.spec.chunk)
        ]
        waves = torch.split(batch.waves, self.spec.chunk)
        return (
            [partial(part, self._embed_audio, rows) for rows in waves],
            [partial(part, self._embed_text, rows) for rows in pieces],
        )

    def _embed_audio(self, waves: Tensor) -> Tensor:
        vectors = by_window(self._embed_windows, waves)
        if vectors.dim() == 3:
            vectors = self.towers.pool(vectors)
        return vectors

    def _embed_windows(self, waves: Tensor) -> Tensor:
        if self.features is None:
            vectors: Tensor = self.towers.embed_audio(waves)
            return vectors
        if waves.shape[1] == self.towers.spec.audio.window_samples:
            waves = self.features(waves)
        vectors = self.towers.embed_features(waves)
        return vectors

    def _embed_text(self, group: Mapping[str, Tensor]) -> Tensor:
        if self.states and "states" not in group:
            group = {"states": self.states(_without_padding(**group))}
        embed = self.towers.embed_states if "states" in group else self.towers.embed_text
        vectors: Tensor = embed(**group)
        return vectors

    def _autocast(self) -> torch.autocast:
        bf16 = self.spec.precision == "bf16"
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16)

    def state(self) -> dict[str, Any]:
        """Everything that training changes; frozen weights are left out."""
        frozen = {name for name, p in self.towers.named_parameters() if not p.requires_grad}
        towers = {k: v for k, v in self.towers.state_dict().items() if k not in frozen}
        return {"towers": towers, "optimizer": self.optimizer.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state` of towers built from the same spec."""
        self.towers.load_state_dict(state["towers"], strict=False)
        self.optimizer.load_state_dict(state["optimizer"])


def by_window(function: Callable[[Tensor], Tensor], waves: Tensor) -> Tensor:
    """`function` of rows [b, n], or of each window of [b, windows, n], in the same arrangement."""
    if waves.dim() == 2:
        return function(waves)
    rows = function(waves.flatten(0, 1))
    return rows.view(*waves.shape[:2], *rows.shape[1:])


def _without_padding(input_ids: Tensor, attention_mask: Tensor) -> list[Tensor]:
    """The tokens of each sentence, int64 [n]; padding is at the end."""
    return [ids[: int(mask.sum())] for ids, mask in zip(input_ids, attention_mask, strict=True)]


def learning_rate(step: int, spec: TrainSpec) -> float:
    """Linear warm-up, then half a cosine, or a line, down to the minimum; see `spec.schedule`."""
    if step < spec.warmup_steps:
        return spec.learning_rate * (step + 1) / spec.warmup_steps
    done = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    height = 1 - min(done, 1.0)
    if spec.schedule == "cosine":  # Doh et al., ICASSP 2024
        height = (1 + math.cos(math.pi * (1 - height))) / 2
    return spec.min_learning_rate + (spec.learning_rate - spec.min_learning_rate) * height


def average_gradients(parameters: Iterable[nn.Parameter], figures: Tensor) -> Tensor:
    """Set every gradient to the mean over workers, in place; return the mean of `figures` [n]."""
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
