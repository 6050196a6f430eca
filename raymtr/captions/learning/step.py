"""One training step, used for LoRA on a base and for a toy base's pretraining.

Torch without Ray, so it runs on a bare GPU machine. A step depends only on the weights, the
optimizer and its number: examples, dropout and learning rate follow from seed and step. So training
that restores `state` continues as if uninterrupted.

The loss covers the answer's tokens, and only those go through the output layer: with a vocabulary
of 128 thousand, that layer is most of the memory. The loss is a sum divided by the tokens of all
workers, so workers with shorter answers do not get a larger weight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raymtr.caption_specs import FinetuneSpec
from raymtr.captions.prompt import IGNORED, encode
from raymtr.model.finite import require_finite, weights_norm

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Draws = Callable[[np.random.Generator], tuple[list[str], str]]
BUCKET = 4  # batches whose examples are sorted by length together


@dataclass(frozen=True)
class TokenBatch:
    """One worker's examples, padded on the right: int64 [b, T] each."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor


class AnswerLoss(nn.Module):
    """Sum of the answer tokens' cross-entropy: the `forward` that DDP and FSDP wrap."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: TokenBatch) -> Tensor:
        """Scalar, in fp32."""
        causal = self.model.get_base_model() if hasattr(self.model, "peft_config") else self.model
        hidden = causal.model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
        ).last_hidden_state[:, :-1]
        labels = batch.labels[:, 1:]
        answer = labels != IGNORED
        logits = causal.lm_head(hidden[answer])  # [answer tokens, vocabulary]
        return nn.functional.cross_entropy(logits.float(), labels[answer], reduction="sum")


class FinetuneStep:
    """A model with its optimizer; call it once per step, on every worker."""

    def __init__(
        self,
        model: PreTrainedModel,
        spec: FinetuneSpec,
        *,
        device: torch.device,
        steps: int,
        rate: float,
    ) -> None:
        """`steps` and `rate` are the phase's: pretraining and LoRA have their own."""
        self.model, self.spec, self.steps, self.rate = model, spec, steps, rate
        self.device = device
        if spec.quantization == "none" and not self._is_sharded():
            model.to(device)
        self.loss: nn.Module = self._over_workers(AnswerLoss(model))
        self.learned = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(self.learned.values(), lr=rate, weight_decay=0.01)

    def _is_sharded(self) -> bool:
        """Whether layers are sharded over workers, so that no device holds the whole model."""
        return self.spec.strategy == "fsdp" and _world() > 1

    def _over_workers(self, loss: AnswerLoss) -> nn.Module:
        if _world() == 1:
            return loss
        if self._is_sharded():
            from torch.distributed.fsdp import fully_shard

            causal = (
                loss.model.get_base_model() if hasattr(loss.model, "peft_config") else loss.model
            )
            for layer in causal.model.layers:
                fully_shard(layer)
            fully_shard(loss)
            return loss
        return nn.parallel.DistributedDataParallel(loss)

    def __call__(self, batch: TokenBatch, step: int) -> dict[str, float]:
        """Take step number `step` (from 0); the figures cover all workers.

        Raises UnusableError, on all workers, when the loss or, after the update, the weights are
        not finite. So the weights after a step can always be saved.
        """
        self.model.train()
        torch.manual_seed(_number(self.spec.seed, step, _rank()))
        batch = self._here(batch)
        tokens = _total((batch.labels[:, 1:] != IGNORED).sum())
        summed = torch.zeros((), device=self.device)
        for part in parts_of(batch, self.spec.accumulate):
            loss_sum = self._sum(part)
            # Averaging over workers makes it the mean per token.
            (loss_sum * (_world() / tokens)).backward()  # type: ignore[no-untyped-call]
            summed += loss_sum.detach()
        mean = float(_total(summed) / tokens)
        require_finite(mean, "the loss", self._cure(step))
        rate = learning_rate(step, self.steps, self.rate, self.spec.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        nn.utils.clip_grad_norm_(self.learned.values(), 1.0)
        self.optimizer.step()
        require_finite(
            weights_norm(self.learned.values()), "the norm of the weights", self._cure(step)
        )
        self.optimizer.zero_grad(set_to_none=True)
        return {"loss": mean, "learning_rate": rate}

    def _cure(self, step: int) -> str:
        adapted = hasattr(self.model, "peft_config")
        setting = "finetune.learning_rate" if adapted else "finetune.toy.learning_rate"
        return f" at step {step}; lower {setting} from {self.rate:g}, or raise finetune.warmup"

    @torch.no_grad()
    def measure(self, batches: Iterable[TokenBatch]) -> float:
        """Mean loss per token over `batches`, which are the same on every worker.

        Raises UnusableError where it is not finite.
        """
        self.model.eval()
        loss = tokens = 0.0
        for batch in map(self._here, batches):
            loss += float(self._sum(batch))
            tokens += int((batch.labels[:, 1:] != IGNORED).sum())
        mean = loss / max(tokens, 1)
        require_finite(mean, "the validation loss", self._cure(self.steps))
        return mean

    def _sum(self, batch: TokenBatch) -> Tensor:
        bf16 = self.spec.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=bf16):
            summed: Tensor = self.loss(batch)
        return summed

    def _here(self, batch: TokenBatch) -> TokenBatch:
        return TokenBatch(
            batch.input_ids.to(self.device),
            batch.attention_mask.to(self.device),
            batch.labels.to(self.device),
        )

    def state(self) -> dict[str, Any]:
        """Everything that training changes, gathered on every worker; collective under FSDP."""
        weights = self.weights()
        moments = self.optimizer.state_dict()
        moments["state"] = {
            i: {k: _whole(v) for k, v in slots.items()} for i, slots in moments["state"].items()
        }
        return {"weights": weights, "optimizer": moments}

    def weights(self) -> dict[str, Any]:
        """A copy of the trained weights, gathered on every worker; collective under FSDP."""
        return {n: _whole(p.detach()).clone() for n, p in self.learned.items()}

    @torch.no_grad()
    def restore_weights(self, weights: dict[str, Any]) -> None:
        """Restore what `weights` returned."""
        for name, parameter in self.learned.items():
            parameter.copy_(_like(weights[name], parameter))

    def restore(self, state: dict[str, Any]) -> None:
        """Restore a `state` of the same model."""
        self.restore_weights(state["weights"])
        moments = state["optimizer"]
        by_index = list(self.learned.values())
        moments["state"] = {
            i: {k: _like(v, by_index[i]) if v.ndim else v for k, v in slots.items()}
            for i, slots in moments["state"].items()
        }
        self.optimizer.load_state_dict(moments)


