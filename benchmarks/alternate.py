"""Times two or more alternatives fairly: A B A B, CPU seconds, minimum and median."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping


def alternate(
    sides: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    clock: Callable[[], float] = time.process_time,
) -> dict[str, list[float]]:
    """CPU seconds, by `clock`, of each side in each round, after one untimed round."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for timed in range(rounds + 1):
        for name, run in sides.items():
            started = clock()
            run()
            if timed:
                seconds[name].append(clock() - started)
    return seconds


def least_and_median(seconds: list[float]) -> tuple[float, float]:
    """Minimum and median."""
    return min(seconds), statistics.median(seconds)
