"""The loss against closed forms; what several workers make of it is in test_workers_agree.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from raymtr.training.contrastive_loss import contrastive_loss, right_answers

REFERENCE = Path(__file__).resolve().parents[1] / "data" / "ttmrpp_reference.npz"
ONE = torch.zeros(())  # logit scale 0: similarities count as they are


@pytest.mark.parametrize("batch", [2, 7])
def test_equal_rows_cost_log_b(batch: int) -> None:
    row = torch.tensor([0.3, -2.0, 1.0]).expand(batch, 3)
    assert float(contrastive_loss(row, row, ONE)) == pytest.approx(math.log(batch), abs=1e-6)


def test_orthogonal_pairs_at_scale_one() -> None:
    eye = torch.eye(2)  # -log(e / (e + 1))
    assert float(contrastive_loss(eye, eye, ONE)) == pytest.approx(math.log1p(math.exp(-1)))


def test_length_of_a_vector_is_no_evidence() -> None:
    generator = torch.Generator().manual_seed(0)
    audio, text = torch.randn(2, 5, 8, generator=generator)
    scaled = audio * torch.arange(1.0, 6.0)[:, None]
    torch.testing.assert_close(
        contrastive_loss(scaled, text * 9, ONE), contrastive_loss(audio, text, ONE)
    )


def test_both_directions_are_averaged() -> None:
    generator = torch.Generator().manual_seed(1)
    audio, text = functional.normalize(torch.randn(2, 4, 6, generator=generator), dim=-1)
    logits = 10.0 * audio @ text.T
    own = torch.arange(4)
    forth, back = functional.cross_entropy(logits, own), functional.cross_entropy(logits.T, own)
    assert abs(float(forth - back)) > 1e-3, "the example must tell the directions apart"
    got = contrastive_loss(audio, text, torch.tensor(math.log(10.0)))
    torch.testing.assert_close(got, (forth + back) / 2)


def test_scale_is_clamped_at_one_hundred() -> None:
    generator = torch.Generator().manual_seed(2)
    audio, text = torch.randn(2, 4, 6, generator=generator)
    at, above = torch.tensor(math.log(100.0)), torch.tensor(8.0, requires_grad=True)
    loss = contrastive_loss(audio, text, above)
    torch.testing.assert_close(loss, contrastive_loss(audio, text, at))
    loss.backward()
    assert above.grad == 0


def test_rows_of_one_track_or_one_sentence_are_right_answers_to_one_another() -> None:
    names = torch.tensor([[7, 1], [7, 2], [3, 2], [4, 7]])  # track and sentence; 7 is no sentence 7
    shared = right_answers(names)
    assert shared.nonzero().tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]


def test_a_right_answer_is_no_negative() -> None:
    """Every pair stands twice: towers that know them all have the loss of a batch without twins."""
    generator = torch.Generator().manual_seed(3)
    audio, text = torch.randn(2, 5, 6, generator=generator)
    scale = torch.tensor(math.log(20.0))
    names = torch.arange(5)[:, None].expand(5, 2)
    twice = [part.repeat(2, 1) for part in (audio, text)]
    shared = right_answers(names.repeat(2, 1))
    once = contrastive_loss(audio, text, scale, shared=right_answers(names))
    torch.testing.assert_close(once, contrastive_loss(audio, text, scale))
    eye = torch.eye(5).repeat(2, 1)
    blind = float(contrastive_loss(eye, eye, scale))
    seeing = float(contrastive_loss(eye, eye, scale, shared=shared))
    assert blind == pytest.approx(math.log(2), abs=1e-3) and seeing < 1e-3
    assert math.isfinite(float(contrastive_loss(*twice, scale, shared=shared)))


def test_a_batch_of_one_track_has_nothing_to_tell_apart() -> None:
    rows = torch.randn(3, 4, requires_grad=True)
    loss = contrastive_loss(rows, rows, ONE, shared=right_answers(torch.zeros(3, 2).long()))
    loss.backward()
    assert loss.item() == 0 and rows.grad is not None and not rows.grad.any()


def test_bf16_embeddings_give_a_float32_loss() -> None:
    loss = contrastive_loss(torch.eye(3).bfloat16(), torch.eye(3).bfloat16(), ONE)
    assert loss.dtype == torch.float32


def test_the_authors_loss_on_their_own_vectors() -> None:
    with np.load(REFERENCE) as expected:
        audio = torch.from_numpy(expected["audio_embedding"])
        text = torch.from_numpy(expected["text_embedding"][:3])
        scale = torch.from_numpy(expected["logit_scale"]).squeeze().float()
        wanted = float(expected["infonce_first3"])
    assert float(contrastive_loss(audio, text, scale)) == pytest.approx(wanted, abs=1e-5)
