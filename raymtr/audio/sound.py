"""A recording as users give it: a file, its bytes, or samples with their rate."""

from __future__ import annotations

import os
from typing import cast

import numpy as np

from raymtr.audio.decoding import decode
from raymtr.audio.mono import to_mono
from raymtr.audio.source import AudioError, Source
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

Sound = Source | tuple[np.ndarray, int]  # a file, or its samples and their rate in Hz


def decode_sound(source: Sound, spec: AudioSpec) -> np.ndarray:
    """Samples float32 [n] of a recording at the spec's rate; an AudioError names it.

    Raises InputError where `source` cannot be a recording.
    """
    check_sound(source)
    try:
        if isinstance(source, tuple):
            return to_mono(*source, spec)
        return decode(source if isinstance(source, bytes) else os.fspath(source), spec).samples
    except AudioError as error:
        raise AudioError(error.code, f"{sound_name(source)}: {error.reason}") from error


def sound_name(source: Sound) -> str:
    """What an error message calls a recording: its path or URI, where it has one."""
    if isinstance(source, (tuple, bytes)):
        return f"the {type(source).__name__} given"
    return str(os.fspath(source))


def check_sound(source: object) -> Sound:
    """`source`, whose type can be a recording. Raises InputError on any other."""
    pair = isinstance(source, tuple) and len(source) == 2
    if not pair and not isinstance(source, (str, bytes, os.PathLike)):
        raise InputError(
            "a recording is a path, a URI, the bytes of a file or a tuple (samples, rate), "
            f"got {type(source).__name__}: {source!r:.80}"
        )
    return cast(Sound, source)
