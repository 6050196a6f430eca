from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from torch import Tensor, nn

from raymtr.specs import TrainSpec
from raymtr.tower_specs import AudioSpec
from raymtr.training.step import TrainStep
from raymtr.training.validation import Validation, fixed_sentence

AUDIO = AudioSpec(sample_rate=8000, window_s=0.25)
COUNT = 40


class Ears(nn.Module):
    """Hears a clip's mean and reads a sentence's number: knows all, or nothing."""

    def __init__(self, knows: bool) -> None:
        super().__init__()
        self.logit_scale = nn.Parameter(torch.tensor(0.0))
        self.knows = knows

    def embed_audio(self, waves: Tensor) -> Tensor:
        return self.place(waves.mean(1) * 100)

    def embed_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.place(input_ids[:, 0].float() if self.knows else input_ids[:, 0].float() * 0)

    def place(self, number: Tensor) -> Tensor:
        angle = number.round() / 50 * torch.pi
        return torch.stack([angle.cos(), angle.sin()], dim=1)


def number_in(sentences: list[str]) -> dict[str, Tensor]:
    ids = torch.tensor([[int(sentence.split()[-1])] for sentence in sentences])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def tracks_in(folder: Path) -> pa.Table:
    rows = []
    for n in range(COUNT):  # only the first window tells: a fixed clip, not a random one
        soundfile.write(folder / f"{n}.wav", np.r_[np.full(2000, n / 100), np.zeros(9000)], 8000)
        row = {"uri": str(folder / f"{n}.wav"), "captions": [f"number {n}", "number 0"]}
        rows.append(row | {"tags": None, "title": None, "artist": None, "album": None})
    return pa.Table.from_pylist(rows)


def test_figures_of_towers_that_know_all_or_nothing(tmp_path: Path) -> None:
    validation = Validation(tracks_in(tmp_path), number_in, AUDIO)
    trainer = TrainStep(Ears(knows=True), TrainSpec(), torch.device("cpu"))
    figures = validation(trainer)
    assert figures["valid_text_to_audio_r_at_10"] == 1.0 and figures["valid_median_rank"] == 1
    assert figures["valid_pool"] == COUNT
    assert figures["valid_chance_r_at_10"] == pytest.approx(10 / COUNT)
    trainer = TrainStep(Ears(knows=False), TrainSpec(), torch.device("cpu"))
    assert validation(trainer)["valid_median_rank"] == (COUNT + 1) / 2


def test_a_pool_of_one_or_none_has_no_figures(tmp_path: Path) -> None:
    trainer = TrainStep(Ears(knows=True), TrainSpec(), torch.device("cpu"))
    assert Validation(tracks_in(tmp_path).slice(0, 1), number_in, AUDIO)(trainer) == {}
    assert Validation(tracks_in(tmp_path).slice(0, 0), number_in, AUDIO)(trainer) == {}


def test_a_track_is_asked_for_by_its_best_words() -> None:
    track = {"captions": ["A waltz.", "B"], "tags": ["slow", "sad"], "title": "T", "artist": "A"}
    track |= {"album": None, "similar_artists": ["X"]}
    assert fixed_sentence(track) == "A waltz."
    assert fixed_sentence(track | {"captions": None}) == "slow, sad"
    assert fixed_sentence(track | {"captions": [], "tags": []}) == "music track T by A"
    bare = dict.fromkeys(("captions", "tags", "title", "artist", "album"))
    assert fixed_sentence(bare | {"similar_artists": ["X"]}) == "similar with artist X"
