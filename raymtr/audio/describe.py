"""All that a file tells of itself without being decoded: words, a guess of its length, a digest."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TypeVar, cast

from raymtr.audio.comments import outer_fields
from raymtr.audio.digest import digest_of
from raymtr.audio.extent import Held
from raymtr.audio.formats import identify
from raymtr.audio.id3 import Fields

T = TypeVar("T")

# What a reader meets in a file that is damaged: places, numbers and texts that cannot be.
_DAMAGE = (struct.error, ValueError, IndexError, OverflowError, OSError)


@dataclass(frozen=True)
class Described:
    """What stands in a file; nothing of it where the bytes are no audio known here."""

    words: list[Fields]  # of each tag, the most trusted first
    seconds: float | None  # a guess until it is decoded
    digest: str | None  # of the coded audio


def describe(source: BinaryIO) -> Described:
    """Read an opened file. Damage raises nothing: it leaves out what it hits."""
    file = cast(BinaryIO, Held(source))
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
