from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, find_embeddings
from raymtr.errors import InputError, UnusableError
from raymtr.index import build_tables, tune
from raymtr.index import publish as publishing
from raymtr.index.build import KINDS, Build, table_name
from raymtr.index.build_tables import choose_index, tracks_table
from raymtr.index.filters import parse_filter
from raymtr.index.gate import find_answer_faults
from raymtr.index.publish import GRACE, kept_builds, live_build, publish, roll_back, write_record
from raymtr.index.track_table import TrackTable
from raymtr.specs import SearchSpec
from raymtr.vectors import unit
from raymtr.workspace import Workspace

pytestmark = pytest.mark.slow

DIM = 16


def unit_rows(rng: np.random.Generator, count: int) -> np.ndarray:
    return unit(rng.standard_normal((count, DIM)))


@pytest.fixture
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    rng = np.random.default_rng(0)
    workspace = make_workspace([{"track_id": f"t{i}", "uri": f"/t{i}.wav"} for i in range(20)])
    commit_vectors(workspace, {f"t{i}": unit_rows(rng, 1 + i % 3) for i in range(20)})
    return workspace


def put_live(workspace: Workspace, *, keep: int = 2, shards: EmbeddingStore | None = None) -> Build:
    catalog = storage.read_tables(workspace.tracks)
    tracks = tracks_table(catalog, None)
    shards = shards or find_embeddings(workspace)
    return publish(workspace, [tracks], shards, search=SearchSpec(keep_versions=keep))


def tables(workspace: Workspace) -> list[str]:
    return sorted(lancedb.connect(workspace.db).list_tables().tables)


def test_a_build_serves_what_was_embedded(workspace: Workspace) -> None:
    build = put_live(workspace)
    assert live_build(workspace) == build
    assert build.rows == {"tracks": 20, "vectors": 20, "windows": 39}
    assert build.fingerprint == "made-up"
    ids, matrix = TrackTable(workspace.db, build).all_vectors()
    embedded = find_embeddings(workspace).read_tracks()
    expected = dict(
        zip(embedded["track_id"].to_pylist(), embedded["vector"].to_pylist(), strict=True)
    )
    np.testing.assert_allclose(matrix, [expected[i] for i in ids], atol=1e-3)


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "GRACE", timedelta(0))


def names(workspace: Workspace) -> list[str]:
    """The builds that are kept, each with its record and all of its tables."""
    kept = [build.name for build in kept_builds(workspace)]
    assert tables(workspace) == sorted(table_name(kind, name) for kind in KINDS for name in kept)
    return kept


def test_only_the_last_builds_are_kept_and_rollback_goes_back(
    workspace: Workspace, no_grace: None
) -> None:
    first, second, third = (put_live(workspace) for _ in range(3))
    assert names(workspace) == [second.name, third.name]
    assert roll_back(workspace) == second
    assert live_build(workspace) == second
    assert TrackTable(workspace.db, second).nearest(np.eye(DIM, dtype=np.float32)[0], limit=3)
    with pytest.raises(InputError, match="nothing to roll back"):
        roll_back(workspace)
    fourth = put_live(workspace, keep=1)
    assert fourth.name > third.name > second.name > first.name
    assert names(workspace) == [fourth.name]


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_what_served_until_now_stays_for_its_readers(workspace: Workspace, keep: int) -> None:
    first, _ = put_live(workspace, keep=keep), put_live(workspace, keep=keep)
    roll_back(workspace)
    reader = TrackTable(workspace.db, first)
    last = put_live(workspace, keep=keep)  # drops by its number what serves until this moment
    assert {first.name, last.name} <= set(names(workspace))
    assert reader.match_words("music", limit=3) == [] and len(reader.matching(None)) == 20
    assert len(reader.windows(["t1"])) == 2


def test_a_rollback_goes_to_what_served_before_whatever_its_number(
    workspace: Workspace, no_grace: None
) -> None:
    first, second = put_live(workspace), put_live(workspace)
    assert roll_back(workspace) == first
    third = put_live(workspace)
    assert names(workspace) == [first.name, third.name], "nobody goes back to the second"
    assert roll_back(workspace) == first and second.after == third.after == first.name


def test_grace_ends_with_the_next_build_after_it(workspace: Workspace) -> None:
    first, second = put_live(workspace, keep=1), put_live(workspace, keep=1)
    assert names(workspace) == [first.name, second.name]
    long_ago = (datetime.now(UTC) - 2 * GRACE).isoformat()
    write_record(workspace, replace(first, retired_at=long_ago))
    third = put_live(workspace, keep=1)
    assert names(workspace) == [second.name, third.name]


