"""Runs a raymtr command in a separate process: its answer, time, resources, and memory growth."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

MOST_GROWTH = 1.2  # of peak memory, from a small catalog to a large one
REPOSITORY = Path(__file__).resolve().parents[1]
WATCHED = """
import sys
from jobs.__main__ import main
from jobs.memory_watch import MemoryWatch
with MemoryWatch(every_s=0.2) as watch:
    status = main(sys.argv[1:])
print(watch.peak_gib)
sys.exit(status)
"""


def run_watched(*words: str) -> tuple[dict[str, Any], float, float, float]:
    """The JSON answer, seconds, CPU seconds of all its processes, peak GiB of its tree (PSS)."""
    began, busy = time.monotonic(), children_s()
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, *words, "--json"],
        cwd=REPOSITORY,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, cpu_s = time.monotonic() - began, children_s() - busy
    answer, peak = done.stdout.strip().splitlines()[-2:]
    return json.loads(answer), seconds, cpu_s, float(peak)


def judge_growth(peaks: list[float]) -> None:
    """One line: the last peak of memory against the first."""
    growth = peaks[-1] / peaks[0]
    print(f"{'met ' if growth <= MOST_GROWTH else 'MISS'} {growth:.2f}x, target {MOST_GROWTH}x")


def children_s() -> float:
    """CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
