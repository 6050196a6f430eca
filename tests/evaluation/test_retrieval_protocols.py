"""The protocols on vectors whose answers are known, and against scikit-learn and ir_measures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from raymtr import metrics
from raymtr.errors import InputError
from raymtr.evaluation import comparison, trec
from raymtr.evaluation import retrieval_protocols as protocols

EYE = np.eye(6, dtype=np.float32)
WORDS = {"rain": 0, "sun": 1, "wind": 2, "snow": 3, "fog": 4, "hail": 5}


def encode(sentences: Sequence[str]) -> np.ndarray:
    """The direction of the first known word; a sentence without one is the mean of all."""
    rows = []
    for text in sentences:
        found = [EYE[place] for word, place in WORDS.items() if word in text.lower()]
        rows.append(found[0] if found else EYE.mean(axis=0) * 6**0.5)
    return np.array(rows)


def track(n: int, **more: object) -> dict[str, object]:
    row = {"track_id": f"t{n}", "title": None, "artist": None, "album": None, "tags": None}
    return row | {"similar_artists": None} | more


def test_captions_find_their_tracks_in_both_directions() -> None:
    rows = [
        track(0, published_captions=["rain", "so much rain"]),
        track(1, published_captions=["sun"]),
        track(2, published_captions=["rain again"]),  # the words of another track
        track(3),  # no caption: only in the pool
    ]
    outcome = protocols.captions(rows, EYE[[0, 1, 2, 3]], encode, 0)
    assert outcome.queries == {"text_to_audio": 4, "audio_to_text": 3}
    assert outcome.pools == {"text_to_audio": 4, "audio_to_text": 4}
    assert outcome.figures["text_to_audio_r_at_1"] == 0.75
    assert outcome.figures["audio_to_text_r_at_1"] == pytest.approx(1 / 3)  # t0 ties, t2 is last
    assert outcome.figures["text_to_audio_median_rank"] == 1.0
    assert outcome.runs["text_to_audio"]["caption-00002"][0] == "t1"
    low, high = outcome.intervals["text_to_audio_r_at_1"]
    assert low < 0.75 < high
    with pytest.raises(InputError, match="none of 1 tracks has a caption"):
        protocols.captions([track(0)], EYE[:1], encode, 0)


def test_synonyms_join_the_more_frequent_tag_and_no_chain() -> None:
    angles = {"hip hop": 0.0, "hiphop": 0.3, "rap": 0.6}
    vectors = {k: np.array([np.cos(a), np.sin(a)], np.float32) for k, a in angles.items()}
    merged = protocols.merged_synonyms({"hip hop": 9, "hiphop": 5, "rap": 2}, vectors)
    assert merged == {"hip hop": "hip hop", "hiphop": "hip hop", "rap": "rap"}


def test_tag_queries_are_scored_per_tag_over_the_tagged_tracks() -> None:
    rows = [track(n, tags=[("rain", "sun")[n % 2]]) for n in range(6)] + [track(6), track(7)]
    vectors = EYE[[0, 1, 0, 1, 0, 2, 3, 4]]  # t5 sounds of wind
    outcome = protocols.tags(rows, vectors, encode, 0, synonyms=None, fewest=3)
    assert outcome.pools == {"text_to_audio": 6, "audio_to_text": 2}, "untagged tracks are left out"
    # sun: t1, t3 above all; t5 ties with the three of rain at 0: half of three
    assert outcome.figures["text_to_audio_roc_auc"] == pytest.approx((1 + (6 + 1.5) / 9) / 2)
    assert outcome.figures["audio_to_text_r_at_1"] == pytest.approx(5 / 6)
    with pytest.raises(InputError, match="no tag is on 10 or more of 8 tracks"):
        protocols.tags(rows, vectors, encode, 0, synonyms=None)


def test_merged_tags_share_their_tracks() -> None:
    rows = [track(n, tags=[("rain", "rainy", "sun")[n % 3]]) for n in range(9)]
    outcome = protocols.tags(
        rows, EYE[[0, 0, 1] * 3], encode, 0, synonyms=encode, fewest=3
    )  # `rainy` has the vector of `rain`
    assert outcome.notes == ["1 tags were merged into a more frequent one"]
    assert outcome.pools["audio_to_text"] == 2
    assert outcome.figures["text_to_audio_roc_auc"] == 1.0


def test_similar_artists_by_name_and_by_sound() -> None:
    rows = [
        track(0, artist="Rain", similar_artists=["The Sun"]),
        track(1, artist="Rain"),
        track(2, artist="Sun"),
        track(3, artist="Wind", similar_artists=["Nobody Here"]),
    ]
    mixed = (EYE[0] + 0.5 * EYE[1]) / 1.25**0.5
    outcome = protocols.artists(rows, np.stack([mixed, mixed, EYE[1], EYE[2]]), encode, 0)
    assert outcome.queries == {"text_to_audio": 1, "audio_to_audio": 1}
    assert outcome.pools["audio_to_audio"] == 3
    assert outcome.figures["audio_to_audio_ndcg_at_200"] == 1.0
    # the name's sentence is the vector of rain: sun and wind tie at 0, and the wrong one is first
    assert outcome.figures["text_to_audio_ndcg_at_200"] == pytest.approx(1 / np.log2(3))
    ranked = outcome.runs["audio_to_audio"]["artist-00000"]
    assert ranked[-1] == "artist-00000", "an artist is not its own answer"
    with pytest.raises(InputError, match="none of 1 artists lists another"):
        protocols.artists(rows[3:], EYE[:1], encode, 0)


def test_triplets_by_sound_and_by_words() -> None:
    rows = [track(n, title=word) for word, n in WORDS.items()]
    vectors = EYE.copy()
    vectors[1] = (EYE[0] + EYE[1]) / 2**0.5
    asked = [("t0", "t1", "t2"), ("t0", "t2", "t1"), ("t3", "t4", "t5")]
    outcome = protocols.triplets(rows, vectors, encode, 0, asked)
    for direction in ("audio_to_audio", "text_to_audio"):  # a tie is wrong
        assert outcome.figures[f"{direction}_triplet_accuracy"] == pytest.approx(1 / 3)
    assert protocols.anchor_sentence({"title": "A", "artist": "B", "album": None}) == (
        "similar music track with A by B"
    )
    with pytest.raises(InputError, match="1 tracks of the triplets have no vector, among them 'x'"):
        protocols.triplets(rows, vectors, encode, 0, [("t0", "x", "t1")])


def _random_case(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of few values, so with many ties, and a relevance with an answer in each row."""
    rng = np.random.default_rng(seed)
    relevance = rng.integers(0, 4, (7, 40)) * (rng.random((7, 40)) < 0.3)
    relevance[:, 0], relevance[:, 1] = 1, 0
    return rng.integers(0, 6, (7, 40)).astype(np.float64), relevance


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_metrics_are_scikit_learns(seed: int) -> None:
    from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

    scores, relevance = _random_case(seed)
    right = relevance > 0
    areas = [roc_auc_score(r, s) for r, s in zip(right, scores, strict=True)]
    np.testing.assert_allclose(metrics.roc_aucs(scores, right), areas, rtol=0, atol=1e-9)
    places = np.argsort(metrics.pessimistic_order(scores, relevance), axis=1)  # ties broken
    wanted = [average_precision_score(r, -p) for r, p in zip(right, places, strict=True)]
    np.testing.assert_allclose(metrics.average_precisions(scores, right), wanted, atol=1e-9)
    for k in (1, 10, 40):
        gains = [
            ndcg_score(r[None], -p[None].astype(float), k=k)
            for r, p in zip(relevance, places, strict=True)
        ]
        np.testing.assert_allclose(metrics.ndcgs_at(scores, relevance, k=k), gains, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_trec_files_give_the_same_figures_in_ir_measures(seed: int) -> None:
    """Through the lines that are written, so that others get our figures from our files."""
    ir_measures = pytest.importorskip("ir_measures", reason="ir-measures is not installed")
    from ir_measures import AP, RR, Success, nDCG

    scores, relevance = _random_case(seed)
    queries, pool = [f"q{n}" for n in range(7)], [f"t{n:02d}" for n in range(40)]
    outcome = protocols.Outcome({})
    outcome.rank("text_to_audio", queries, pool, scores, relevance)
    run_text = "\n".join(trec.run_lines(outcome.runs["text_to_audio"], tag="x"))
    qrels_text = "\n".join(trec.qrels_lines(outcome.right["text_to_audio"]))
    run = list(ir_measures.read_trec_run(run_text))
    qrels = list(ir_measures.read_trec_qrels(qrels_text))
    wanted = ir_measures.calc_aggregate([AP, RR, Success @ 10, nDCG @ 10], qrels, run)
    ranks = metrics.first_right_ranks(scores, relevance)
    got = {
        AP: metrics.average_precisions(scores, relevance).mean(),
        RR: (1 / ranks).mean(),
        Success @ 10: (ranks <= 10).mean(),
        nDCG @ 10: metrics.ndcgs_at(scores, relevance, k=10).mean(),
    }
    for measure, value in got.items():
        assert value == pytest.approx(wanted[measure], abs=1e-9), measure
    parsed = trec.parse_run(run_text.splitlines(), "run")
    assert parsed == outcome.runs["text_to_audio"]
    compared = comparison.per_query(parsed, outcome.right["text_to_audio"], "run")
    assert compared["ap"].mean() == pytest.approx(wanted[AP], abs=1e-9)
    assert compared["mrr"].mean() == pytest.approx(wanted[RR], abs=1e-9)
    assert compared["ndcg_at_10"].mean() == pytest.approx(wanted[nDCG @ 10], abs=1e-9)


def test_a_run_that_stops_early_found_nothing_after_it() -> None:
    right = {"q": {"a": 1, "b": 2}, "p": {"c": 1}}
    run = trec.parse_run(["q Q0 x 1 3 s", "q Q0 a 2 2 s", "p Q0 x 1 1 s"], "run")
    figures = comparison.per_query(run, right, "run")
    assert figures["mrr"].tolist() == [0.5, 0.0] and figures["ap"].tolist() == [0.25, 0.0]
    ideal = 2 + 1 / np.log2(3)
    assert figures["ndcg_at_10"] == pytest.approx([1 / np.log2(3) / ideal, 0.0])
    with pytest.raises(InputError, match="no line of query 'p'"):
        comparison.per_query({"q": ["a"]}, right, "run")
    with pytest.raises(InputError, match="run:2: query 'q' ranks 'a' twice"):
        trec.parse_run(["q Q0 a 1 2 s", "q Q0 a 2 1 s"], "run")
    with pytest.raises(InputError, match="run:1: expected `query_id Q0"):
        trec.parse_run(["q a 1"], "run")


def test_a_paired_difference_sees_what_two_intervals_hide() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(60)  # queries differ much more than the systems do
    other = hard + 0.02 + 0.01 * rng.standard_normal(60)
    told = metrics.paired_difference(hard, other, np.random.default_rng(1))
    assert 0.01 < told["low"] < told["difference"] < told["high"] < 0.03 and told["p"] < 0.001
    same = metrics.paired_difference(hard, rng.permutation(hard), np.random.default_rng(1))
    assert same["difference"] == pytest.approx(0, abs=1e-12) and same["p"] == 1.0
    with pytest.raises(ValueError, match="the same queries"):
        metrics.paired_difference([1.0], [1.0, 2.0], rng)
