from __future__ import annotations

from collections.abc import Callable

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raymtr import storage
from raymtr.errors import InputError, UnusableError
from raymtr.index import build_tables, tune
from raymtr.index.build_tables import choose_index, tracks_table
from raymtr.index.publish import kept_builds, live_build, publish, roll_back
from raymtr.index.shards import Shards, find_shards
from raymtr.index.track_table import Build, TrackTable
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace

DIM = 16


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    rows = rng.standard_normal((count, DIM)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    rng = np.random.default_rng(0)
    workspace = make_workspace([{"track_id": f"t{i}", "uri": f"/t{i}.wav"} for i in range(20)])
    commit_vectors(workspace, {f"t{i}": unit_rows(rng, 1 + i % 3) for i in range(20)})
    return workspace


def put_live(workspace: Workspace, *, keep: int = 2, shards: Shards | None = None) -> Build:
    catalog = storage.read_tables(workspace.tracks)
    tracks = tracks_table(catalog, None)
    shards = shards or find_shards(workspace)
    return publish(workspace, tracks, shards, search=SearchSpec(keep_versions=keep))


def tables(workspace: Workspace) -> list[str]:
    return sorted(lancedb.connect(workspace.db).list_tables().tables)


def test_a_build_serves_what_was_embedded(workspace: Workspace) -> None:
    build = put_live(workspace)
    assert live_build(workspace) == build
    assert build.rows == {"tracks": 20, "vectors": 20, "windows": 39}
    assert build.fingerprint == "made-up"
    ids, matrix = TrackTable(workspace.db, build).all_vectors()
    embedded = find_shards(workspace).read_tracks()
    expected = dict(
        zip(embedded["track_id"].to_pylist(), embedded["vector"].to_pylist(), strict=True)
    )
    np.testing.assert_allclose(matrix, [expected[i] for i in ids], atol=1e-3)


def test_only_the_last_builds_are_kept_and_rollback_goes_back(workspace: Workspace) -> None:
    first, second, third = (put_live(workspace) for _ in range(3))
    assert [build.name for build in kept_builds(workspace)] == [second.name, third.name]
    assert {name.rpartition("_")[2] for name in tables(workspace)} == {second.name, third.name}
    assert roll_back(workspace) == second
    assert live_build(workspace) == second
    assert TrackTable(workspace.db, second).nearest(np.eye(DIM, dtype=np.float32)[0], limit=3)
    with pytest.raises(InputError, match="nothing to roll back"):
        roll_back(workspace)
    fourth = put_live(workspace, keep=1)
    assert fourth.name > third.name > second.name > first.name
    assert tables(workspace) == sorted(
        f"{k}_{fourth.name}" for k in ("tracks", "vectors", "windows")
    )


def test_tables_of_a_killed_build_are_dropped(workspace: Workspace) -> None:
    lancedb.connect(workspace.db).create_table("tracks_000001", pa.table({"track_id": ["x"]}))
    build = put_live(workspace)
    assert build.name == "000002"
    assert all(name.endswith(build.name) for name in tables(workspace))


@pytest.mark.parametrize("damage", ["double", "nan", "long"])
def test_a_failed_gate_says_why_and_leaves_the_old_build(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    good = put_live(workspace)
    shards = find_shards(workspace)
    sound = shards.read_tracks()
    vectors = np.array(sound["vector"].to_pylist(), np.float32)
    if damage == "nan":
        vectors[3, 2] = np.nan
    if damage == "long":
        vectors[5] *= 1.5
    flat = pa.array(vectors.reshape(-1), pa.float32())
    damaged = pa.table(
        {"track_id": sound["track_id"], "vector": pa.FixedSizeListArray.from_arrays(flat, DIM)}
    )
    monkeypatch.setattr(shards, "read_tracks", lambda: damaged)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    if damage == "double":
        tracks = pa.concat_tables([tracks, tracks.slice(0, 2)])
    message = {
        "double": "2 track ids stand more than once in tracks",
        "nan": "not published: .*NaN",
        "long": "1 vectors in vectors are not of length 1",
    }[damage]
    with pytest.raises(UnusableError, match=message):
        publish(workspace, tracks, shards, search=SearchSpec())
    assert live_build(workspace) == good
    assert all(name.endswith(good.name) for name in tables(workspace))


def test_an_index_that_finds_too_little_does_not_serve(
    make_workspace: Callable, commit_vectors: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    ids = [f"t{i}" for i in range(3000)]
    workspace = make_workspace([{"track_id": i, "uri": f"/{i}.wav"} for i in ids])
    commit_vectors(workspace, dict(zip(ids, unit_rows(rng, 3000)[:, None], strict=True)))
    monkeypatch.setattr(build_tables, "VECTORS_PER_PARTITION", 60)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    approximate = SearchSpec(exact_below=1)

    tuned = publish(workspace, tracks, find_shards(workspace), search=approximate)
    assert tuned.trial and min(tuned.trial.recall.values()) >= 0.99
    assert tuned.index.nprobes > tune.LEAST_NPROBES, "noise needs many partitions"
    assert live_build(workspace) == tuned
    assert tune.settings_by_cost(tuned.index)[0] == tuned.index  # a change begins here

    monkeypatch.setattr(tune, "REFINES", (1,))
    monkeypatch.setattr(tune, "LEAST_NPROBES", 1)
    cheapest = tune.settings_by_cost(tuned.index)[:1]
    monkeypatch.setattr(tune, "settings_by_cost", lambda index: cheapest)
    with pytest.raises(UnusableError, match=r"recall@10 on text queries is 0\.\d+ with 1 of 50"):
        publish(workspace, tracks, find_shards(workspace), search=approximate)
    assert live_build(workspace) == tuned


def test_nothing_published_is_said_so(workspace: Workspace) -> None:
    with pytest.raises(InputError, match="raymtr index"):
        live_build(workspace)


def test_the_choice_follows_the_size() -> None:
    assert choose_index(199_999, 128, exact_below=200_000).kind == "exact"
    large = choose_index(1_000_000, 128, exact_below=200_000)
    assert (large.kind, large.partitions) == ("ivf_rq", 244)
    assert choose_index(300_000, 100, exact_below=200_000).kind == "ivf_sq"
    assert "search.exact_below=200000" in large.why


def test_captions_and_tags_become_words_and_names_keys() -> None:
    catalog = pa.table(
        {
            "track_id": ["a", "b"],
            "title": ["Hyperballad", None],
            "artist": ["Björk", None],
            "album": [None, None],
            "tags": [["trip hop"], None],
            "similar_artists": [["The Who"], None],
            "mood": pa.nulls(2),
        }
    )
    captions = pa.table({"track_id": ["a", "a"], "caption": ["A slow song", "with strings"]})
    row, silent = tracks_table(catalog, captions).to_pylist()
    assert row["words"] == "A slow song. with strings. trip hop"
    assert row["names"] == "hyperballad bjork"
    assert (row["_title_key"], row["_artist_key"]) == ("hyperballad", "bjork")
    assert row["_similar_keys"] == ["who"]
    assert silent["words"] == "" and silent["_title_key"] is None
    assert not pc.any(pc.is_null(tracks_table(catalog, None)["words"])).as_py()