def batches_from(
    draw: Draws, tokenizer: PreTrainedTokenizerBase, spec: FinetuneSpec, *, first: int, steps: int
) -> Iterable[TokenBatch]:
    """This worker's batches of steps `first` to `steps` - 1, from seed and step alone.

    Examples of BUCKET steps are drawn together and grouped by length, to reduce padding.
    """
    bucket: list[list[tuple[list[int], list[int]]]] = []
    for step in range(first, steps):
        turn, place = divmod(step, BUCKET)
        if not bucket or place == 0:
            rng = np.random.default_rng([spec.seed, turn])
            rows = [
                encode(tokenizer, *draw(rng), max_tokens=spec.max_tokens)
                for _ in range(spec.batch * BUCKET)
            ]
            rows.sort(key=lambda row: len(row[0]))
            groups = [rows[i : i + spec.batch] for i in range(0, len(rows), spec.batch)]
            bucket = [groups[i] for i in rng.permutation(BUCKET)]
        yield pad(bucket[place][_rank() :: _world()], tokenizer.pad_token_id)


def parts_of(batch: TokenBatch, count: int) -> list[TokenBatch]:
    """The rows of `batch` in `count` parts, without the padding that all rows of a part have."""
    parts = []
    for rows in torch.arange(len(batch.input_ids)).tensor_split(count):
        longest = int(batch.attention_mask[rows].sum(1).max())
        tensors = (batch.input_ids, batch.attention_mask, batch.labels)
        parts.append(TokenBatch(*(values[rows, :longest] for values in tensors)))
    return parts


def pad(rows: Sequence[tuple[list[int], list[int]]], padding: int) -> TokenBatch:
    """(ids, labels) rows as one batch; padding is masked and has no loss."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), padding)
    labels = torch.full((len(rows), longest), IGNORED)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    for i, (row, wanted) in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        labels[i, : len(row)] = torch.tensor(wanted)
        mask[i, : len(row)] = 1
    return TokenBatch(ids, mask, labels)


def learning_rate(step: int, steps: int, top: float, warmup: float) -> float:
    """Linear warm-up over a share of the steps, then half a cosine down to a twentieth."""
    rising = max(1, round(steps * warmup))
    if step < rising:
        return top * (step + 1) / rising
    done = (step - rising) / max(1, steps - rising)
    return top * (0.05 + 0.95 * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def _total(values: Tensor) -> Tensor:
    if _world() > 1:
        dist.all_reduce(values)
    return values


def _world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _number(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _whole(value: Any) -> Any:
    """A sharded tensor gathered; any other value unchanged."""
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _like(value: Tensor, parameter: Tensor) -> Tensor:
    """`value` distributed over workers as `parameter` is."""
    if not hasattr(parameter, "device_mesh"):
        return value.to(parameter.device)
    from torch.distributed.tensor import distribute_tensor

    local = value.to(parameter.device)
    return distribute_tensor(local, parameter.device_mesh, parameter.placements)  # type: ignore[attr-defined]
