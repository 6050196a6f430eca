"""The taggers give what the authors' code gave, and say so where they cannot."""

from pathlib import Path

import numpy as np
import pytest
import torch

import raymtr
from raymtr.audio import AudioError, decode_sound
from raymtr.errors import InputError, UnusableError
from raymtr.model import musicnn

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
FIXTURE, CLIPS = SHARED / "fixtures/musicnn/expected.npz", SHARED / "data/real_music/clips"
needs_fixture = pytest.mark.skipif(not FIXTURE.exists(), reason=f"no {FIXTURE}")


@pytest.mark.slow
@needs_fixture
@pytest.mark.parametrize("name", musicnn.TAGGERS)
def test_the_authors_tags_and_pooled_features_come_out(name: str) -> None:
    expected, folder = np.load(FIXTURE), musicnn.TAGGERS[name][0]
    tagger = raymtr.Tagger(name)
    assert tagger.labels == expected[f"{folder}/labels"].tolist()
    for clip in expected["clips"][::2]:
        wanted = f"{clip.removesuffix('.ogg')}/{folder}"
        starts, tags = tagger.windows(CLIPS / clip)
        assert starts == pytest.approx([0.0, 2.992, 5.984])
        np.testing.assert_allclose(tags, expected[f"{wanted}/tags"], rtol=0, atol=1e-4)
        patches = tagger._patches(decode_sound(str(CLIPS / clip), musicnn.AUDIO))
        with torch.inference_mode():
            heard = musicnn.read_musicnn(name)(patches)
        for pool in ("mean_pool", "max_pool"):  # a maximum is up to 100
            np.testing.assert_allclose(
                getattr(heard, pool), expected[f"{wanted}/{pool}"], rtol=0, atol=1e-3
            )
    np.testing.assert_allclose(tagger.tag(CLIPS / clip), tags.mean(axis=0), atol=1e-6)


def test_a_sound_shorter_than_a_patch_is_tagged_and_silence_is_rejected() -> None:
    tagger = raymtr.Tagger("musicnn-mtat")
    rate = 8_000
    half_a_second = 0.3 * np.sin(2 * np.pi * 440 * np.arange(rate // 2) / rate)
    probabilities = tagger.tag((half_a_second.astype(np.float32), rate))
    assert probabilities.shape == (50,) and probabilities.dtype == np.float32
    assert ((probabilities > 0) & (probabilities < 1)).all()
    with pytest.raises(AudioError, match="it is silent"):
        tagger.tag((np.zeros(rate, np.float32), rate))


def test_a_name_that_is_no_tagger_lists_those_there_are() -> None:
    with pytest.raises(InputError, match="'musicnn-msd' or 'musicnn-mtat', got 'vgg'"):
        raymtr.Tagger("vgg")


def test_without_the_package_one_sentence_tells_the_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(musicnn, "find_spec", lambda name: None)
    with pytest.raises(UnusableError, match=r"pip install --no-deps musicnn==0\.1\.0"):
        raymtr.Tagger("musicnn-msd")


def test_a_damaged_checkpoint_is_said_to_be_damaged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    real = Path(musicnn.find_spec(musicnn.PACKAGE).origin).parent / "MSD_musicnn"
    folder = tmp_path / "MSD_musicnn"
    folder.mkdir()
    (folder / ".index").write_bytes((real / ".index").read_bytes())
    (folder / ".data-00000-of-00001").write_bytes(b"short")

    class Found:
        origin = str(tmp_path / "__init__.py")

    monkeypatch.setattr(musicnn, "find_spec", lambda name: Found)
    with pytest.raises(UnusableError, match="is damaged"):
        musicnn.read_musicnn("musicnn-msd")
    (folder / ".index").write_bytes(b"no table")
    with pytest.raises(UnusableError, match="not an index of a TensorFlow checkpoint"):
        musicnn.read_musicnn("musicnn-msd")
