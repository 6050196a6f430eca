from __future__ import annotations

from raymtr.index.trigrams import TrigramCounts, any_of, trigrams


def test_trigrams_include_spaces_and_are_unique() -> None:
    assert trigrams("ac dc") == {"ac ", "c d", " dc"}
    assert trigrams("aaaa") == {"aaa"} and trigrams("u2") == set()


def test_the_rarest_come_first_and_unseen_ones_before_all() -> None:
    rarity = TrigramCounts(["the sun", "the moon", "the sunrise"])
    ranked = rarity.rarest({"the", "sun", "moo", "xyz"}, 3)
    assert ranked == ["xyz", "moo", "sun"]
    assert rarity.rarest({"the"}, 0) == []


def test_any_of_has_only_the_given_trigrams() -> None:
    asked = ["the", "sun"]
    assert {run for run in trigrams(any_of(asked)) if run.isalpha()} == set(asked)
