"""`index --upsert` and `--delete`, as their users see them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from jobs import build_index, change_index, find_duplicates
from jobs.__main__ import main
from raymtr import storage
from raymtr.audio_cache import cache_key
from raymtr.catalog.splits import assign_splits
from raymtr.embeddings.store import EmbeddingStore, ModelRef, find_embeddings
from raymtr.errors import InputError
from raymtr.index.build import table_name
from raymtr.index.filters import Filter, parse_filter
from raymtr.index.publish import live_build, put_live
from raymtr.ownership import index_lock
from raymtr.recipes import tiny
from raymtr.search.searcher import Searcher
from raymtr.search.understand import Understood, understand
from raymtr.tagging.columns import INDEXED
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

DIM = 8


def vectors(ids: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Two windows for each letter."""
    rng = np.random.default_rng(seed)
    return {i: unit(rng.standard_normal((2, DIM))) for i in ids}


@pytest.fixture
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    """Tracks a to e published, a and b one song; f and g embedded, but in no catalog."""
    rows = [
        {"track_id": i, "uri": f"/{i}.wav", "title": f"Tune {i}", "artist": "Ada"}
        | {"mood": "calm", "tempo": 60.5}
        for i in "abcde"
    ]
    workspace = make_workspace(rows)
    made = vectors("abcdefg")
    made["b"] = made["a"]
    commit_vectors(workspace, made, fingerprint="other")
    commit_vectors(workspace, made)
    captions = pa.table({"track_id": list("abcde"), "caption": ["a bell rings"] * 5})
    storage.write_table(f"{workspace.captions}/part-0.parquet", captions)
    build_index.build_index(workspace, tiny())
    return workspace


def index(workspace: Workspace, *words: str) -> int:
    return main(["index", "--workspace", workspace.root, *words])


def manifest(folder: Path, text: str) -> str:
    path = folder / "manifest.csv"
    path.write_text(text)
    return str(path)


def found(workspace: Workspace, **asked: object) -> list[str]:
    answer = Searcher(workspace).search(**{"mode": "keyword", **asked})
    return sorted(hit["track_id"] for hit in answer["hits"])


def catalog(workspace: Workspace) -> dict[str, dict]:
    return {row["track_id"]: row for row in storage.read_tables(workspace.tracks).to_pylist()}


@pytest.mark.slow
def test_an_upsert_adds_and_changes_tracks(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = manifest(
        tmp_path,
        "track_id,uri,title,artist,tags,mood\n"
        'f,/f.wav,Fresh,Bel,loud,wild\nc,,Renamed,,"loud,new",\nw,,Words Alone,Cid,,\n',
    )
    assert index(workspace, "--upsert", source, "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["added"], answer["changed"]) == (2, 1)
    assert (answer["tracks"], answer["vectors"], answer["windows"]) == (7, 6, 12)
    assert answer["table_version"] == f"{live_build(workspace).name}.1"
    assert "2 tracks added, 1 changed" in change_index.describe(answer)
    assert found(workspace, text="loud") == ["c", "f"]
    assert found(workspace, text="renamed") == ["c"] and found(workspace, text="words alone") == [
        "w"
    ]
    assert found(workspace, text="tune c") == []
    hits = Searcher(workspace).search(like=["f"], where="mood = 'calm'")["hits"]
    assert {hit["track_id"] for hit in hits} == set("abcde")  # c kept its mood, artist and sound
    here = catalog(workspace)
    assert here["c"]["uri"] == "/c.wav" and here["c"]["artist"] == "Ada" and here["f"]["split"]
    # A full index says the same.
    searches = [{"text": word} for word in ("loud", "fresh", "bell", "renamed")]
    before = [found(workspace, **search) for search in searches]
    build_index.build_index(workspace, tiny())
    assert [found(workspace, **search) for search in searches] == before


@pytest.mark.slow
def test_an_upsert_takes_along_what_was_heard_and_a_delete_removes_it(
    workspace: Workspace, tmp_path: Path
) -> None:
    heard = EmbeddingStore(workspace.heard, ModelRef(fingerprint="e", precision="fp32", dim=DIM))
    heard.take()
    rows = {name: pa.array([100.0] * 6, pa.float32()) for name in INDEXED[:1] + INDEXED[3:7]}
    rows |= {"key": ["A minor"] * 6, "mode": ["minor"] * 6, "heard": [["jazz"]] * 6}
    storage.write_table(
        f"{workspace.heard}/tracks/s.parquet", pa.table({"track_id": list("abcdef"), **rows})
    )
    storage.write_table(
        f"{workspace.heard}/sources/s.parquet", pa.table({"track_id": list("abcdef")})
    )
    heard.release()
    source = manifest(tmp_path, "track_id,uri,title\nf,/f.wav,Fresh\n")
    assert index(workspace, "--upsert", source) == 0  # tables without such columns stay without
    build_index.build_index(workspace, tiny())
    assert index(workspace, "--upsert", source) == 0
    assert found(workspace, text="fresh", where="bpm > 90 and key = 'A minor'") == ["f"]
    assert index(workspace, "--delete", source) == 0
    left = storage.read_tables(f"{workspace.heard}/tracks", ["track_id"])
    assert left["track_id"].to_pylist() == list("abcde")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("track_id,tempo,title\na,,Renamed\n", {"tempo": 60.5, "title": "Renamed"}),
        ("track_id,tempo\na,nan\n", {"tempo": 60.5}),
        ("track_id,tempo\na,120\n", {"tempo": 120.0}),
        ("track_id,mood\na,7\n", {"mood": "7"}),
        ("track_id,mood\na,007\n", {"mood": "007"}),
        ("track_id,mood,tempo\nw,true,\n", {"mood": "true", "tempo": None}),
        ('{"track_id":"a","tempo":null,"mood":null,"title":"X"}', {"tempo": 60.5, "mood": "calm"}),
        ('{"track_id":"a","tempo":90}', {"tempo": 90.0}),
        ('{"track_id":"a","tempo":NaN}', {"tempo": 60.5}),
        ('{"track_id":"w","title":"Words","mood":5}', {"mood": "5", "tempo": None}),
    ],
)
def test_an_upsert_takes_its_types_from_the_catalog(
    workspace: Workspace, tmp_path: Path, text: str, expected: dict
) -> None:
    path = tmp_path / ("m.jsonl" if text.startswith("{") else "m.csv")
    path.write_text(text)
    change_index.upsert_tracks(workspace, tiny(), str(path))
    track_id = "w" if '"w"' in text or "\nw," in text else "a"
    here = catalog(workspace)[track_id]
    track = Searcher(workspace).table.rows([track_id])[track_id]
    assert {name: here[name] for name in expected} == expected
    assert {name: track[name] for name in expected} == expected


