"""Preference stage: after LoRA the captioner learns from its own drafts, as the judge ranks them.

For tags of the training pairs the captioner writes several drafts. Of each set the best and the
worst by the judge are a pair of a chosen and a rejected caption, where the best is acceptable and
the worst is clearly worse. Direct preference optimisation (Rafailov et al., arXiv 2305.18290) then
raises the likelihood of the chosen ones relative to the rejected ones. The reference is the
captioner before this stage. The stage is short and saves no checkpoints: a killed run repeats it
from LoRA's last checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from raymtr.caption_specs import CaptionSpec
from raymtr.captions.judging.faithfulness import MusicTerms, acceptable, judge
from raymtr.captions.judging.reading import read, takes
from raymtr.captions.learning.pairs import FEWEST_PAIRS, Pair
from raymtr.captions.learning.step import FinetuneStep, TokenBatch, pad
from raymtr.captions.prompt import IGNORED, encode, prompt_of, tidy
from raymtr.captions.writing.transformers_writer import write_texts
from raymtr.errors import InputError

LOG = logging.getLogger("raymtr")
BETA = 0.1  # strength of the constraint to the reference
DRAFTS = 4  # for the tags of one training pair
MARGIN = 0.2  # in coverage minus invention, between the chosen and the rejected draft
SLOWER = 0.1  # of LoRA's learning rate
DRAWING = CaptionSpec(temperature=1.0, max_new_tokens=96, draws=DRAFTS)


@dataclass(frozen=True)
class Preferred:
    """Two captions of the same tags."""

    tags: tuple[str, ...]
    chosen: str
    rejected: str


def accepted(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that the judge accepts: faithful to their tags, and readable.

    Raises InputError where it accepts too few to learn from.
    """
    vocabulary = vocabulary_of(pairs)
    kept = [
        pair
        for pair in pairs
        if acceptable(judge(pair.caption, pair.tags, vocabulary))
        and takes(read(pair.caption, pair.tags)) is None
    ]
    if len(kept) < FEWEST_PAIRS:
        raise InputError(
            f"finetune.judged=true accepts {len(kept)} of {len(pairs)} pairs, and {FEWEST_PAIRS} "
            "are needed: most captions miss too many of their tags; set finetune.judged=false"
        )
    return kept


def vocabulary_of(pairs: Sequence[Pair]) -> MusicTerms:
    """The musical terms of `pairs`: the built-in ones and those found in their captions."""
    return MusicTerms.of_tags({term for pair in pairs for term in pair.terms})


def dpo_loss(
    chosen: Tensor, rejected: Tensor, reference_chosen: Tensor, reference_rejected: Tensor
) -> Tensor:
    """Mean of -log sigmoid(BETA ((chosen - its reference) - (rejected - its reference))).

    Arguments are log-likelihoods of whole captions, [B] each.
    """
    gain = (chosen - reference_chosen) - (rejected - reference_rejected)
    return -nn.functional.logsigmoid(BETA * gain).mean()


def answer_log_likelihood(model: Any, batch: TokenBatch) -> Tensor:
    """The log-likelihood of each row's answer, [B]."""
    causal = model.get_base_model() if hasattr(model, "peft_config") else model
    hidden = causal.model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
    ).last_hidden_state[:, :-1]
    labels = batch.labels[:, 1:]
    answer = labels != IGNORED
    nats = nn.functional.cross_entropy(
        causal.lm_head(hidden[answer]).float(), labels[answer], reduction="none"
    )
    rows = torch.nonzero(answer)[:, 0]
    return torch.zeros(len(labels), device=nats.device).index_add(0, rows, -nats)


