from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from torch import Tensor

from raymtr.audio_cache import AudioCache
from raymtr.errors import UnusableError
from raymtr.specs import TrainSpec
from raymtr.tower_specs import AudioSpec
from raymtr.training import batches as batches_module
from raymtr.training.batches import Batches, likeness, longer_than, overdrive
from raymtr.training.contrastive_loss import right_answers, shares
from raymtr.training.mixture import Mixture
from raymtr.training.step import Batch
from raymtr.training.tracks import repeated

AUDIO = AudioSpec(sample_rate=8000, window_s=0.25)
SPEC = TrainSpec(global_batch=8, seed=3)
TAGS = ["slow", "fast", "piano", "drums", "sad", "bright"]


def bytes_of(sentences: list[str]) -> dict[str, Tensor]:
    """A tokenizer that a test can read back: one token a byte."""
    rows = [torch.tensor(list(sentence.encode()), dtype=torch.int64) for sentence in sentences]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def sentences_of(batch: Batch) -> list[str]:
    rows = [row for group in batch.texts for row in group["input_ids"]]
    return [bytes(row[row > 0].tolist()).decode() for row in rows]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("batches")


@pytest.fixture(scope="module")
def tracks(folder: Path) -> pa.Table:
    rng = np.random.default_rng(0)
    rows = []
    for n in range(20):  # track n is a constant of n / 100 under noise too small to hide it
        soundfile.write(folder / f"{n}.wav", n / 100 + rng.uniform(-0.002, 0.002, 6000), 8000)
        row = {"track_id": f"t{n}", "uri": str(folder / f"{n}.wav"), "title": None, "artist": None}
        row |= {"album": None, "tags": [f"track {n}", *TAGS], "similar_artists": None}
        rows.append(
            row | {"dataset": "made", "file_version": None, "captions": [f"A tune of number {n}."]}
        )
    return pa.Table.from_pylist(rows)


def batches_of(
    tracks: pa.Table, folder: Path, spec: TrainSpec = SPEC, rank: int = 0, workers: int = 1
) -> Batches:
    cache = AudioCache(str(folder / "cache"), AUDIO)
    return Batches(tracks, cache, bytes_of, spec, rank=rank, workers=workers)


def pairs_of(batch: Batch) -> list[tuple[str, bytes]]:
    waves = [wave.numpy().tobytes() for wave in batch.waves]
    return list(zip(sentences_of(batch), waves, strict=True))


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.waves, other.waves) and sentences_of(one) == sentences_of(other)


def test_audio_and_sentence_are_of_the_same_track(tracks: pa.Table, folder: Path) -> None:
    batches = batches_of(tracks, folder)
    named = 0
    for step in range(10):
        batch = batches.make(step)
        assert batch.waves.shape == (8, AUDIO.window_samples) and batch.waves.dtype == torch.float32
        heard = (batch.waves.mean(1) * 100).round().int().tolist()
        for number, sentence in zip(heard, sentences_of(batch), strict=True):
            if "track " in sentence or "number " in sentence:
                named += 1
                assert f"track {number}" in sentence or f"number {number}" in sentence
    assert named > 40


def test_a_batch_is_a_function_of_its_step(tracks: pa.Table, folder: Path) -> None:
    one, other = batches_of(tracks, folder), batches_of(tracks, folder)
    other.make(7)
    assert same(one.make(4), other.make(4))
    assert not same(one.make(4), one.make(5))
    changed = batches_of(tracks, folder, dataclasses.replace(SPEC, seed=4))
    assert not same(one.make(4), changed.make(4))


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_the_batch_of_one(tracks: pa.Table, folder: Path, workers: int) -> None:
    whole = batches_of(tracks, folder).make(2)
    parts = [batches_of(tracks, folder, SPEC, rank, workers).make(2) for rank in range(workers)]
    assert [len(part.waves) for part in parts] == shares(8, workers)
    pairs = [pair for part in parts for pair in pairs_of(part)]
    assert sorted(pairs) == sorted(pairs_of(whole)), "in whatever order, the same pairs"


def test_a_worker_meets_mostly_its_own_part_of_the_catalog(tracks: pa.Table, folder: Path) -> None:
    """So that a cache on each machine need not hold all of it."""
    numbers = []
    for rank in (0, 1):
        batches = batches_of(tracks, folder, SPEC, rank, workers=2)
        waves = torch.cat([batches.make(step).waves for step in range(30)])
        numbers.append((waves.mean(1) * 100).round())
    assert (numbers[0] < 10).float().mean() > 0.8 and (numbers[1] < 10).float().mean() < 0.2


