"""The network and its sampling: the cache, order in time, seeds, windows, bad numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from raymtr.errors import UnusableError
from raymtr.generation.bigrams import log_bigrams
from raymtr.generation.sampling import Changes, Sampler, next_window, slide
from raymtr.generation.stages import Stages
from tests.generation.conftest import MUSICLM, TOKENS

ALIGNED = replace(MUSICLM, time_positions=True, bigram_prior=True)


@pytest.fixture(params=[MUSICLM, ALIGNED], ids=["paper", "aligned"])
def stages(request: pytest.FixtureRequest) -> Stages:
    torch.manual_seed(0)
    stages = Stages(TOKENS, request.param, codec_codes=TOKENS.codes).eval()
    stages.count_bigrams(list(np.random.default_rng(0).integers(0, 8, (5, 40, TOKENS.levels))))
    return stages


def draw(size: tuple[int, ...], below: int) -> torch.Tensor:
    return torch.randint(below, size, generator=torch.Generator().manual_seed(1))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("piece", [1, 7])
def test_cached_steps_equal_the_full_forward(stages: Stages, piece: int) -> None:
    x = stages.coarse.embed(draw((2, 90), 20))
    times = stages.coarse.times([draw((2, 1, 2), 2), draw((2, 20, 1), 8)], 67)
    assert len(times.own) == len(times.next) == 90
    full, _ = stages.coarse.decoder(x, times)
    cache, made = None, []
    for part in x.split(piece, dim=1):
        states, cache = stages.coarse.decoder(part, times, cache)
        made.append(states)
    torch.testing.assert_close(torch.cat(made, dim=1), full, atol=1e-4, rtol=0)


def test_steps_give_the_losses_of_training(stages: Stages) -> None:
    """Frame by frame, level by level, with the bigrams of the frame before."""
    stage, coarse, target = stages.fine, draw((2, 6, 1), 16), draw((2, 6, 2), 16)
    losses = stage([coarse], target, torch.tensor([False, False]))
    ids, times, cache = stage.condition([coarse]), stage.times([coarse], 6), None
    before = [torch.full((2,), TOKENS.codes)] * 2
    for place, token in enumerate(target.flatten(1).T):
        level = place % 2
        logits, cache = stage.step(ids, cache, level, times, before[level])
        nats = functional.cross_entropy(logits, token, reduction="none")
        torch.testing.assert_close(nats, losses[:, place], atol=1e-4, rtol=0)
        before[level] = token
        ids = (token + stage.offsets[-1] + level * TOKENS.codes)[:, None]


def test_times_put_a_condition_beside_its_output() -> None:
    stages = Stages(TOKENS, ALIGNED, codec_codes=TOKENS.codes)
    joint, semantic = draw((1, 1, 2), 2), draw((1, 2, 1), 8)
    times = stages.coarse.times([joint, semantic], 4)  # a semantic token for two frames
    assert times.own.tolist() == [-1, -1, 0, 2, -1, 0, 1, 2, 3]
    assert times.next.tolist() == [-1, -1, 0, 2, 0, 1, 2, 3, -1]
    assert stages.fine.times([draw((1, 3, 1), 16)], 3).next.tolist() == [
        *(0, 1, 2),
        *(0, 0, 1, 1, 2, 2, -1),
    ]


def test_bigrams_are_counted_for_each_level() -> None:
    tracks = [np.array([[0, 3], [1, 3], [0, 3], [1, 3]])] * 5_000
    chances = np.exp(log_bigrams(tracks, 4))
    assert chances.shape == (2, 5, 4)
    np.testing.assert_allclose(chances.sum(axis=2), 1, atol=1e-5)
    assert chances[0, 0, 1] > 0.95 and chances[0, 1, 0] > 0.9  # 0 and 1 alternate
    assert chances[0, 4, 0] == pytest.approx(0.5, abs=0.01)  # in the first frame
    assert chances[1, 3, 3] > 0.99 and chances[1, 0, 3] > 0.99  # after an unseen code: unigrams
    assert (chances > 0).all()


def test_a_token_does_not_see_what_comes_after(stages: Stages) -> None:
    joint, semantic = draw((1, 1, 2), 2), draw((1, 6, 1), 8)
    target, other = draw((1, 5, 1), 16), draw((1, 5, 1), 16)
    other[:, 3:] = (other[:, 3:] + 1) % 16
    bare = torch.tensor([False])
    losses = [stages.coarse([joint, semantic], codes, bare)[0] for codes in (target, other)]
    torch.testing.assert_close(losses[0][:3], losses[1][:3])
    assert not torch.allclose(losses[0][3:], losses[1][3:])


def test_a_row_follows_its_own_seed(stages: Stages) -> None:
    coarse = draw((2, 9, 1), 16)
    nothing = torch.empty(2, 0, 2, dtype=torch.int64)

    def fine(rows: slice, *seeds: int) -> torch.Tensor:
        return slide(
            *(stages.fine, lambda first, last, done: [coarse[rows, first:last]]),
            *(nothing[rows], 9, 4, Sampler(1.0), seeded(*seeds)),
        )

    both = fine(slice(0, 2), 5, 6)
    assert both.shape == (2, 9, 2)
    assert torch.equal(both, fine(slice(0, 2), 5, 6))
    assert torch.equal(both[1:], fine(slice(1, 2), 6))
    assert not torch.equal(both[:1], fine(slice(0, 1), 7))


def test_windows_keep_half_and_stop_at_a_change(stages: Stages) -> None:
    assert [next_window(done, 50, 20) for done in (0, 20, 45)] == [(0, 20), (10, 30), (35, 50)]
    assert next_window(20, 50, 20, Changes([25], 10)) == (10, 25)
    joint, seen = draw((1, 1, 2), 2), []

    def given(first: int, last: int, done: int) -> list[torch.Tensor]:
        seen.append((first, last, done))
        return [joint]

    prefix = draw((1, 3, 1), 8)
    made = slide(
        stages.semantic, given, prefix, 12, 6, Sampler(1.0), seeded(0), changes=Changes([4, 8], 3)
    )
    assert seen == [(0, 4, 3), (1, 7, 4), (4, 8, 7), (5, 11, 8), (8, 12, 11)]
    assert torch.equal(made[:, :3], prefix)


def test_after_a_change_less_of_the_old_sound_is_kept() -> None:
    changes = Changes.at([2.0], kept_s=0.3, rate=10.0)
    assert changes == Changes([20], 3)
    windows = [(0, 20), (17, 37), (27, 47)]  # half a crop is 10 frames
    assert [next_window(done, 60, 20, changes) for done in (0, 20, 37)] == windows
    assert next_window(24, 60, 20, changes) == (17, 37)
    assert next_window(20, 60, 20, Changes([20], 0)) == (20, 40)
    assert next_window(20, 60, 20, Changes([20], 99)) == (10, 30)


def test_guidance_moves_towards_the_condition(stages: Stages) -> None:
    """At a huge weight the drawn token is the one that the condition raises most."""
    joint, first = draw((1, 1, 2), 2), torch.tensor([TOKENS.semantic_codes])
    with torch.no_grad():
        logits = [
            stages.semantic.step(
                stages.semantic.condition([joint], unconditional=torch.tensor([bare])),
                *(None, 0, stages.semantic.times([joint], 1), first),
            )[0]
            for bare in (False, True)
        ]
    best = int((logits[0] - logits[1]).argmax())
    made = slide(
        *(stages.semantic, lambda first, last, done: [joint]),
        *(torch.empty(1, 0, 1, dtype=torch.int64), 1, 6, Sampler(1.0, 1e6), seeded(0)),
    )
    assert int(made) == best


def test_numbers_that_are_not_finite_end_in_one_sentence(stages: Stages) -> None:
    with torch.no_grad():
        stages.semantic.head.fill_(torch.nan)
    with pytest.raises(UnusableError, match="not finite: its weights are damaged"):
        slide(
            *(stages.semantic, lambda first, last, done: [draw((1, 1, 2), 2)]),
            *(torch.empty(1, 0, 1, dtype=torch.int64), 2, 6, Sampler(1.0), seeded(0)),
        )
