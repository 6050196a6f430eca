"""Text as other programs left it: bytes of an unknown encoding, and characters that steer a screen.

Tags and file names are UTF-8, or older than that. What is not UTF-8 is nearly always Windows-1252,
but where most letters lie beyond ASCII it is Cyrillic (Windows-1251), and where it reads as kana
it is Shift-JIS. A replacement character (U+FFFD) is never made: it loses for good what was there.

Control and bidirectional characters in a title are commands to a terminal: they colour it, rename
its window, write backwards. `one_line` takes them out of everything that enters a catalog,
`printable` out of everything that is printed, since tables of others pass the first by.
"""

from __future__ import annotations

import re
import unicodedata

_LOST = "\ufffd"
_KANA = re.compile("[\u3041-\u30ff]")
# Cc without what `split` takes for white space, and Cf: bidirectional marks, zero-width signs. The
# joiners (200C, 200D) shape letters and emoji, and tag characters (E0020-E007F) make flags.
_FORMATS = "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_UNSEEN = re.compile(f"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f{_FORMATS}{_LOST}]")
# An escape sequence goes whole: CSI, OSC (to its BEL or ST), then any two-character one.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]?"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def from_bytes(data: bytes) -> str:
    """`data` as UTF-8, else in the old encoding it most likely has."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    high = sum(byte >= 0x80 for byte in data)
    letters = high + sum(chr(byte).isalpha() for byte in data if byte < 0x80)
    try:
        japanese = data.decode("cp932")
    except UnicodeDecodeError:
        japanese = ""
    if _KANA.search(japanese) and 3 * high >= letters:
        return japanese
    cyrillic = sum(byte >= 0xC0 or byte in (0xA8, 0xB8) for byte in data)
    if 2 * cyrillic > letters and high > 2:
        return data.decode("cp1251", "ignore")
    return data.decode("cp1252", "ignore")


def one_line(text: str | None) -> str | None:
    """One line of what can be seen in `text`, composed (NFC); None where that is nothing."""
    if text and text.isascii() and text.isprintable():
        return " ".join(text.split()) or None
    seen = _SURROGATES.sub("", text or "").replace("\0", " ")
    seen = _UNSEEN.sub("", _ESCAPES.sub("", seen))
    line = " ".join(unicodedata.normalize("NFC", seen).split())
    return line if line.strip("\u200c\u200d ") else None


def printable(text: str) -> str:
    """`text`, of any number of lines, without what would steer a terminal."""
    return _UNSEEN.sub("", _ESCAPES.sub("", text)).replace("\x85", " ").replace("\r", " ")
