"""Loading by path or name: TTMR++'s release gives its published vectors, and a name is told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import raymtr
from raymtr.errors import InputError, UnusableError

CHECKPOINT, YAML = "ttmrpp_resnet_roberta.pth", "ttmrpp_resnet_roberta.yaml"


@pytest.fixture
def release(ttmrpp_release: Path, tmp_path: Path) -> Path:
    """A copy of the release, to be damaged."""
    return Path(
        shutil.copytree(ttmrpp_release, tmp_path / "release", copy_function=shutil.copyfile)
    )


def test_the_release_gives_its_published_vectors(ttmrpp_release: Path) -> None:
    expected = np.load(ttmrpp_release / "expected.npz")
    model = raymtr.load_model(ttmrpp_release, normalize=False)
    clips = expected["clips_int16"].astype(np.float32) / 32767
    sound = model.encode_audio([(clip, 22_050) for clip in clips])
    text = model.encode_text([str(t) for t in expected["texts"]])
    assert np.abs(sound - expected["audio_embedding"]).max() < 1e-4
    assert np.abs(text - expected["text_embedding"]).max() < 1e-4
    assert model.towers.logit_scale.item() == pytest.approx(float(expected["logit_scale"][0]))
    assert (model.spec.audio.hop, model.spec.audio.frames) == (220, 1002)  # 0.01 s is 220.5


def test_unit_vectors_agree_in_any_batch_and_precision(ttmrpp_release: Path) -> None:
    expected = np.load(ttmrpp_release / "expected.npz")
    texts = [str(t) for t in expected["texts"]]
    clips = [(c.astype(np.float32) / 32767, 22_050) for c in expected["clips_int16"][:2]]
    exact = raymtr.load_model(ttmrpp_release)
    text, sound = exact.encode_text(texts), exact.encode_audio(clips)
    assert np.abs(exact.encode_text(texts * 11)[-6:] - text).max() < 1e-6
    assert np.array_equal(exact.encode_audio(clips[::-1]), sound[::-1])
    near = raymtr.load_model(ttmrpp_release, precision="bf16")
    assert (near.encode_text(texts) * text).sum(axis=1).min() > 0.999
    # A tower of random weights, in 8 bits of mantissa where the machine has bfloat16; 1 elsewhere.
    assert (near.encode_audio(clips) * sound).sum(axis=1).min() > 0.99


@pytest.mark.slow
def test_a_saved_copy_of_the_release_is_the_same_model(
    ttmrpp_release: Path, tmp_path: Path
) -> None:
    model = raymtr.load_model(ttmrpp_release)
    model.save(str(tmp_path / "copy"))
    copy = raymtr.load_model(tmp_path / "copy")
    assert copy.fingerprint == model.fingerprint
    assert copy.provenance["licence"] == "CC-BY-NC-4.0"
    assert np.abs(copy.encode_text(["slow"]) - model.encode_text(["slow"])).max() < 1e-6


def test_the_licence_is_told(ttmrpp_release: Path, caplog: pytest.LogCaptureFixture) -> None:
    raymtr.load_model(ttmrpp_release)
    assert "CC-BY-NC-4.0" in caplog.text


def drop_a_key(state: dict[str, torch.Tensor]) -> None:
    del state["audio_encoder.layer2.1.conv2.weight"]


def add_a_key(state: dict[str, torch.Tensor]) -> None:
    state["text_encoder.pooler.dense.bias"] = torch.zeros(48)


def change_a_shape(state: dict[str, torch.Tensor]) -> None:
    state["audio_projector.1.weight"] = torch.zeros(64, 64)


def split_the_scale(state: dict[str, torch.Tensor]) -> None:
    state["logit_scale"] = state["logit_scale"] + 1


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (drop_a_key, r"layer2\.1\.conv2\.weight is missing"),
        (add_a_key, r"pooler\.dense\.bias is unknown"),
        (change_a_shape, r"audio_projector\.1\.weight is \[64, 64\]"),
        (split_the_scale, "logit_scale"),
    ],
)
def test_every_key_must_find_its_place(
    release: Path, damage: Callable[[dict[str, torch.Tensor]], None], told: str
) -> None:
    checkpoint = torch.load(release / CHECKPOINT, weights_only=True)
    damage(checkpoint["state_dict"])
    torch.save(checkpoint, release / CHECKPOINT)
    with pytest.raises(UnusableError, match=told):
        raymtr.load_model(release)


class Payload:
    """What a hostile checkpoint would hold: an object whose unpickling runs code."""

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("pwned"),)  # type: ignore[return-value]


def test_a_pickle_is_never_run(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(release)
    torch.save({"state_dict": Payload()}, release / CHECKPOINT)
    with pytest.raises(UnusableError, match="damaged or not a TTMR"):
        raymtr.load_model(release)
    assert not (release / "pwned").exists()


def test_half_a_release_is_one_sentence(release: Path) -> None:
    file = release / CHECKPOINT
    file.write_bytes(file.read_bytes()[:100_000])
    with pytest.raises(UnusableError, match="damaged or not a TTMR"):
        raymtr.load_model(release)
    (release / YAML).write_text("sr: 22050\n")
    with pytest.raises(UnusableError, match=r"not a TTMR.* settings file"):
        raymtr.load_model(release)
    (release / YAML).unlink()
    with pytest.raises(UnusableError, match=r"one \.yaml and one \.pth"):
        raymtr.load_model(release)


def test_the_hub_name_without_a_hub_is_one_quick_sentence() -> None:
    started = time.monotonic()
    with pytest.raises(UnusableError, match="'ttmrpp' needs the hub") as error:
        raymtr.load_model("ttmrpp")
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["clap", "no/such/folder", "", "."])
def test_an_unknown_name_lists_what_is_accepted(name: str) -> None:
    with pytest.raises(InputError, match=r"TTMR.* release folder.*'ttmrpp'"):
        raymtr.load_model(name)


def test_an_unknown_precision_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fp32 or bf16"):
        raymtr.load_model(tmp_path, precision="int4")  # type: ignore[arg-type]