def test_rows_are_named_by_their_track_and_their_sentence(tracks: pa.Table, folder: Path) -> None:
    few = tracks.take([0, 1, 2])
    batches = batches_of(few, folder)
    seen = set()
    for step in range(4):
        batch = batches.make(step)
        assert batch.names is not None and batch.names.shape == (8, 2)
        heard = [round(float(wave.mean()) * 100) for wave in batch.waves]
        assert batch.names[:, 0].tolist() == heard, "track n is a constant of n / 100"
        seen |= set(zip(batch.names[:, 1].tolist(), sentences_of(batch), strict=True))
    assert len({name for name, _ in seen}) == len(seen) == len({words for _, words in seen})


def test_what_a_batch_repeats_is_said() -> None:
    datasets = ["small"] * 3 + ["big"] * 1000
    drawn = Mixture(datasets, {"small": 0.4, "big": 0.6}, seed=0).draw(0, 64)
    said = repeated(drawn, datasets)
    assert said is not None and said.startswith("23 of the 64 rows of a batch repeat a track")
    assert "26 rows of the 3 tracks of small" in said and "of big" not in said
    assert repeated(np.arange(64), datasets) is None


def test_sentences_longer_than_the_tower_reads_are_counted(tracks: pa.Table) -> None:
    def letters(sentences: list[str]) -> list[int]:
        return [len(sentence) for sentence in sentences]

    assert longer_than(1_000, letters, tracks, seed=0) is None
    said = longer_than(30, letters, tracks, seed=0)
    assert said is not None and "of 20 training sentences are longer than the 30 tokens" in said


def test_sentences_of_like_length_stand_together(tracks: pa.Table, folder: Path) -> None:
    batch = batches_of(tracks, folder).make(1)
    lengths = [len(sentence) for sentence in sentences_of(batch)]
    assert lengths == sorted(lengths)
    widths = [group["input_ids"].shape[1] for group in batch.texts]
    assert len(widths) == 8 and widths[0] < widths[-1]


def test_sentences_and_clips_are_drawn_anew(tracks: pa.Table, folder: Path) -> None:
    batches = batches_of(tracks.slice(0, 8), folder)
    rounds = [batches.make(step) for step in range(6)]  # eight tracks: each step has them all
    assert len({s for batch in rounds for s in sentences_of(batch)}) > 40
    first_samples = torch.cat([batch.waves[:, 0] for batch in rounds])
    assert len(set(first_samples.tolist())) > 40


def test_made_ahead_is_the_same_and_errors_come_through(tracks: pa.Table, folder: Path) -> None:
    batches = batches_of(tracks, folder)
    ahead = list(batches.ahead(3, 6))
    assert [step for step, _ in ahead] == [3, 4, 5]
    assert all(same(batch, batches.make(step)) for step, batch in ahead)
    assert list(batches.ahead(6, 6)) == []
    broken = tracks.set_column(0, "track_id", pa.array([f"no{n}" for n in range(20)]))
    broken = broken.set_column(1, "uri", pa.array([str(folder / "none.wav")] * 20))
    with pytest.raises(UnusableError, match=r"none\.wav was decoded when this run began"):
        list(batches_of(broken, folder).ahead(0, 2))


