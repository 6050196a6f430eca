"""Runs of three letters of names, and how rare each is: what makes a misspelt name cheap to find.

The index of `names` holds every run of three letters, spaces included. Asked for all runs of a
name, it reads the lists of "the" and " da" too, which a tenth of a catalog has: a second at a
million tracks. The rarest dozen find as much for less than a tenth of that. How rare a run is, is
estimated on rows taken evenly from the table, the same for the same version.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

N = 3  # letters
SAMPLED = 20_000  # rows, of which the runs are counted
_APART = "\x1f"  # in no name; so no run across two of ours is in the index


def trigrams(text: str) -> set[str]:
    """Every run of three letters in `text`."""
    return {text[at : at + N] for at in range(len(text) - N + 1)}


class TrigramCounts:
    """How many of some names hold each run."""

    def __init__(self, names: Iterable[str]) -> None:
        self._counts = Counter(run for name in names for run in trigrams(name))

    def rarest(self, some: set[str], most: int) -> list[str]:
        """At most `most` of these runs, the rarest first."""
        return sorted(some, key=lambda run: (self._counts[run], run))[:most]


def any_of(some: Iterable[str]) -> str:
    """The text whose runs, as far as the index has them, are these."""
    return _APART.join(some)
