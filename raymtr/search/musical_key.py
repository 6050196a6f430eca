"""Parses musical keys as people and files write them: "A minor", "Am", "F# maj", "es-Moll"."""

from __future__ import annotations

import re

_SEMITONES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11, "h": 11}
_KEY = re.compile(
    r"([a-h])[\s-]*(sharp|flat|#|♯|♭|b(?![a-z])|is|es)?[\s-]*"
    r"(major|minor|maj|min|moll|dur|mayor|menor|majeur|mineur|maggiore|minore|m)?"
)
_MINOR = ("minor", "min", "moll", "menor", "mineur", "minore", "m")


def read_key(text: str) -> tuple[int, str] | None:
    """Semitones above C, and major or minor; a lone note is major. None if it is not a key."""
    match = _KEY.fullmatch(text.strip().lower())
    if match is None:
        return None
    shift = {None: 0, "sharp": 1, "#": 1, "♯": 1, "is": 1}.get(match[2], -1)
    return (_SEMITONES[match[1]] + shift) % 12, "minor" if match[3] in _MINOR else "major"
