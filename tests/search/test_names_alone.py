"""A word that only a name has leads to it, however many tracks sound like the word."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from builders import publish_catalog

from raymtr.index.track_table import TrackTable
from raymtr.search.contract import SearchRequest
from raymtr.search.ranking import fuse
from raymtr.search.request import check_request
from raymtr.search.retrievers import QueryVector, retrieve
from raymtr.search.understand import understand

DIM, COUNT, PAGE = 8, 400, 10
OTHERS = ["Hollandex", "방탄소년단", "P!nk Floyd Tribute", *(f"Somebody {n}" for n in range(4))]


@pytest.fixture(scope="module")
def table(make_workspace: Callable, commit_vectors: Callable) -> TrackTable:
    """The tracks that names are asked for are the farthest from what every text means."""
    rows = [
        {
            "track_id": f"t{n:03}",
            "uri": f"/{n}.wav",
            "title": f"Tune {n}",
            "artist": "Nadie Hollander" if n >= COUNT - 3 else OTHERS[n % 7],
            "album": "Blue Hours" if n >= COUNT - 3 else None,
            "tags": ["blue piano"] if n % 2 else ["calm"],
        }
        for n in range(COUNT)
    ]
    workspace = make_workspace(rows)
    angles = np.linspace(0, np.pi, COUNT)
    vectors = np.zeros((COUNT, DIM), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(angles), np.sin(angles)
    commit_vectors(workspace, {row["track_id"]: vectors[n][None] for n, row in enumerate(rows)})
    build = publish_catalog(workspace)
    return TrackTable(workspace.db, build)


def first_page(table: TrackTable, text: str, where: str | None = None) -> list[str]:
    request = check_request(SearchRequest(text=text, where=where), table)
    directions = [QueryVector("text", np.eye(DIM, dtype=np.float32)[0])]
    with ThreadPoolExecutor(4) as threads:
        retrieved = retrieve(
            table, request, understand(text, table), directions, limit=100, threads=threads
        )
    return [candidate.track_id for candidate in fuse(retrieved)[:PAGE]]


@pytest.mark.slow
@pytest.mark.parametrize("text", ["nadie", "Hollander", "hollander nadie", "nadie blue hours"])
@pytest.mark.parametrize("where", [None, "tags has 'calm'"])
def test_a_word_that_only_names_have_is_on_the_first_page(
    table: TrackTable, text: str, where: str | None
) -> None:
    wanted = {"t397", "t398", "t399"} if where is None else {"t398"}
    assert wanted <= set(first_page(table, text, where)[: len(wanted)])


def test_two_syllables_of_a_longer_name_find_it(table: TrackTable) -> None:
    wanted = {f"t{n:03}" for n in range(COUNT - 3) if n % 7 == 1}
    assert set(first_page(table, "방탄")) < wanted
    assert set(first_page(table, "방탄", "tags has 'calm'")) < wanted
    assert table.match_names("탄방", limit=5) == table.match_names("dc", limit=5) == []


def test_signs_that_stand_for_letters_are_found_by_them(table: TrackTable) -> None:
    assert set(first_page(table, "pink")) < {f"t{n:03}" for n in range(COUNT) if n % 7 == 2}


def test_part_of_a_name_is_no_other_name_misspelt(table: TrackTable) -> None:
    assert understand("hollandix", table).artist == "Hollandex"
    assert understand("hollander", table).kind == "description"
    assert {"t397", "t398", "t399"} == set(first_page(table, "hollander")[:3])


def test_a_word_that_tags_have_is_no_name_first(table: TrackTable) -> None:
    assert first_page(table, "blue")[0] == "t001"
