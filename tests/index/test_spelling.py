from __future__ import annotations

from raymtr.index.spelling import Rarity, any_of, runs


def test_runs_hold_spaces_and_come_once() -> None:
    assert runs("ac dc") == {"ac ", "c d", " dc"}
    assert runs("aaaa") == {"aaa"} and runs("u2") == set()


def test_the_rarest_come_first_and_unseen_ones_before_all() -> None:
    rarity = Rarity(["the sun", "the moon", "the sunrise"])
    ranked = rarity.rarest({"the", "sun", "moo", "xyz"}, 3)
    assert ranked == ["xyz", "moo", "sun"]
    assert rarity.rarest({"the"}, 0) == []


def test_a_question_has_no_run_but_those_asked_for() -> None:
    asked = ["the", "sun"]
    assert {run for run in runs(any_of(asked)) if run.isalpha()} == set(asked)