def judged_drafts(
    trainer: FinetuneStep, tokenizer: Any, pairs: Sequence[Pair], vocabulary: MusicTerms
) -> list[Preferred]:
    """The best and the worst of DRAFTS drafts for the tags of each pair, where they differ."""
    model = trainer.model.eval()
    repeated = [pair.tags for pair in pairs for _ in range(DRAFTS)]
    texts = write_texts(
        model,
        tokenizer,
        [prompt_of(tags) for tags in repeated],
        repeated,
        range(len(repeated)),
        DRAWING,
    )
    found = []
    for at, pair in enumerate(pairs):
        drafts = [tidy(text) for text in texts[at * DRAFTS : (at + 1) * DRAFTS]]
        verdicts = [judge(draft, pair.tags, vocabulary) for draft in drafts]
        worth = [
            verdict.coverage - verdict.invention - (takes(read(draft, pair.tags)) is not None)
            for draft, verdict in zip(drafts, verdicts, strict=True)
        ]
        best, worst = int(np.argmax(worth)), int(np.argmin(worth))
        if acceptable(verdicts[best]) and worth[best] - worth[worst] >= MARGIN:
            found.append(Preferred(pair.tags, drafts[best], drafts[worst]))
    return found


def prefer(trainer: FinetuneStep, tokenizer: Any, pairs: Sequence[Pair]) -> dict[str, float]:
    """Take `finetune.preference_steps` of DPO; figures: pairs, last loss, share ranked right.

    Each worker drafts for its own share of `pairs`; gradients are averaged.
    """
    spec = trainer.spec
    world = dist.get_world_size() if dist.is_initialized() else 1
    rank = dist.get_rank() if dist.is_initialized() else 0
    each = max(spec.batch // (2 * world), 1)
    rng = np.random.default_rng([spec.seed, rank])
    few = rng.permutation(len(pairs))[: min(len(pairs), spec.preference_steps * each)]
    known = judged_drafts(trainer, tokenizer, [pairs[i] for i in few], vocabulary_of(pairs))
    counts = torch.tensor([len(known)], device=trainer.device)
    if world > 1:
        dist.all_reduce(counts, dist.ReduceOp.MIN)
    if not int(counts):
        LOG.warning("no two drafts differ enough for the judge: the preference stage is left out")
        return {"preference_pairs": 0.0}
    learner = _Learner(trainer, tokenizer, known)
    figures = {"preference_pairs": float(len(known))}
    for _ in range(spec.preference_steps):
        figures |= learner.step(rng.integers(len(known), size=each).tolist())
    return figures


class _Learner:
    """The optimizer of the stage, and the pairs with their reference likelihoods."""

    def __init__(self, trainer: FinetuneStep, tokenizer: Any, known: Sequence[Preferred]) -> None:
        self._step, self._known = trainer, known
        room = trainer.spec.max_tokens
        self._rows = [
            [encode(tokenizer, list(both.tags), text, max_tokens=room) for text in texts]
            for both in known
            for texts in [(both.chosen, both.rejected)]
        ]
        self._padding = tokenizer.pad_token_id
        rate = SLOWER * trainer.rate
        self._optimizer = torch.optim.AdamW(trainer.learned.values(), lr=rate, weight_decay=0.0)
        trainer.model.eval()
        with torch.no_grad():
            self._reference = torch.stack([self._likelihoods([i])[:, 0] for i in range(len(known))])

    def _likelihoods(self, places: Sequence[int]) -> Tensor:
        """Of the chosen and the rejected captions at `places`, [2, B]."""
        rows = [self._rows[i][which] for which in (0, 1) for i in places]
        batch = pad(rows, self._padding)
        device = self._step.device
        batch = replace(
            batch,
            input_ids=batch.input_ids.to(device),
            attention_mask=batch.attention_mask.to(device),
            labels=batch.labels.to(device),
        )
        return answer_log_likelihood(self._step.model, batch).reshape(2, len(places))

    def step(self, places: Sequence[int]) -> dict[str, float]:
        """One update; the loss, and the share of pairs ranked right, before it."""
        policy = self._likelihoods(places)
        reference = self._reference[list(places)].T
        loss = dpo_loss(policy[0], policy[1], reference[0], reference[1])
        loss.backward()  # type: ignore[no-untyped-call]
        learned = list(self._step.learned.values())
        if dist.is_initialized() and dist.get_world_size() > 1:
            for parameter in learned:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()
        nn.utils.clip_grad_norm_(learned, 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        right = (policy[0] - reference[0] > policy[1] - reference[1]).float().mean()
        return {"preference_loss": float(loss), "preference_right": float(right)}