@pytest.mark.slow
def test_a_track_credited_to_another_artist_follows_it_into_its_split(
    workspace: Workspace, tmp_path: Path
) -> None:
    names = ["Ada", *(f"Bel {number}" for number in range(30))]
    alone = pa.Table.from_pylist([{"track_id": n.replace(" ", ""), "artist": n} for n in names])
    drawn = assign_splits(check_tracks(alone)).to_pylist()
    split = {row["artist"]: row["split"] for row in drawn}
    other = next(name for name in names if split[name] != split["Ada"])
    for row in (f"f,/f.wav,{other}", f"c,,{other}"):  # a new track, then a credit put right
        source = manifest(tmp_path, f"track_id,uri,artist\n{row}\n")
        change_index.upsert_tracks(workspace, tiny(), source)
    here = catalog(workspace)
    assert here["c"]["split"] == here["f"]["split"] == split[other]
    assert here["a"]["split"] == split["Ada"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("track_id,uri\nx,/x.wav\ny,/y.wav\n", "2 of 2 tracks have no vector of model made-up"),
        (
            "track_id,uri\na,/elsewhere/a.wav\n",
            r"among them a; run `raymtr scan` and `raymtr embed`",
        ),
        ("track_id,key\na,major\n", "column 'key' is not in the live tables"),
        ("track_id,tempo\na,fast\n", r"'tempo', row 1 \(line 2\): 'fast' does not fit"),
        ("title\nx\n", "no track_id column"),
        ("track_id\na\na\n", "more than once"),
    ],
)
def test_a_wrong_upsert_changes_nothing(
    workspace: Workspace, tmp_path: Path, text: str, words: str
) -> None:
    live, before = live_build(workspace), catalog(workspace)
    with pytest.raises(InputError, match=words):
        change_index.upsert_tracks(workspace, tiny(), manifest(tmp_path, text))
    assert live_build(workspace) == live and catalog(workspace) == before


