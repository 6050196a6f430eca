"""How many of the benchmark's pairs each captioning system was trained on.

A caption's provenance names the adapter that wrote it. For the workspace's own captioner the
training pairs are known (raymtr.trained_on). For another one, and for a file without provenance,
they are unknown. The realiser and a template are not trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from raymtr.captions.captioner import adapter_identity
from raymtr.captions.learning.pairs import Pair
from raymtr.catalog.tabular import read_rows
from raymtr.trained_on import known, pair_names, read_record

UNTRAINED = ("realised", "template")  # sources in a provenance: no model wrote these captions


def trained_on(
    captioner: str, pairs: Sequence[Pair], files: Mapping[str, str]
) -> dict[str, int | None]:
    """For each system (`files`: name -> captions), how many of `pairs` it was trained on.

    None where unknown. `captioner` is the folder of the workspace's own.
    """
    record, adapter = read_record(captioner), adapter_identity(captioner)
    learnt = None
    if record is not None:
        learnt = int(known(record, [pair_names(p.clip, p.tags, p.caption) for p in pairs]).sum())
    counts: dict[str, int | None] = {}
    for name, uri in files.items():
        writers = _writers(uri)
        counts[name] = 0 if not writers else learnt if writers == {adapter} else None
    return counts


def _writers(uri: str) -> set[str | None]:
    """The adapters that wrote the captions of a file; None for an unnamed one."""
    table = read_rows(uri).table
    if "provenance" not in table.column_names:
        return {None}
    writers = set()
    for text in table["provenance"].to_pylist():
        origin: dict[str, Any] = json.loads(text) if str(text).startswith("{") else {}
        if origin.get("adapter") or origin.get("source") not in UNTRAINED:
            writers.add(origin.get("adapter"))
    return writers


def notes(counts: Mapping[str, int | None], pairs: int, mark: str) -> list[str]:
    """Notes on these counts, as sentences."""
    lines = []
    for name, count in counts.items():
        if count is None:
            lines.append(
                f"{name}: the writer of these captions, or its training data, is unknown; these "
                "pairs may be part of it"
            )
        elif count:
            lines.append(
                f"{mark} {name}: its captioner was trained on {count} of these {pairs} pairs, by "
                "their clip or their words, so its figures show how well it remembers; use "
                "--held-out, or pairs that were not in the training data"
            )
    return lines
