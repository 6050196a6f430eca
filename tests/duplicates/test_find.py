from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from raymtr import storage
from raymtr.duplicates import find as duplicates
from raymtr.duplicates.find import (
    copies,
    cut_to_length,
    find_duplicates,
    read_groups,
    write_duplicates,
)
from raymtr.duplicates.same_song import COPY, COPY_S
from raymtr.embeddings.store import find_embeddings
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

DIM = 32


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float32)


def near(vector: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """A unit vector at this cosine to another."""
    other = rng.standard_normal(len(vector))
    other = unit(other - (other @ vector) * vector)
    return unit(cosine * vector + np.sqrt(1 - cosine**2) * other)


@pytest.fixture
def make_table(make_workspace: Callable, commit_vectors: Callable) -> Callable:
    """A function: rows with `vector` and perhaps `duration` -> the published table."""

    def make(rows: list[dict], *, exact_below: int = 200_000) -> tuple[Workspace, TrackTable]:
        vectors = {row["track_id"]: row.pop("vector")[None] for row in rows if "vector" in row}
        workspace = make_workspace(
            [
                {"uri": f"/{row['track_id']}" if row["track_id"] in vectors else None} | row
                for row in rows
            ]
        )
        if vectors:
            commit_vectors(workspace, vectors)
        tracks = tracks_table(storage.read_tables(workspace.tracks), None)
        shards = find_embeddings(workspace) if vectors else None
        build = publish(workspace, [tracks], shards, search=SearchSpec(exact_below=exact_below))
        return workspace, TrackTable(workspace.db, build)

    return make


def found(table: TrackTable) -> dict[str, tuple[int, str]]:
    rows = find_duplicates(table).to_pylist()
    assert len({row["track_id"] for row in rows}) == len(rows)
    return {row["track_id"]: (row["group"], row["class"]) for row in rows}


@pytest.mark.slow
def test_copies_masters_and_versions_are_distinguished(make_table: Callable) -> None:
    rng = np.random.default_rng(0)
    song, other, third = unit(rng.standard_normal((3, DIM)))
    rows = [
        {"track_id": "a", "title": "Song", "duration": 200.0, "vector": song},
        {"track_id": "b", "title": "track 01", "artist": None, "duration": 200.0, "vector": song},
        {"track_id": "mp3", "title": "Song", "duration": 200.05, "vector": near(song, 0.95, rng)},
        {"track_id": "loud", "title": "Song", "duration": 202.0, "vector": near(song, 0.8, rng)},
        {
            "track_id": "live",
            "title": "Song (Live)",
            "duration": 260.0,
            "vector": near(song, 0.7, rng),
        },
        # As alike as music of one artist gets, and as long: another piece all the same.
        {"track_id": "c", "title": "Song Two", "duration": 200.0, "vector": near(song, 0.998, rng)},
        {"track_id": "d", "title": "Else", "duration": 90.0, "vector": other},
        {"track_id": "e", "title": "Else", "artist": "B", "duration": 90.0, "vector": third},
        {"track_id": "words", "title": "Song"},
    ]
    workspace, table = make_table([{"artist": "A"} | row for row in rows])
    rows_found = find_duplicates(table)
    classes = {row["track_id"]: row["class"] for row in rows_found.to_pylist()}
    assert classes == {
        "a": "kept",
        "b": "same recording",
        "mp3": "same recording",
        "loud": "different master",
        "live": "other version",
    }
    assert set(rows_found["group"].to_pylist()) == {0}
    cosines = dict(
        zip(rows_found["track_id"].to_pylist(), rows_found["cosine"].to_pylist(), strict=True)
    )
    assert cosines["mp3"] == pytest.approx(0.95, abs=2e-3) and cosines["b"] > COPY
    assert read_groups(workspace) is None
    write_duplicates(workspace, rows_found)
    assert read_groups(workspace) == dict.fromkeys(classes, 0)


@pytest.mark.slow
@pytest.mark.parametrize("tracks", [0, 1])
def test_too_few_tracks_have_no_duplicates(make_table: Callable, tracks: int) -> None:
    rows = [
        {
            "track_id": "a",
            "title": "Song",
            "artist": "A",
            "vector": np.eye(DIM, dtype=np.float32)[0],
        }
    ]
    _, table = make_table([*rows[:tracks], {"track_id": "words", "title": "Song", "artist": "A"}])
    assert find_duplicates(table).num_rows == 0
    assert find_duplicates(table).schema.equals(duplicates.SCHEMA)


@pytest.mark.slow
def test_an_unknown_duration_is_where_the_last_window_ends(make_table: Callable) -> None:
    vector = unit(np.random.default_rng(0).standard_normal(DIM))
    rows = [
        {"track_id": i, "title": i, "artist": "A", "duration": seconds, "vector": vector}
        for i, seconds in (("a", None), ("b", None), ("c", 33.0))
    ]
    _, table = make_table(rows)
    rows = find_duplicates(table).to_pylist()
    assert [(row["track_id"], row["seconds"]) for row in rows] == [("a", 10.0), ("b", 10.0)]


@pytest.mark.slow
def test_the_same_is_found_in_a_table_with_an_index(make_table: Callable) -> None:
    rng = np.random.default_rng(1)
    vectors = unit(rng.standard_normal((2_000, DIM)))
    vectors[1_000:1_010] = vectors[:10]
    rows = [
        {
            "track_id": f"t{n:04}",
            "title": f"Song {n}",
            "artist": "A",
            "duration": 100.0 + n % 1000,
            "vector": vector,
        }
        for n, vector in enumerate(vectors)
    ]
    _, table = make_table(rows, exact_below=1)
    assert table.build.index.kind == "ivf_rq"
    assert found(table) == {f"t{n:04}": (n, "kept") for n in range(10)} | {
        f"t{n + 1000:04}": (n, "same recording") for n in range(10)
    }


def test_no_copy_is_missed_between_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the whole matrix at once: the same tracks are joined to the same ones."""
    monkeypatch.setattr(duplicates, "BLOCK", 37)
    rng = np.random.default_rng(2)
    vectors = unit(rng.standard_normal((300, 8)))[rng.integers(0, 300, 1_000)]
    vectors = unit(vectors + 2e-3 * rng.standard_normal(vectors.shape)).astype(np.float16)
    seconds = rng.choice([100.0, 100.05, 200.0], len(vectors))
    pairs = list(copies(vectors, seconds))
    matrix = unit(vectors.astype(np.float32))
    alike = (matrix @ matrix.T >= COPY) & (abs(seconds[:, None] - seconds) <= COPY_S)
    assert all(alike[one, other] and one != other for one, other, _ in pairs)
    np.fill_diagonal(alike, False)
    assert 300 < len(pairs) < len(vectors)
    assert {row for pair in pairs for row in pair[:2]} == set(np.flatnonzero(alike.any(axis=1)))


@pytest.mark.slow
def test_a_model_that_gives_all_one_vector_finds_nothing_by_vector(
    make_table: Callable, caplog: pytest.LogCaptureFixture
) -> None:
    vector = unit(np.ones(DIM))
    rows = [
        {
            "track_id": f"t{n:02}",
            "title": f"S{n}",
            "artist": "A",
            "duration": 60.0,
            "vector": vector,
        }
        for n in range(30)
    ]
    rows[1]["title"] = "s0"
    _, table = make_table(rows)
    assert find_duplicates(table)["track_id"].to_pylist() == ["t00", "t01"]
    assert "most tracks one vector" in caplog.text


def test_parts_of_one_piece_cut_to_one_length_are_no_copies() -> None:
    seconds = np.concatenate([np.full(30, 30.0), np.linspace(60, 300, 70)])
    assert cut_to_length(seconds).tolist() == [True] * 30 + [False] * 70
    assert not cut_to_length(np.full(9, 30.0)).any()


@pytest.mark.slow
def test_a_name_that_everything_has_is_no_song(
    make_table: Callable, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(duplicates, "MOST_OF_ONE_NAME", 4)
    rng = np.random.default_rng(3)
    vector = unit(rng.standard_normal(DIM))
    rows = [
        {
            "track_id": f"t{n}",
            "title": "Jingle",
            "artist": "Station",
            "duration": 60.0 + 50 * n,
            "vector": near(vector, 0.9, rng),
        }
        for n in range(5)
    ]
    _, table = make_table(rows)
    assert found(table) == {} and "5 tracks are called station/jingle" in caplog.text


def test_no_chain_folds_what_is_unlike(make_table: Callable) -> None:
    """Each of twenty steps is a copy by its neighbour's vector; the ends are strangers."""
    rng = np.random.default_rng(4)
    one, other = unit(rng.standard_normal((2, DIM)))
    steps = unit(np.stack([one + step * 0.013 * other for step in range(20)]))
    assert (steps[:-1] * steps[1:]).sum(1).min() > COPY > steps[0] @ steps[3]
    rows = [
        {"track_id": f"t{n:02}", "title": f"S{n}", "artist": f"A{n}", "duration": 60.0, "vector": v}
        for n, v in enumerate([*steps, *unit(rng.standard_normal((20, DIM)))])
    ]
    _, table = make_table(rows)
    rows = find_duplicates(table).to_pylist()
    assert rows and min(row["cosine"] for row in rows) >= COPY


@pytest.mark.slow
def test_pieces_under_a_placeholder_are_all_shown(make_table: Callable) -> None:
    """Thirty pieces that a ripper called "Track 01" by "Unknown Artist"; one is there twice."""
    rng = np.random.default_rng(5)
    centre = unit(rng.standard_normal(DIM))
    vectors = [near(centre, 0.95, rng) for _ in range(29)]
    rows = [
        {"track_id": f"t{n:02}", "title": "Track 01", "artist": "Unknown Artist"}
        | {"duration": 60.0 + n // 2, "vector": vector}
        for n, vector in enumerate([vectors[0], *vectors])
    ]
    rows[0]["duration"] = rows[1]["duration"]
    _, table = make_table(rows)
    assert found(table) == {"t00": (0, "kept"), "t01": (0, "same recording")}
