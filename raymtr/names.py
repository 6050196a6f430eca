"""Names as people type them: "beyonce", "ac dc" and "who" must find Beyoncé, AC/DC, The Who.

Two forms of a name are kept beside it in the table, both on top of `track.artist_key`, which folds
case, accents and a leading "The". The *key* is for equality: letters and digits only, so that
spacing and punctuation cannot matter. The *spoken* form keeps the words apart, for the full-text
index and its tolerance of typos.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from raymtr.track import artist_key

_SILENT = str.maketrans({"'": None, ".": None, "&": " and "})  # R.E.M. is one word, and so is don't
# Signs that stand for letters: P!nk, Ke$ha, $uicideboy$. At the end of a word "!" is a sign again.
_DRAWN = re.compile(r"(?<=[^\W\d])(?:!(?=[^\W\d])|\$)|\$(?=[^\W\d])")
_NOT_PLAIN = re.compile(r"[^a-z0-9]+")
_KNOWN_NAMES = 1 << 17  # an artist's name comes back with each track and each neighbour


@lru_cache(maxsize=_KNOWN_NAMES)
def spoken_name(name: str) -> str:
    """The words of a name without punctuation; a name of punctuation alone ("!!!") stays."""
    folded = artist_key(name)
    letters = _DRAWN.sub(lambda sign: {"!": "i", "$": "s"}[sign[0]], folded).translate(_SILENT)
    if letters.isascii():
        spaced = _NOT_PLAIN.sub(" ", letters)
    else:
        kinds = map(unicodedata.category, letters)
        spaced = "".join(c if k[0] in "LNM" else " " for c, k in zip(letters, kinds, strict=True))
    return " ".join(spaced.split()) or folded


def name_key(name: str | None) -> str | None:
    """The form that two spellings of one name share; None for no name."""
    return spoken_name(name).replace(" ", "") or None if name else None
