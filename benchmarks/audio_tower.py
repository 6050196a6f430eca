"""The full audio tower on one CPU thread, against the plain fp32 eager forward of its weights.

    python benchmarks/audio_tower.py --workspace demo-workspace

Target: 2.5 times faster without extras, 3.5 with the extra `fast` (OpenVINO), cosine above 0.9999.
TTMR++'s size (ModifiedResNet-50, width 64), random weights, batch norms with statistics of audio.
One window at a time, CPU time, alternating, in one process; loading is timed separately.

The cosine cost of bfloat16 depends on the weights, and random norms are the worst case we know.
With --workspace the verdict uses the towers trained there instead, over music of its catalog, on
the same path as `raymtr embed`.

bfloat16 is measured only if the CPU has instructions for it. Without them only float32 remains, and
no implementation of the same sum exceeds the core's peak. The peak of a large matrix product is
measured in the same run, and the best ratio that it allows is printed.
"""

from __future__ import annotations

import argparse
import os
import sys

os.environ["OMP_NUM_THREADS"] = "1"

import time
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec

import numpy as np
import torch
from alternate import alternate, least_and_median
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import raymtr
from raymtr import storage
from raymtr.model.audio_forward import compute_dtype, folded
from raymtr.model.log_mel import LogMel
from raymtr.model.resnet import ModifiedResNet
from raymtr.model.torch_convolutions import TorchConvolutions
from raymtr.tower_specs import AudioSpec, AudioTowerSpec
from raymtr.workspace import Workspace

CPU = torch.device("cpu")
ROUNDS, TRACKS = 8, 60
TARGET = {"torch": 2.5, "OpenVINO": 3.5}
LEAST_COSINE = 0.9999
Embed = Callable[[], Tensor]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", help="one whose model was trained: `make demo`'s")
    workspace = parser.parse_args().workspace
    torch.set_num_threads(1)
    mel = LogMel(AudioSpec())(sounds())
    tower = tower_that_has_seen(mel)
    window = mel[:1].contiguous()
    dtypes = sorted({compute_dtype(p, CPU) for p in ("fp32", "bf16")}, key=str, reverse=True)
    with torch.inference_mode():
        ways: dict[str, Embed] = {"eager": lambda: clip_forward(tower, window)}
        for dtype in dtypes:
            ways |= fast_ways(tower, window, dtype)
        plain = ways["eager"]()
        cosines = {n: functional.cosine_similarity(run(), plain).item() for n, run in ways.items()}
        seconds = alternate(ways, rounds=ROUNDS)
    low, mid = least_and_median(seconds["eager"])
    print(
        f"\nCPU ms for a window, 1 thread, {ROUNDS} rounds   min / median   times faster   cosine"
    )
    for name, times in seconds.items():
        own_low, own_mid = least_and_median(times)
        print(
            f"{name:45s} {1e3 * own_low:7.1f} / {1e3 * own_mid:6.1f}"
            f"   {low / own_low:4.2f} / {mid / own_mid:4.2f}   {cosines[name]:.7f}"
        )
    if workspace:
        least = trained_cosine(workspace)
        cosines = {n: least if n.endswith("bfloat16") else c for n, c in cosines.items()}
    met = [verdict(engine, seconds, cosines) for engine in TARGET]
    if torch.bfloat16 not in dtypes:
        print_bound(tower, window, low)
    return int(not all(met))


def sounds() -> Tensor:
    """Four windows: chords, rising noise, a quiet sweep, pulses."""
    seconds = torch.arange(220_500) / 22_050
    noise = torch.randn(220_500, generator=torch.Generator().manual_seed(0))
    chord = sum(torch.sin(2 * torch.pi * hz * seconds) for hz in (220.0, 277.2, 329.6))
    sweep = 1e-2 * torch.sin(2 * torch.pi * (50.0 + 200.0 * seconds) * seconds)
    pulses = noise * (torch.sin(4 * torch.pi * seconds) > 0.9)
    return torch.stack([torch.as_tensor(chord), noise * seconds / 10, sweep, pulses]) * 0.1


def tower_that_has_seen(mel: Tensor) -> ModifiedResNet:
    """Random weights; batch norms with random scales and the statistics of `mel`."""
    torch.manual_seed(0)
    tower = ModifiedResNet(AudioTowerSpec())
    for norm in tower.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, 0.0, 0.3)
            norm.momentum = None
    with torch.no_grad():
        tower.train()(mel)
    return tower.eval()