@pytest.mark.slow
def test_a_deleted_track_is_found_nowhere(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_index.build_index(workspace, tiny())
    find_duplicates.report_duplicates(workspace)
    key = cache_key(catalog(workspace)["b"])
    cached = [
        f"{workspace.audio_cache}/1-22050/{name}.npy" for name in (key, key.replace("b", "bb", 1))
    ]
    for file in cached:
        storage.write_bytes(file, b"x")
    ids = tmp_path / "ids.txt"
    ids.write_text("b\nnobody\n\n")
    assert index(workspace, "--delete", str(ids)) == 0
    out = capsys.readouterr().out
    assert "1 tracks deleted" in out and "1 were not known, among them nobody" in out
    assert "serving replicas within" in out

    for _ in range(2):  # the live build, then the one a rollback brings back
        searcher = Searcher(workspace)
        assert found(workspace, text="bell") == found(workspace, text="tune") == list("acde")
        with pytest.raises(InputError, match="unknown track_id 'b'"):
            searcher.search(like=["b"])
        assert {hit["track_id"] for hit in searcher.search(like=["a"])["hits"]} == set("cde")
        assert not len(searcher.table.windows(["b"])) and len(searcher.table.windows(["a"])) == 2
        assert index(workspace, "--rollback") in (0, 2)
    for folder in (workspace.tracks, workspace.captions, workspace.duplicates):
        assert "b" not in storage.read_tables(folder)["track_id"].to_pylist()
    for model in ("made-up", "other"):
        tracks, windows = find_embeddings(workspace, model).of_tracks(pa.array(["a", "b"]))
        assert tracks["track_id"].to_pylist() == ["a"]
        assert windows["track_id"].to_pylist() == ["a", "a"]
    assert find_embeddings(workspace).made_by.fingerprint == "made-up", (
        "still the last that finished"
    )
    assert [storage.exists(file) for file in cached] == [False, True]
    build_index.build_index(workspace, tiny())
    assert found(workspace, text="bell") == list("acde"), "a full index does not bring it back"
    with pytest.raises(InputError, match=r"none of the 2 tracks of .*ids.txt is in the catalog"):
        change_index.delete_tracks(workspace, str(ids))


@pytest.mark.slow
def test_a_track_scanned_again_is_back(
    workspace: Workspace, tmp_path: Path, commit_vectors: Callable
) -> None:
    source = manifest(tmp_path, "track_id,uri,title\na,/a.wav,Tune a\ne,/e.wav,Tune e\n")
    change_index.delete_tracks(workspace, source)
    assert found(workspace, text="tune") == list("bcd")
    assert main(["scan", source, "--workspace", workspace.root]) == 0
    with pytest.raises(InputError, match="no vector of model made-up"):
        change_index.upsert_tracks(workspace, tiny(), source)
    commit_vectors(workspace, vectors("ae", seed=1))
    change_index.upsert_tracks(workspace, tiny(), source)
    assert found(workspace, text="tune") == list("abcde")


@pytest.mark.slow
def test_an_unfinished_embed_is_left_alone_and_named(workspace: Workspace, tmp_path: Path) -> None:
    running = find_embeddings(workspace, "other")
    running.take()
    answer = change_index.delete_tracks(workspace, manifest(tmp_path, "track_id\nb\n"))
    assert answer["vectors_left_in"] == ["other"]
    assert "an unfinished `embed` still has vectors of other" in change_index.describe(answer)
    running.release()  # its token still holds


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b"\xff\xfe\x00", "is not text"), (b"x\ny\n", "none of the 2 tracks")],
)
def test_a_wrong_list_is_rejected(
    workspace: Workspace, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "ids").write_bytes(content)
    with pytest.raises(InputError, match=words):
        change_index.delete_tracks(workspace, str(tmp_path / "ids"))
    with pytest.raises(InputError, match="there is nothing at"):
        change_index.delete_tracks(workspace, str(tmp_path / "absent"))


