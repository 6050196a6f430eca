"""A kind of tokens, as the stages see it."""

from __future__ import annotations

from typing import NamedTuple


class Vocabulary(NamedTuple):
    """One kind of tokens: `levels` tokens per frame, each below `codes`."""

    levels: int
    codes: int
