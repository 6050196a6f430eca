"""A catalog of known truth, asked about itself."""

import collections
import csv

import pyarrow as pa
import pytest

from raymtr.errors import InputError
from raymtr.evaluation.catalog_benchmark import catalog_benchmark
from raymtr.track import check_tracks

TAGS = {"A": ["piano", "calm", "slow"], "B": ["guitar", "rock", "fast"], "C": ["violin", "waltz"]}
SIMILAR = {"A": ["X"], "B": ["Y"], "C": ["Nobody"]}


def track(number, artist, split, **more):
    return {"track_id": f"t{number:03d}", "artist": artist, "split": split, **more}


def table(rows):
    return check_tracks(pa.Table.from_pylist(rows))


@pytest.fixture
def catalog():
    """Nine test tracks in turn by A, B and C; A lists the train artist X, B lists Y, Y lists C."""
    rows = [
        track(n, by, "test", title=f"Song {n}", tags=TAGS[by], similar_artists=SIMILAR[by])
        for n, by in enumerate("ABCABCABC")
    ]
    rows += [track(20, "X", "train", similar_artists=["Z"], tags=["noise"], title="Song 0")]
    rows += [track(21, "Y", "train", similar_artists=["C"]), track(22, "Z", "train")]
    return table(rows)


def answers(benchmark, text):
    (query,) = [q for q in benchmark.queries if q.text == text]
    return set(benchmark.right[query.query_id])


@pytest.mark.slow
def test_every_kind_is_queried_about_the_split_alone(catalog):
    benchmark = catalog_benchmark(catalog, seed=0)
    counts = collections.Counter(query.kind for query in benchmark.queries)
    assert benchmark.pool == tuple(f"t{n:03d}" for n in range(9))
    assert counts == {"caption": 9, "tag": 8, "title": 9, "artist": 3, "similar_artist": 2}
    assert benchmark.kinds() == ["caption", "tag", "title", "artist", "similar_artist"]
    assert benchmark.notes == ()


def test_right_answers_are_the_truth_of_the_catalog(catalog):
    benchmark = catalog_benchmark(catalog, seed=0)
    assert answers(benchmark, "piano") == {"t000", "t003", "t006"}
    assert answers(benchmark, "A") == {"t000", "t003", "t006"}
    assert answers(benchmark, "songs by B") == {"t001", "t004", "t007"}
    assert answers(benchmark, "Song 0") == {"t000"}  # X's song of that name is not in the pool
    assert answers(benchmark, "Song 1 by B") == {"t001"}
    captions = benchmark.of_kind("caption")
    assert [set(benchmark.right[q.query_id]) for q in captions] == [{t} for t in benchmark.pool]


def test_similarity_counts_in_both_directions(catalog):
    benchmark = catalog_benchmark(catalog, seed=0)
    assert answers(benchmark, "similar to X") == {"t000", "t003", "t006"}
    assert answers(benchmark, "similar to Y") == {"t001", "t002", "t004", "t005", "t007", "t008"}


def test_towers_read_their_own_sentences(catalog):
    sentence = {q.text: q.sentence for q in catalog_benchmark(catalog, seed=0).queries}
    assert sentence["Song 0"] == "music track Song 0"
    assert sentence["Song 1 by B"] == "music track Song 1 by B"
    assert sentence["songs by B"] == sentence["songs by B"] == "music track by B"
    assert sentence["similar to X"] == "similar with artist X"
    assert sentence["piano"] == "piano"


def test_same_seed_same_benchmark_and_no_two_queries_alike(catalog):
    one, again, other = (catalog_benchmark(catalog, seed=seed) for seed in (3, 3, 4))
    assert one == again
    assert [q.text for q in one.of_kind("caption")] != [q.text for q in other.of_kind("caption")]
    texts = [q.text.casefold() for q in one.queries]
    assert len(set(texts)) == len(texts)


def test_equal_tags_never_make_equal_captions():
    """Forty tracks of the same three tags: every caption kept is one of a kind."""
    rows = [track(n, f"A{n}", "test", tags=["piano", "calm", "slow"]) for n in range(40)]
    benchmark = catalog_benchmark(table(rows), seed=0)
    captions = [q.text for q in benchmark.of_kind("caption")]
    assert len(set(captions)) == len(captions) >= 6
    if len(captions) < 40:
        assert f"left out {40 - len(captions)} caption queries in the words of another" in (
            benchmark.notes
        )


