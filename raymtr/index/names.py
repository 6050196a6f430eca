"""Names as people type them: "beyonce", "ac dc" and "who" must find Beyoncé, AC/DC, The Who.

Two forms of a name are kept beside it in the table, both on top of `track.artist_key`, which folds
case, accents and a leading "The". The *key* is for equality: letters and digits only, so that
spacing and punctuation cannot matter. The *spoken* form keeps the words apart, for the full-text
index and its tolerance of typos.
"""

from __future__ import annotations

import unicodedata

from raymtr.track import artist_key

_SILENT = "'."  # within a word: R.E.M. is one word, and so is don't


def spoken_name(name: str) -> str:
    """The words of a name without punctuation; a name of punctuation alone ("!!!") stays."""
    folded = artist_key(name)
    letters = (
        letter if unicodedata.category(letter)[0] in "LNM" else " "
        for letter in folded.replace("&", " and ")
        if letter not in _SILENT
    )
    return " ".join("".join(letters).split()) or folded


def name_key(name: str | None) -> str | None:
    """The form that two spellings of one name share; None for no name."""
    return spoken_name(name).replace(" ", "") or None if name else None
