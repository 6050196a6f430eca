"""Figures on matrices small enough to check by eye, and against closed forms."""

import math

import numpy as np
import pytest

from raymtr import metrics

# Three queries over four tracks. By descending score the right answers stand at:
#   row 0: right, wrong, wrong, wrong        -> first right at 1
#   row 1: wrong, wrong, right, right        -> first right at 3
#   row 2: wrong, right, wrong, right        -> first right at 2
SCORES = np.array([[0.9, 0.1, 0.2, 0.3], [0.1, 0.2, 0.8, 0.9], [0.4, 0.9, 0.8, 0.2]])
RIGHT = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1]], dtype=bool)


def test_ranks_count_from_one():
    assert metrics.first_right_ranks(SCORES, RIGHT).tolist() == [1, 3, 2]
    assert metrics.median_rank(SCORES, RIGHT) == 2.0
    assert metrics.mean_reciprocal_rank(SCORES, RIGHT) == pytest.approx((1 + 1 / 3 + 1 / 2) / 3)


def test_recall_is_of_any_right_answer():
    recalls = [metrics.text_to_audio_recall_at(SCORES, RIGHT, k=k) for k in (1, 2, 3, 99)]
    assert recalls == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, 1.0]


def test_recall_knows_its_direction():
    texts_by_tracks = np.array([[0.9, 0.8, 0.1], [0.7, 0.1, 0.2], [0.95, 0.2, 0.3]])
    right = np.eye(3, dtype=bool)
    assert metrics.text_to_audio_recall_at(texts_by_tracks, right, k=1) == pytest.approx(1 / 3)
    assert metrics.text_to_audio_recall_at(texts_by_tracks.T, right, k=2) == pytest.approx(2 / 3)


def test_average_precision_by_hand():
    expected = [1.0, (1 / 3 + 2 / 4) / 2, (1 / 2 + 2 / 4) / 2]
    assert metrics.average_precisions(SCORES, RIGHT) == pytest.approx(expected)
    at_three = [1.0, (1 / 3) / 2, (1 / 2) / 2]
    assert metrics.average_precisions(SCORES, RIGHT, k=3) == pytest.approx(at_three)


def test_average_precision_of_a_perfect_ranking_is_one_at_any_depth():
    scores, right = np.array([[4.0, 3, 2, 1]]), np.array([[1, 1, 1, 0]])
    assert [metrics.average_precisions(scores, right, k=k)[0] for k in (1, 2, 4)] == [1, 1, 1]


def test_ndcg_uses_the_grade_as_gain():
    scores, grades = np.array([[3.0, 2.0, 1.0]]), np.array([[1, 0, 3]])
    gained = 1 / math.log2(2) + 3 / math.log2(4)
    ideal = 3 / math.log2(2) + 1 / math.log2(3)
    assert metrics.ndcgs_at(scores, grades, k=3)[0] == pytest.approx(gained / ideal)
    assert metrics.ndcgs_at(scores, grades, k=1)[0] == pytest.approx(1 / 3)
    assert metrics.ndcgs_at(-scores, grades, k=2)[0] == pytest.approx(3 / ideal)


def test_roc_auc_by_hand_and_ties_count_half():
    assert metrics.roc_aucs(SCORES, RIGHT) == pytest.approx([1.0, 0.0, 1 / 4])
    assert metrics.roc_aucs(np.zeros((1, 5)), np.array([[1, 0, 0, 1, 0]])) == pytest.approx([0.5])


def test_equal_scores_never_help():
    constant, right = np.zeros((1, 5)), np.array([[0, 1, 0, 2, 0]])
    assert metrics.first_right_ranks(constant, right).tolist() == [4]
    assert metrics.pessimistic_order(constant, right).tolist() == [[0, 2, 4, 1, 3]]
    assert metrics.ndcgs_at(constant, right, k=3)[0] == 0.0
    scores = np.array([[2.0, 1.0, 1.0, 0.0]])
    assert metrics.first_right_ranks(scores, np.array([[0, 1, 0, 0]])).tolist() == [3]


def test_a_tie_between_right_answers_costs_nothing():
    assert metrics.first_right_ranks(np.ones((1, 3)), np.array([[1, 1, 0]])).tolist() == [2]
    assert metrics.first_right_ranks(np.array([[1.0, 1, 0]]), np.array([[1, 1, 0]])).tolist() == [1]


