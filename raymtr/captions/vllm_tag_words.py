"""The bonus of `captions.tag_words` inside vLLM, which loads `TagWords` by its name.

A file of its own, because it cannot be imported without vLLM, nor without paying for it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from raymtr.captions.tag_words import BIAS, WORDS, OpenWords, Spellings


class TagWords(AdapterLogitsProcessor):  # type: ignore[misc]  # vLLM may be absent
    """Adds a request's bonus to the scores of the tokens of its open words."""

    def is_argmax_invariant(self) -> bool:
        """Whether the likeliest token stays the likeliest: no."""
        return False

    def new_req_logits_processor(self, params: Any) -> Favour | None:
        """The processor of one request; None where it has no words."""
        own = params.extra_args or {}
        return Favour(json.loads(own[WORDS]), own[BIAS]) if WORDS in own else None


class Favour:
    """One request's processor: it reads what was written since it was last asked."""

    def __init__(self, words: Sequence[Spellings], bias: float) -> None:
        self._open, self._bias, self._read = OpenWords(words), bias, 0

    def __call__(self, written: list[int], scores: torch.Tensor) -> torch.Tensor:
        """Scores [V] after the tokens `written`, changed in place."""
        tokens = self._open.after(written[self._read :])
        self._read = len(written)
        scores[tokens] += self._bias
        return scores
