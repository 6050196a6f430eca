from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from raymtr import audio, storage
from raymtr.embeddings.store import (
    EMBEDDED_SCHEMA,
    EmbeddingStore,
    ModelRef,
    find_embeddings,
    matrix_of,
)
from raymtr.errors import InputError, UnusableError
from raymtr.workspace import Workspace

DIM = 4


def embedded(track_id: str, windows: int = 2) -> dict:
    vectors = np.eye(DIM, dtype=np.float32)[np.arange(windows) % DIM]
    return {
        "track_id": track_id,
        "uri": f"/{track_id}.wav",
        "starts_s": [10.0 * index for index in range(windows)],
        "ends_s": [10.0 * index + 10.0 for index in range(windows)],
        "vector": vectors[0],
        "windows": vectors.reshape(-1),
    }


def failed(track_id: str) -> dict:
    row = {"track_id": track_id, "uri": f"/{track_id}.wav"}
    return row | {"code": "missing", "reason": "no such file"}


def catalog_of(version: str | None = None, **uris: str | None) -> pa.Table:
    columns = {"track_id": list(uris), "uri": list(uris.values())}
    return pa.table(columns | {"file_version": pa.array([version] * len(uris), pa.string())})


def table(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=EMBEDDED_SCHEMA)


def open_shards(folder: Path, fingerprint: str = "f") -> EmbeddingStore:
    return EmbeddingStore(str(folder), ModelRef(fingerprint=fingerprint, precision="fp32", dim=DIM))


@pytest.fixture
def shards(tmp_path: Path) -> EmbeddingStore:
    shards = open_shards(tmp_path / "f")
    shards.take()
    return shards


def test_a_commit_is_read_back_whole(shards: EmbeddingStore) -> None:
    shards.commit(table(embedded("a", 3), failed("b"), embedded("c", 1)))
    shards.commit(table(failed("d")))
    assert sorted(shards.done().to_pylist()) == ["a", "b", "c", "d"]
    assert shards.read_tracks()["track_id"].to_pylist() == ["a", "c"]
    windows = pa.concat_tables(shards.window_tables())
    assert windows["track_id"].to_pylist() == ["a", "a", "a", "c"]
    assert windows["start_s"].to_pylist() == [0.0, 10.0, 20.0, 0.0]
    assert windows["end_s"].to_pylist() == [10.0, 20.0, 30.0, 10.0]
    np.testing.assert_array_equal(
        matrix_of(windows["vector"]), np.eye(DIM, dtype=np.float32)[[0, 1, 2, 0]]
    )
    assert sorted(shards.read_dead_letters()["track_id"].to_pylist()) == ["b", "d"]


@pytest.mark.slow
def test_what_was_not_committed_is_removed_by_the_next_owner(shards: EmbeddingStore) -> None:
    shards.commit(table(embedded("a"), failed("b")))
    shards.commit(table(embedded("c"), failed("d")))
    name = next(
        name
        for name in storage.list_files(f"{shards.folder}/tracks")
        if storage.read_table(f"{shards.folder}/tracks/{name}")["track_id"].to_pylist() == ["c"]
    )
    storage.delete(f"{shards.folder}/tracks/{name}")  # as if killed before the last of three files
    again = open_shards(Path(shards.folder))
    again.take()
    assert sorted(again.done().to_pylist()) == ["a", "b"]
    for kind in ("windows", "sources", "dead_letter", "tracks"):
        assert len(storage.list_files(f"{shards.folder}/{kind}")) == 1


@pytest.mark.slow
def test_an_owner_that_was_replaced_cannot_commit(shards: EmbeddingStore) -> None:
    rival = open_shards(Path(shards.folder))
    rival.take()
    with pytest.raises(UnusableError, match="another embed job"):
        shards.commit(table(embedded("a")))
    assert shards.read_tracks().num_rows == 0
    rival.commit(table(embedded("a")))
    rival.release()
    assert len(storage.list_files(f"{shards.folder}/windows")) == 1


def test_only_new_tracks_with_audio_remain(shards: EmbeddingStore) -> None:
    shards.commit(table(embedded("a"), failed("b"), failed("gone")))
    catalog = catalog_of(a="/a.wav", b="/b.wav", c="/c.wav", d=None)
    assert shards.remaining(catalog)["track_id"].to_pylist() == ["c"]
    shards.commit(table(embedded("c")))
    assert shards.account(catalog) == {
        "embedded": 2,
        "failed": 1,
        "skipped": 1,
        "error_rate": 1 / 3,
        "errors": {"missing": 1},
    }


def test_failures_can_be_forgotten_by_code(shards: EmbeddingStore) -> None:
    shards.commit(table(embedded("a"), failed("b"), failed("c") | {"code": "too_long"}))
    with pytest.raises(InputError, match="'truncated'; codes here: missing, too_long"):
        shards.codes_to_retry(["missing", "truncated"])
    assert sorted(shards.done().to_pylist()) == ["a", "b", "c"]
    shards.forget_failures(["too_long"])
    assert sorted(shards.done().to_pylist()) == ["a", "b"]
    shards.forget_failures(shards.codes_to_retry(["all"]))
    assert shards.done().to_pylist() == ["a"]
    shards.commit(table(failed("slow") | {"code": "timeout"}))
    storage.write_bytes(f"{shards.hung}/{audio.marker_of('slow')}", b"")
    shards.forget_failures(shards.codes_to_retry(["timeout"]))
    assert not storage.list_files(shards.hung), "it may be decoded again"


