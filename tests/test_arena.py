"""The arena's terms are equal, a finished training is not repeated, and its means are by kind."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from raymtr import storage
from raymtr.errors import InputError
from raymtr.evaluation.benchmarks import Benchmark, Query
from raymtr.model.two_towers import build_towers
from raymtr.workspace import Workspace

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def arena() -> Iterator[ModuleType]:
    sys.path.insert(0, str(BENCHMARKS))
    import arena

    yield arena
    sys.path.remove(str(BENCHMARKS))


def test_published_and_ours_are_of_one_size(arena: ModuleType) -> None:
    one, other = (
        sum(p.numel() for p in build_towers(arena.RECIPES[name]().towers, seed=0).parameters())
        for name in ("published", "ours")
    )
    assert abs(other / one - 1) <= 0.05


def test_a_training_is_finished_for_its_own_settings_alone(
    arena: ModuleType, tmp_path: Path
) -> None:
    settings = arena.RECIPES["ours"]()
    assert arena.receipt_of(str(tmp_path), settings) is None
    receipt = {"settings": arena._plain(settings), "valid_r_at_10": 0.5}
    storage.write_json(f"{tmp_path}/{arena.RECEIPT}", receipt)
    assert arena.receipt_of(str(tmp_path), settings) == 0.5
    assert arena.receipt_of(str(tmp_path), arena.published()) is None


def test_the_catalog_of_another_size_is_refused(arena: ModuleType, tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    storage.write_json(workspace.path("arena.json"), {"pieces": 3, "tunes": 1, "clips": 1})
    with pytest.raises(InputError, match=r"holds an arena of .*'pieces': 3.* another --workspace"):
        arena.make_catalog(workspace, str(tmp_path), arena.SIZES["toy"])


def test_a_kind_of_many_queries_does_not_weigh_more(arena: ModuleType) -> None:
    report = sys.modules["arena_report"]
    kinds = np.array(["tag"] * 90 + ["title"] * 10)
    pool = report.Pool("rendered", kinds, {})
    better = np.where(kinds == "title", 1.0, 0.0)  # in one kind of two
    assert pool.spread(better, np.random.default_rng(0)) == (0.5, 0.5)
    values = {"published": 1 - better, "ours": np.ones(100)}
    line = report._mean_line(values, pool, np.random.default_rng(0))
    assert line.endswith("+0.500 [+0.500, +0.500], 2.00 times"), line


def test_recall_is_compared_with_a_random_ranking(
    arena: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    report = sys.modules["arena_report"]
    benchmark = Benchmark(
        pool=tuple(f"t{n}" for n in range(40)),
        queries=tuple(
            Query(query_id=f"q{n}", kind="tag", text=f"a{n}", sentence="a") for n in range(4)
        ),
        right={f"q{n}": {"t0": 1} for n in range(4)},
    )
    kinds = np.array(["tag"] * 4)
    answers = {"ours": [{("real", report.AS_MADE, "r_at_10"): np.ones(4)}]}
    pool = report.Pool("real", kinds, answers)
    report.print_above_chance(pool, benchmark, np.random.default_rng(0))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("ours ")[1] for line in lines] == ["+0.750 [+0.750, +0.750]"] * 2
