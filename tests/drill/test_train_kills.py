"""SIGKILL of a worker and of the driver, in fp32 and bf16, with one and two workers.

Every case is the command line on a made catalog, killed some random time after a checkpoint. It
must end with the bits of a run nobody disturbed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from raymtr.synthetic.synthesize import synthesize

pytestmark = pytest.mark.drill

ROOT = Path(__file__).resolve().parents[2]
STEPS = 80  # a killed driver leaves its workers some seconds, in which they must not finish
SMALL = [
    f"train.steps={STEPS}",
    "train.checkpoint_every=8",
    "train.validate_every=40",
    "towers.audio.window_s=2.0",
    "towers.audio.n_mels=32",
    "towers.audio.hop=441",
]


def command(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, "-m", "jobs", *arguments, "--json"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0
    answer: dict[str, Any] = json.loads(out)
    return answer


def train(workspace: Path, run: str, precision: str, workers: int) -> subprocess.Popen[bytes]:
    sets = [*SMALL, f"train.precision={precision}", f"train.workers={workers}"]
    if workers > 1:
        sets.append("train.batch_norm=shared")
    arguments = [part for item in sets for part in ("--set", item)]
    base = ("train", "--workspace", str(workspace), "--recipe", "tiny", "--run", run)
    return command(*base, *arguments)


def wait_for_checkpoint(folder: Path, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 300
    while not list(folder.glob("checkpoint_0*/state.pt")):
        assert process.poll() is None, f"ended with {process.returncode} before a checkpoint"
        assert time.monotonic() < until, f"no checkpoint in {folder}"
        time.sleep(0.02)


def train_workers_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    family = psutil.Process(process.pid).children(recursive=True)
    return [child for child in family if "RayTrainWorker" in " ".join(child.cmdline())]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kills")
    made = synthesize(str(folder / "made"), pieces=30)
    finish(command("scan", made["manifest"], "--workspace", str(folder / "w")))
    return folder / "w"


@pytest.fixture(scope="module")
def undisturbed(workspace: Path) -> dict[tuple[str, int], bytes]:
    weights = {}
    for precision in ("fp32", "bf16"):
        for workers in (1, 2):
            answer = finish(train(workspace, f"whole-{precision}-{workers}", precision, workers))
            assert answer["resumed_from_step"] == 0
            weights[precision, workers] = Path(answer["model"], "model.safetensors").read_bytes()
    assert len(set(weights.values())) == 4, "precision and worker count do change the weights"
    return weights


@pytest.mark.parametrize("victim", ["worker", "driver"])
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_killed_run_ends_with_the_same_bits(
    workspace: Path,
    undisturbed: dict[tuple[str, int], bytes],
    precision: str,
    workers: int,
    victim: str,
) -> None:
    run = f"killed-{victim}-{precision}-{workers}"
    process = train(workspace, run, precision, workers)
    wait_for_checkpoint(workspace / "towers" / run, process)
    time.sleep(random.uniform(0, 0.5))
    if victim == "driver":
        process.send_signal(signal.SIGKILL)
        process.wait()
        process = train(workspace, run, precision, workers)
    else:
        random.choice(train_workers_of(process)).kill()
    answer = finish(process)
    assert 0 < answer["resumed_from_step"] < STEPS
    weights = Path(answer["model"], "model.safetensors").read_bytes()
    assert weights == undisturbed[precision, workers]
    rows = (workspace / "towers" / run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == list(range(STEPS))
