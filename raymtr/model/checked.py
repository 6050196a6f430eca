"""One side of a saved model, checked on this machine, for a search.

A search asks one side, so only that side's tower is loaded. Its golden vectors are computed once
per machine: `checked.json` beside the weights records which sides passed. An entry counts only for
the same files (size and time of change), the same libraries, processor and precision. A folder that
cannot be written, or lies in an object store, has no record, and is checked each time.
"""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from raymtr import storage
from raymtr.errors import UnusableError
from raymtr.model import pretrained
from raymtr.model.identity import CONFIG, GOLDEN, WEIGHTS, read_identity
from raymtr.model.model import Model, Side
from raymtr.specs import Precision

MARKER = "checked.json"
LIBRARIES = ("raymtr", "torch", "numpy", "transformers", "tokenizers", "safetensors")
MOST_ENTRIES = 16  # machines and versions that are remembered

Record = dict[str, list[str]]  # circumstances -> the sides that passed


def load_checked(folder: str, *, fingerprint: str, precision: Precision, side: Side) -> Model:
    """The model in `folder`, with at least the tower of `side`.

    Raises UnusableError if it has another fingerprint than that of the table's vectors, or does not
    reproduce its golden vectors on this machine.
    """
    circumstances = _circumstances(folder, fingerprint, precision)
    if circumstances and side in _read(folder).get(circumstances, ()):
        return _load(folder, precision, side)
    identity = read_identity(folder, precision)
    model = _load(folder, precision, side if identity else None)
    found = identity.fingerprint if identity else model.fingerprint
    if found != fingerprint:
        raise UnusableError(
            f"the table's vectors are of model {fingerprint}, {folder} holds {found}: run "
            "`raymtr embed` and `raymtr index` with one model"
        )
    model.check_golden([side])
    if circumstances:
        _remember(folder, circumstances, side)
    return model


def _load(folder: str, precision: Precision, side: Side | None) -> Model:
    return pretrained.load_model(
        folder, precision=precision, audio_only=side == "audio", text_only=side == "text"
    )


def _circumstances(folder: str, fingerprint: str, precision: Precision) -> str | None:
    """A digest of all that golden vectors depend on; None where files have no time of change."""
    if storage.is_remote(folder):
        return None
    place = Path(storage.local_path(folder))
    try:
        stats = [(place / name).stat() for name in (WEIGHTS, GOLDEN, CONFIG)]
    except OSError:
        return None  # not raymtr's own folder; loading reports what is wrong with it
    said = [
        [fingerprint, precision, platform.node(), platform.machine(), _processor()],
        [_version(name) for name in LIBRARIES],
        [[stat.st_size, stat.st_mtime_ns] for stat in stats],
    ]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def _processor() -> list[str]:
    """The processor's name and instruction sets, where the system tells them."""
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


def _read(folder: str) -> Record:
    """The record; empty where there is none or it cannot be read, as then the check runs again."""
    try:
        record = json.loads(_marker(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _remember(folder: str, circumstances: str, side: Side) -> None:
    record = _read(folder)
    sides = {*record.pop(circumstances, ()), side}
    kept = list(record.items())[1 - MOST_ENTRIES :]
    with suppress(OSError):  # a read-only workspace is checked each time
        storage.write_json(str(_marker(folder)), dict(kept) | {circumstances: sorted(sides)})
