"""What a GPU computes and how fast, with torch alone: a rehearsal before paying for a cluster.

    python benchmarks/on_gpu.py

One table in at most six minutes, on random models of the real sizes (gpu_models). It shows whether
vectors depend on their batch and how far they deviate from a CPU's float32, by precision; the
log-mel; the embedding actor's own call against a loop over windows that are already on the GPU; the
train step against a plain torch loop of the same towers and loss; a LoRA step. Contestants run in
turn, in one process. A part that fails, or takes over a minute, is reported in its row.

Without a GPU everything runs at toy size on the CPU, which tests the script and nothing else.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

import torch
from gpu_speed import embedding, log_mel, lora, training
from gpu_vectors import vectors

PART_S, TOY_PART_S = 60, 600  # time limit of a part; a CPU may be busy
PARTS = {
    "vectors": vectors,
    "log-mel": log_mel,
    "embedding": embedding,
    "train step": training,
    "LoRA step": lora,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--toy", action="store_true", help="toy size, as without a GPU")
    gpu = torch.cuda.is_available()
    toy = parser.parse_args().toy or not gpu
    device = torch.device("cuda" if gpu else "cpu")
    print(
        f"{torch.cuda.get_device_name() if gpu else 'CPU'}; torch {torch.__version__}, "
        f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}, "
        f"transformers {version('transformers')}, Python {sys.version.split()[0]}"
    )
    if toy:
        print("TOY SIZE: these figures prove that the script runs, and say nothing of a GPU")
    print("\n| part | what | figures |\n|---|---|---|")
    failed = 0
    for name, part in PARTS.items():
        print(f"{name} ...", file=sys.stderr, flush=True)
        started = time.perf_counter()
        try:
            with at_most(TOY_PART_S if toy else PART_S):
                for what, figures in part(device, toy):
                    print(f"| {name} | {what} | {figures} |", flush=True)
        except Exception as error:  # noqa: BLE001 - the other parts continue, and the exit code reports it
            failed += 1
            reason = " ".join(str(error).split())[:200]
            print(f"| {name} | FAILED | {type(error).__name__}: {reason} |", flush=True)
        print(f"{name}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
        torch.cuda.empty_cache()
    return int(failed > 0)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    """Raises TimeoutError in the block when it takes longer."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
