"""A raymtr command in a process of its own: its answer, its time, and what it took."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

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


def children_s() -> float:
    """CPU seconds of all processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
