"""Search over a small table whose windows are what the text tower itself says of them.

So a text's nearest window is known, without a trained audio tower.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from builders import publish_catalog

from jobs.search import describe
from raymtr import storage
from raymtr.embeddings.store import EmbeddingStore, ModelRef, find_embeddings
from raymtr.errors import InputError, UnusableError
from raymtr.index.build_tables import tracks_table
from raymtr.index.publish import publish
from raymtr.model import pretrained
from raymtr.model.model import Model
from raymtr.model.pretrained import load_model
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.vectors import unit
from raymtr.workspace import Workspace

SOUNDS = ["slow piano ballad", "heavy metal guitars", "techno beat", "folk fiddle dance", "choir"]
ARTISTS = {  # artist -> what they sound like, and whom they are similar to
    "Ada": (0, ["Bel"]),
    "Bel": (0, ["Ada", "Cid"]),
    "Cid": (1, []),
    "Dua Lipa": (2, ["Elsewhere"]),
    "Ede": (3, []),
}


def catalog() -> list[dict]:
    rows = [
        {
            "track_id": f"{artist[:3].lower()}{number}",
            "uri": f"/{artist}{number}.wav",
            "title": f"{artist} Tune {number}",
            "artist": artist,
            "year": 1980 + 10 * number,
            "tags": [SOUNDS[sound].split()[-1], "vocals" if number == 1 else "instrumental"],
            "similar_artists": similar,
        }
        for artist, (sound, similar) in ARTISTS.items()
        for number in range(4)
    ]
    silent = {"track_id": "word0", "title": "Unheard", "artist": "Ada", "tags": ["choir"]}
    return [*rows, silent]


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable, commit_vectors: Callable, tiny_model: str) -> Workspace:
    rows = catalog()
    workspace = make_workspace(rows)
    model = load_model(tiny_model)
    sounds = model.encode_text(SOUNDS)
    rng = np.random.default_rng(0)
    vectors = {}
    for row in rows[:-1]:
        noise = 0.01 * rng.standard_normal((3, sounds.shape[1])).astype(np.float32)
        windows = sounds[[ARTISTS[row["artist"]][0]] * 3] + noise
        vectors[row["track_id"]] = unit(windows)
    vectors["ede3"][2] = sounds[4]  # a choir enters after twenty seconds
    commit_vectors(workspace, vectors, fingerprint=model.fingerprint)
    publish_catalog(workspace, model=tiny_model)
    return workspace


@pytest.fixture(scope="module")
def searcher(workspace: Workspace) -> Searcher:
    return Searcher(workspace.root)


def artists(answer: dict) -> list[str]:
    return [hit["artist"] for hit in answer["hits"]]


def ids(answer: dict) -> list[str]:
    return [hit["track_id"] for hit in answer["hits"]]


@pytest.mark.slow
def test_an_answer_is_as_promised(searcher: Searcher, workspace: Workspace) -> None:
    answer = searcher.search("a slow piano ballad", k=3)
    assert set(answer) >= {"query", "hits", "next_cursor", "model", "table_version", "took_ms"}
    assert answer["model"] == find_embeddings(workspace).made_by.fingerprint
    assert set(answer["took_ms"]) == {"encode", "search", "rank", "total"}
    hit = answer["hits"][0]
    keys = {"track_id", "title", "artist", "album", "uri", "score", "segment", "why"}
    assert set(hit) >= keys
    assert hit["artists"] == [hit["artist"]]
    assert {reason["by"] for reason in hit["why"]} >= {"text", "words", "tags"}
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    said = describe(answer | {"loaded_s": 1.0})
    assert "description" in said and "loaded in 1.0 s, searched in" in said


@pytest.mark.slow
def test_a_text_that_is_not_read_to_its_end_is_said_to_be(searcher: Searcher) -> None:
    assert searcher.search("a slow piano ballad", k=1)["notes"] == []
    answer = searcher.search("a slow piano ballad, " * 40, k=1)
    (note,) = answer["notes"]
    assert note.startswith("this model reads 32 tokens of a text: of ") and "were not read" in note
    assert f"note: {note}" in describe(answer | {"loaded_s": 1.0})
    assert searcher.search("piano " * 40, mode="keyword", k=1)["notes"] == [], "no tower reads it"


@pytest.mark.slow
def test_a_description_finds_its_sound(searcher: Searcher) -> None:
    for mode in ("auto", "semantic", "hybrid"):
        assert set(artists(searcher.search("slow piano ballad", mode=mode, k=8))) == {"Ada", "Bel"}
    assert set(artists(searcher.search("techno beat", k=4))) == {"Dua Lipa"}


def test_keywords_alone_need_no_model(workspace: Workspace) -> None:
    searcher = Searcher(workspace)
    answer = searcher.search("fiddle dance", mode="keyword", k=4)
    assert set(artists(answer)) == {"Ede"}
    assert searcher._models == {}  # never loaded


@pytest.mark.slow
def test_a_build_knows_what_nonsense_sounds_like(workspace: Workspace, tmp_path: Path) -> None:
    measured = Searcher(workspace).build.calibration
    assert measured is not None and -1 <= measured.nothing < 1 and measured.tags <= 1
    asked = Searcher(workspace).search("qwrtz plmxv")
    best = max(why["score"] for hit in asked["hits"] for why in hit["why"] if why["by"] == "text")
    assert bool(asked["query"]["ignored"]) == (measured.confidence(best) == 0)
    shutil.copytree(workspace.root, tmp_path / "old")
    old = Workspace.open(str(tmp_path / "old"))
    record = storage.read_json(old.live_pointer)
    del record["calibration"]  # as a build of an older version has it
    storage.write_json(old.live_pointer, record)
    answer = Searcher(old).search("qwrtz plmxv")
    assert answer["hits"] and answer["query"]["ignored"] == []


def damage(workspace: Workspace, copied: Path, side: str) -> Workspace:
    """A copy of `workspace` whose model pins another vector for that side."""
    shutil.copytree(workspace.root, copied)
    copy = Workspace.open(str(copied))
    file = find_embeddings(copy).model_folder + "/golden.json"
    golden = storage.read_json(file)
    golden[side] = np.roll(golden[side], 1, axis=-1).tolist()
    storage.write_json(file, golden)
    return copy


@pytest.mark.slow
def test_a_search_loads_and_checks_the_side_that_it_asks(
    workspace: Workspace, tmp_path: Path
) -> None:
    recording = (np.sin(np.arange(220_500, dtype=np.float32) / 9), 22_050)
    deaf = Searcher(damage(workspace, tmp_path / "deaf", "audio"))
    assert deaf.search("techno beat", k=1)["hits"]
    assert "_audio_forward" not in vars(deaf.model("text"))
    with pytest.raises(InputError, match="hears no audio"):
        deaf.model("text").encode_audio([recording])
    with pytest.raises(UnusableError, match="pinned audio"):
        deaf.search(audio=recording)
    blind = Searcher(damage(workspace, tmp_path / "blind", "text"))
    assert blind.search(audio=recording, k=1)["hits"]
    with pytest.raises(UnusableError, match="pinned text"):
        blind.search("techno beat")


@pytest.mark.slow
def test_loading_is_no_part_of_a_searchs_time(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    searcher, hours = Searcher(workspace), [0.0]
    clock = time.perf_counter
    monkeypatch.setattr(time, "perf_counter", lambda: clock() + 3600 * hours[0])

    def slow(*arguments: Any, **options: Any) -> Model:
        hours[0] += 1
        return load_model(*arguments, **options)

    monkeypatch.setattr(pretrained, "load_model", slow)
    answer = searcher.search("techno beat")
    assert hours == [1.0]
    assert 0 < answer["took_ms"]["encode"] <= answer["took_ms"]["total"] < 3600e3


@pytest.mark.parametrize(
    ("text", "first"),
    [("Cid Tune 2", "cid2"), ("ede tune 3 by ede", "ede3"), ("unheard", "word0")],
)
def test_a_title_comes_first(searcher: Searcher, text: str, first: str) -> None:
    answer = searcher.search(text, k=5)
    assert answer["query"]["kind"] == "title"
    assert ids(answer)[0] == first
    assert len(ids(answer)) == len(set(ids(answer))) == 5


@pytest.mark.parametrize("text", ["dua lipa", "songs by Dua Lipa", "dua lpia"])
def test_an_artist_gives_their_tracks(searcher: Searcher, text: str) -> None:
    answer = searcher.search(text, k=4)
    assert artists(answer) == ["Dua Lipa"] * 4
    assert answer["query"]["artist"] == "Dua Lipa"


def test_similar_to_an_artist_is_others_who_sound_alike(searcher: Searcher) -> None:
    answer = searcher.search("similar to Ada", k=4)
    assert artists(answer) == ["Bel"] * 4
    assert {r["by"] for r in answer["hits"][0]["why"]} >= {"artist graph", "sound", "text"}
    everything = searcher.search("similar to Ada", k=100)
    assert "Ada" not in artists(everything)


def test_an_artist_only_the_graph_knows(searcher: Searcher) -> None:
    assert set(artists(searcher.search("similar to Elsewhere", k=4))) == {"Dua Lipa"}


def test_examples_steer(searcher: Searcher) -> None:
    liked = searcher.search(like=["cid0"], k=3)
    assert set(artists(liked)) == {"Cid"} and "cid0" not in ids(liked)
    weighted = searcher.search(
        like=[{"track_id": "cid0", "weight": 3.0}, {"track_id": "ede0", "weight": 0.5}], k=3
    )
    assert set(artists(weighted)) == {"Cid"}
    away = searcher.search("slow piano ballad", unlike=["ada0"], mode="semantic", k=100)
    assert "ada0" not in ids(away)
    before = searcher.rank("slow piano ballad", mode="semantic")
    after = searcher.rank("slow piano ballad", mode="semantic", unlike=["ada0"])
    assert next(i for i, _ in before) in {
        "ada0",
        "ada1",
        "ada2",
        "ada3",
        "bel0",
        "bel1",
        "bel2",
        "bel3",
    }
    assert len(after) == len(before) - 1


def test_a_recording_is_searched_by(searcher: Searcher, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal(22_050).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "query.wav", noise, 22_050)
    by_file = searcher.search(audio=str(tmp_path / "query.wav"), k=5)
    by_path = searcher.search(audio=tmp_path / "query.wav", k=5)
    by_samples = searcher.search(audio=(noise, 22_050), k=5)
    assert len(ids(by_file)) == 5 and ids(by_file) == ids(by_path) == ids(by_samples)
    with pytest.raises(InputError, match=r"missing.*absent"):
        searcher.search(audio=str(tmp_path / "absent.wav"))


def test_a_filter_comes_before_the_search(searcher: Searcher) -> None:
    answer = searcher.search("slow piano ballad", where="tags has 'dance' and year >= 2000", k=10)
    assert sorted(ids(answer)) == ["ede2", "ede3"]
    assert ids(searcher.search("Cid Tune 2", where="year < 2000", k=1)) != ["cid2"]
    assert artists(searcher.search("songs by Ada", where="year = 1990", k=1)) == ["Ada"]
    assert searcher.search("x", where="year = 1066")["hits"] == []


def test_excluded_terms_are_gone(searcher: Searcher) -> None:
    assert len(searcher.search("slow piano ballad", k=100)["hits"]) == 20
    for answer in (
        searcher.search("slow piano ballad", exclude=["vocals"], k=100),
        searcher.search("slow piano ballad, no vocals", k=100),
    ):
        assert not [i for i in ids(answer) if i.endswith("1")]
        assert len(ids(answer)) == 15


def test_an_artist_can_be_capped(searcher: Searcher) -> None:
    answer = searcher.search("slow piano ballad", per_artist=1, k=5)
    assert sorted(artists(answer)) == sorted(ARTISTS)
    assert len(ids(answer)) == 5


def test_a_hit_says_where(searcher: Searcher) -> None:
    answer = searcher.search("choir", mode="semantic", where="track_id = 'ede3'")
    assert answer["hits"][0]["segment"] == {"start_s": 20.0, "end_s": 30.0}
    assert searcher.search("Unheard", k=1)["hits"][0]["segment"] is None


def test_a_rank_leaves_nothing_out(searcher: Searcher) -> None:
    ranked = searcher.rank("slow piano ballad", mode="semantic")
    assert len(ranked) == 20  # all with a vector
    assert len(searcher.rank("slow piano ballad", where="tags has 'dance'")) == 4
    assert [i for i, _ in ranked[:5]] == ids(
        searcher.search("slow piano ballad", mode="semantic", k=5)
    )
    assert len(searcher.rank("slow piano ballad", k=3)) == 3


def test_texts_ranked_together_rank_as_one_by_one(searcher: Searcher) -> None:
    texts = ["slow piano ballad", "choir", "piano, no drums", "Ada Quintet", "no such words"]
    together = list(searcher.rank_texts(texts, where="year > 1900"))
    for text, ranked in zip(texts, together, strict=True):
        alone = searcher.rank(text, where="year > 1900")
        assert [i for i, _ in ranked] == [i for i, _ in alone], text
        assert [score for _, score in ranked] == pytest.approx([score for _, score in alone])


def test_three_tracks_give_three_hits(make_workspace: Callable) -> None:
    workspace = make_workspace([{"track_id": t, "tags": ["calm"]} for t in "abc"])
    publish_catalog(workspace)
    searcher = Searcher(workspace)
    answer = searcher.search("calm", k=10)
    assert sorted(ids(answer)) == ["a", "b", "c"] and answer["model"] is None
    with pytest.raises(InputError, match="no audio vector"):
        searcher.search(like=["a"])
    with pytest.raises(InputError, match="words only"):
        searcher.search(audio=(np.zeros(22_050, np.float32), 22_050))


@pytest.mark.slow
def test_a_table_of_another_model_is_rejected(
    make_workspace: Callable, commit_vectors: Callable, tiny_model: str
) -> None:
    workspace = make_workspace([{"track_id": "a", "uri": "/a.wav"}])
    commit_vectors(workspace, {"a": np.eye(128, dtype=np.float32)[:1]}, fingerprint="another")
    shards: EmbeddingStore = find_embeddings(workspace)
    assert shards.made_by == ModelRef(fingerprint="another", precision="fp32", dim=128)
    shutil.copytree(tiny_model, shards.model_folder)
    tracks = tracks_table(storage.read_tables(workspace.tracks), None)
    publish(workspace, [tracks], shards, search=SearchSpec())
    with pytest.raises(UnusableError, match="of model another"):
        Searcher(workspace).search("piano")
