"""The joint space that knows real music without a hub."""

from pathlib import Path

import numpy as np
import pytest

import raymtr
from raymtr.errors import InputError
from raymtr.model.heads import LABELS, profiles, words
from raymtr.model.model import Model
from raymtr.tower_specs import MUSICNN_AUDIO, AudioSpec, AudioTowerSpec, TowersSpec

CLIPS = Path(__file__).resolve().parents[2].parent / "shared/data/real_music/clips"


@pytest.fixture(scope="module")
def model() -> Model:
    return raymtr.load_model("musicnn-minilm")


def chord(gain: float) -> tuple[np.ndarray, int]:
    t = np.arange(48_000) / 16_000
    notes = sum(np.sin(2 * np.pi * hz * t) for hz in (220.0, 277.2, 329.6))
    return (gain * 0.2 * notes * np.exp(-2 * (t % 0.5))).astype(np.float32), 16_000


@pytest.mark.slow
def test_a_saved_model_is_an_ordinary_folder_with_the_same_vectors(
    model: Model, tmp_path: Path
) -> None:
    model.save(str(tmp_path / "kept"))
    kept = raymtr.load_model(tmp_path / "kept")
    assert kept.fingerprint == model.fingerprint
    assert kept.check_golden() == pytest.approx(1.0)
    texts = ["a calm orchestral piece", "male singer"]
    np.testing.assert_array_equal(kept.encode_text(texts), model.encode_text(texts))
    audio_only = raymtr.load_model(tmp_path / "kept", audio_only=True)
    heard = [each.encode_audio([chord(1.0)]) for each in (model, audio_only)]
    np.testing.assert_allclose(*heard, rtol=0, atol=1e-6)


@pytest.mark.slow
def test_the_level_does_not_matter(model: Model) -> None:
    loud, quiet = model.encode_audio([chord(1.0), chord(10 ** (-12 / 20))])
    assert float(loud @ quiet) > 0.9999


def test_a_words_own_tags_lie_nearest_to_it(model: Model) -> None:
    vectors = model.encode_text(["sitar", "opera", "instrumental music without vocals"])
    assert {LABELS[place] for place in vectors[0].argsort()[-2:]} == {"sitar", "indian"}
    assert "opera" in {LABELS[place] for place in vectors[1].argsort()[-3:]}
    meant = dict(zip(LABELS, vectors[2], strict=True))
    assert meant["no vocals"] > 0.1 and meant["singing"] < 0


def test_every_word_has_a_profile_of_known_tags() -> None:
    rows = profiles()
    assert rows.shape == (len(words()), 100)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(not CLIPS.exists(), reason=f"no {CLIPS}")
def test_a_song_with_vocals_is_found_before_game_music(model: Model) -> None:
    game, orchestra = CLIPS / "rm0001_0.ogg", CLIPS / "rm0112_0.ogg"
    scores = model.encode_text(["chiptune"]) @ model.encode_audio([game, orchestra]).T
    assert scores[0, 0] > scores[0, 1]


def test_a_tower_is_rejected_audio_that_it_was_not_trained_on() -> None:
    tower = AudioTowerSpec(kind="musicnn", trainable=False, dim=3_512)
    with pytest.raises(InputError, match=r"was trained with \{'sample_rate': 16000"):
        TowersSpec(audio=AudioSpec(**MUSICNN_AUDIO | {"sample_rate": 22_050}), audio_tower=tower)
    with pytest.raises(InputError, match="heads=tags go with"):
        TowersSpec(heads="tags")
