"""Attention over the windows of a track, in place of their mean.

A long track has sections: an intro that says little, a solo, a change of style. The weight of a
window is learned from its vector, as in attention pooling of bags (Ilse et al., ICML 2018): the
softmax over a track's windows of w . tanh(V v), v being the vector scaled to unit length. w starts
at zero, so an untrained one gives the mean exactly, and one window is itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 64  # of the hidden layer


class WindowAttention(nn.Module):
    """Un-normalised window vectors [B, W, D] -> un-normalised vectors of the tracks [B, D]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, WIDTH)
        self.score = nn.Linear(WIDTH, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, windows: Tensor) -> Tensor:
        """The weighted means."""
        return torch.einsum("bw,bwd->bd", self.weights(windows), windows)

    def weights(self, windows: Tensor) -> Tensor:
        """Each window's weight, [B, W]; a track's sum is 1."""
        scores = self.score(torch.tanh(self.hidden(functional.normalize(windows, dim=-1))))
        return torch.softmax(scores.squeeze(-1), dim=-1)
