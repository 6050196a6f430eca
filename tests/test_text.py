"""The sentences of TTMR++: their words, their chances, and nothing that is not the track's."""

from collections import Counter

import numpy as np
import pytest

from raymtr.text import (
    METADATA_VARIANTS,
    MOST_SIMILAR_ARTISTS,
    draw_sentence,
    metadata_sentence,
    similar_artists_sentence,
    tags_sentence,
)

TRACK = {
    "title": "Title",
    "artist": "Artist",
    "album": "Album",
    "tags": ["rock", "pop", "jazz"],
    "similar_artists": [f"S{i}" for i in range(9)],
}


def draws(track, captions, count=2_000):
    rng = np.random.default_rng(0)
    return [draw_sentence(track, captions, rng) for _ in range(count)]


def test_the_papers_sentences():
    assert metadata_sentence("T", "A", "B") == "music track T by A from B"
    assert metadata_sentence(None, "A", None) == "music track by A"
    assert metadata_sentence("T", None, "") == "music track T"
    assert similar_artists_sentence(["A", "B"]) == "similar with artist A, B"
    assert tags_sentence(["rock", "pop"]) == "rock, pop"


def test_the_same_rng_draws_the_same_sentence():
    assert draws(TRACK, ["a caption"], 50) == draws(TRACK, ["a caption"], 50)


def test_the_number_of_types_is_uniform_and_so_is_their_order():
    sentences = [s.split(". ") for s in draws(TRACK, ["some caption"], 4_000)]
    counts = Counter(map(len, sentences))
    assert set(counts) == {1, 2, 3, 4}
    assert all(0.22 < count / 4_000 < 0.28 for count in counts.values())
    first = Counter(s[0].split()[0] == "some" for s in sentences if len(s) == 4)
    assert 0.18 < first[True] / sum(first.values()) < 0.32


def test_tags_are_a_random_subset_never_empty():
    subsets = {frozenset(s.split(", ")) for s in draws({"tags": TRACK["tags"]}, [])}
    assert len(subsets) == 7 and set().union(*subsets) == set(TRACK["tags"])


def test_one_to_five_similar_artists_each_once():
    sizes = set()
    for sentence in draws({"similar_artists": TRACK["similar_artists"]}, []):
        names = sentence.removeprefix("similar with artist ").split(", ")
        assert len(set(names)) == len(names) and set(names) <= set(TRACK["similar_artists"])
        sizes.add(len(names))
    assert sizes == set(range(1, MOST_SIMILAR_ARTISTS + 1))


def test_one_caption_at_random():
    assert set(draws({}, ["one", "two"], 50)) == {"one", "two"}


@pytest.mark.parametrize("track", [{}, {"tags": None, "title": None}, {"tags": [], "album": "B"}])
def test_a_track_without_words_has_no_sentence(track):
    assert draws(track, [], 3) == [None] * 3


def test_half_of_the_metadata_is_the_papers_sentence_and_the_rest_are_variants():
    names = {"title": "Ti{t}le", "artist": "Art. ist", "album": "Al%bum"}
    seen = Counter(draws(names, []))
    paper = "music track Ti{t}le by Art. ist from Al%bum"
    assert 0.46 < seen.pop(paper) / 2_000 < 0.54
    assert set(seen) == {form.format(**names) for form in METADATA_VARIANTS}
    assert min(seen.values()) > 0.7 * 1_000 / len(METADATA_VARIANTS)


@pytest.mark.parametrize(
    ("track", "never"),
    [
        ({"title": "Tee"}, ("by", "from")),
        ({"artist": "Arr", "album": None}, ("song", "from")),
        ({"title": "Tee", "artist": "Arr", "album": ""}, ("from",)),
    ],
)
def test_metadata_says_nothing_of_parts_that_are_absent(track, never):
    sentences = set(draws(track, [], 300))
    assert len(sentences) > 1
    for sentence in sentences:
        words = sentence.split()
        assert "None" not in sentence and not set(never) & set(words)
        assert any(name in words for name in track.values() if name)


def test_similar_artists_are_drawn_anew_at_each_step():
    track, rng = {"similar_artists": TRACK["similar_artists"]}, np.random.default_rng(3)
    assert (
        len({draw_sentence(track, [], rng) for _ in range(100)}) > 70
    )  # a single name comes again


def test_weights_draw_one_kind_of_text_by_its_share() -> None:
    track = {"title": "Amber", "artist": "Ada", "tags": ["slow"], "playlists": ["Late night"]}
    weights = {"metadata": 2.0, "caption": 2.0, "playlist": 1.0, "tags": 1.0}
    rng = np.random.default_rng(0)
    drawn = [draw_sentence(track, ["A calm tune."], rng, weights) for _ in range(3_000)]
    shares = [drawn.count(text) / 3_000 for text in ("A calm tune.", "Late night", "slow")]
    assert shares == pytest.approx([2 / 6, 1 / 6, 1 / 6], abs=0.03)
    without = [draw_sentence(track, (), rng, weights) for _ in range(3_000)]
    assert without.count("slow") / 3_000 == pytest.approx(1 / 4, abs=0.03), "absent kinds: no share"
    assert draw_sentence({"similar_artists": ["Bo"]}, (), rng, weights) is None
