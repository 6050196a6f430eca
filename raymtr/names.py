"""Normalises names as people type them: "beyonce", "ac dc", "who" find Beyoncé, AC/DC, The Who.

The table stores two forms of a name beside it. Both build on `track.artist_key`, which folds case,
accents and a leading "The". The *key* is for equality: only letters and digits, so that spacing and
punctuation do not matter. The *spoken* form keeps the words separate, for the full-text index,
which tolerates typos.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from raymtr.track import artist_key

_SILENT = str.maketrans({"'": None, ".": None, "&": " and "})  # R.E.M. and don't are one word each
# Signs used as letters: P!nk, Ke$ha, $uicideboy$. At the end of a word "!" is punctuation.
_DRAWN = re.compile(r"(?<=[^\W\d])(?:!(?=[^\W\d])|\$)|\$(?=[^\W\d])")
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_KNOWN_NAMES = 1 << 17  # cached, because an artist's name recurs with each track and neighbour


@lru_cache(maxsize=_KNOWN_NAMES)
def spoken_name(name: str) -> str:
    """The words of a name without punctuation; a name of only punctuation ("!!!") stays."""
    folded = artist_key(name)
    letters = _DRAWN.sub(lambda sign: {"!": "i", "$": "s"}[sign[0]], folded).translate(_SILENT)
    if letters.isascii():
        spaced = _NOT_PLAIN.sub(" ", letters)
    else:
        kinds = map(unicodedata.category, letters)
        spaced = "".join(c if k[0] in "LNM" else " " for c, k in zip(letters, kinds, strict=True))
    return " ".join(spaced.split()) or folded


def name_key(name: str | None) -> str | None:
    """The key that all spellings of a name share; None for no name."""
    return spoken_name(name).replace(" ", "") or None if name else None
