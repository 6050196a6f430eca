from __future__ import annotations

from collections.abc import Callable

import lancedb
import numpy as np
import pytest
from builders import publish_catalog

from raymtr import storage
from raymtr.embeddings.store import matrix_of
from raymtr.errors import UnusableError
from raymtr.index.build_tables import tracks_table
from raymtr.index.filters import parse_filter
from raymtr.index.track_rows import NEWER_COLUMNS, InMemoryRows
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.vectors import unit
from raymtr.workspace import Workspace

DIM = 32
ARTISTS = ["Björk", "The Who", "O'Jays", "AC/DC"]


def catalog_row(index: int) -> dict:
    return {
        "track_id": f"t{index:05d}",
        "uri": f"/{index}.wav" if index % 10 else None,
        "title": f"Song {index}",
        "artist": ARTISTS[index % 4],
        "year": 1960 + index % 60 if index % 7 else None,
        "tags": ["jazz", "calm"] if index % 3 else ["rock"],
        "similar_artists": [ARTISTS[(index + 1) % 4], ARTISTS[(index + 2) % 4]],
        "BPM": float(index),
    }


@pytest.fixture(params=["exact", "ivf_rq"])
def table(
    request: pytest.FixtureRequest, make_workspace: Callable, commit_vectors: Callable
) -> TrackTable:
    """The same questions to a table searched exactly and to one with a vector index."""
    rng = np.random.default_rng(0)
    count = 5_000 if request.param == "ivf_rq" else 300
    rows = [catalog_row(index) for index in range(count)]
    workspace: Workspace = make_workspace(rows)
    vectors = unit(rng.standard_normal((count, 2, DIM)))
    commit_vectors(
        workspace, {row["track_id"]: vectors[i] for i, row in enumerate(rows) if row["uri"]}
    )
    build = publish_catalog(workspace, search=SearchSpec(exact_below=1_000))
    assert build.index.kind == request.param
    return TrackTable(workspace.db, build)


@pytest.mark.slow
def test_after_warming_searches_load_nothing_more(table: TrackTable) -> None:
    session = lancedb.Session(index_cache_size_bytes=1 << 30)
    mine = TrackTable(table._db.uri, table.build, session)
    mine.warm()
    warm = session.size_bytes
    for query in table.all_vectors()[1][:50]:
        mine.nearest(query, limit=10)
    assert session.size_bytes == warm


