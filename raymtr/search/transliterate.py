"""Transliterates names into Latin letters as people type them: "mertvyi gorod" for Мертвый город.

Each letter is mapped as in most transliteration systems. Where systems differ ("iy", "yj", "kh"),
the fuzzy comparison of names tolerates it. Covers Cyrillic, Greek and Japanese kana, not Han.
"""

from __future__ import annotations

import re

_CYRILLIC = dict(
    zip(
        "абвгдезийклмнопрстуфхыэіїєґ",
        "abvgdeziyklmnoprstufhyeiieg",
        strict=True,
    )
) | {"ж": "zh", "ц": "ts", "ч": "ch", "ш": "sh", "щ": "sch", "ю": "yu", "я": "ya", "ё": "e"}
_GREEK = dict(
    zip(
        "αβγδεζηικλμνξοπρσςτυφω",
        "avgdeziiklmnxoprsstyfo",
        strict=True,
    )
) | {"θ": "th", "χ": "ch", "ψ": "ps"}
_VOWELS = "aiueo"
_KANA: dict[str, str] = {}
for _head, _row in (
    ("", "あいうえお"), ("k", "かきくけこ"), ("s", "さしすせそ"), ("t", "たちつてと"),
    ("n", "なにぬねの"), ("h", "はひふへほ"), ("m", "まみむめも"), ("r", "らりるれろ"),
    ("g", "がぎぐげご"), ("z", "ざじずぜぞ"), ("d", "だぢづでど"), ("b", "ばびぶべぼ"),
    ("p", "ぱぴぷぺぽ"),
):  # fmt: skip
    _KANA |= {sign: _head + vowel for sign, vowel in zip(_row, _VOWELS, strict=True)}
_KANA |= {"や": "ya", "ゆ": "yu", "よ": "yo", "わ": "wa", "を": "o", "ん": "n", "っ": "", "ー": ""}
_KANA |= {
    "し": "shi",
    "ち": "chi",
    "つ": "tsu",
    "ふ": "fu",
    "じ": "ji",
    "ゃ": "ya",
    "ゅ": "yu",
    "ょ": "yo",
}
_LETTERS = _CYRILLIC | _GREEK | _KANA
_OTHER = re.compile("[\u0370-\u03ff\u0400-\u04ff\u3040-\u30ff]")


def latin(name: str) -> str | None:
    """A name in Latin letters; None if it contains no supported script."""
    if not _OTHER.search(name):
        return None
    signs = (chr(ord(s) - 0x60) if "ァ" <= s <= "ヶ" else s for s in name.lower())
    return "".join(_LETTERS.get(sign, sign) for sign in signs).replace("ъ", "").replace("ь", "")
