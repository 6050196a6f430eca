"""The rule of `captions.writing.tag_words` for a batch, as tensors on the device of the scores.

`UnwrittenTagWords` tracks one caption in Python. On a GPU that would mean a copy to the host, and a
wait, in every step of every caption. Here the words of all captions are in one padded table, and
begun and written words are found from the last few tokens. A step is a few dozen small kernels.
Their work is rows x words x spellings x (tokens of the longest spelling) squared, and nothing over
the vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from raymtr.captions.writing.tag_words import Spellings

NONE = -1  # padding in the table: no token
BEFORE = -2  # in a tail: before the caption's start; equals no token, and not NONE


class UnwrittenTagWordsBatch:
    """The open words of many captions, one per slot; slots are reused."""

    def __init__(self, slots: int, device: torch.device) -> None:
        self._table = torch.full((slots, 1, 1, 1), NONE, dtype=torch.int32, device=device)
        self._closed = torch.zeros((slots, 1), dtype=torch.bool, device=device)
        self._bias = torch.zeros(slots, device=device)

    @property
    def reach(self) -> int:
        """Tokens of the longest spelling: how much of a caption's end is needed."""
        return self._table.shape[3]

    def begin(self, captions: Mapping[int, tuple[Sequence[Spellings], float]]) -> None:
        """Start new captions in the slots of `captions`, with their words and bonus."""
        self._grow([words for words, _ in captions.values()])
        rows = np.full((len(captions), *self._table.shape[1:]), NONE, np.int32)
        for row, (words, _) in zip(rows, captions.values(), strict=True):
            for word, spellings in enumerate(words):
                for form, tokens in enumerate(spellings):
                    row[word, form, : len(tokens)] = tokens
        device = self._table.device
        slots = torch.tensor(list(captions), dtype=torch.long).to(device, non_blocking=True)
        bias = torch.tensor([bias for _, bias in captions.values()])
        self._table[slots] = torch.from_numpy(rows).to(device, non_blocking=True)
        self._bias[slots] = bias.to(device, non_blocking=True)
        self._closed[slots] = False

    def _grow(self, captions: Sequence[Sequence[Spellings]]) -> None:
        """Enlarge the table to the most words, spellings and tokens requested so far."""
        spellings = [own for words in captions for own in words]
        wanted = (
            max(map(len, captions), default=0),
            max(map(len, spellings), default=0),
            max((len(tokens) for own in spellings for tokens in own), default=0),
        )
        more = [max(w - h, 0) for w, h in zip(wanted, self._table.shape[1:], strict=True)]
        if any(more):
            padding = (0, more[2], 0, more[1], 0, more[0])
            self._table = torch.nn.functional.pad(self._table, padding, value=NONE)
            self._closed = torch.nn.functional.pad(self._closed, (0, more[0]))

    def read(self, slot: int, tails: Tensor) -> None:
        """Close the words of `slot` that end in one of its `tails` [n, reach]."""
        table = self._table[slot].expand(len(tails), -1, -1, -1)
        self._closed[slot] |= _ended(table, _begun(table, tails)).any(0)

    def favour(self, scores: Tensor, slots: Tensor, tails: Tensor) -> Tensor:
        """`scores` [B, V] of the captions in `slots` [B], with the bonus added in place.

        `tails` [B, reach] are the captions' last tokens, BEFORE where they are shorter. Every step
        must be passed at least once; passing it again changes nothing.
        """
        table = self._table[slots]
        begun = _begun(table, tails)
        closed = self._closed[slots] | _ended(table, begun)
        self._closed[slots] = closed
        goes_on = begun[..., :-1] & (table != NONE) & ~closed[:, :, None, None]
        goes_on[:, :, 1:, 0] = False  # a word begins only as its tag spells it
        bonus = goes_on * self._bias[slots][:, None, None, None]
        tokens = table.clamp(min=0).flatten(1).long()
        # The maximum of a token's raised values: its bonus counts once, however many words include
        # it.
        raised = scores.gather(1, tokens) + bonus.flatten(1)
        return scores.scatter_reduce_(1, tokens, raised, "amax")


def _begun(table: Tensor, tails: Tensor) -> Tensor:
    """Whether the last n tokens are the first n of a spelling, n from 0: [B, words, forms, n]."""
    reach = tails.shape[1]
    count = torch.arange(reach + 1, device=tails.device)[:, None]
    place = torch.arange(reach, device=tails.device)
    ends = tails[:, (reach - count + place).clamp(max=reach - 1)]  # [B, n, reach]
    equal = table[:, :, :, None] == ends[:, None, None]
    return (equal | (place >= count)).all(-1)


def _ended(table: Tensor, begun: Tensor) -> Tensor:
    """Which words [B, words] are complete at the caption's end."""
    length = (table != NONE).sum(-1, keepdim=True)
    return (begun.gather(-1, length) & (length > 0)).flatten(2).any(-1)
