"""Model: the two verbs, their shapes, their independence, and what its fingerprint names."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from raymtr import audio
from raymtr.errors import InputError, UnusableError
from raymtr.model.golden import golden_vectors
from raymtr.model.identity import fingerprint_of
from raymtr.model.model import Model
from raymtr.model.two_towers import TwoTowers
from raymtr.tower_specs import AudioSpec, TowersSpec

TEXTS = ["sad piano", "a", "a fast happy jazz song with piano and no drums", "", "slow"]


@pytest.fixture
def model(make_towers: Callable[..., TwoTowers]) -> Model:
    return Model(make_towers())


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray((a.astype(np.float64) * b).sum(axis=1) / norms)


@pytest.mark.slow
def test_rows_are_unit_float32(model: Model, waves: np.ndarray) -> None:
    text = model.encode_text(TEXTS)
    sound = model.encode_audio([(wave, 22_050) for wave in waves])
    for rows, count in ((text, 5), (sound, 4)):
        assert rows.shape == (count, 24) and rows.dtype == np.float32
        assert np.abs(np.linalg.norm(rows, axis=1) - 1.0).max() < 1e-6


def test_nothing_gives_no_rows(model: Model) -> None:
    for rows in (model.encode_text([]), model.encode_audio([])):
        assert rows.shape == (0, 24) and rows.dtype == np.float32
    assert model.embed_windows(np.zeros((0, 22_050), np.float32)).shape == (0, 24)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_vector_does_not_depend_on_its_batch(
    precision: str, make_towers: Callable[..., TwoTowers], waves: np.ndarray
) -> None:
    model = Model(make_towers(), precision=precision)  # type: ignore[arg-type]
    text = np.concatenate([model.encode_text([t]) for t in TEXTS])
    sound = np.concatenate([model.encode_audio([(wave, 22_050)]) for wave in waves])
    for times in (1, 8, 13):  # 13 x 5 texts: more than one batch of a length
        texts = model.encode_text(TEXTS * times)
        if precision == "fp32":
            assert np.abs(texts - np.tile(text, (times, 1))).max() < 1e-6
        assert cosines(texts, np.tile(text, (times, 1))).min() > 0.9999
    assert np.array_equal(model.encode_audio([(w, 22_050) for w in waves[::-1]]), sound[::-1])


def test_a_recording_is_the_mean_of_its_windows(
    make_towers: Callable[..., TwoTowers], waves: np.ndarray
) -> None:
    towers = make_towers()
    unit, raw = Model(towers), Model(towers, normalize=False)
    samples = waves[:3].reshape(-1)[: 2 * 22_050 + 9_000]
    starts, windows = raw.audio_windows((samples, 22_050))
    assert starts.tolist() == [0.0, 1.0, pytest.approx(1.0 + 9_000 / 22_050)]
    mean = windows.mean(axis=0, keepdims=True)
    assert np.abs(raw.encode_audio([(samples, 22_050)]) - mean).max() < 1e-6
    expected = mean / np.linalg.norm(mean)
    assert np.abs(unit.encode_audio([(samples, 22_050)]) - expected).max() < 1e-6
    assert np.abs(np.linalg.norm(windows, axis=1) - 1.0).min() > 1e-3
    of_units = unit.audio_windows((samples, 22_050))[1].mean(axis=0, keepdims=True)
    assert np.abs(of_units / np.linalg.norm(of_units) - expected).max() > 1e-5  # not of units


def test_a_file_its_path_its_uri_and_its_bytes_are_one(
    model: Model, waves: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "Größe 100%.wav"
    soundfile.write(file, waves[1], 22_050, subtype="FLOAT")
    rows = model.encode_audio([str(file), file, file.as_uri(), file.read_bytes()])
    assert np.array_equal(rows, np.tile(rows[:1], (4, 1)))
    assert np.abs(rows[0] - model.encode_audio([(waves[1], 22_050)])[0]).max() < 1e-6


def test_a_bad_file_is_named(model: Model, tmp_path: Path) -> None:
    (tmp_path / "noise.mp3").write_bytes(b"no music here" * 100)
    for name in ("noise.mp3", "absent.wav"):
        with pytest.raises(audio.AudioError, match=name):
            model.encode_audio([str(tmp_path / name)])
    with pytest.raises(audio.AudioError) as error:
        model.encode_audio([(np.zeros(0, np.float32), 22_050)])
    assert error.value.code == "empty"


@pytest.mark.parametrize(
    ("verb", "given"),
    [
        ("encode_text", "a bare string"),
        ("encode_text", b"bytes"),
        ("encode_text", 7),
        ("encode_text", ["fine", None]),
        ("encode_text", [["nested"]]),
        ("encode_audio", "song.mp3"),
        ("encode_audio", Path("song.mp3")),
        ("encode_audio", [(1, 2, 3)]),
        ("encode_audio", (np.zeros(100, np.float32), 22_050)),
        ("encode_audio", [np.zeros(100, np.float32)]),
        ("audio_windows", None),
        ("embed_windows", np.zeros((2, 100), np.float32)),
        ("embed_windows", np.zeros(22_050, np.float32)),
        ("embed_windows", np.zeros((1, 22_050), np.int16)),
    ],
)
def test_what_is_no_list_of_the_right_things_is_rejected(
    model: Model, verb: str, given: object
) -> None:
    with pytest.raises(InputError, match=r"takes|are|is"):
        getattr(model, verb)(given)


@pytest.mark.slow
def test_the_fingerprint_names_the_audio_side_alone(
    model: Model, make_towers: Callable[..., TwoTowers]
) -> None:
    assert len(model.fingerprint) == 12 and int(model.fingerprint, 16) >= 0
    assert Model(make_towers(), normalize=False).fingerprint == model.fingerprint
    assert Model(make_towers(), precision="bf16").fingerprint != model.fingerprint
    spec = dataclasses.replace(model.spec, audio=AudioSpec(window_s=1.0, min_tail_s=0.2))
    assert Model(make_towers(spec)).fingerprint != model.fingerprint

    def changed(name: str) -> str:
        towers = make_towers()
        with torch.no_grad():
            towers.state_dict()[name] += 1
        return Model(towers).fingerprint

    assert changed("text_projector.1.weight") == model.fingerprint
    assert changed("logit_scale") == model.fingerprint
    assert changed("audio_tower.bn1.num_batches_tracked") == model.fingerprint
    assert changed("audio_projector.1.weight") != model.fingerprint
    assert changed("audio_tower.layer3.0.bn2.running_var") != model.fingerprint


def test_golden_vectors_notice_damage_on_either_side(
    make_towers: Callable[..., TwoTowers],
) -> None:
    towers = make_towers()
    golden = golden_vectors(towers)
    lowest = Model(towers, golden=golden).check_golden()
    assert lowest == pytest.approx(1.0, abs=1e-6)
    assert Model(towers).check_golden() is None
    for name, side in (("audio_tower.layer4.0.conv2", "audio"), ("text_projector.1", "text")):
        damaged = copy.deepcopy(towers)
        weight = damaged.get_parameter(f"{name}.weight").data
        weight[: len(weight) // 4] = 0.0
        with pytest.raises(UnusableError, match=f"pinned {side} vectors .* cosine of 0"):
            Model(damaged, golden=golden).check_golden()


def test_golden_vectors_leave_a_model_in_training_as_it_was(
    make_towers: Callable[..., TwoTowers],
) -> None:
    towers = make_towers().train()
    golden_vectors(towers)
    assert towers.training and towers.audio_tower.bn1.training


@pytest.mark.parametrize("name", ["tpu", "cuda:x", "", "mps"])
def test_an_unknown_device_is_rejected(name: str, make_towers: Callable[..., TwoTowers]) -> None:
    with pytest.raises(InputError, match="device is cpu, cuda"):
        Model(make_towers(), device=name)


def test_a_gpu_that_is_not_there_is_one_sentence(make_towers: Callable[..., TwoTowers]) -> None:
    with pytest.raises(UnusableError, match="device='cpu'"):
        Model(make_towers(), device="cuda:99")


def test_models_older_than_the_level_setting_keep_their_fingerprint() -> None:
    """Computed by the code before it; its vectors need no embedding again."""
    weights = [("audio_tower.a", np.arange(4, dtype=np.float32))]
    rules = {"mel": "slaney-log10-1", "heads": 8}
    assert fingerprint_of(TowersSpec(), "fp32", rules, weights) == "04aa79b16d6b"
    removed = TowersSpec(audio=AudioSpec(level="removed"))
    assert fingerprint_of(removed, "fp32", rules, weights) != "04aa79b16d6b"