def test_a_batch_does_not_depend_on_what_is_cached(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long tracks and short ones, with a cache that keeps all, some or nothing."""
    monkeypatch.setattr("raymtr.audio_cache.WHOLE_S", 1)
    monkeypatch.setattr("raymtr.audio_cache.BLOCK_S", 1)
    rng, rows = np.random.default_rng(4), []
    for n in range(10):
        uri, samples = str(folder / f"long {n}.wav"), 4_000 * (n + 1)
        soundfile.write(uri, rng.uniform(-0.4, 0.4, 2 * samples), 16_000)
        row = {"track_id": f"t{n}", "uri": uri, "title": f"T{n}", "artist": None, "album": None}
        row |= {"tags": None, "similar_artists": None, "captions": None, "dataset": "made"}
        rows.append(row | {"file_version": None, "samples": samples})
    table, made = pa.Table.from_pylist(rows), []
    for budget in (None, 60_000, 0):
        cache = AudioCache(str(folder / f"cache {budget}"), AUDIO, budget=budget)
        batches = Batches(table, cache, bytes_of, SPEC)
        made.append([batches.make(step) for step in range(4)])
    for batches_made in made[1:]:
        assert all(same(one, other) for one, other in zip(made[0], batches_made, strict=True))


def test_rows_of_one_artist_or_of_the_same_words_have_equal_numbers() -> None:
    one = likeness({"artist": "The Beyoncés"}, "slow, piano", 0)
    other = likeness({"artist": "beyonces"}, "Piano. Slow!", 1)
    assert one == other
    assert likeness({"artist": "Alba"}, "slow, piano, sad", 2)[0] != one[0]
    assert likeness({"artist": "Alba"}, "slow, piano, sad", 2)[1] != one[1]
    nobody = [likeness({"artist": None}, "...", number) for number in (3, 4)]
    assert nobody[0][0] != nobody[1][0] and nobody[0][1] != nobody[1][1]


def test_masked_rows_are_no_negatives(tracks: pa.Table, folder: Path) -> None:
    named = tracks.set_column(
        tracks.column_names.index("artist"), "artist", pa.array(["Ada"] * 10 + ["Bo"] * 10)
    )
    spec = dataclasses.replace(SPEC, false_negatives="masked")
    masked = batches_of(named, folder, spec).make(0)
    assert masked.names is not None and masked.names.shape == (8, 4)
    numbers = masked.names[:, 0] >= 10
    wanted = numbers[:, None] == numbers[None]
    got = right_answers(masked.names[:, [0, 2]])
    assert torch.equal(got, wanted & ~torch.eye(8, dtype=torch.bool))
    kept = batches_of(named, folder).make(0)
    assert kept.names is not None and kept.names.shape == (8, 2) and same(kept, masked)


def test_gain_makes_clips_quieter_and_draws_the_same_ones(tracks: pa.Table, folder: Path) -> None:
    spec = dataclasses.replace(SPEC, gain_db=18.0)
    loud, quiet = (batches_of(tracks, folder, s).make(1) for s in (SPEC, spec))
    assert sentences_of(loud) == sentences_of(quiet)
    factors = quiet.waves.norm(dim=1) / loud.waves.norm(dim=1)
    assert len({round(float(f), 3) for f in factors}) == 8
    assert bool((factors <= 1).all()) and bool((factors >= 10 ** (-18 / 20) * 0.999).all())
    scaled = loud.waves * factors[:, None]
    torch.testing.assert_close(quiet.waves, scaled, rtol=1e-4, atol=1e-6)


def test_overdrive_amplifies_beyond_full_scale_and_clips() -> None:
    wave = 0.25 * np.sin(np.arange(1_000) / 7).astype(np.float32)
    expected = np.clip(wave / np.abs(wave).max() * 10 ** (6 / 20), -1, 1)
    overdrive(wave, 6.0)
    np.testing.assert_allclose(wave, expected, rtol=1e-5)
    assert (np.abs(wave) == 1.0).mean() > 0.5
    silence = np.zeros(10, np.float32)
    overdrive(silence, 6.0)
    assert not silence.any()


def test_half_of_the_clips_are_overdriven(tracks: pa.Table, folder: Path) -> None:
    spec = dataclasses.replace(SPEC, overdrive_db=12.0)
    plain, driven = (batches_of(tracks, folder, s) for s in (SPEC, spec))
    changed = []
    for step in range(8):
        before, after = plain.make(step), driven.make(step)
        assert sentences_of(before) == sentences_of(after)
        for one, other in zip(before.waves, after.waves, strict=True):
            changed.append(not torch.equal(one, other))
            assert not changed[-1] or float(other.abs().max()) == 1.0
    assert 0.25 < np.mean(changed) < 0.75


def test_over_a_frozen_text_tower_a_track_has_a_limited_number_of_sentences(
    tracks: pa.Table, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "SENTENCES", 2)
    cache, few = AudioCache(str(folder / "cache"), AUDIO), tracks.slice(0, 3)
    limited = Batches(few, cache, bytes_of, SPEC, any_words=False)
    drawn = [sentence for step in range(8) for sentence in sentences_of(limited.make(step))]
    assert 3 < len(set(drawn)) <= 6 < len(drawn)
    again = Batches(few, cache, bytes_of, SPEC, any_words=False)
    assert sentences_of(again.make(7)) == sentences_of(limited.make(7))


def test_several_windows_of_a_row_are_of_its_track(tracks: pa.Table, folder: Path) -> None:
    batch = batches_of(tracks, folder, dataclasses.replace(SPEC, windows=3)).make(2)
    assert batch.waves.shape == (8, 3, AUDIO.window_samples)
    means = batch.waves.mean(2)
    assert float((means - means[:, :1]).abs().max()) < 0.001 < float(means[:, 0].std())
    assert not torch.equal(batch.waves[:, 0], batch.waves[:, 1])
