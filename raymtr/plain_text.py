"""Cleans text from other programs: bytes of unknown encoding, and terminal control characters.

Tags and file names are UTF-8 or an older encoding. Text that is not UTF-8 is nearly always
Windows-1252. If most letters are outside ASCII it is Cyrillic (Windows-1251), and if it decodes to
kana it is Shift-JIS. A replacement character (U+FFFD) is never written, because it loses the
original bytes.

Control and bidirectional characters in a title are commands to a terminal: they colour it, rename
its window, write backwards. `one_line` removes them from everything that enters a catalog.
`printable` removes them from everything that is printed, because tables from elsewhere do not pass
`one_line`.
"""

from __future__ import annotations

import re
import unicodedata

_LOST = "\ufffd"
_KANA = re.compile("[\u3041-\u30ff]")
# Cc, except what `split` treats as white space, and Cf: bidirectional marks, zero-width characters.
# The joiners (200C, 200D) shape letters and emoji, and tag characters (E0020-E007F) form flags.
_FORMATS = "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
_UNSEEN = re.compile(f"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f{_FORMATS}{_LOST}]")
# Whole escape sequences: CSI, OSC (up to its BEL or ST), then any two-character one.
_ESCAPES = re.compile(
    "(?:\x1b\\[|\x9b)[0-?]*[ -/]*[@-~]?"
    "|(?:\x1b[\\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\\\|\x9c)"
    "|\x1b[ -/]*[0-~]?"
)
_SURROGATES = re.compile("[\ud800-\udfff]")


def from_bytes(data: bytes) -> str:
    """`data` decoded as UTF-8, else in its most likely older encoding."""
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
    """The visible text of `text` on one line, composed (NFC); None if there is none."""
    if text and text.isascii() and text.isprintable():
        return " ".join(text.split()) or None
    seen = _SURROGATES.sub("", text or "").replace("\0", " ")
    seen = _UNSEEN.sub("", _ESCAPES.sub("", seen))
    line = " ".join(unicodedata.normalize("NFC", seen).split())
    return line if line.strip("\u200c\u200d ") else None


def printable(text: str) -> str:
    """`text`, of any number of lines, without terminal control characters."""
    return _UNSEEN.sub("", _ESCAPES.sub("", text)).replace("\x85", " ").replace("\r", " ")
