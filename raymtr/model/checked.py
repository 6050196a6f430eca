"""Records of saved models that passed the golden check here, so that searches need not repeat it.

`checked.json` beside the weights names the sides that passed. An entry counts only for the same
files (size and time of change), libraries, processor and precision. A folder that cannot be
written, or lies in an object store, has no record, and its model is checked each time.
"""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from raymtr import storage
from raymtr.model.identity import CONFIG, GOLDEN, WEIGHTS
from raymtr.validation import Precision

MARKER = "checked.json"
LIBRARIES = ("raymtr", "torch", "numpy", "transformers", "tokenizers", "safetensors")
MOST_ENTRIES = 16  # machines and versions that are remembered


def passed(folder: str, fingerprint: str, precision: Precision) -> set[str]:
    """The sides of the model in `folder` that passed their check here."""
    circumstances = _circumstances(folder, fingerprint, precision)
    return set(_read(folder).get(circumstances, ())) if circumstances else set()


def remember(folder: str, fingerprint: str, precision: Precision, side: str) -> None:
    """Record that a side passed, where a record can be kept."""
    if (circumstances := _circumstances(folder, fingerprint, precision)) is None:
        return
    record = _read(folder)
    sides = {*record.pop(circumstances, ()), side}
    kept = dict(list(record.items())[1 - MOST_ENTRIES :])
    with suppress(OSError):  # a read-only workspace is checked each time
        storage.write_json(str(_marker(folder)), kept | {circumstances: sorted(sides)})


def _circumstances(folder: str, fingerprint: str, precision: Precision) -> str | None:
    """A digest of all that golden vectors depend on; None where files have no time of change."""
    if storage.is_remote(folder):
        return None
    place = Path(storage.local_path(folder))
    try:
        stats = [(place / name).stat() for name in (WEIGHTS, GOLDEN, CONFIG)]
    except OSError:
        return None  # not raymtr's own folder; loading reports what is wrong with it
    facts = [
        [fingerprint, precision, platform.node(), platform.machine(), _processor()],
        [_version(name) for name in LIBRARIES],
        [[stat.st_size, stat.st_mtime_ns] for stat in stats],
    ]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _processor() -> list[str]:
    """The processor's name and instruction sets, if the system provides them."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return [platform.processor()]
    return [line for line in lines if line.startswith(("model name", "flags", "Features"))]


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _marker(folder: str) -> Path:
    return Path(storage.local_path(folder)) / MARKER


def _read(folder: str) -> dict[str, list[str]]:
    """The record; empty where there is none or it cannot be read, as then the check runs again."""
    try:
        record = json.loads(_marker(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