def test_tags_that_tell_nothing_give_no_query():
    rows = [track(n, f"A{n}", "test", tags=["music", "c# minor"]) for n in range(3)]
    rows += [
        track(n, f"A{n}", "test", tags=["music", "C minor ", "rare"][: n % 3 + 1])
        for n in range(3, 9)
    ]
    benchmark = catalog_benchmark(table(rows), seed=0)
    tags = {q.text for q in benchmark.of_kind("tag")}
    assert tags == {"c# minor", "C minor", "rare"}  # not `music`, which every track has
    assert answers(benchmark, "c# minor") == {"t000", "t001", "t002"}


def test_clips_of_one_song_are_one_query():
    """As in a manifest with a row a clip: same title, artist and tags, ids of their own."""
    rows = [track(n, f"Band {n // 4}", "test", title=f"Tune {n // 4}") for n in range(12)]
    benchmark = catalog_benchmark(table(rows), seed=0)
    assert [q.text for q in benchmark.of_kind("title")] == ["Tune 0", "Tune 1 by Band 1", "Tune 2"]
    assert answers(benchmark, "Tune 0") == {"t000", "t001", "t002", "t003"}


def test_spellings_of_one_artist_are_one_artist():
    rows = [
        track(n, name, "test", title=f"T{n}") for n, name in enumerate(["Beyoncé", "beyonce ", "X"])
    ]
    benchmark = catalog_benchmark(table(rows), seed=0)
    assert answers(benchmark, "Beyoncé") == {"t000", "t001"}


def test_a_title_that_is_an_artist_is_queried_once():
    rows = [track(n, name, "test", title=name) for n, name in enumerate(["Low", "Can", "Yes"])]
    benchmark = catalog_benchmark(table(rows), seed=0)
    artists = [q.text for q in benchmark.of_kind("artist")]
    assert sorted(artists) == ["Can", "songs by Low", "songs by Yes"]  # Can's title query has `by`


def test_a_catalog_without_words_of_a_kind_says_so():
    rows = [track(n, None, "test", title=f"T{n}") for n in range(3)]
    benchmark = catalog_benchmark(table(rows), seed=0)
    assert benchmark.kinds() == ["title"]
    assert "no artist queries: the catalog has no words for them" in benchmark.notes
    assert all(" by " not in q.text for q in benchmark.queries)


def test_a_pool_of_ones_own(catalog):
    benchmark = catalog_benchmark(catalog, seed=0, pool=["t000", "t001", "t020"])
    assert benchmark.pool == ("t000", "t001", "t020")
    assert answers(benchmark, "Song 0") == {"t000", "t020"}
    with pytest.raises(InputError, match=r"1 tracks of the pool are not in the catalog.*t999"):
        catalog_benchmark(catalog, seed=0, pool=["t000", "t999"])


def test_nothing_to_ask_is_the_users_to_mend(catalog):
    with pytest.raises(InputError, match="no tracks in split 'valid'; seen: 9 in test, 3 in train"):
        catalog_benchmark(catalog, seed=0, split="valid")
    with pytest.raises(InputError, match="two or more that differ"):
        catalog_benchmark(table([track(0, "A", "test", title="One", tags=["piano"])]), seed=0)


def test_a_real_catalog_of_clips_is_queried_about_its_songs(large_data):
    songs_csv = large_data / "data" / "real_music" / "tracks.csv"
    with open(songs_csv, newline="", encoding="utf-8") as file:
        songs = [row for row in csv.DictReader(file) if int(row["clips"] or 0)]
    rows = [
        {
            "track_id": f"{song['track_id']}_{clip}",
            "title": song["title"],
            "artist": song["artist"],
            "tags": [tag.strip() for tag in song["tags"].split(",") if tag.strip()],
            "split": "test",
        }
        for song in songs
        for clip in range(int(song["clips"]))
    ]
    benchmark = catalog_benchmark(table(rows), seed=0)
    counts = collections.Counter(query.kind for query in benchmark.queries)
    assert benchmark.kinds() == ["caption", "tag", "title", "artist"]
    assert counts["artist"] == len({song["artist"] for song in songs})
    assert 0 <= len(songs) - counts["title"] <= 5  # the rest share their names, and are counted
    clips_of = collections.Counter(row["title"] for row in rows)
    alone = [q for q in benchmark.of_kind("title") if q.text in clips_of]
    assert all(len(benchmark.right[q.query_id]) == clips_of[q.text] for q in alone)
    assert len(alone) >= len(songs) // 3
