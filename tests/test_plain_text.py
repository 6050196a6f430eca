"""Text as other programs left it: old encodings, and characters that steer a screen."""

import pytest

from raymtr.plain_text import from_bytes, one_line, printable


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Beyoncé", "utf-8"),
        ("Café Zürich", "cp1252"),
        ("don’t “stop” – now…", "cp1252"),
        ("Ñandú", "cp1252"),
        ("Motörhead", "cp1252"),
        ("Песня о друге", "cp1251"),
        ("Кино - Звезда по имени Солнце", "cp1251"),
        ("テスト", "cp932"),
        ("さくら 01", "cp932"),
    ],
)
def test_bytes_are_read_in_the_encoding_they_most_likely_have(text, encoding):
    assert from_bytes(text.encode(encoding)) == text


def test_no_byte_becomes_a_replacement_character():
    for first in range(256):
        for second in range(0, 256, 5):
            assert "\ufffd" not in from_bytes(bytes([first, second, 0x81, 0x9D]))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\x1b[31mred\x1b[0m", "ared"),
        ("x\x1b]0;owned\x07y", "xy"),
        ("x\x1b]8;;http://a\x1b\\y", "xy"),
        ("bell\x07 back\x08 del\x7f", "bell back del"),
        ("csi\x9b31mred, osc \x9d0;t\x9c!", "csired, osc !"),
        ("left\u202eright\u2066\u200f", "leftright"),
        ("\u200b", None),
        ("\ufeffTitle\u00ad", "Title"),
        ("\u200d\u200c", None),
        ("two\r\nlines\u2028three\ttabs", "two linesthree tabs"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🎤", "👩\u200d🎤"),
        ("lone \ud800 half", "lone half"),
        ("lost \ufffd", "lost"),
        ("Cafe\u0301", "Café"),
        (None, None),
    ],
)
def test_one_line_is_what_can_be_seen(text, line):
    assert one_line(text) == line


def test_printed_lines_keep_their_ends_and_lose_commands():
    assert printable("one \x1b[2Jtwo\nthree\u202e\x9b1m\r\n") == "one two\nthree \n"
