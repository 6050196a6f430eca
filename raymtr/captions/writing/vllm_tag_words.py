"""The tag bonus inside vLLM, which loads one of these classes by name.

vLLM has two model runners with different interfaces. V1 calls a processor for every row. V2, on
GPUs, calls it once for the batch with the tokens on the device. This is a separate file because it
needs vLLM, which is expensive to import.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor
from vllm.v1.worker.gpu.sample.logits_processor import LogitsProcessor

from raymtr.captions.writing.tag_words import BIAS, WORDS, Spellings, UnwrittenTagWords
from raymtr.captions.writing.tag_words_batch import BEFORE, UnwrittenTagWordsBatch


class TagWordsV1(AdapterLogitsProcessor):  # type: ignore[misc]  # vLLM may be absent
    """Adds a request's bonus to the tokens of its open words, one row at a time."""

    def is_argmax_invariant(self) -> bool:
        """Whether the likeliest token stays the same: no."""
        return False

    def new_req_logits_processor(self, params: Any) -> Favour | None:
        """The processor of one request; None where it has no words."""
        extra = params.extra_args or {}
        return Favour(json.loads(extra[WORDS]), extra[BIAS]) if WORDS in extra else None


class Favour:
    """The processor of one request; each call processes the tokens since the last one."""

    def __init__(self, words: Sequence[Spellings], bias: float) -> None:
        self._open, self._bias, self._read = UnwrittenTagWords(words), bias, 0

    def __call__(self, written: list[int], scores: torch.Tensor) -> torch.Tensor:
        """Scores [V] after the tokens `written`, changed in place."""
        tokens = self._open.after(written[self._read :])
        self._read = len(written)
        scores[tokens] += self._bias
        return scores


class TagWordsV2(LogitsProcessor):  # type: ignore[misc]  # vLLM may be absent
    """The same for the whole batch. It needs one row per request: no speculative decoding."""

    def __init__(self, vllm_config: Any, req_states: Any) -> None:
        self._requests = req_states
        self._words = UnwrittenTagWordsBatch(req_states.max_num_reqs, req_states.device)
        self._favoured = np.zeros(req_states.max_num_reqs, dtype=bool)
        self._new: dict[int, tuple[Sequence[Spellings], float]] = {}

    def add_request(self, req_idx: int, sampling_params: Any) -> bool:
        """Add a request in a slot; return whether it has words."""
        extra = sampling_params.extra_args or {}
        words = json.loads(extra[WORDS]) if WORDS in extra else []
        self._new[req_idx] = (words, extra.get(BIAS, 0.0))
        self._favoured[req_idx] = bool(words)
        return bool(words)

    def apply_staged_writes(self) -> None:
        """Copy the new requests' words to the device."""
        if not self._new:
            return
        self._words.begin(self._new)
        for slot in self._new:
            first = int(self._requests.prompt_len.np[slot])
            last = int(self._requests.prefill_len.np[slot])
            if self._favoured[slot] and last > first:  # a preempted request that resumes
                ends = torch.arange(first + 1, last + 1, device=self._requests.device)
                self._words.read(slot, self._tails(torch.full_like(ends, slot), ends))
        self._new = {}

    def apply(self, logits: torch.Tensor, ctx: Any) -> torch.Tensor:
        """`logits` [B, V] with every request's bonus, changed in place."""
        if not self._favoured[ctx.idx_mapping_np].any():
            return logits
        slots = ctx.expanded_idx_mapping.long()
        tails = self._tails(slots, self._requests.total_len.gpu[slots].long())
        return self._words.favour(logits, slots, tails)

    def _tails(self, slots: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """The last tokens of the captions in `slots` before the positions `ends`, both [B]."""
        requests = self._requests
        reach = torch.arange(-self._words.reach, 0, device=ends.device)
        places = ends[:, None] + reach
        tokens: torch.Tensor = requests.all_token_ids.gpu[slots[:, None], places.clamp(min=0)]
        return tokens.masked_fill(places < requests.prompt_len.gpu[slots][:, None], BEFORE)
