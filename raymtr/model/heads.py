"""Heads between a tower and the joint space: learned projections, or musicnn's tags.

`linear` is TTMR++'s head, `two_layers` has a hidden layer. With `tags` nothing is learned: the
joint space is the 100 tags of the two musicnn taggers. A window's vector is how much more likely
each tag is than in music in general. A sentence's vector is the weights of the tags for its nearest
music words (model.tag_profiles). The cosine of the two is a sum over tags.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raymtr.model.musicnn import MSD, MTAT
from raymtr.model.tag_profiles import WORDS
from raymtr.tower_specs import TowersSpec
from raymtr.vectors import unit

LABELS = (*MSD, *MTAT)
HEAD_WIDTH = 512  # width of the hidden layer of `two_layers`
USUAL = 0.05  # approximate share of a tagger's training tracks that have a given one of its 50 tags
SHARPNESS = 20.0  # of the softmax over words: MiniLM gives synonyms 0.6 to 0.9, others 0.1 to 0.3


def build_heads(spec: TowersSpec, text_hidden: int) -> tuple[nn.Module, nn.Module]:
    """The heads of the audio side and the text side, each [B, its tower's width] -> [B, dim]."""
    widths = spec.audio_tower.dim, text_hidden
    if spec.heads == "tags":
        return AudioTagHead(), nn.Sequential(Similarities(text_hidden), TextTagHead())
    make = _linear if spec.heads == "linear" else _two_layers
    audio, text = (make(width, spec.dim) for width in widths)
    return audio, text


class AudioTagHead(nn.Module):
    """MusicnnTower's features [B, 3512] -> each tag's log-odds over its prior, [B, 100]."""

    def forward(self, features: Tensor) -> Tensor:
        """The tags' logits minus the logit of a tag's usual share of music."""
        return features[:, -len(LABELS) :] - math.log(USUAL / (1 - USUAL))


class Similarities(nn.Module):
    """States of a text tower [B, hidden] -> cosines to the music words [B, words]."""

    weight: Tensor

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(len(words()), hidden))

    def forward(self, states: Tensor) -> Tensor:
        """Multiply the normalised states by the words' unit vectors."""
        return functional.normalize(states, dim=-1) @ self.weight.T


class TextTagHead(nn.Module):
    """Cosines to the music words [B, words] -> weights of their tags [B, 100]."""

    profiles: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("profiles", torch.zeros(len(words()), len(LABELS)))

    def forward(self, cosines: Tensor) -> Tensor:
        """Average the words' tag profiles, weighted by a sharp softmax over the cosines."""
        return torch.softmax(SHARPNESS * cosines, dim=-1) @ self.profiles


def words() -> tuple[str, ...]:
    """The music words that sentences are compared to: the table's words and the tag names."""
    return tuple(dict.fromkeys([*WORDS, *(label.lower() for label in LABELS)]))


def profiles() -> np.ndarray:
    """The tag profile of each word: unit rows, float32 [words, 100]."""
    known = [_key(label) for label in LABELS]
    rows = np.zeros((len(words()), len(LABELS)), np.float32)
    for row, word in zip(rows, words(), strict=True):
        for tag in WORDS.get(word, _key(word)).split():
            name, sign = tag.removeprefix("-"), -1.0 if tag.startswith("-") else 1.0
            places = [place for place, label in enumerate(known) if label == name]
            if not places:
                raise ValueError(f"tag_profiles: {word!r} names {name!r}, which is not a tag")
            row[places] = sign
    return unit(rows)


def _key(label: str) -> str:
    return label.lower().replace(" ", "_")


def fill_tag_heads(text: nn.Module, word_states: Tensor) -> None:
    """Fill in the text head that `build_heads` created for `tags`.

    `word_states` are the text tower's states of `words()`, [words, hidden].
    """
    assert isinstance(text, nn.Sequential)
    similarities, meant = text
    assert isinstance(similarities, Similarities) and isinstance(meant, TextTagHead)
    similarities.weight.copy_(functional.normalize(word_states, dim=-1))
    meant.profiles.copy_(torch.from_numpy(profiles()))


def _linear(channels: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, dim, bias=False))


def _two_layers(channels: int, dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Linear(channels, HEAD_WIDTH),
        nn.GELU(),
        nn.Linear(HEAD_WIDTH, dim, bias=False),
    )
