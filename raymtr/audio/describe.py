"""Describes a file without decoding it: its tags, its estimated length, its digest."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast

from raymtr.audio.comments import outer_fields
from raymtr.audio.digest import digest_of
from raymtr.audio.extent import CachedFile
from raymtr.audio.formats import identify
from raymtr.audio.id3 import Fields

T = TypeVar("T")

# Errors that readers raise on a damaged file: impossible offsets, numbers and texts.
_DAMAGE = (struct.error, ValueError, IndexError, OverflowError, OSError)


@dataclass(frozen=True)
class Described:
    """The description of a file; empty if the bytes are not audio of a supported format."""

    words: list[Fields]  # the fields of each tag, the most trusted tag first
    seconds: float | None  # an estimate; decoding gives the exact length
    digest: str | None  # of the coded audio


def describe(source: BinaryIO) -> Described:
    """Read an opened file. Damage does not raise: the damaged parts are left out."""
    file = cast(BinaryIO, CachedFile(source))
    known = identify(file)
    kind, extent = known.format, known.extent
    outer = _unless_damaged(lambda: outer_fields(file, extent)) or []
    inner = _unless_damaged(lambda: kind.words(file, extent)) or []
    return Described(
        words=inner + outer if kind.inner_first else outer + inner,
        seconds=_unless_damaged(lambda: kind.seconds(file, extent)),
        digest=_unless_damaged(lambda: digest_of(file, known)),
    )


def _unless_damaged(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except _DAMAGE:
        return None
