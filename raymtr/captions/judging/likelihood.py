"""Likelihood of captions under a language model: perplexity, also given tags, and order gain.

The model is a base that was not trained on the captions. Figures are per token, without the first
one:

    free          negative log-likelihood (nats) of the caption alone
    given_tags    the same after its tags; few nats mean that the caption follows from them
    order_gain    nats of the shuffled caption minus those of the caption as written; low for
                  right words without order. It does not detect loops.

Order gain depends on the shuffle, which is determined by the caption's own words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from raymtr.caption_specs import FinetuneSpec
from raymtr.captions.base_model import check_vocabulary, load_base, load_tokenizer
from raymtr.captions.gguf_base import plain_base

Floats = NDArray[np.float64]
BATCH = 16
MOST_TOKENS = 256  # of tags and caption together; longer inputs are cut


class Likelihood:
    """A causal language model that scores captions and writes none."""

    def __init__(self, base: str) -> None:
        """Raises InputError where `base` is no such model, UnusableError where its
        package is missing (see `captions.base_model`, `captions.gguf_base`)."""
        base = plain_base(base)
        self._tokenizer = load_tokenizer(base)
        check_vocabulary(base, self._tokenizer)
        self._model = load_base(base, FinetuneSpec()).eval()

    def free(self, captions: Sequence[str]) -> Floats:
        """Nats per token of each caption alone, [N]."""
        return self._nats([""] * len(captions), captions)

    def given_tags(self, captions: Sequence[str], tags: Sequence[Sequence[str]]) -> Floats:
        """Nats per token of each caption after its tags, [N]."""
        return self._nats([f"Tags: {', '.join(own)}\nDescription:" for own in tags], captions)

    def order_gain(self, captions: Sequence[str], nats: Floats | None = None) -> Floats:
        """Nats per token of each caption's shuffled words minus its own, [N].

        `nats` are the captions' own, where already computed.
        """
        written = self.free(captions) if nats is None else nats
        return self.free([shuffled(text) for text in captions]) - written

    @torch.inference_mode()
    def _nats(self, before: Sequence[str], texts: Sequence[str]) -> Floats:
        """Mean nats per token of each text after its prefix; 0 where it has no token."""
        rows = [self._ids(*both) for both in zip(before, texts, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][1]))
        found = np.zeros(len(rows))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            found[chosen] = self._batch([rows[i] for i in chosen])
        return found

    def _ids(self, before: str, text: str) -> tuple[int, list[int]]:
        """The number of prefix tokens, which are not scored, and all tokens."""
        begin = self._tokenizer.bos_token_id
        read = [self._tokenizer.eos_token_id if begin is None else begin]
        if before:
            read += self._tokenizer(before, add_special_tokens=False)["input_ids"]
        scored = self._tokenizer(f" {text}", add_special_tokens=False)["input_ids"]
        return len(read), [*read, *scored][:MOST_TOKENS]

    def _batch(self, rows: Sequence[tuple[int, list[int]]]) -> list[float]:
        longest = max(len(ids) for _, ids in rows)
        ids = torch.zeros((len(rows), longest), dtype=torch.long)
        scored = torch.zeros((len(rows), longest), dtype=torch.bool)
        for i, (read, own) in enumerate(rows):
            ids[i, : len(own)] = torch.tensor(own)
            scored[i, read : len(own)] = True
        mask = torch.zeros_like(scored)
        for i, (_, own) in enumerate(rows):
            mask[i, : len(own)] = True
        hidden: Any = self._model.model(input_ids=ids, attention_mask=mask.long(), use_cache=False)
        wanted = scored[:, 1:]  # only these go through the output layer, a fifth of the weights
        logits = self._model.lm_head(hidden.last_hidden_state[:, :-1][wanted])
        nats = torch.zeros(wanted.shape)
        nats[wanted] = nn.functional.cross_entropy(
            logits.float(), ids[:, 1:][wanted], reduction="none"
        )
        means = nats.sum(-1) / wanted.sum(-1).clamp(min=1)
        return [float(value) for value in means]


def shuffled(text: str) -> str:
    """The words of `text` in a shuffled order, the same on every call."""
    words = text.split()
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    return " ".join(words[i] for i in np.random.default_rng(seed).permutation(len(words)))
