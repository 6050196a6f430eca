"""Corrects misspelt words against a small vocabulary by edit distance.

Two words one edit or one transposition apart share a form with one letter deleted (SymSpell, Garbe
2012). A table of these forms finds all candidates without a scan.
"""

from __future__ import annotations

from collections.abc import Iterable

ONE_EDIT_FROM, TWO_EDITS_FROM = 5, 8  # minimum letters of a word for one and for two edits


class Speller:
    """A speller over a vocabulary of keys."""

    def __init__(self, keys: Iterable[str]) -> None:
        self._keys = {key for key in keys if len(key) >= ONE_EDIT_FROM - 1}
        self._forms: dict[str, list[str]] = {}
        for key in sorted(self._keys):
            for form in _without_letters(key, _edits(key)):
                self._forms.setdefault(form, []).append(key)

    def nearest(self, key: str) -> str | None:
        """The word that `key` misspells, if one is near enough. The first letter must match."""
        if len(key) < ONE_EDIT_FROM or not key.isalpha():
            return None
        found: dict[str, int] = {}
        for form in _without_letters(key, _edits(key)):
            for near in self._forms.get(form, ()):
                if near not in found and near[0] == key[0]:
                    found[near] = edits(key, near)
        allowed = {
            near: far for near, far in found.items() if far <= _edits(min(key, near, key=len))
        }
        return min(allowed, key=lambda near: (allowed[near], near), default=None)


def _edits(key: str) -> int:
    return 2 if len(key) >= TWO_EDITS_FROM else 1


def _without_letters(key: str, most: int) -> set[str]:
    forms = {key}
    for _ in range(most):
        forms |= {form[:at] + form[at + 1 :] for form in forms for at in range(len(form))}
    return forms


def edits(first: str, second: str) -> int:
    """The edit distance: insertions, deletions, substitutions and transpositions."""
    before: list[int] = []
    above = list(range(len(second) + 1))
    for row, letter in enumerate(first, start=1):
        here = [row]
        for column, other in enumerate(second, start=1):
            cost = min(
                above[column] + 1, here[column - 1] + 1, above[column - 1] + (letter != other)
            )
            swapped = row > 1 and column > 1 and letter == second[column - 2]
            if swapped and first[row - 2] == other:
                cost = min(cost, before[column - 2] + 1)
            here.append(cost)
        before, above = above, here
    return above[-1]
