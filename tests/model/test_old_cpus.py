"""A model on CPUs of fewer instructions than this one: what oneDNN and torch are told to leave be.

Both read their limits when they are loaded, so each CPU is a process of its own. The model is saved
here, and its golden vectors with it: what an old CPU makes of it must be what this one makes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raymtr.model.model_folder import save_towers
from raymtr.model.two_towers import TwoTowers

pytestmark = pytest.mark.slow

CPUS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "SSE4.1": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
SEEN = """
import json, sys
import numpy as np
from raymtr.model.pretrained import load_model

folder, (waves, plain) = sys.argv[1], np.load(sys.argv[2]).values()
for precision in ("fp32", "bf16"):
    model = load_model(folder, precision=precision)
    made = model.embed_windows(waves)
    alone = np.concatenate([model.embed_windows(wave[None]) for wave in waves])
    print(model.check_golden(), np.abs(made - plain).max(), np.array_equal(made, alone))
"""


@pytest.mark.parametrize("cpu", CPUS)
def test_an_old_cpu_makes_the_same_vectors_in_both_precisions(
    cpu: str, make_towers: Callable[..., TwoTowers], waves: np.ndarray, tmp_path: Path
) -> None:
    towers = make_towers()
    save_towers(towers, str(tmp_path / "model"))
    with torch.inference_mode():
        plain = towers.embed_audio(torch.from_numpy(waves)).numpy()
    np.savez(tmp_path / "sounds.npz", waves=waves, plain=plain)
    done = subprocess.run(
        [sys.executable, "-c", SEEN, str(tmp_path / "model"), str(tmp_path / "sounds.npz")],
        env={**os.environ, **CPUS[cpu]},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:2]
    for golden, difference, alike in map(str.split, lines):
        assert float(golden) > 0.99999
        assert float(difference) < 5e-5  # there is no bfloat16, so bf16 is float32 too
        assert alike == "True"