@pytest.mark.slow
def test_two_index_jobs_at_once_are_rejected(
    workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = manifest(tmp_path, "track_id\nb\n")
    with index_lock(workspace):
        for words in ([], ["--rollback"], ["--upsert", source], ["--delete", source]):
            assert index(workspace, *words) == 1
            assert "another index job" in capsys.readouterr().err
    assert index(workspace, "--delete", source) == 0


@pytest.mark.slow
def test_readers_during_upserts_see_old_or_new(workspace: Workspace, tmp_path: Path) -> None:
    """A thread that opens and asks all the while: titles change together, nothing is doubled."""
    stop, seen, faults = threading.Event(), set(), []

    def read() -> None:
        while not stop.is_set():
            hits = Searcher(workspace).search("bell", mode="keyword", k=20)["hits"]
            ids = [hit["track_id"] for hit in hits]
            turns = {hit["title"].split()[-1] for hit in hits}
            if len(ids) != 5 or len(set(ids)) != 5 or len(turns) != 1:
                faults.append((ids, turns))
            seen.update(turns)

    rows = "\n".join(f"{i},Turn 0" for i in "abcde")
    change_index.upsert_tracks(workspace, tiny(), manifest(tmp_path, f"track_id,title\n{rows}\n"))
    reader = threading.Thread(target=read)
    reader.start()
    for turn in range(1, 5):
        rows = "\n".join(f"{i},Turn {turn}" for i in "abcde")
        change_index.upsert_tracks(
            workspace, tiny(), manifest(tmp_path, f"track_id,title\n{rows}\n")
        )
    stop.set()
    reader.join()
    assert not faults and len(seen) > 1


def drop_what_715a6cd_had_not(workspace: Workspace) -> None:
    """Catalog, vectors and published tables as a workspace of that commit has them."""
    new = {"artists", "audio_digest", "_artist_keys", "seconds", "rules"}
    shards = find_embeddings(workspace)
    folders = [workspace.tracks]
    folders += [f"{shards.folder}/{kind}" for kind in ("tracks", "sources", "dead_letter")]
    for folder in folders:
        for name in storage.list_files(folder, suffix=".parquet"):
            table = storage.read_table(f"{folder}/{name}")
            gone = new & set(table.column_names)
            storage.write_table(f"{folder}/{name}", table.drop_columns(sorted(gone)))
    build = live_build(workspace)
    db = lancedb.connect(workspace.db)
    versions = {}
    for kind in build.versions:
        table = db.open_table(table_name(kind, build.name))
        if gone := sorted(new & set(table.schema.names)):
            for index in table.list_indices():
                if set(index.columns) & set(gone):
                    table.drop_index(index.name)
            table.drop_columns(gone)
        versions[kind] = table.version
    put_live(workspace, replace(build, versions=versions))


@pytest.mark.slow
def test_a_workspace_of_an_older_raymtr_is_searched_changed_and_indexed(
    workspace: Workspace, tmp_path: Path
) -> None:
    drop_what_715a6cd_had_not(workspace)
    assert found(workspace, text="Tune a") and len(meant(workspace, "songs by Ada").tracks) == 5
    assert found(workspace, text="Tune a", where="artist = 'Ada'")
    text = "track_id,uri,title,artist\nf,/f.wav,Tune f,Ada; Bruno\n"
    assert index(workspace, "--upsert", manifest(tmp_path, text)) == 0
    assert found(workspace, text="Tune f")
    assert index(workspace) == 0
    assert meant(workspace, "songs by Bruno").tracks == ("f",)
    assert found(workspace, text="Tune", where="artists has 'Bruno'") == ["f"]


@pytest.mark.slow
@pytest.mark.parametrize("exact_below", [200_000, 0])
def test_each_artist_of_a_track_is_found_alone(
    exact_below: int, make_workspace: Callable, commit_vectors: Callable
) -> None:
    rows = [
        {"track_id": i, "uri": f"/{i}.wav", "title": title, "artist": shown, "artists": artists}
        for i, title, shown, artists in (
            ("a", "Duet", "Alba; Bruno", None),
            ("b", "Solo", "Carla & Co", ["Carla", "Dora"]),
            ("c", "Other", "Alba", None),
        )
    ]
    workspace = make_workspace(rows)
    commit_vectors(workspace, vectors("abc"))
    settings = tiny()
    search = replace(settings.search, exact_below=exact_below, target_recall=0.0)
    build_index.build_index(workspace, replace(settings, search=search))
    for text, artist, ids in (
        ("songs by Bruno", "Bruno", {"a"}),
        ("Duet by Bruno", "Bruno", {"a"}),
        ("similar to Dora", "Dora", {"b"}),
        ("songs by Alba", "Alba", {"a", "c"}),
        ("Carla & Co", "Carla & Co", {"b"}),
    ):
        understood = meant(workspace, text)
        assert (understood.artist, set(understood.tracks)) == (artist, ids), text
    assert found(workspace, text="Bruno") == ["a"]
    rows_found = Searcher(workspace).table.rows(["a"])
    assert rows_found["a"]["artist"] == "Alba; Bruno", "shown as the file shows them"
    for name, ids in {"Bruno": ["a"], "Alba": ["a", "c"], "Dora": ["b"]}.items():
        assert sorted(Searcher(workspace).table.matching(filter_of(workspace, name))) == ids


def meant(workspace: Workspace, text: str) -> Understood:
    return understand(text, Searcher(workspace).table)


def filter_of(workspace: Workspace, artist: str) -> Filter | None:
    table = Searcher(workspace).table
    return parse_filter(f"artists has '{artist}'", table.filterable)


@pytest.mark.slow
def test_the_decoded_length_reaches_the_tables(
    make_workspace: Callable, commit_vectors: Callable
) -> None:
    rows = [
        {"track_id": i, "uri": f"/{i}.wav", "title": f"Tune {i}", "duration": 260.0} for i in "ab"
    ]
    workspace = make_workspace(rows)
    commit_vectors(workspace, vectors("ab"))
    shards = find_embeddings(workspace)
    for name in storage.list_files(f"{shards.folder}/tracks", suffix=".parquet"):
        file = f"{shards.folder}/tracks/{name}"
        table = storage.read_table(file)
        seconds = [120.0 if i == "a" else None for i in table["track_id"].to_pylist()]
        column = pa.array(seconds, pa.float64())
        storage.write_table(file, table.drop_columns("seconds").append_column("seconds", column))
    build_index.build_index(workspace, tiny())
    assert found(workspace, text="Tune", where="duration > 240") == ["b"]
    assert found(workspace, text="Tune", where="duration <= 120") == ["a"]