def test_records_of_an_earlier_version_go_back_by_number(workspace: Workspace) -> None:
    first, second = put_live(workspace), put_live(workspace)
    for name in (f"builds/{first.name}", f"builds/{second.name}", "live"):
        uri = f"{workspace.db}/{name}.json"
        record = storage.read_json(uri)
        storage.write_json(
            uri, {k: v for k, v in record.items() if k not in ("after", "retired_at")}
        )
    assert roll_back(workspace).name == first.name
    assert put_live(workspace).after == first.name


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
    shards = find_embeddings(workspace)
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
        "double": "2 track ids occur more than once in tracks",
        "nan": "not published: .*NaN",
        "long": "1 vectors in vectors do not have length 1",
    }[damage]
    with pytest.raises(UnusableError, match=message):
        publish(workspace, [tracks], shards, search=SearchSpec())
    assert live_build(workspace) == good
    assert all(name.endswith(good.name) for name in tables(workspace))


def test_an_exact_build_is_not_published_before_it_answers_a_search_by_vector(
    workspace: Workspace, commit_vectors: Callable
) -> None:
    one = put_live(workspace)
    rng = np.random.default_rng(9)
    commit_vectors(workspace, {f"t{i}": unit_rows(rng, 1) for i in range(20)}, fingerprint="other")
    other = put_live(workspace)
    assert one.index.kind == "exact"
    db = lancedb.connect(workspace.db)
    own = {kind: db.open_table(table_name(kind, one.name)) for kind in KINDS}
    assert find_answer_faults(TrackTable(workspace.db, one), own) == []
    (fault,) = find_answer_faults(TrackTable(workspace.db, other), own)
    assert re.fullmatch(r"a search by the vector of track 't\d+' does not find that track", fault)


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

    tuned = publish(workspace, [tracks], find_embeddings(workspace), search=approximate)
    assert tuned.trial and min(tuned.trial.recall.values()) >= 0.99
    assert tuned.index.nprobes > tune.LEAST_NPROBES, "noise needs many partitions"
    assert live_build(workspace) == tuned
    assert tune.settings_by_cost(tuned.index)[0] == tuned.index  # a change begins here

    monkeypatch.setattr(tune, "REFINES", (1,))
    monkeypatch.setattr(tune, "LEAST_NPROBES", 1)
    cheapest = tune.settings_by_cost(tuned.index)[:1]
    monkeypatch.setattr(tune, "settings_by_cost", lambda index: cheapest)
    with pytest.raises(UnusableError, match=r"recall@10 on text queries is 0\.\d+ with 1 of 50"):
        publish(workspace, [tracks], find_embeddings(workspace), search=approximate)
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


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([b"\xff"] * 20), "the record of track 't0' cannot be written as JSON"),
        (
            pa.array([float("nan")] * 20),
            "the record of track 't0' cannot be written as JSON: Out of range",
        ),
        (pa.array(["x"] * 20), 'No field named "mo`od"'),
    ],
)
def test_a_build_that_fails_its_readers_does_not_serve(
    workspace: Workspace, column: pa.Array, message: str
) -> None:
    good = put_live(workspace)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    name = "mo`od" if pa.types.is_string(column.type) else "mood"
    damaged = tracks.append_column(name, column)
    with pytest.raises(UnusableError, match=f"not published: .*{message}"):
        publish(workspace, [damaged], find_embeddings(workspace), search=SearchSpec())
    assert live_build(workspace) == good and names(workspace) == [good.name]


def test_the_gate_asks_each_column_for_its_own_value(workspace: Workspace) -> None:
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    many = {
        "bpm": pa.array([None, 120.5] * 10),
        "gain": pa.array([0.1] * 20, pa.float32()),
        "live": pa.array([False, None] * 10),
        "day": pa.array([date(2020, 1, 31)] * 20),
        "seen": pa.array([datetime(2020, 1, 31, 5)] * 20, pa.timestamp("us", "UTC")),
        "moods": pa.array([[], [2**63 - 1]] * 10, pa.list_(pa.int64())),
        "it's": pa.array(["'", None] * 10),
        "big": pa.array([2**64 - 1] * 20, pa.uint64()),
        "least": pa.array([-(2**63)] * 20),
        "nothing": pa.nulls(20, pa.string()),
        "meta": pa.array([{"k": "x"}] * 20),
    }
    for name, column in many.items():
        tracks = tracks.append_column(name, column)
    build = publish(workspace, [tracks], find_embeddings(workspace), search=SearchSpec())
    table = TrackTable(workspace.db, build)
    for text in ("live = false", "seen = '2020-01-31 05:00:00'", "moods has 9223372036854775807"):
        where = parse_filter(text, table.filterable)
        assert table.nearest(np.eye(DIM, dtype=np.float32)[0], limit=1, where=where), text
