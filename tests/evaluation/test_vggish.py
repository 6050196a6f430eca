"""VGGish against values of torchvggish 0.2 for the same sweep and the same made weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from raymtr.errors import InputError
from raymtr.evaluation.vggish import DIM, FRAMES, VGGish, log_mel_windows, read_vggish


def sweep() -> np.ndarray:
    """A second from 200 to 3,200 Hz at 16 kHz."""
    time_s = np.arange(16_000) / 16_000
    return (0.3 * np.sin(2 * np.pi * (200 + 1_500 * time_s) * time_s)).astype(np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file in the names of torchvggish's release, of sines in place of trained weights."""
    state = VGGish().state_dict()
    for value in state.values():
        places = torch.arange(value.numel(), dtype=torch.float64)
        size = value[0].numel() if value.dim() > 1 else 1_000
        value.copy_((torch.sin(0.7 * places) * (1.5 / size) ** 0.5).float().view_as(value))
    file = tmp_path_factory.mktemp("vggish") / "vggish-10086976.pth"
    torch.save(state, file)
    return str(file)


def test_the_input_is_that_of_torchvggish() -> None:
    windows = log_mel_windows(sweep())
    assert windows.shape == (1, FRAMES, 64)
    expected = [
        [3.3937, -4.5051, -4.5995],
        [-4.5656, -3.7963, -4.5463],
        [-4.6036, -4.5934, -1.9331],
    ]
    found = windows[0, [0, 40, 95]][:, [3, 20, 40]]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert windows.mean() == pytest.approx(-3.8365796, abs=1e-5)
    assert log_mel_windows(sweep()[:15_000]).shape == (0, FRAMES, 64)
    assert len(log_mel_windows(np.tile(sweep(), 3))) == 3


@pytest.mark.slow
def test_the_embedding_is_that_of_torchvggish(weights: str) -> None:
    [vector] = read_vggish(weights).encode(sweep())
    assert vector.shape == (DIM,)
    np.testing.assert_allclose(vector[[0, 1, 3, 6]], [0.95415, 0, 0.96239, 0.86396], atol=1e-3)
    assert (vector > 0).sum() == 70
    assert vector.sum() == pytest.approx(40.338, rel=1e-3)


def test_other_weights_are_refused_in_one_sentence(tmp_path: Path) -> None:
    torn = tmp_path / "torn.pth"
    torn.write_bytes(b"torn")
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(1)}, other)
    for file in (torn, other):
        with pytest.raises(InputError, match="does not have VGGish's weights"):
            read_vggish(str(file))
    with pytest.raises(InputError, match="there is no file"):
        read_vggish(str(tmp_path / "none.pth"))