@pytest.mark.parametrize(
    ("scores", "relevance", "words"),
    [
        (SCORES, np.zeros_like(RIGHT), "no right answer"),
        (SCORES, RIGHT[:, :3], "must agree"),
        (np.where(SCORES == 0.9, np.nan, SCORES), RIGHT, "NaN"),
        (SCORES, RIGHT * -1.0, "grades of 0 or more"),
        (np.zeros((0, 4)), np.zeros((0, 4)), "not empty"),
        (np.zeros(4), np.ones(4), "queries, pool"),
    ],
)
def test_what_would_move_an_average_in_silence_is_rejected(scores, relevance, words):
    for figure in (metrics.median_rank, metrics.average_precisions, metrics.roc_aucs):
        with pytest.raises(ValueError, match=words):
            figure(scores, relevance)
    with pytest.raises(ValueError, match=words):
        metrics.ndcgs_at(scores, relevance, k=10)


def test_roc_auc_rejects_a_query_everything_answers():
    with pytest.raises(ValueError, match="no wrong answer"):
        metrics.roc_aucs(np.ones((1, 3)), np.ones((1, 3)))


def test_k_counts_from_one():
    with pytest.raises(ValueError, match="got 0"):
        metrics.text_to_audio_recall_at(SCORES, RIGHT, k=0)


def test_chance_recall_is_hypergeometric():
    assert metrics.chance_recall_at(200, [1], k=10) == pytest.approx([0.05])
    by_hand = 1 - math.comb(17, 5) / math.comb(20, 5)
    assert metrics.chance_recall_at(20, [3, 20], k=5) == pytest.approx([by_hand, 1.0])
    assert metrics.chance_recall_at(20, [3], k=18) == pytest.approx([1.0])
    assert metrics.chance_recall_at(4, [1], k=10) == pytest.approx([1.0])
    with pytest.raises(ValueError, match="between 1"):
        metrics.chance_recall_at(20, [0], k=5)


def test_chance_recall_agrees_with_random_scores():
    rng = np.random.default_rng(0)
    relevance = np.zeros((4000, 30))
    relevance[:, :4] = 1
    measured = metrics.text_to_audio_recall_at(rng.random(relevance.shape), relevance, k=5)
    assert measured == pytest.approx(metrics.chance_recall_at(30, 4, k=5), abs=0.02)


def test_chance_median_rank():
    assert metrics.chance_median_rank(200, [1]) == 100
    assert metrics.chance_median_rank(200, [1, 1, 200]) == 50  # a third is right at once
    assert metrics.chance_median_rank(7, [7]) == 1


def test_random_ndcg_has_the_expected_mean():
    relevance = np.zeros((3, 12))
    relevance[0, 0] = relevance[1, :3] = 1
    relevance[2, :5] = [3, 2, 2, 1, 1]
    drawn = metrics.random_ndcgs_at(relevance, k=10, rng=np.random.default_rng(1), draws=4000)
    discounts = 1 / np.log2(np.arange(2, 12))
    ideal = [metrics.ndcgs_at(r[None], r[None], k=10)[0] for r in relevance]
    assert ideal == pytest.approx([1, 1, 1])
    best = [(-np.sort(-r)[:10] * discounts).sum() for r in relevance]
    expected = np.mean(relevance.mean(axis=1) * discounts.sum() / best)
    assert drawn.shape == (4000,)
    assert drawn.mean() == pytest.approx(expected, abs=0.005)
    again = metrics.random_ndcgs_at(relevance, k=10, rng=np.random.default_rng(1), draws=4000)
    assert np.array_equal(drawn, again)


def test_random_places_are_uniform_and_different():
    places = metrics._random_places(6, 4, np.random.default_rng(2), 12_000)
    assert all(len(set(row)) == 4 for row in places[:500].tolist())
    for column in places.T:
        counts = np.bincount(column, minlength=6)
        assert counts.min() > 1800 and counts.max() < 2200  # 2,000 each, sd 41


def test_bootstrap_interval_has_the_width_theory_gives():
    values = np.repeat([0.0, 1.0], 200)
    low, high = metrics.bootstrap_interval(values, np.random.default_rng(3))
    half = 1.96 * 0.5 / math.sqrt(400)
    assert low == pytest.approx(0.5 - half, abs=0.01) and high == pytest.approx(
        0.5 + half, abs=0.01
    )
    assert metrics.bootstrap_interval([1.0], np.random.default_rng(3)) == (1.0, 1.0)
    low, high = metrics.bootstrap_interval([1.0] * 3, np.random.default_rng(3), bounds=(0, 1))
    assert low == pytest.approx(0.47, abs=0.05) and high > 0.99  # Beta(3.5, 0.5): 0.470
    with pytest.raises(ValueError, match="one number per query"):
        metrics.bootstrap_interval([], np.random.default_rng(3))
