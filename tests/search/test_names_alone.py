"""A word that only a name has leads to it, however many tracks sound like the word."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from raymtr import storage
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.index.shards import find_shards
from raymtr.index.track_table import TrackTable
from raymtr.search.arms import Direction, run_arms
from raymtr.search.ranking import fuse
from raymtr.search.request import read_request
from raymtr.search.understand import understand
from raymtr.specs import SearchSpec

DIM, COUNT, PAGE = 8, 400, 10


@pytest.fixture(scope="module")
def table(make_workspace: Callable, commit_vectors: Callable) -> TrackTable:
    """The tracks that names are asked for are the farthest from what every text means."""
    rows = [
        {
            "track_id": f"t{n:03}",
            "uri": f"/{n}.wav",
            "title": f"Tune {n}",
            "artist": "Nadie Hollander" if n >= COUNT - 3 else f"Somebody {n % 7}",
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
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    build = publish(workspace, tracks, find_shards(workspace), search=SearchSpec())
    return TrackTable(workspace.db, build)


def first_page(table: TrackTable, text: str, where: str | None = None) -> list[str]:
    request = read_request({"text": text, "where": where}, table)
    directions = [Direction("text", np.eye(DIM, dtype=np.float32)[0])]
    with ThreadPoolExecutor(4) as threads:
        arms = run_arms(
            table, request, understand(text, table), directions, limit=100, threads=threads
        )
    return [candidate.track_id for candidate in fuse(arms)[:PAGE]]


@pytest.mark.parametrize("text", ["nadie", "Hollander", "hollander nadie", "nadie blue hours"])
@pytest.mark.parametrize("where", [None, "tags has 'calm'"])
def test_a_word_that_only_names_have_is_on_the_first_page(
    table: TrackTable, text: str, where: str | None
) -> None:
    wanted = {"t397", "t398", "t399"} if where is None else {"t398"}
    assert wanted <= set(first_page(table, text, where)[: len(wanted)])


def test_a_word_that_tags_have_is_no_name_first(table: TrackTable) -> None:
    assert first_page(table, "blue")[0] == "t001"
