"""The fast forward: the plain tower's vectors, whatever engine, whatever neighbours."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from raymtr.model.audio_forward import (
    WINDOWS_AT_ONCE,
    AudioForward,
    Convolutions,
    compute_dtype,
    folded,
)
from raymtr.model.torch_convolutions import TorchConvolutions
from raymtr.model.two_towers import TwoTowers
from raymtr.tower_specs import AudioTowerSpec, TowersSpec

CPU = torch.device("cpu")
ENGINES = ("torch", "openvino")


def convolutions(
    engine: str, towers: TwoTowers, dtype: torch.dtype = torch.float32
) -> Convolutions:
    tower = folded(towers.audio_tower)
    if engine == "torch":
        return TorchConvolutions(tower, CPU, dtype)
    pytest.importorskip("openvino")
    from raymtr.model.openvino_convolutions import OpenVinoConvolutions

    return OpenVinoConvolutions(tower, towers.spec.audio, dtype)


def forward(engine: str, towers: TwoTowers) -> AudioForward:
    made = AudioForward(towers, precision="fp32", device=CPU)
    assert hasattr(made._embed, "_convolutions")
    made._embed._convolutions = convolutions(engine, towers)
    return made


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("width", "bands"), [(8, False), (24, False), (8, True)])
def test_equals_the_plain_forward(
    engine: str,
    width: int,
    bands: bool,
    spec: TowersSpec,
    make_towers: Callable[..., TwoTowers],
    waves: np.ndarray,
) -> None:
    tower = AudioTowerSpec(
        layers=(2, 1, 2, 1),
        width=width,
        heads=4,
        dim=48,
        band_input=bands,
        band_statistics=bands,
        tempogram=bands,
    )
    audio = dataclasses.replace(spec.audio, semitones=bands)
    towers = make_towers(dataclasses.replace(spec, audio=audio, audio_tower=tower))
    with torch.inference_mode():
        plain = towers.embed_audio(torch.from_numpy(waves)).numpy()
    made = forward(engine, towers)(waves)
    assert np.abs(made - plain).max() < 5e-5  # the plain sum is itself 2e-5 from float64's
    assert np.abs(plain[0] - plain[1]).max() > 0.1 * np.abs(plain).max()  # the windows do differ


@pytest.mark.parametrize("engine", ENGINES)
def test_a_window_is_byte_equal_in_every_batch(
    engine: str, make_towers: Callable[..., TwoTowers], waves: np.ndarray
) -> None:
    embed = forward(engine, make_towers())
    alone = np.concatenate([embed(wave[None]) for wave in waves])
    assert np.array_equal(embed(np.tile(waves, (2, 1))), np.tile(alone, (2, 1)))
    assert np.array_equal(embed(waves[::-1]), alone[::-1])
    assert embed(waves[:0]).shape == (0, 24)


def test_batches_follow_one_another_through_two_buffers(
    make_towers: Callable[..., TwoTowers], waves: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several windows at once, as on a GPU: all in order, the last batch padded."""
    monkeypatch.setitem(WINDOWS_AT_ONCE, "cpu", 3)
    embed = forward("torch", make_towers())
    many = np.tile(waves, (2, 1))[:7]
    alone = np.concatenate([embed(wave[None]) for wave in many])
    together = embed(many)
    assert np.abs(together - alone).max() < 1e-5
    assert np.abs(alone[:4] - np.roll(alone[:4], 1, axis=0)).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("engine", ENGINES)
def test_bfloat16_convolutions_stay_near(
    engine: str, make_towers: Callable[..., TwoTowers], waves: np.ndarray
) -> None:
    if compute_dtype("bf16", CPU) != torch.bfloat16:
        pytest.skip("on a CPU without bfloat16 it is computed in float32: see test_old_cpus")
    towers = make_towers()
    with torch.inference_mode():
        mel = towers.log_mel(torch.from_numpy(waves))
        exact, near = (
            torch.cat([run(window[None]) for window in mel]).float().flatten(1)
            for run in (convolutions(engine, towers, d) for d in (torch.float32, torch.bfloat16))
        )
    # Random weights; trained towers come to 0.9999 (benchmarks/audio_tower.py).
    assert functional.cosine_similarity(exact, near)[[0, 1, 3]].min() > 0.998
    assert not torch.equal(exact, near)


def test_the_start_is_float32_on_every_device(make_towers: Callable[..., TwoTowers]) -> None:
    """The meta device stands for a GPU: it is none that this code knows, and computes nothing."""
    towers, elsewhere = make_towers(), torch.device("meta")
    made = TorchConvolutions(folded(towers.audio_tower), elsewhere, torch.bfloat16)
    shortcuts = [block._shortcut for block in made._blocks if block._shortcut is not None]
    start = [convolution._weight.dtype for convolution in (*made._stem, shortcuts[0])]
    rest = [block._first._weight.dtype for block in made._blocks]
    rest += [shortcut._weight.dtype for shortcut in shortcuts[1:]]
    assert set(start) == {torch.float32} and set(rest) == {torch.bfloat16}
    spec = towers.spec.audio
    found = made(torch.zeros(2, spec.n_mels, spec.frames, device=elsewhere))
    assert found.device == elsewhere and found.dtype == torch.bfloat16


def test_folding_leaves_the_towers_alone(make_towers: Callable[..., TwoTowers]) -> None:
    towers = make_towers()
    before = {name: tensor.clone() for name, tensor in towers.state_dict().items()}
    folded(towers.audio_tower)
    after = towers.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_float32_is_never_computed_in_less() -> None:
    assert compute_dtype("fp32", CPU) == torch.float32
    assert compute_dtype("fp32", torch.device("cuda")) == torch.float32
    assert compute_dtype("bf16", torch.device("cuda")) == torch.bfloat16


def test_openvino_does_not_phone_home() -> None:
    pytest.importorskip("openvino")
    code = (
        "import sys, raymtr.model.openvino_convolutions;"
        "print([m for m, v in sys.modules.items() if m.startswith('openvino_telemetry') and v])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
