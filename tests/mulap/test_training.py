"""MuLaP in the common loop: batches, a step, resuming, and two workers that equal one."""

from __future__ import annotations

import copy
import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from raymtr.audio_cache import AudioCache
from raymtr.errors import InputError, UnusableError
from raymtr.mulap.draws import NO_LABEL
from raymtr.mulap.network import Mulap, build_mulap
from raymtr.recipes import mulap_small
from raymtr.specs import Settings, TrainSpec
from raymtr.tower_specs import TowersSpec
from raymtr.training.mulap import MatchValidation, MulapStep, words_of
from raymtr.training.mulap_batches import MulapBatch, MulapBatches
from tests.mulap.conftest import SPEC

CPU = torch.device("cpu")
TRAIN = TrainSpec(
    objective="mulap",
    steps=90,
    global_batch=8,
    learning_rate=3e-3,
    min_learning_rate=1e-3,
    warmup_steps=4,
    schedule="linear",
    beta2=0.98,
    batch_norm="shared",
    seed=1,
)
Make = Callable[..., Mulap]


@pytest.fixture(scope="session")
def tones(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Low and high tones, slow and fast; one shorter than a chunk, most with a tail."""
    folder = tmp_path_factory.mktemp("tones")
    rng, rows = np.random.default_rng(0), []
    for n in range(16):
        high, fast = n % 2, n // 2 % 2
        seconds = np.arange(2_400 if n == 3 else 8_000 + 1_700 * n) / 8000
        beat = 0.5 + 0.5 * np.sign(np.sin(2 * np.pi * (8 if fast else 2) * seconds))
        wave = 0.4 * beat * np.sin(2 * np.pi * (1500 if high else 200) * seconds)
        file = folder / f"{n}.wav"
        soundfile.write(file, wave + rng.normal(0, 0.01, len(seconds)), 8000)
        tags = ["high" if high else "low", "fast" if fast else "slow"]
        row = {"track_id": f"t{n}", "uri": str(file), "tags": tags, "samples": len(seconds)}
        row |= dict.fromkeys(("title", "artist", "album", "similar_artists", "captions"))
        rows.append(row | {"dataset": "tones", "file_version": None})
    return pa.Table.from_pylist(rows)


def batches_of(
    tones: pa.Table, model: Mulap, folder: Path, *, rank: int = 0, workers: int = 1
) -> MulapBatches:
    clip = dataclasses.replace(model.towers.audio, window_s=SPEC.clip_s)
    return MulapBatches(
        *(tones, AudioCache(str(folder), clip), model.text_tower.tokenize, TRAIN),
        rank=rank,
        workers=workers,
    ).plan(model.towers.audio, SPEC, words_of(model))


def make_step(model: Mulap, batches: MulapBatches, train: TrainSpec = TRAIN) -> MulapStep:
    step = MulapStep(model, train, CPU)
    step.start_words(batches.unigram())
    return step


def test_a_batch_has_what_the_objective_needs(
    tones: pa.Table, make_mulap: Make, tmp_path: Path
) -> None:
    batches = batches_of(tones, make_mulap(), tmp_path)
    seen = []
    for step in range(12):
        batch: MulapBatch = batches.make(step)
        assert len(batch.chunks) == int(batch.counts.sum()) == len(batch.hidden)
        assert batch.chunks.shape[1] == 4_000
        numbers = batches.mixture.draw(step, 8)
        for number, row in zip(numbers.tolist(), range(8), strict=True):
            length = min(tones["samples"][number].as_py(), 16_000)
            tail = length % 4_000 >= 800  # min_tail_s
            assert batch.counts[row] == max(1, length // 4_000 + tail), "the tail is kept"
            tags = tones["tags"][number].as_py()
            labels, ids = batch.labels[row], batch.input_ids[row]
            said = torch.where(labels == NO_LABEL, ids, labels)
            words = {w for w in ("slow", "fast", "low", "high") if _id(w) in said.tolist()}
            if batch.matched[row]:
                assert words <= set(tags)
            else:
                assert labels.eq(NO_LABEL).all(), "no word of an untrue sentence is to be guessed"
                assert not words & set(tags), "no tag of the track is in it"
            seen.append(float(batch.matched[row]))
    assert np.mean(seen) == pytest.approx(0.5, abs=0.15)


def test_the_word_head_starts_from_the_words_frequencies(
    tones: pa.Table, make_mulap: Make, tmp_path: Path
) -> None:
    model = make_mulap()
    make_step(model, batches_of(tones, model, tmp_path))
    chances = model.word_bias.detach().exp()
    assert float(chances.sum()) == pytest.approx(1.0, abs=1e-5)
    said = sum(float(chances[_id(word)]) for word in ("slow", "fast", "low", "high"))
    assert said > 0.5 and float(chances.min()) > 0


def _id(word: str) -> int:
    return {"slow": 5, "fast": 6, "low": 7, "high": 8}[word]


def test_two_workers_build_the_rows_of_one(
    tones: pa.Table, make_mulap: Make, tmp_path: Path
) -> None:
    model = make_mulap()
    one = batches_of(tones, model, tmp_path)
    whole = one.make(3)
    order = np.argsort(one.mixture.draw(3, 8), kind="stable")  # a worker has adjacent tracks
    for rank in (0, 1):
        part = batches_of(tones, model, tmp_path, rank=rank, workers=2).make(3)
        places = np.sort(order[4 * rank : 4 * rank + 4]).tolist()
        for name in ("counts", "matched"):
            assert torch.equal(getattr(part, name), getattr(whole, name)[places])
        for name in ("chunks", "hidden"):
            rows = torch.split(getattr(whole, name), whole.counts.tolist())
            assert torch.equal(getattr(part, name), torch.cat([rows[place] for place in places]))
        longest = part.input_ids.shape[1]
        assert torch.equal(part.input_ids, whole.input_ids[places, :longest])


@pytest.mark.slow
@pytest.mark.parametrize("align_weight", [0.0, 4.0])
def test_training_learns_and_resumes_to_the_same_bits(
    align_weight: float, tones: pa.Table, make_mulap: Make, tmp_path: Path
) -> None:
    weights = {"words_weight": 1.0, "chunks_weight": 1.0, "match_weight": 4.0}  # of few steps
    spec = dataclasses.replace(SPEC, **weights, align_weight=align_weight)
    batches = batches_of(tones, make_mulap(), tmp_path)
    step = make_step(make_mulap(spec=spec), batches)
    figures = []
    for number in range(TRAIN.steps):
        if number == TRAIN.steps - 5:
            kept = copy.deepcopy(step.state())
        figures.append(step(batches.make(number % 3), number))  # three batches, to be remembered
    last = {name: np.mean([row[name] for row in figures[-10:]]) for name in figures[0]}
    assert ("align" in last) == (align_weight > 0)
    for name in ("words", "chunks", "match", *(["align"] if align_weight else [])):
        assert last[name] < last[f"{name}_baseline"], (name, last)
    valid = MatchValidation(tones, step.towers, step.towers.towers.audio)(step)
    assert 0.0 <= valid["valid_match_auc"] <= 1.0 and valid["valid_tracks"] == 16
    resumed = make_step(make_mulap(spec=spec, seed=7), batches)
    resumed.restore(kept)
    for number in range(TRAIN.steps - 5, TRAIN.steps):
        resumed(batches.make(number % 3), number)
    for name, weight in step.towers.state_dict().items():
        assert torch.equal(weight, resumed.towers.state_dict()[name]), name


def test_the_target_is_heard_before_the_mask_and_gets_no_gradient(
    tones: pa.Table, make_mulap: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import raymtr.training.mulap as training

    given: dict[str, Any] = {}

    def spied(guessed: torch.Tensor, heard: torch.Tensor, mean: torch.Tensor) -> Any:
        given.update(heard=heard, mean=mean)
        return chunks_loss(guessed, heard, mean)

    chunks_loss = training.chunks_loss
    monkeypatch.setattr(training, "chunks_loss", spied)
    batches = batches_of(tones, make_mulap(), tmp_path)
    batch = batches.make(0)
    assert batch.hidden.any()
    step = make_step(make_mulap(), batches)
    step(batch, 0)
    assert not given["heard"].requires_grad and given["heard"].abs().sum(1).gt(0).all()
    assert step.towers.audio_tower.conv1.weight.grad.abs().sum() > 0, "the tower learns"


def test_a_collapsed_tower_stops_the_run(tones: pa.Table, make_mulap: Make, tmp_path: Path) -> None:
    model = make_mulap()
    batches = batches_of(tones, model, tmp_path)
    with torch.no_grad():
        model.audio_tower.attn_pool.c_proj.weight.zero_()
        model.audio_tower.attn_pool.c_proj.bias.fill_(1.0)
    train = dataclasses.replace(TRAIN, learning_rate=1e-9)
    with pytest.raises(UnusableError, match=r"features collapsed .* at step 0.*learning_rate"):
        make_step(model, batches, train)(batches.make(0), 0)


def test_tracks_that_all_have_the_same_words_are_not_trained_on(
    tones: pa.Table, make_mulap: Make, tmp_path: Path
) -> None:
    place = tones.column_names.index("tags")
    alike = tones.set_column(place, "tags", pa.array([["slow"]] * len(tones)))
    with pytest.raises(UnusableError, match="none of 16 tracks has a sentence that is untrue"):
        batches_of(alike, make_mulap(), tmp_path).check()


def test_settings_that_do_not_fit_are_rejected() -> None:
    settings = mulap_small()
    spec = dataclasses.replace(settings.mulap, clip_s=2.0)
    with pytest.raises(InputError, match=r"mulap\.clip_s is at least towers\.audio\.window_s"):
        dataclasses.replace(settings, mulap=spec)
    assert isinstance(settings, Settings)
    towers = dataclasses.replace(
        settings.towers, text_tower=dataclasses.replace(settings.towers.text_tower, trainable=True)
    )
    train = dataclasses.replace(settings.train, lora_text=2)
    with pytest.raises(InputError, match=r"train\.lora_text is for train\.objective=contrastive"):
        dataclasses.replace(settings, towers=towers, train=train)


def _worker(rank: int, folder: str, towers: TowersSpec, text: str, tones: pa.Table) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(_first_steps(folder, towers, text, tones, rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()
    os._exit(0)  # as in tests/training/test_workers_agree.py


def _first_steps(
    folder: str, towers: TowersSpec, text: str, tones: pa.Table, rank: int, workers: int
) -> dict[str, Any]:
    spec = dataclasses.replace(SPEC, align_weight=4.0)  # the loss that compares all workers' rows
    model = build_mulap(towers, spec, seed=0, text_folder=text)
    batches = batches_of(tones, model, Path(folder) / "cache", rank=rank, workers=workers)
    step = make_step(model, batches, dataclasses.replace(TRAIN, learning_rate=1e-4))
    figures = [step(batches.make(n), n) for n in range(3)]
    weights = torch.cat([p.detach().flatten() for p in step.learned])
    return {"loss": [row["loss"] for row in figures], "weights": weights}


@pytest.mark.slow
def test_two_workers_equal_one(
    tones: pa.Table, mulap_towers: TowersSpec, mulap_text: str, tmp_path: Path
) -> None:
    mp.spawn(_worker, args=(str(tmp_path), mulap_towers, mulap_text, tones), nprocs=2)
    one = _first_steps(str(tmp_path), mulap_towers, mulap_text, tones, 0, 1)
    two = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert torch.equal(two[0]["weights"], two[1]["weights"])
    assert two[0]["loss"] == pytest.approx(one["loss"], rel=1e-4)
    difference = (two[0]["weights"] - one["weights"]).norm() / one["weights"].norm()
    assert float(difference) < 1e-5
