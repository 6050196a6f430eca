"""Golden vectors: they pass wherever a vector is right, and nowhere else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raymtr.errors import UnusableError
from raymtr.model.audio_forward import Convolutions, compute_dtype, folded
from raymtr.model.golden import golden_sounds, golden_vectors
from raymtr.model.identity import fingerprint_of, rules_of
from raymtr.model.log_mel import LogMel
from raymtr.model.model import Model
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.resnet import blocks_of
from raymtr.model.torch_convolutions import TorchConvolutions, _Convolution
from raymtr.model.two_towers import TwoTowers
from raymtr.tower_specs import AudioSpec, TowersSpec
from raymtr.validation import Precision

CPU = torch.device("cpu")
BF16 = torch.bfloat16


@pytest.fixture
def towers(spec: TowersSpec, make_towers: Callable[..., TwoTowers]) -> TwoTowers:
    """Towers that have heard the golden sounds too, so that none is strange to them."""
    made = make_towers()
    with torch.no_grad():
        made.train().embed_audio(torch.from_numpy(golden_sounds(spec.audio)))
    return made.eval()


def as_a_gpu_does(towers: TwoTowers) -> Convolutions:
    """torch's own calls, without oneDNN's fused ones."""
    return TorchConvolutions(folded(towers.audio_tower), CPU, BF16, fused=False)


def bfloat16_from_the_start(towers: TwoTowers) -> Convolutions:
    """What GPUs did: not even stem and first shortcut in float32."""
    tower = folded(towers.audio_tower)
    made = TorchConvolutions(tower, CPU, BF16, fused=False)
    made._stem = [
        _Convolution(module, CPU, BF16, fused=False)
        for module in (tower.conv1, tower.conv2, tower.conv3)
    ]
    down = blocks_of(tower)[0].downsample
    assert down is not None
    made._blocks[0]._shortcut = _Convolution(down[1], CPU, BF16, fused=False)  # type: ignore[arg-type]
    return lambda mel: made(mel.to(BF16))


Build = Callable[[TwoTowers, Callable[[TwoTowers], Convolutions], torch.dtype], Model]


@pytest.fixture
def model_on(monkeypatch: pytest.MonkeyPatch) -> Build:
    """The model on a machine with such convolutions, whatever this one would choose."""

    def build(
        towers: TwoTowers, make: Callable[[TwoTowers], Convolutions], dtype: torch.dtype
    ) -> Model:
        monkeypatch.setattr("raymtr.model.model.compute_dtype", lambda *_: dtype)
        precision: Precision = "bf16" if dtype == BF16 else "fp32"
        model = Model(towers, precision=precision, golden=golden_vectors(towers))
        model._audio_forward._embed._convolutions = make(towers)
        return model

    return build


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_they_pass_on_this_machine(towers: TwoTowers, precision: Precision) -> None:
    found = Model(towers, precision=precision, golden=golden_vectors(towers)).check_golden()
    assert found is not None and found > 0.99


def test_bfloat16_as_a_gpu_computes_it_passes(towers: TwoTowers, model_on: Build) -> None:
    model_on(towers, as_a_gpu_does, BF16).check_golden()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_openvino_passes(towers: TwoTowers, model_on: Build, precision: Precision) -> None:
    pytest.importorskip("openvino")
    from raymtr.model.openvino_convolutions import OpenVinoConvolutions

    dtype = compute_dtype(precision, CPU)
    spec = towers.spec.audio
    model_on(
        towers, lambda t: OpenVinoConvolutions(folded(t.audio_tower), spec, dtype), dtype
    ).check_golden()


def test_bfloat16_from_the_start_is_rejected(towers: TwoTowers, model_on: Build) -> None:
    model = model_on(towers, bfloat16_from_the_start, BF16)
    with pytest.raises(UnusableError, match="pinned audio vectors"):
        model.check_golden()


def test_bfloat16_that_a_cpu_computes_in_float32_is_float32(
    towers: TwoTowers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for where in ("audio_forward", "model"):
        monkeypatch.setattr(f"raymtr.model.{where}.compute_dtype", lambda *_: torch.float32)
    model = Model(towers, precision="bf16", golden=golden_vectors(towers))
    assert model.check_golden() == pytest.approx(1.0, abs=1e-7)


def test_tf32_is_rejected(towers: TwoTowers) -> None:
    """Weights alone as TF32 rounds them, which is half of what it does."""
    model = Model(copy.deepcopy(towers), golden=golden_vectors(towers))
    for module in model.towers.audio_tower.modules():
        if isinstance(module, nn.Conv2d):
            bits = module.weight.data.view(torch.int32)
            module.weight.data = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    with pytest.raises(UnusableError, match=r"at least 0\.9999995"):
        model.check_golden()


class NaturalLog(LogMel):
    def forward(self, waves: Tensor) -> Tensor:
        mel: Tensor = super().forward(waves)
        return mel * float(np.log(10.0))


class OneFloorForAll(LogMel):
    """The floor of a loud clip, as where it is taken over the batch."""

    def forward(self, waves: Tensor) -> Tensor:
        mel: Tensor = super().forward(waves)
        return mel.clamp(min=0.0)


class AFrameLate(LogMel):
    def forward(self, waves: Tensor) -> Tensor:
        mel: Tensor = super().forward(waves)
        return mel.roll(1, dims=2)


class OtherWindow(LogMel):
    def __init__(self, spec: AudioSpec) -> None:
        super().__init__(spec)
        self.window = torch.hamming_window(spec.n_fft)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("wrong", [NaturalLog, OneFloorForAll, AFrameLate, OtherWindow])
def test_a_wrong_mel_is_rejected(
    towers: TwoTowers, wrong: type[LogMel], precision: Precision
) -> None:
    golden = golden_vectors(towers)
    towers.log_mel = wrong(towers.spec.audio)
    with pytest.raises(UnusableError, match="pinned audio vectors"):
        Model(towers, precision=precision, golden=golden).check_golden()


@pytest.mark.slow
def test_a_model_saved_with_one_golden_wave_is_still_read(
    towers: TwoTowers, tmp_path: Path
) -> None:
    save_towers(towers, str(tmp_path / "model"))
    file = tmp_path / "model" / "golden.json"
    golden = json.loads(file.read_text())
    before = {key: golden[key] for key in ("texts", "text", "audio")}
    file.write_text(json.dumps(before))
    for precision in ("fp32", "bf16"):
        assert load_model(tmp_path / "model", precision=precision).check_golden() is not None  # type: ignore[arg-type]
    file.write_text(json.dumps(before | {"audio": [-value for value in before["audio"]]}))
    with pytest.raises(UnusableError, match="pinned audio vectors"):
        load_model(tmp_path / "model").check_golden()


@pytest.mark.slow
def test_towers_that_were_never_trained_pass(make_towers: Callable[..., TwoTowers]) -> None:
    """Their vectors are nearly the same for every sound, and bfloat16's error is next to none."""
    fresh = make_towers()
    for norm in fresh.audio_tower.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_parameters()
    for precision in ("fp32", "bf16"):
        Model(fresh, precision=precision, golden=golden_vectors(fresh)).check_golden()  # type: ignore[arg-type]


def test_a_fingerprint_stays_what_it_was() -> None:
    """Else every workspace would be embedded anew."""
    weights = [
        ("audio_tower.conv1.weight", np.arange(12, dtype=np.float32).reshape(3, 4)),
        ("audio_projector.1.weight", np.ones(5, np.float32)),
    ]
    spec = TowersSpec()
    made = [fingerprint_of(spec, p, rules_of(spec), weights) for p in ("fp32", "bf16")]  # type: ignore[arg-type]
    assert made == ["f89e3cc727b6", "e8203c92d753"]