@pytest.mark.slow
def test_one_table_answers_all_kinds_of_lookup(table: TrackTable) -> None:
    """One test over many questions, for the table with the index takes seconds to make."""
    ids, matrix = table.all_vectors()
    assert len(ids) == table.build.rows["vectors"] == table.build.rows["tracks"] * 9 // 10

    # nearest: the exact order, scores are cosines
    query = matrix[7]
    exact = np.argsort(-(matrix @ query))[:10]
    found = table.nearest(query, limit=10)
    assert found[0][0] == ids[7] and found[0][1] == pytest.approx(1.0, abs=2e-3)
    assert len({i for i, _ in found} & {ids[row] for row in exact}) >= 9
    assert [score for _, score in found] == sorted((s for _, s in found), reverse=True)

    # a filter is applied before, so as many come back as match, and they match
    for text, matches in {
        "tags has 'rock' and year >= 2000": lambda r: (
            "rock" in r["tags"] and (r["year"] or 0) >= 2000
        ),
        "BPM < 30": lambda r: r["BPM"] < 30,
        "artist = 'O''Jays'": lambda r: r["artist"] == "O'Jays",
        "year is null": lambda r: r["year"] is None,
    }.items():
        where = parse_filter(text, table.filterable)
        wanted = {
            row["track_id"]
            for row in map(catalog_row, range(table.build.rows["tracks"]))
            if matches(row)
        }
        assert table.matching(where) == wanted
        found = table.nearest(query, limit=10, where=where)
        assert len(found) == 10 and {i for i, _ in found} <= wanted
        best = max(
            (i for i in range(len(ids)) if ids[i] in wanted), key=lambda i: matrix[i] @ query
        )
        assert found[0][0] == ids[best]
        named = table.match_words("calm jazz", limit=10, where=where)
        assert {i for i, _ in named} <= wanted

    # of tracks that match equally well the first of the table, wherever the list is cut
    rock = [f"t{index:05d}" for index in range(0, table.build.rows["tracks"], 3)]
    for limit in (10, 20):
        assert [i for i, _ in table.match_words("rock", limit=limit)] == rock[:limit]

    # names that hold all words, whichever share only some
    assert table.match_names("who song 101", limit=5)[0][0] == "t00101"
    found = table.match_names("song 12", limit=5)
    assert "t00012" in dict(found) and all("12" in i for i, _ in found) and len(found) == 5
    assert table.match_names("bjork nobody", limit=5) == table.match_names("", limit=5) == []
    short = dict(table.match_names("ac dc", limit=5))  # no word of it has three letters
    assert len(short) == 5 and {r["artist"] for r in table.rows(list(short)).values()} == {"AC/DC"}
    assert table.match_names("dc ac", limit=5) == table.match_names("dc", limit=5) == []

    # rows, names, neighbours in the artist graph, vectors, windows
    rows = table.rows(["t00003", "absent"])
    assert rows == {
        "t00003": catalog_row(3)
        | dict.fromkeys(("album", "duration", "dataset", "split", "file_version", "audio_digest"))
        | {"artists": ["AC/DC"]}
    }
    assert table.rows([]) == {}
    assert {row["artist"] for row in table.named(["acdc"])} == {"AC/DC"}
    assert [row["track_id"] for row in table.named(["song12", "nobody"])] == ["t00012"]
    assert table.named([]) == []
    assert table.similar_to("who")["t00000"] == 0 and table.similar_to("who")["t00003"] == 1
    assert table.similar_to("it's") == {}
    assert table.spelt_like("bjrok song 12", limit=5)
    assert set(table.vectors(["t00001", "t00010", "absent"])) == {"t00001"}
    windows = table.windows(["t00001", "t00002"])
    assert sorted(windows["start_s"].to_pylist()) == [0.0, 0.0, 10.0, 10.0]
    assert matrix_of(windows["vector"]).shape == (4, DIM)
    assert table.tags == {"jazz", "calm", "rock"}
    assert "words" not in table.columns and "_title_key" not in table.filterable.names

    if table.build.index.kind != "exact":
        assert table.build.trial and min(table.build.trial.recall.values()) >= 0.99
        plan = table._vectors.search(query, vector_column_name="vector").distance_type("cosine")
        assert "ANNSubIndex" in plan.limit(5).explain_plan()


def test_a_build_of_before_there_were_artists_tells_them_too(make_workspace: Callable) -> None:
    rows = [{"track_id": "a", "artist": "Alba; Bruno"}, {"track_id": "b", "title": "Nobody's"}]
    workspace = make_workspace(rows)
    table = TrackTable(workspace.db, publish_catalog(workspace))
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    table._rows = InMemoryRows(tracks.drop_columns(list(NEWER_COLUMNS)))
    for columns in (None, ["artist", "artists"]):
        found = table.rows(["a", "b"], columns)
        assert found["a"]["artists"] == ["Alba", "Bruno"] and found["b"]["artists"] is None


def test_a_missing_table_is_named_with_the_cure(
    make_workspace: Callable, commit_vectors: Callable
) -> None:
    workspace = make_workspace([{"track_id": "a", "uri": "/a.wav"}])
    commit_vectors(workspace, {"a": np.eye(4, dtype=np.float32)[:1]})
    build = publish_catalog(workspace)
    storage.delete(f"{workspace.db}/vectors_{build.name}.lance")
    with pytest.raises(UnusableError, match=r"vectors_000001.*raymtr index"):
        TrackTable(workspace.db, build)
