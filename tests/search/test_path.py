"""The way from one track to another over a table whose neighbours are known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from builders import publish_catalog

from raymtr.errors import InputError
from raymtr.index.filters import parse_filter
from raymtr.index.track_table import TrackTable
from raymtr.search.path import on_the_way, path_between

STEPS = 19  # tracks on a quarter circle, 5 degrees apart


@pytest.fixture(scope="module")
def table(make_workspace: Callable, commit_vectors: Callable) -> TrackTable:
    """c00 .. c18 on a quarter circle, `aside` far from all, `words` without audio."""
    names = [f"c{number:02}" for number in range(STEPS)]
    rows = [
        {"track_id": name, "uri": "/x", "title": name, "year": 1900 + at}
        for at, name in enumerate([*names, "aside"])
    ]
    workspace = make_workspace([*rows, {"track_id": "words", "title": "words"}])
    angles = np.linspace(0, np.pi / 2, STEPS)
    circle = np.stack([np.cos(angles), np.sin(angles), 0 * angles, 0 * angles], axis=1)
    vectors = dict(zip(names, circle[:, None], strict=True))
    vectors["aside"] = np.array([[0, 0, 0, 1.0]])
    windows = {name: vector.astype(np.float32) for name, vector in vectors.items()}
    commit_vectors(workspace, windows)
    build = publish_catalog(workspace)
    return TrackTable(workspace.db, build)


@pytest.mark.slow
def test_the_way_goes_by_those_between_in_their_order(table: TrackTable) -> None:
    steps = path_between(table, "c00", "c18", count=7)
    assert [track_id for track_id, _ in steps] == ["c00", "c03", "c06", "c09", "c12", "c15", "c18"]
    np.testing.assert_allclose(
        [cosine for _, cosine in steps], np.cos(np.arange(7) * np.pi / 12), atol=2e-3
    )


def test_each_track_once_and_all_of_them_if_asked_for_more(table: TrackTable) -> None:
    ids = [track_id for track_id, _ in path_between(table, "c00", "c18", count=60)]
    assert sorted(ids) == sorted([*(f"c{n:02}" for n in range(STEPS)), "aside"])
    assert (ids[0], ids[-1]) == ("c00", "c18")
    assert [track_id for track_id, _ in path_between(table, "c04", "c05", count=2)] == [
        "c04",
        "c05",
    ]


def test_a_filter_holds_between_the_ends(table: TrackTable) -> None:
    where = parse_filter("year > 1909", table.filterable)
    ids = [track_id for track_id, _ in path_between(table, "c00", "c18", count=6, where=where)]
    assert (ids[0], ids[-1], len(ids)) == ("c00", "c18", 6)
    assert all(track_id > "c09" for track_id in ids[1:-1])


@pytest.mark.parametrize(
    ("start", "end", "count", "said"),
    [
        ("c00", "nobody", 5, "unknown track_id"),
        ("words", "c00", 5, "no audio vector"),
        ("c00", "c00", 5, "two different"),
        ("c00", "c18", 1, "2 to 100"),
        ("c00", "c18", 101, "2 to 100"),
        ("c00", "c18", True, "2 to 100"),
    ],
)
def test_wrong_ways_are_named(
    table: TrackTable, start: str, end: str, count: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        path_between(table, start, end, count=count)


def test_the_way_is_cut_into_equal_angles() -> None:
    start, end = np.eye(2, 3, dtype=np.float32)
    third = on_the_way(start, end, 1 / 3)
    np.testing.assert_allclose(third, [np.cos(np.pi / 6), np.sin(np.pi / 6), 0], atol=1e-6)
    assert np.isfinite(on_the_way(start, -start, 0.5)).all()
    np.testing.assert_allclose(on_the_way(start, start, 0.5), start)
