"""The figures of a benchmark, one per line, also written to `build/benchmarks/<script>.json`."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "build" / "benchmarks"


class Figures:
    """The figures of one run of the script that is running."""

    def __init__(self) -> None:
        self._rows: list[dict[str, object]] = []

    def add(
        self,
        name: str,
        value: float | str,
        *,
        unit: str = "",
        asked: str = "",
        met: bool | None = None,
    ) -> None:
        """Print a figure; `asked` is its target as text, and `met` whether it reaches that."""
        row = {"name": name, "value": value, "unit": unit, "asked": asked, "met": met}
        self._rows.append(row)
        shown = f"{value:.4g}" if isinstance(value, float) else value
        target = f", target {asked}: {'met' if met else 'MISS'}" if met is not None else ""
        print(f"{name:28} {shown}{f' {unit}' if unit else ''}{target}", flush=True)

    def save(self) -> Path:
        """Write the figures, with the machine and the time, and return the file."""
        script = Path(sys.argv[0]).stem
        machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
        now = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"script": script, "at": now, "machine": machine, "figures": self._rows}
        FOLDER.mkdir(parents=True, exist_ok=True)
        file = FOLDER / f"{script}.json"
        file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        return file
