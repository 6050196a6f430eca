"""MusicCoCa's release behind raymtr's verbs, on small graphs of the release's shapes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import raymtr
from raymtr.errors import InputError, UnusableError
from raymtr.model import music_coca
from raymtr.model.model import Model

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert has no wheel for this machine")
sentencepiece = pytest.importorskip("sentencepiece")

RATE, FRAMES, BANDS, WIDTH = 16_000, 1_000, 32, 768
WORDS = [
    "a slow sad piano song",
    "loud drums and guitars",
    "quiet strings at night",
    "an old waltz",
]
RNG = np.random.default_rng(4)
TABLE = RNG.normal(size=(64, WIDTH)).astype(np.float32)
FILTERS = RNG.normal(size=(BANDS, RATE * 10 // FRAMES)).astype(np.float32)
ENCODER = RNG.normal(size=(WIDTH, BANDS)).astype(np.float32)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four files of the release."""
    from tflite import dense_over_frames, text_encoder

    folder = tmp_path_factory.mktemp("musiccoca")
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(WORDS * 20),
        model_prefix=str(folder / "spm"),
        vocab_size=30,
        minloglevel=3,
    )
    (folder / "spm.vocab").unlink()
    (folder / "text_encoder.tflite").write_bytes(text_encoder(TABLE))
    (folder / "audio_preprocessor.tflite").write_bytes(
        dense_over_frames(FRAMES, FILTERS, mean=False)
    )
    (folder / "music_encoder.tflite").write_bytes(dense_over_frames(FRAMES, ENCODER, mean=True))
    return folder


@pytest.fixture(scope="module")
def model(release: Path) -> Model:
    return raymtr.load_model(release, normalize=False)


def _audio_vector(window: np.ndarray) -> np.ndarray:
    bands = np.maximum(window.reshape(FRAMES, -1) @ FILTERS.T, 0.0)
    return np.asarray((bands @ ENCODER.T).mean(0))


def test_text_is_lower_cased_and_cut_and_padding_does_not_count(
    model: Model, release: Path
) -> None:
    vocabulary = sentencepiece.SentencePieceProcessor(str(release / "spm.model"))
    long = " ".join(WORDS * 20)
    sentences = ["A Slow SAD piano song", long, "waltz"]
    wanted = [
        TABLE[[1, *vocabulary.EncodeAsIds(sentence.lower())[:127]]].sum(0) for sentence in sentences
    ]
    found = model.encode_text(sentences)
    assert np.abs(found - wanted).max() < 1e-3
    assert "128 tokens" in model.unread([long])[0]
    batch = model.towers.tokenize(sentences)
    assert batch["input_ids"].shape == (3, 128) and int(batch["attention_mask"][2].sum()) < 20
    assert np.abs(model.towers.embed_text(**batch).numpy() - wanted).max() < 1e-3


def test_a_track_is_the_mean_of_its_windows(model: Model) -> None:
    samples = (0.1 * RNG.standard_normal(RATE * 25)).astype(np.float32)
    starts, vectors = model.audio_windows((samples, RATE))
    assert starts.tolist() == [0.0, 10.0, 15.0]
    wanted = [_audio_vector(samples[int(s) * RATE : int(s + 10) * RATE]) for s in starts]
    assert np.abs(vectors - wanted).max() < 1e-4
    assert np.abs(model.encode_audio([(samples, RATE)])[0] - np.mean(wanted, axis=0)).max() < 1e-4


def test_the_saved_folder_is_the_same_model(model: Model, tmp_path: Path) -> None:
    model.save(str(tmp_path / "m"))
    again = raymtr.load_model(tmp_path / "m", normalize=False)
    assert again.fingerprint == model.fingerprint
    assert again.check_golden() is not None
    assert np.array_equal(again.encode_text(WORDS), model.encode_text(WORDS))
    deaf = raymtr.load_model(tmp_path / "m", audio_only=True)
    assert deaf.fingerprint == model.fingerprint
    with pytest.raises(InputError, match="reads no text"):
        deaf.encode_text(WORDS)


def test_copies_open_their_graphs_again(model: Model) -> None:
    window = (0.1 * RNG.standard_normal((1, RATE * 10))).astype(np.float32)
    wanted = model.embed_windows(window)
    for towers in (copy.deepcopy(model.towers), pickle.loads(pickle.dumps(model.towers))):
        assert np.array_equal(Model(towers, normalize=False).embed_windows(window), wanted)


def test_what_it_cannot_do_is_said(release: Path, tmp_path: Path, model: Model) -> None:
    with pytest.raises(InputError, match="MusicCoCa runs in fp32 on a CPU, got precision=bf16"):
        raymtr.load_model(release, precision="bf16")
    with pytest.raises((InputError, UnusableError), match="int8"):
        model.quantize_text()
    for file in release.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "spm.model").unlink()
    with pytest.raises(UnusableError, match=r"lacks spm\.model of MusicCoCa; fetch it again"):
        raymtr.load_model(tmp_path)
    (tmp_path / "spm.model").write_bytes((release / "spm.model").read_bytes())
    (tmp_path / "text_encoder.tflite").write_bytes(b"<html>")
    with pytest.raises(UnusableError, match="graphs cannot be read"):
        raymtr.load_model(tmp_path)


def test_a_missing_package_is_named(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(music_coca, "find_spec", lambda name: None)
    with pytest.raises(UnusableError, match="needs ai-edge-litert and sentencepiece: pip install"):
        raymtr.load_model(release)
