"""What of the loop needs no cluster: which checkpoint a run goes on from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from raymtr.training.loop import RAY_CHECKPOINT_LIST, repair_checkpoint_list, resume


class Restored:
    """Keeps what it is given, in place of a TrainStep."""

    def restore(self, state: dict[str, Any]) -> None:
        self.weights = state["towers"]


def checkpoint(folder: Path, steps: int) -> Path:
    file = folder / f"checkpoint_{steps:09d}" / "state.pt"
    file.parent.mkdir()
    torch.save({"steps": steps, "towers": {"w": torch.full((999,), float(steps))}}, file)
    return file


def test_the_newest_checkpoint_is_taken(tmp_path: Path) -> None:
    for steps in (5, 1000, 50):
        checkpoint(tmp_path, steps)
    (tmp_path / "model").mkdir()
    trainer = Restored()
    assert resume(trainer, str(tmp_path)) == (1000, [])
    assert trainer.weights["w"].eq(1000).all()


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_torn_checkpoint_gives_way_to_the_one_before(tmp_path: Path, kept: float) -> None:
    checkpoint(tmp_path, 5)
    torn = checkpoint(tmp_path, 10)
    data = torn.read_bytes()
    torn.write_bytes(data[: kept if isinstance(kept, int) else int(kept * len(data))])
    (tmp_path / "checkpoint_000000015").mkdir()  # killed before the file was begun
    assert resume(Restored(), str(tmp_path)) == (5, [])


def test_no_checkpoint_is_step_nought(tmp_path: Path) -> None:
    assert resume(Restored(), str(tmp_path / "none")) == (0, [])


@pytest.mark.parametrize(
    ("text", "stays"),
    [
        (
            json.dumps({"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_000000005"}]}),
            True,
        ),
        (
            json.dumps({"checkpoint_results": [{"checkpoint_dir_name": "checkpoint_000000001"}]}),
            False,
        ),
        ('{"checkpoint_results": [{"check', False),
        ("", False),
        ("[]", False),
    ],
)
def test_a_list_that_ray_would_refuse_is_dropped(tmp_path: Path, text: str, stays: bool) -> None:
    checkpoint(tmp_path, 5)
    (tmp_path / RAY_CHECKPOINT_LIST).write_text(text)
    repair_checkpoint_list(str(tmp_path))
    assert (tmp_path / RAY_CHECKPOINT_LIST).exists() is stays