def test_a_changed_file_is_forgotten_and_the_rest_of_its_shard_stays(
    shards: EmbeddingStore,
) -> None:
    def made(track_id: str, version: str | None) -> dict:
        return embedded(track_id) | {"file_version": version}

    shards.commit(table(made("a", "1"), made("b", "1"), failed("c"), made("d", None)))
    moved = catalog_of("1", a="/elsewhere/a.wav", b="/b.wav", c="/c.wav", d="/d.wav")
    assert not len(shards.changed(moved)), "versions are equal, and where one is unknown the URI is"
    other = catalog_of("2", a="/a.wav", d="/other.wav")
    assert sorted(shards.changed(other).to_pylist()) == ["a", "d"]
    shards.forget(shards.changed(other))
    assert sorted(shards.done().to_pylist()) == ["b", "c"]
    assert pa.concat_tables(shards.window_tables())["track_id"].to_pylist() == ["b", "b"]
    shards.commit(table(made("a", "2"), made("d", "2")))
    assert not len(shards.changed(other))
    assert sorted(shards.done().to_pylist()) == ["a", "b", "c", "d"]


def with_digests(catalog: pa.Table, *digests: str | None) -> pa.Table:
    return catalog.append_column("audio_digest", pa.array(digests, pa.string()))


def made_of(track_id: str, version: str | None, digest: str | None) -> dict:
    return embedded(track_id) | {"file_version": version, "audio_digest": digest, "seconds": 12.5}


def test_the_sound_decides_where_it_is_known(shards: EmbeddingStore) -> None:
    shards.commit(table(*(made_of(i, "1", "1-a") for i in "abcd")))
    retagged = catalog_of("2", a="/a.wav", b="/moved.wav", c="/c.wav", d="/d.wav")
    now = with_digests(retagged, "1-a", "1-a", "1-other", None)
    assert sorted(shards.changed(now).to_pylist()) == ["c", "d"]
    edited = with_digests(catalog_of("1", a="/a.wav"), "1-other")
    assert shards.changed(edited).to_pylist() == ["a"], "its time was kept, its sound was not"
    other_rule = with_digests(catalog_of("1", a="/a.wav"), "2-a")
    assert not len(shards.changed(other_rule)), "digests of two rules cannot be compared"


def test_what_was_embedded_before_there_were_digests_gets_them_while_it_is_unchanged(
    shards: EmbeddingStore,
) -> None:
    shards.commit(table(*(made_of(i, "1", None) for i in "ab")))
    for name in storage.list_files(f"{shards.folder}/sources"):  # as 715a6cd wrote it
        file = f"{shards.folder}/sources/{name}"
        storage.write_table(file, storage.read_table(file).drop_columns("audio_digest"))
    first = pa.concat_tables([catalog_of("1", a="/a.wav"), catalog_of("9", b="/b.wav")])
    shards.adopt_digests(with_digests(first, "1-a", "1-b"))
    retagged = with_digests(catalog_of("2", a="/a.wav", b="/b.wav"), "1-a", "1-b")
    assert shards.changed(retagged).to_pylist() == ["b"]


def test_what_older_rules_rejected_is_tried_again_once(shards: EmbeddingStore) -> None:
    shards.commit(table(failed("a"), failed("b") | {"code": "timeout"}, embedded("c")))
    assert not len(shards.refused_by_older_rules())
    for name in storage.list_files(f"{shards.folder}/dead_letter"):  # as 715a6cd wrote it
        file = f"{shards.folder}/dead_letter/{name}"
        storage.write_table(file, storage.read_table(file).drop_columns("rules"))
    assert shards.refused_by_older_rules().to_pylist() == ["a"]
    shards.forget(shards.refused_by_older_rules())
    shards.commit(table(failed("a")))
    assert not len(shards.refused_by_older_rules())
    assert shards.read_dead_letters().column_names == ["track_id", "uri", "code", "reason"]


def test_decoded_lengths_are_kept_beside_shards_that_have_none(shards: EmbeddingStore) -> None:
    shards.commit(table(embedded("old")))
    for name in storage.list_files(f"{shards.folder}/tracks"):  # as 715a6cd wrote it
        file = f"{shards.folder}/tracks/{name}"
        storage.write_table(file, storage.read_table(file).drop_columns("seconds"))
    assert not len(shards.lengths())
    shards.commit(table(made_of("new", "1", None)))
    assert shards.lengths().to_pylist() == [{"track_id": "new", "seconds": 12.5}]
    tracks, _ = shards.of_tracks(pa.array(["old", "new"]))
    assert sorted(tracks["track_id"].to_pylist()) == ["new", "old"]


def test_empty_folder_reads_as_empty(shards: EmbeddingStore) -> None:
    assert shards.read_tracks().num_rows == 0
    assert shards.done().to_pylist() == []
    assert shards.read_tracks()["vector"].type == pa.list_(pa.float32(), DIM)


def test_the_last_finished_embeddings_are_found(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path), create=True)
    with pytest.raises(InputError, match="raymtr embed"):
        find_embeddings(workspace)
    for name in ("old", "new", "unfinished"):
        made = open_shards(Path(workspace.embeddings(name)), name)
        made.take()
        if name != "unfinished":
            made.release()
    Path(workspace.embeddings("killed"), "model").mkdir(parents=True)  # before it had a run file
    assert find_embeddings(workspace).made_by.fingerprint == "new"
    assert find_embeddings(workspace, "unfinished").made_by.dim == DIM
    with pytest.raises(InputError, match="new, old, unfinished"):
        find_embeddings(workspace, "absent")
