from __future__ import annotations

import re

import numpy as np
import pytest

from raymtr.errors import InputError
from raymtr.recipes import ttmrpp
from raymtr.training.mixture import Mixture

PAPER = ttmrpp().train.mixture


def paper_catalog() -> list[str]:
    return [name for name in PAPER for _ in range(500 if name == "msd" else 37)]


def test_paper_ratios_hold_at_every_moment() -> None:
    datasets = np.array(paper_catalog())
    mixture = Mixture(datasets.tolist(), PAPER, seed=3)
    drawn = datasets[np.concatenate([mixture.draw(step, 48) for step in range(60)])]
    counts = np.arange(1, len(drawn) + 1)
    for name, weight in PAPER.items():
        off = np.cumsum(drawn == name) - counts * weight
        assert np.abs(off).max() < 3, f"{name} strays by {np.abs(off).max()} tracks"


def test_tracks_pass_in_rounds() -> None:
    mixture = Mixture(["a"] * 10 + ["b"] * 100, {"a": 1, "b": 1}, seed=0)
    drawn = np.concatenate([mixture.draw(step, 8) for step in range(50)])
    small = drawn[drawn < 10]
    assert len(small) == 200
    rounds = small.reshape(20, 10)
    assert all(len(set(row)) == 10 for row in rounds)
    assert len({tuple(row) for row in rounds}) > 15, "each round has an order of its own"
    assert len(set(drawn[drawn >= 10])) == 100


def test_no_weights_make_all_tracks_alike() -> None:
    mixture = Mixture(["a", None, "b", "", "a"], {}, seed=0)
    assert sorted(mixture.draw(0, 5)) == [0, 1, 2, 3, 4]


def test_a_draw_depends_on_its_number_alone() -> None:
    datasets = paper_catalog()
    one, other = Mixture(datasets, PAPER, seed=7), Mixture(datasets, PAPER, seed=7)
    for step in (900, 3, 41):  # in any order, on any machine
        np.testing.assert_array_equal(one.draw(step, 16), other.draw(step, 16))
    parts = [other.rows(np.arange(16 * 5 + 8 * rank, 16 * 5 + 8 * rank + 8)) for rank in (0, 1)]
    np.testing.assert_array_equal(one.draw(5, 16), np.concatenate(parts))
    assert (Mixture(datasets, PAPER, seed=8).draw(3, 16) != one.draw(3, 16)).any()


def test_unnamed_dataset_is_left_out_and_weights_need_no_sum() -> None:
    mixture = Mixture(["a", "b", "c"], {"a": 3, "c": 1, "b": 0}, seed=0)
    drawn = mixture.draw(0, 400)
    assert (drawn == 0).sum() == 300 and (drawn == 2).sum() == 100


@pytest.mark.parametrize(
    ("weights", "named"),
    [
        ({"a": 1, "jazz": 1}, "jazz.*its datasets: a, b"),
        ({"a": -1}, "of at least 0"),
        ({"a": 0}, "of at least 0"),
        ({"a": float("nan")}, "of at least 0"),
    ],
)
def test_weights_that_cannot_be(weights: dict[str, float], named: str) -> None:
    with pytest.raises(InputError) as caught:
        Mixture(["a", "b", None], weights, seed=0)
    assert re.search(named, str(caught.value))
