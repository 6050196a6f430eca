from __future__ import annotations

import pytest

from raymtr.names import name_key, spoken_name


@pytest.mark.parametrize(
    ("typed", "spelt"),
    [
        ("beyonce", "Beyoncé"),
        ("sigur ros", "Sigur Rós"),
        ("bjork", "BJÖRK"),
        ("ac dc", "AC/DC"),
        ("acdc", "AC/DC"),
        ("rem", "R.E.M."),
        ("guns n roses", "Guns N' Roses"),
        ("guns ’n’ roses", "Guns 'N' Roses"),
        ("simon and garfunkel", "Simon & Garfunkel"),
        ("royksopp", "Röyksopp"),
        ("mo", "Mø"),
        ("the who", "The Who"),
        ("beatles", "The Beatles"),
        ("pink", "P!nk"),
        ("P!nk", "P!NK"),
        ("kesha", "Ke$ha"),
        ("asap rocky", "A$AP Rocky"),
        ("suicideboys", "$uicideboy$"),
        ("wham", "Wham!"),
        ("help i need somebody", "Help! I Need Somebody"),
        ("100", "$100"),
        ("JAY Z", "Jay-Z"),
        ("Beyonce\u0301", "Beyoncé"),
    ],
)
def test_two_spellings_share_a_key(typed: str, spelt: str) -> None:
    assert name_key(typed) == name_key(spelt)


@pytest.mark.parametrize(
    ("one", "other"),
    [("Who", "Whom"), ("!!!", "???"), ("が", "か"), ("椎名林檎", "椎名"), ("Blue", "Blues")],
)
def test_two_names_keep_apart(one: str, other: str) -> None:
    assert name_key(one) != name_key(other)


def test_no_name_has_no_key() -> None:
    assert name_key(None) is None
    assert name_key("") is None
    assert name_key("  ") is None
    assert name_key("!!!") == "!!!"


def test_words_stay_apart_in_the_spoken_form() -> None:
    assert spoken_name("Don't Stop (Till You Get Enough)") == "dont stop till you get enough"
