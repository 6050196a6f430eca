"""The network and its sampling: the cache, order in time, seeds, windows, bad numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from raymtr.errors import UnusableError
from raymtr.generation.frame_stage import PIECE, FrameStage
from raymtr.generation.melody import NONE
from raymtr.generation.sampling import (
    Changes,
    Sampler,
    WindowSampling,
    next_window,
    sample,
    sample_in_parts,
    slide,
)
from raymtr.generation.stages import Stages
from raymtr.generation.transformer import Cache
from raymtr.generation_specs import MelodySpec
from tests.generation.conftest import DEPTH, MUSICLM, TOKENS

BOTH = torch.tensor([False, False])


@pytest.fixture
def stages() -> Stages:
    torch.manual_seed(0)
    return Stages(TOKENS, MUSICLM, codec_codes=TOKENS.codes).eval()


@pytest.fixture
def acoustic() -> FrameStage:
    """With M_A, a melody and semantic tokens as conditions."""
    torch.manual_seed(0)
    melody = MelodySpec(steps=1, levels=2, codes=4)
    spec = replace(DEPTH, hears_semantic=True)
    return Stages(replace(TOKENS, melody=melody), spec, codec_codes=TOKENS.codes).eval().acoustic


def draw(size: tuple[int, ...], below: int) -> torch.Tensor:
    return torch.randint(below, size, generator=torch.Generator().manual_seed(1))


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize("piece", [1, 7])
def test_cached_steps_equal_the_full_forward(stages: Stages, piece: int) -> None:
    x = stages.coarse.embed(draw((2, 90), 20))
    full, cache = stages.coarse.decoder(x), Cache()
    made = [stages.coarse.decoder(part, cache) for part in x.split(piece, dim=1)]
    torch.testing.assert_close(torch.cat(made, dim=1), full, atol=1e-4, rtol=0)


def nats_of(window: WindowSampling, target: torch.Tensor) -> torch.Tensor:
    """The cross-entropy of tokens int64 [B, F, levels], sampled one by one -> [B, F * levels]."""
    nats, last = [], None
    for token in target.flatten(1).T:
        nats.append(functional.cross_entropy(window.logits(last), token, reduction="none"))
        last = token
    return torch.stack(nats, dim=1)


@pytest.mark.parametrize("prefix", [0, 2])
def test_sampling_gives_the_losses_of_training(stages: Stages, prefix: int) -> None:
    """Frame by frame, level by level."""
    stage, coarse, target = stages.fine, draw((2, 6, 1), 16), draw((2, 6, 2), 16)
    losses = stage([coarse], target, BOTH)
    found = nats_of(stage.begin([coarse], target[:, :prefix], 6, BOTH), target[:, prefix:])
    torch.testing.assert_close(found, losses[:, prefix * 2 :], atol=1e-4, rtol=0)


def conditions_of_acoustic() -> list[torch.Tensor]:
    """M_A, a melody of which the second row has none, and semantic tokens of half the rate."""
    melody = draw((2, 2, 2), 4)
    melody[1] = NONE
    return [draw((2, 1, 2), 2), melody, draw((2, 10, 1), 8)]


@pytest.mark.parametrize("prefix", [0, 1, 7])
def test_the_acoustic_stage_samples_what_it_learned(acoustic: FrameStage, prefix: int) -> None:
    conditions, target = conditions_of_acoustic(), draw((2, 20, 3), 16)
    for bare in (BOTH, torch.tensor([False, True])):
        losses = acoustic(conditions, target, bare)
        assert losses.shape == (2, 60)
        window = acoustic.begin(conditions, target[:, :prefix], 20, bare)
        found = nats_of(window, target[:, prefix:])
        torch.testing.assert_close(found, losses[:, prefix * 3 :], atol=1e-4, rtol=0)


def test_the_acoustic_stage_hears_each_condition_in_its_moment(acoustic: FrameStage) -> None:
    conditions, target = conditions_of_acoustic(), draw((2, 20, 3), 16)
    losses = acoustic(conditions, target, BOTH)
    for number, place, first in ((0, 0, 0), (1, 1, 10), (2, 7, 14)):
        changed = [tokens.clone() for tokens in conditions]
        changed[number][0, place, 0] = (changed[number][0, place, 0] + 1) % 2
        other = acoustic(changed, target, BOTH)
        torch.testing.assert_close(other[1], losses[1])
        torch.testing.assert_close(other[0, : first * 3], losses[0, : first * 3])
        assert not torch.isclose(other[0, first * 3], losses[0, first * 3])
    bare = acoustic(conditions, target, torch.tensor([True, False]))
    assert not torch.isclose(bare[0, 0], losses[0, 0])


def test_half_of_the_rows_are_learned_in_pieces(acoustic: FrameStage) -> None:
    """A piece has none of the frames before it, but its own part of each condition."""
    frames = 2 * PIECE + 3
    conditions = [draw((2, 1, 2), 2), draw((2, 2, 2), 4), draw((2, frames, 1), 8)]
    target, places = draw((2, frames, 3), 16), torch.arange(frames) * 2 // frames
    whole = acoustic(conditions, target, BOTH)
    pieces = []
    for cut in (slice(PIECE), slice(PIECE, 2 * PIECE)):
        given = [conditions[0], conditions[1][:, places[cut]], conditions[2][:, cut]]
        pieces.append(acoustic(given, target[:, cut], BOTH))
    seen = set()
    for seed in range(8):
        torch.manual_seed(seed)
        losses = acoustic.train()(conditions, target, BOTH)  # without dropout
        in_pieces = torch.cat([part[1] for part in pieces])
        first_whole = torch.cat([whole[0], in_pieces])
        in_pieces = torch.cat([part[0] for part in pieces])
        second_whole = torch.cat([whole[1], in_pieces])
        matches = [torch.allclose(losses, other) for other in (first_whole, second_whole)]
        assert sum(matches) == 1
        seen.add(matches.index(True))
    assert seen == {0, 1}
    one = [acoustic([part[:1] for part in conditions], target[:1], BOTH[:1]) for _ in range(8)]
    assert {len(losses) for losses in one} == {frames * 3, 2 * PIECE * 3}


def test_parts_of_a_window_grow_to_the_whole(acoustic: FrameStage) -> None:
    conditions, prefix = conditions_of_acoustic(), draw((2, 3, 3), 16)
    whole = sample(acoustic, conditions, prefix, 20, Sampler([1.0]), seeded(0, 1))
    parts = list(
        sample_in_parts(acoustic, conditions, prefix, 20, Sampler([1.0]), seeded(0, 1), part=7)
    )
    assert [part.shape[1] for part in parts] == [10, 17, 20]
    assert all(torch.equal(part, whole[:, : part.shape[1]]) for part in parts)


def test_each_level_has_its_temperature(acoustic: FrameStage) -> None:
    """The first level is drawn at random, the others greedily."""
    conditions = [tokens[:1] for tokens in conditions_of_acoustic()]
    nothing = torch.empty(1, 0, 3, dtype=torch.int64)

    def first_frame(seed: int) -> list[int]:
        sampler = Sampler([1e6, 1e-6])
        return sample(acoustic, conditions, nothing, 1, sampler, seeded(seed))[0, 0].tolist()

    frames = [first_frame(seed) for seed in range(40)]
    assert len({frame[0] for frame in frames}) > 8
    followers: dict[int, set[tuple[int, ...]]] = {}
    for frame in frames:
        followers.setdefault(frame[0], set()).add(tuple(frame[1:]))
    assert all(len(rest) == 1 for rest in followers.values())


def test_a_token_does_not_see_what_comes_after(stages: Stages, acoustic: FrameStage) -> None:
    joint, semantic = draw((1, 1, 2), 2), draw((1, 6, 1), 8)
    target, other = draw((1, 5, 1), 16), draw((1, 5, 1), 16)
    other[:, 3:] = (other[:, 3:] + 1) % 16
    bare = torch.tensor([False])
    losses = [stages.coarse([joint, semantic], codes, bare)[0] for codes in (target, other)]
    torch.testing.assert_close(losses[0][:3], losses[1][:3])
    assert not torch.allclose(losses[0][3:], losses[1][3:])
    conditions, target = conditions_of_acoustic(), draw((2, 20, 3), 16)
    other = target.clone()
    other[0, 9, 1] = (other[0, 9, 1] + 1) % 16
    losses = [acoustic(conditions, codes, BOTH)[0] for codes in (target, other)]
    torch.testing.assert_close(losses[0][:28], losses[1][:28])  # 9 frames of 3, and one level
    assert not torch.isclose(losses[0][29], losses[1][29])  # the level above


def test_a_row_follows_its_own_seed(stages: Stages) -> None:
    coarse = draw((2, 9, 1), 16)
    nothing = torch.empty(2, 0, 2, dtype=torch.int64)

    def fine(rows: slice, *seeds: int) -> torch.Tensor:
        return slide(
            *(stages.fine, lambda first, last, done: [coarse[rows, first:last]]),
            *(nothing[rows], 9, 4, Sampler([1.0]), seeded(*seeds)),
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
        stages.semantic, given, prefix, 12, 6, Sampler([1.0]), seeded(0), changes=Changes([4, 8], 3)
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
    joint, nothing = draw((1, 1, 2), 2), torch.empty(1, 0, 1, dtype=torch.int64)
    with torch.no_grad():
        logits = [
            stages.semantic.begin([joint], nothing, 1, torch.tensor([bare])).logits(None)
            for bare in (False, True)
        ]
    best = int((logits[0] - logits[1]).argmax())
    made = slide(
        *(stages.semantic, lambda first, last, done: [joint]),
        *(nothing, 1, 6, Sampler([1.0], 1e6), seeded(0)),
    )
    assert int(made) == best


def test_numbers_that_are_not_finite_end_in_one_sentence(stages: Stages) -> None:
    with torch.no_grad():
        stages.semantic.head.fill_(torch.nan)
    with pytest.raises(UnusableError, match="not finite: its weights are damaged"):
        slide(
            *(stages.semantic, lambda first, last, done: [draw((1, 1, 2), 2)]),
            *(torch.empty(1, 0, 1, dtype=torch.int64), 2, 6, Sampler([1.0]), seeded(0)),
        )
