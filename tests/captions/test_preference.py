"""Preference stage: the loss is the formula, and chosen captions become likelier."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from raymtr.captions.base_model import add_lora
from raymtr.captions.learning.pairs import read_pairs
from raymtr.captions.learning.preference import (
    BETA,
    Preferred,
    _Learner,
    accepted,
    answer_log_likelihood,
    dpo_loss,
    prefer,
)
from raymtr.captions.learning.pretrain import build_toy, train_tokenizer
from raymtr.captions.learning.step import AnswerLoss, FinetuneStep, pad, parts_of
from raymtr.captions.prompt import encode
from raymtr.errors import InputError


@pytest.fixture(scope="module")
def made(pair_file, small_spec):
    pairs = read_pairs(pair_file)
    return pairs, train_tokenizer(pairs, small_spec.toy)


def lora_step(tokenizer, spec):
    model = add_lora(build_toy(tokenizer, spec.toy, seed=0), spec)
    return FinetuneStep(model, spec, device=torch.device("cpu"), steps=4, rate=spec.learning_rate)


def test_the_loss_is_the_formula():
    """Rafailov et al. (2023), equation 7, by hand."""
    own = ([-10.0, -30.0], [-12.0, -20.0])
    reference = ([-11.0, -28.0], [-11.0, -25.0])
    by_hand = [
        -math.log(1 / (1 + math.exp(-BETA * ((w - rw) - (lost - rl)))))
        for w, lost, rw, rl in zip(*own, *reference, strict=True)
    ]
    loss = dpo_loss(*map(torch.tensor, (*own, *reference)))
    assert float(loss) == pytest.approx(np.mean(by_hand), rel=1e-5)
    same = torch.tensor([-3.0])
    assert float(dpo_loss(same, same, same, same)) == pytest.approx(math.log(2))


@pytest.mark.slow
def test_likelihoods_are_those_of_the_training_loss(made, small_spec):
    pairs, tokenizer = made
    rows = [encode(tokenizer, p.tags, p.caption, max_tokens=64) for p in pairs[:5]]
    model = build_toy(tokenizer, small_spec.toy, seed=0).eval()
    batch = pad(rows, tokenizer.pad_token_id)
    by_row = answer_log_likelihood(model, batch)
    alone = [AnswerLoss(model)(pad([row], tokenizer.pad_token_id)) for row in rows]
    assert torch.allclose(by_row, -torch.stack(alone), atol=1e-3)
    parts = parts_of(batch, 2)
    assert [len(part.labels) for part in parts] == [3, 2]
    assert sum(AnswerLoss(model)(part).item() for part in parts) == pytest.approx(
        AnswerLoss(model)(batch).item(), rel=1e-4
    )


@pytest.mark.slow
def test_chosen_captions_become_likelier_than_rejected_ones(made, small_spec):
    pairs, tokenizer = made
    trainer = lora_step(tokenizer, replace(small_spec, learning_rate=5e-2))
    known = [Preferred(pair.tags, pair.caption, "No no no.") for pair in pairs[:4]]
    learner = _Learner(trainer, tokenizer, known)
    figures = [learner.step(range(4)) for _ in range(6)]
    assert figures[0]["preference_loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert figures[-1]["preference_loss"] < 0.6 and figures[-1]["preference_right"] == 1.0


@pytest.mark.slow
def test_a_captioner_whose_drafts_are_all_alike_is_left_as_it_is(made, small_spec, caplog):
    """An untrained one writes no acceptable draft."""
    pairs, tokenizer = made
    trainer = lora_step(tokenizer, replace(small_spec, preference_steps=1, batch=2))
    before = trainer.weights()
    assert prefer(trainer, tokenizer, pairs[:2]) == {"preference_pairs": 0.0}
    assert all(torch.equal(before[name], now) for name, now in trainer.weights().items())
    assert "the preference stage is left out" in caplog.text


def test_pairs_that_say_their_tags_are_kept(made):
    pairs, _ = made
    loose = [replace(pair, caption="Something else, by someone else.") for pair in pairs[:30]]
    assert accepted([*loose, *pairs]) == pairs
    with pytest.raises(InputError, match="judged=true accepts 0 of 30 pairs"):
        accepted(loose)
