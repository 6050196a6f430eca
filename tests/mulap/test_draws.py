"""Masks and sentences that are not true, against cases computed by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from raymtr.mulap.draws import NO_LABEL, mask_chunks, mask_words, pair_sentence, untrue


def test_words_are_masked_80_10_10() -> None:
    rng = np.random.default_rng(0)
    ids = [2, *range(100, 1100), 3]
    counts = dict.fromkeys(("mask", "other", "same"), 0)
    masked = 0
    for _ in range(40):
        read, labels = mask_words(ids, 0.15, rng, special={2, 3}, mask_id=4, vocabulary=30_000)
        assert read[0] == 2 and read[-1] == 3 and labels[0] == labels[-1] == NO_LABEL
        for was, now, label in zip(ids, read, labels, strict=True):
            if label == NO_LABEL:
                assert now == was
                continue
            assert label == was, "the label is the word before the mask"
            masked += 1
            counts["mask" if now == 4 else "same" if now == was else "other"] += 1
    assert masked / 40_000 == pytest.approx(0.15, abs=0.01)
    shares = [count / masked for count in counts.values()]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)


def test_one_chunk_at_least_is_heard() -> None:
    rng = np.random.default_rng(0)
    assert not mask_chunks(1, 0.9, rng).any()
    drawn = np.array([mask_chunks(7, 0.15, rng) for _ in range(2000)])
    assert drawn.mean() == pytest.approx(0.15, abs=0.01) and not drawn.all(axis=1).any()


TRACK = {
    "tags": ["Piano", "slow"],
    "captions": ["A slow piano."],
    "title": "Rain",
    "artist": "Anna",
    "album": None,
    "similar_artists": ["Ben"],
}


def test_what_holds_for_both_is_not_said() -> None:
    other = {
        "tags": ["piano", "jazz"],
        "captions": ["A slow piano.", "Piano alone.", "Jazz on the piano."],
        "title": "rain",
        "artist": "Carl",
        "album": "Home",
        "similar_artists": ["Ben", "Anna", "Dora"],
    }
    assert untrue(other, TRACK) == {
        "tags": ["jazz"],
        "captions": ["Jazz on the piano."],  # the others name nothing that only this track has
        "title": None,
        "artist": "Carl",
        "album": "Home",
        "similar_artists": ["Dora"],
    }


def test_of_the_same_artist_no_name_is_said() -> None:
    said = untrue({**TRACK, "title": "Sun", "tags": ["fast"], "captions": None}, TRACK)
    assert said == {"tags": ["fast"], "captions": [], "similar_artists": []}


def test_a_sentence_that_is_also_true_is_never_drawn() -> None:
    rng = np.random.default_rng(0)
    subset = {"tags": ["slow", "PIANO"], "captions": ["A slow piano."]}
    assert pair_sentence(TRACK, [subset], rng, true=False) is None
    assert pair_sentence(TRACK, [], rng, true=False) is None
    others = [subset, {"tags": ["slow", "drums"]}]
    drawn = {pair_sentence(TRACK, others, rng, true=False) for _ in range(20)}
    assert drawn == {"drums"}


def test_true_and_untrue_sentences_have_the_same_words() -> None:
    """Over all pairs of tracks; else the words would tell a true one without any sound."""
    tags = ["slow", "piano", "drums", "fast", "sad"]
    tracks = [{"tags": tags[n : n + 3]} for n in range(3)]
    drawn: dict[bool, Counter[str | None]] = {True: Counter(), False: Counter()}
    for true, found in drawn.items():
        for seed in range(4_000):
            rng = np.random.default_rng([seed, true])
            one, other = rng.permutation(3)[:2]
            found[pair_sentence(tracks[one], [tracks[other]], rng, true=true)] += 1
    assert set(drawn[True]) == set(drawn[False])
    for sentence, count in drawn[True].items():
        assert drawn[False][sentence] == pytest.approx(count, rel=0.25)
