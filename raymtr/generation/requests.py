"""Readers of prompt, story and melody files. They validate before a model is loaded."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from raymtr import audio
from raymtr.errors import InputError
from raymtr.generation.melody import AUDIO, WINDOW_S
from raymtr.generation.musiclm import LONGEST_S, Scene, check_story
from raymtr.validation import MOST_SEED

BALANCED = "is_balanced_subset"  # a column of MusicCaps


@dataclass(frozen=True)
class Prompt:
    """One clip of a prompts file."""

    clip_id: str
    text: str
    seed: int


class Melody(NamedTuple):
    """A recording whose melody conditions the clips."""

    name: str  # file name and hash of its audio
    samples: np.ndarray  # mono float32 [S] at 16 kHz


def read_melody(path: str) -> Melody:
    """Reads a recording of 4 s to LONGEST_S.

    Raises InputError if it is not audio, silent, too short or too long.
    """
    try:
        decoded = audio.decode(path, AUDIO, max_s=LONGEST_S)
    except audio.AudioError as error:
        raise InputError(f"{path} cannot be used as a melody: {error.reason}") from error
    if decoded.seconds < WINDOW_S:
        raise InputError(
            f"{path} cannot be used as a melody: it has {decoded.seconds:.1f} s, at least "
            f"{WINDOW_S:g} are needed"
        )
    return Melody(f"{Path(path).name} {str(decoded.digest)[:12]}", decoded.samples)


def read_story(path: str, seconds: float) -> list[Scene]:
    """Reads a JSON Lines file of `text` and `start_s`. Raises InputError if it is not a story."""
    scenes = []
    for number, row in _rows(path):
        start = row.get("start_s")
        if not isinstance(row.get("text"), str) or not isinstance(start, (int, float)):
            raise InputError(f"{path}, line {number}: a row has text and start_s, got {row}")
        scenes.append(Scene(row["text"], float(start)))
    check_story(scenes, seconds)
    return scenes


def read_prompts(
    path: str, seconds: float, seed: int, melody: Melody | None = None
) -> list[Prompt]:
    """Reads a JSON Lines file of `text` and optionally `seed`, by default `seed` + line number - 1.

    A CSV file is MusicCaps' table, of which the captions of the balanced subset are read. A clip id
    is a hash of the line, the length and the melody, so unchanged lines keep their clips. Raises
    InputError on an invalid line.
    """
    prompts = []
    for number, row in _balanced_captions(path) if path.endswith(".csv") else _rows(path):
        row_seed = row.get("seed", seed + number - 1)
        if not isinstance(row.get("text"), str) or not isinstance(row_seed, int) or row_seed < 0:
            raise InputError(f"{path}, line {number}: a row has text, and seed from 0, got {row}")
        check_story([Scene(row["text"])], seconds)
        check_seed(row_seed)
        name = json.dumps([row["text"], row_seed, seconds, *([melody.name] if melody else [])])
        clip_id = hashlib.sha256(name.encode()).hexdigest()[:16]
        prompts.append(Prompt(clip_id, row["text"], row_seed))
    if len({prompt.clip_id for prompt in prompts}) < len(prompts):
        raise InputError(f"{path} has one clip twice: two lines have the same text and seed")
    return prompts


def _balanced_captions(path: str) -> list[tuple[int, dict[str, Any]]]:
    """The captions of MusicCaps' balanced subset, numbered from 1, as rows of prompts."""
    with _existing(path).open(encoding="utf-8-sig", newline="") as file:
        table = csv.DictReader(file)
        rows = list(table)
    if missing := {"caption", BALANCED} - set(table.fieldnames or ()):
        raise InputError(
            f"{path} is not MusicCaps' table: it lacks column {min(missing)!r}; other prompts are "
            "JSON Lines of text and optionally seed"
        )
    captions = [row["caption"] for row in rows if (row[BALANCED] or "").lower() == "true"]
    if not captions:
        raise InputError(f"{path} has {len(rows)} rows, none with {BALANCED} True")
    return [(number, {"text": caption}) for number, caption in enumerate(captions, start=1)]


def check_seed(seed: int) -> None:
    """Raise InputError on a seed out of range."""
    if not 0 <= seed <= MOST_SEED:
        raise InputError(f"a seed is from 0 to {MOST_SEED}, got {seed}")


def _existing(path: str) -> Path:
    if not (file := Path(path)).is_file():
        raise InputError(f"there is no file {path}")
    return file


def _rows(path: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for number, line in enumerate(
        _existing(path).read_text(encoding="utf-8").splitlines(), start=1
    ):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise InputError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number} is not a JSON object, got {line[:80]}")
        rows.append((number, row))
    if not rows:
        raise InputError(f"{path} has no line; each is a JSON object with text")
    return rows