def clip_forward(tower: ModifiedResNet, mel: Tensor) -> Tensor:
    """CLIP's own forward of the same weights: its modules, and torch's attention in the pooling."""
    x = mel.unsqueeze(1)
    for number in "123":
        x = functional.relu(getattr(tower, f"bn{number}")(getattr(tower, f"conv{number}")(x)))
    x = tower.avgpool(x)
    x = tower.layer4(tower.layer3(tower.layer2(tower.layer1(x))))
    pool = tower.attn_pool
    tokens = x.flatten(2).permute(2, 0, 1)  # [HW, B, C]
    tokens = torch.cat([tokens.mean(0, keepdim=True), tokens]) + pool.positional_embedding[:, None]
    pooled, _ = functional.multi_head_attention_forward(
        query=tokens[:1],
        key=tokens,
        value=tokens,
        embed_dim_to_check=tokens.shape[-1],
        num_heads=pool.heads,
        in_proj_weight=None,
        in_proj_bias=torch.cat([pool.q_proj.bias, pool.k_proj.bias, pool.v_proj.bias]),
        bias_k=None,
        bias_v=None,
        add_zero_attn=False,
        dropout_p=0.0,
        out_proj_weight=pool.c_proj.weight,
        out_proj_bias=pool.c_proj.bias,
        training=False,
        need_weights=False,
        use_separate_proj_weight=True,
        q_proj_weight=pool.q_proj.weight,
        k_proj_weight=pool.k_proj.weight,
        v_proj_weight=pool.v_proj.weight,
    )
    return pooled[0]


def fast_ways(tower: ModifiedResNet, window: Tensor, dtype: torch.dtype) -> dict[str, Embed]:
    """The implementations `audio_forward` may choose here in `dtype`, loaded and warm."""
    word = str(dtype).removeprefix("torch.")
    ways: dict[str, Embed] = {}

    def add(name: str, build: Callable[[], Callable[[Tensor], Tensor]]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        convolutions = build()
        ways[f"{name} {word}"] = lambda: tower.attn_pool(convolutions(window).float())
        ways[f"{name} {word}"]()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{name} {word}: ready after {wall:.1f} s, {cpu:.1f} s of CPU")

    add(f"torch {torch.__version__}", lambda: TorchConvolutions(folded(tower), CPU, dtype))
    if find_spec("openvino") is not None:
        from raymtr.model.openvino_convolutions import OpenVinoConvolutions

        spec = AudioSpec()
        name = f"OpenVINO {version('openvino')}"
        add(name, lambda: OpenVinoConvolutions(folded(tower), spec, dtype))
    return ways


def trained_cosine(workspace: str) -> float:
    """Minimum cosine of a track's vector in bfloat16 to its float32 one, over TRACKS tracks."""
    home = Workspace.open(workspace)
    uris = storage.read_tables(home.tracks, ["uri"])["uri"].to_pylist()
    uris = uris[:: max(1, len(uris) // TRACKS)][:TRACKS]
    exact, near = (
        raymtr.load_model(home.newest_model(), precision=precision, audio_only=True).encode_audio(
            uris
        )
        for precision in ("fp32", "bf16")
    )
    cosines = np.sort((exact * near).sum(1))
    print(
        f"bf16 by the towers of {workspace}, {len(uris)} of its tracks: cosine "
        f"{cosines[0]:.7f} at least, {np.median(cosines):.7f} in the middle"
    )
    return float(cosines[0])


def verdict(engine: str, seconds: dict[str, list[float]], cosines: dict[str, float]) -> bool:
    """Prints whether the fastest accurate implementation of `engine` meets the target."""
    low, mid = least_and_median(seconds["eager"])
    ratios = {
        name: min(low / min(times), mid / least_and_median(times)[1])
        for name, times in seconds.items()
        if name.startswith(engine) and cosines[name] > LEAST_COSINE
    }
    if not ratios:
        print(f"{engine}: not installed, not measured")
        return False
    best = max(ratios, key=lambda name: ratios[name])
    met = ratios[best] >= TARGET[engine]
    print(f"{best}: {ratios[best]:.2f}, target {TARGET[engine]}: {'met' if met else 'MISS'}")
    return met


def print_bound(tower: ModifiedResNet, window: Tensor, eager: float) -> None:
    """Prints the limit of float32 on this core at the peak of a large matrix product."""
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        tower(window)  # with the shorter pooling that all fast implementations use
    a, b = torch.randn(2, 2048, 2048)
    peak = 2 * 2048**3 / min(alternate({"product": lambda: a @ b}, rounds=5)["product"])
    least = counter.get_total_flops() / peak
    print(
        f"this CPU has no bfloat16 instructions; at its float32 peak, {peak / 1e9:.0f} GFLOP/s, "
        f"the tower's {counter.get_total_flops() / 1e9:.1f} GFLOP take {1e3 * least:.0f} ms: "
        f"no more than {eager / least:.2f} times faster"
    )


if __name__ == "__main__":
    sys.exit(main())
