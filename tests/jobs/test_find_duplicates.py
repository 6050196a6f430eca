"""Duplicates of real sounds through the real chain, and folded in a search."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from jobs import build_index, find_duplicates, search
from raymtr import storage
from raymtr.embeddings.embed_tracks import decode_tracks, embed_tracks
from raymtr.embeddings.store import EmbeddingStore, ModelRef
from raymtr.errors import InputError
from raymtr.recipes import tiny
from raymtr.search.searcher import Searcher
from raymtr.specs import EmbedSpec
from raymtr.workspace import Workspace
from serve.messages import SearchBody

RATE = 22_050


def melody(seed: int, seconds: float) -> np.ndarray:
    """Notes of a few partials, a quarter of a second each."""
    rng = np.random.default_rng(seed)
    t = np.arange(RATE // 4) / RATE
    notes = [
        sum(np.sin(2 * np.pi * pitch * k * t) / k for k in (1, 2, 3)) * np.exp(-6 * t)
        for pitch in 220 * 2 ** (rng.integers(0, 24, int(seconds * 4)) / 12)
    ]
    return (0.2 * np.concatenate(notes)).astype(np.float32)


class Spectrum:
    """A listener simple enough to trust: how strong each band is, on average, in a window.

    The towers of the other tests are random, and give all music almost one vector.
    """

    def __init__(self) -> None:
        self.spec = tiny().towers

    def embed_windows(self, windows: np.ndarray, scales: object) -> np.ndarray:
        bands = np.abs(np.fft.rfft(windows * np.hanning(windows.shape[1])))[:, : 64 * 1000]
        strength = np.log(bands.reshape(len(bands), 64, -1).mean(axis=2) + 1e-2)
        return (strength - strength.mean(axis=1, keepdims=True)).astype(np.float32)

    def pool(self, windows: np.ndarray) -> np.ndarray:
        return np.asarray(windows.mean(axis=0))


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, make_workspace: Callable) -> Workspace:
    folder = tmp_path_factory.mktemp("music")
    song = melody(0, 14)
    rows = []

    def put(track_id: str, sound: np.ndarray, title: str | None, form: str = "WAV") -> None:
        path = folder / f"{track_id}.{form.lower()}"
        soundfile.write(path, sound, RATE, format=form)
        artist = "Ada" if title else None
        rows.append({"track_id": track_id, "uri": str(path), "title": title, "artist": artist})

    put("original", song, "Song")
    put("copy", song, None)
    put("lossless", song, None, "FLAC")
    put("mp3", song, "song", "MP3")
    put("loud", np.tanh(4 * song), "Song - 2011 Remaster")
    put("live", 0.7 * np.concatenate([melody(5, 4), song]), "Song (Live)")
    put("another", melody(1, 14), "Another")
    put("third", melody(2, 14), "Third")
    workspace = make_workspace(rows)
    model = Spectrum()
    shards = EmbeddingStore(
        workspace.embeddings("spectrum"), ModelRef(fingerprint="spectrum", precision="fp32", dim=64)
    )
    shards.take()
    catalog = storage.read_tables(workspace.tracks)
    audio = model.spec.audio
    decoded = decode_tracks(catalog, spec=audio, embed=EmbedSpec(), hung=shards.hung)
    shards.commit(embed_tracks(model, pa.concat_tables(decoded)))  # type: ignore[arg-type]
    shards.release()
    build_index.build_index(workspace, tiny())
    return workspace


def ids(answer: dict) -> list[str]:
    return [hit["track_id"] for hit in answer["hits"]]


@pytest.mark.slow
def test_folding_needs_duplicates_to_be_known(workspace: Workspace) -> None:
    storage.delete(workspace.duplicates)
    with pytest.raises(InputError, match="run `raymtr duplicates`"):
        Searcher(workspace).search(like=["another"], fold_duplicates=True)


def test_copies_of_a_sound_are_found_and_distinguished(workspace: Workspace) -> None:
    answer = find_duplicates.run(argparse.Namespace(), workspace, tiny())
    rows = storage.read_tables(workspace.duplicates)
    found = dict(zip(rows["track_id"].to_pylist(), rows["class"].to_pylist(), strict=True))
    assert found == {
        "mp3": "kept",
        "original": "same recording",
        "copy": "same recording",
        "lossless": "same recording",
        "loud": "different master",
        "live": "other version",
    }
    assert answer["groups"] == 1 and answer["tracks"] == 6 and answer["compared"] == 8
    text = find_duplicates.describe(answer)
    assert "1 songs occur more than once" in text and "[live]" in text


def test_a_search_shows_one_of_a_song(workspace: Workspace) -> None:
    find_duplicates.report_duplicates(workspace)
    searcher = Searcher(workspace)
    plain = searcher.search(like=["another"])
    assert len(plain["hits"]) == 7 and "duplicates" not in plain["hits"][0]
    folded = searcher.search(like=["another"], fold_duplicates=True)
    assert folded["query"]["fold_duplicates"] is True
    song = next(track for track in ids(plain) if track != "third")  # the best of them
    assert ids(folded) == [track for track in ids(plain) if track in (song, "third")]
    duplicates = {hit["track_id"]: set(hit["duplicates"]) for hit in folded["hits"]}
    assert duplicates == {"third": set(), song: set(ids(plain)) - {song, "third"}}

    parser = argparse.ArgumentParser()
    search.add_arguments(parser)
    words = ["--like", "another", "--fold-duplicates"]
    again = search.run(parser.parse_args(words), workspace, tiny())
    assert ids(again) == ids(folded) and "the same song: " in search.describe(again)
    body = SearchBody.model_validate({"like": ["another"], "fold_duplicates": True})
    assert ids(searcher.find(body.request())) == ids(folded)
    with pytest.raises(InputError, match="fold_duplicates is true or false, got 'yes'"):
        searcher.search("song", fold_duplicates="yes")


def test_folded_pages_neither_repeat_nor_skip(workspace: Workspace) -> None:
    find_duplicates.report_duplicates(workspace)
    searcher = Searcher(workspace)
    asked = {"like": ["another"], "k": 1, "fold_duplicates": True}
    first = searcher.search(**asked)
    rest = searcher.search(**asked, cursor=first["next_cursor"])
    whole = searcher.search(**asked | {"k": 10})
    assert ids(first) + ids(rest) == ids(whole) and rest["next_cursor"] is None


def test_nothing_published_is_said(tmp_path: Path) -> None:
    empty = Workspace.open(str(tmp_path / "w"), create=True)
    with pytest.raises(InputError, match="raymtr index"):
        find_duplicates.report_duplicates(empty)
