"""Semitones: a note is at its own row, at every level, and is added to the tower's vector."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raymtr.errors import InputError
from raymtr.model.identity import rules_of
from raymtr.model.log_mel import LogMel
from raymtr.model.resnet import ModifiedResNet, pitch_classes
from raymtr.model.semitones import FRAMES_PER_HOP, LOWEST
from raymtr.tower_specs import SEMITONES, AudioSpec, AudioTowerSpec, TextTowerSpec, TowersSpec

SPEC = AudioSpec(window_s=2.0, hop=512, n_mels=64, semitones=True)
TINY = AudioTowerSpec(layers=(1, 1, 1, 1), width=8, heads=4, dim=24)
A3, C_SHARP_4, E4 = 57, 61, 64  # MIDI notes


def tone(*notes: int, spec: AudioSpec = SPEC) -> torch.Tensor:
    seconds = torch.arange(spec.window_samples, dtype=torch.float64) / spec.sample_rate
    hz = [440 * 2 ** ((note - 69) / 12) for note in notes]
    return torch.stack([torch.sin(2 * np.pi * f * seconds) for f in hz]).sum(0).float()


def semitones(waves: torch.Tensor, spec: AudioSpec = SPEC) -> torch.Tensor:
    return LogMel(spec)(waves)[:, spec.n_mels :]


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
def test_a_note_is_loudest_in_its_own_row(rate: int) -> None:
    spec = replace(SPEC, sample_rate=rate)
    notes = range(LOWEST, LOWEST + SEMITONES)
    heard = semitones(torch.stack([tone(note, spec=spec) for note in notes]), spec)
    assert heard.shape == (SEMITONES, SEMITONES, spec.frames)
    assert heard.mean(dim=2).argmax(dim=1).tolist() == list(range(SEMITONES))


def test_they_follow_the_log_mel_whose_rows_stay_as_they_are() -> None:
    wave = tone(A3, E4)[None]
    both, alone = LogMel(SPEC)(wave), LogMel(replace(SPEC, semitones=False))(wave)
    assert both.shape == (1, 64 + SEMITONES, SPEC.frames)
    assert torch.equal(both[:, :64], alone)
    held = both[0, 64:, : SPEC.frames // FRAMES_PER_HOP * FRAMES_PER_HOP]
    own = held.unflatten(1, (-1, FRAMES_PER_HOP))
    assert torch.equal(own, own[:, :, :1].expand_as(own))


def test_neither_level_nor_neighbours_change_them() -> None:
    quiet, loud = 1e-3 * tone(A3, C_SHARP_4), 0.5 * tone(E4)
    one = semitones(quiet[None])
    assert torch.equal(semitones(torch.stack([loud, quiet]))[1:], one)
    assert torch.allclose(semitones(1_000 * quiet[None]), one, atol=1e-3)
    assert float(one.max()) == 1.0 and float(one.min()) >= -0.5
    assert torch.isfinite(semitones(torch.zeros(1, SPEC.window_samples))).all()
    assert semitones(torch.zeros(0, SPEC.window_samples)).shape == (0, SEMITONES, SPEC.frames)


def test_pitch_classes_are_shares_without_octave() -> None:
    chord = pitch_classes(semitones(torch.stack([tone(A3, C_SHARP_4, E4), tone(A3, A3 + 12)])))
    assert (chord.sum(dim=1) - 1).abs().max() < 1e-5
    first, second = chord.mean(dim=2)
    assert sorted(first.topk(3).indices.tolist()) == [0, 4, 7]  # A, C sharp and E
    assert float(second[0]) > 0.9


def test_they_are_added_to_the_pooled_vector() -> None:
    torch.manual_seed(0)
    spec = replace(TINY, band_input=True, band_statistics=True, tempogram=True)
    tower = ModifiedResNet(spec, 64, semitones=True).eval()
    spectrogram = LogMel(SPEC)(torch.stack([tone(A3), tone(E4)]))
    assert tower.pitch is not None
    with torch.no_grad():
        whole, added = tower(spectrogram), tower.pitch(spectrogram)
        tower.pitch = None
        without = tower(spectrogram)
        assert (whole - without - added).abs().max() < 1e-5
        assert torch.equal(tower(spectrogram[:, :64]), without)  # the rest reads the bands alone
    assert (added[0] - added[1]).abs().max() > 1e-2


def test_they_are_part_of_the_rules_and_for_a_resnet_alone() -> None:
    text = TextTowerSpec(source="tiny", max_tokens=8)
    towers = TowersSpec(audio=SPEC, audio_tower=TINY, text_tower=text)
    other = replace(towers, audio=replace(SPEC, semitones=False))
    assert rules_of(towers) != rules_of(other)
    with pytest.raises(InputError, match=r"semitones are for audio_tower\.kind=resnet"):
        replace(towers, audio_tower=AudioTowerSpec(kind="ast", heads=4, dim=48))
    with pytest.raises(InputError, match=r"semitones need windows longer than 0\.19 s"):
        LogMel(replace(SPEC, window_s=0.18))
