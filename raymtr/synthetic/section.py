"""The description of a section of music, and its timing and harmony.

`Section` has all that is decided before composing. Its tags are derived from it, so they cannot
disagree with the music. `Changes` is the clock and harmony that all parts share: the time of a
step, the pitches that fit in a bar. `compose` and `melody` only read them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from raymtr.synthetic.instruments import MAJOR_TONICS, MODE_TAGS, MODES, MOODS, OTHER_TONICS
from raymtr.synthetic.styles import STYLES, Style

MAX_TAGS = 8
RING_S = 1.0  # seconds after the last bar in which the last notes ring


class Note(NamedTuple):
    """One note of one part (`lead`, `backing`, `bass` or `drums`), as MIDI key and velocity."""

    part: str
    start_s: float
    length_s: float
    key: int
    velocity: int


@dataclass(frozen=True, kw_only=True)
class Section:
    """All that is decided about a section before it is composed."""

    style: str
    lead: str
    backing: str
    tempo: str
    bpm: int
    mode: str
    tonic: int  # 0 is C
    percussion: str | None
    phrasing: str | None
    production: str | None
    at_least_s: float

    @property
    def bar_s(self) -> float:
        """Seconds in one bar."""
        return STYLES[self.style].beats * 60 / self.bpm

    @property
    def bars(self) -> int:
        """Whole bars that fill `at_least_s`."""
        return math.ceil(self.at_least_s / self.bar_s)

    @property
    def seconds(self) -> float:
        """Length in seconds: whole bars, plus RING_S."""
        return self.bars * self.bar_s + RING_S

    @property
    def key(self) -> str:
        """The name of the key, such as `B flat minor`."""
        tonics = MAJOR_TONICS if self.mode == "major" else OTHER_TONICS
        return f"{tonics[self.tonic]} {self.mode}"

    @property
    def tags(self) -> tuple[str, ...]:
        """True tags of the sound, most distinctive first, at most `MAX_TAGS`."""
        mood = MOODS.get((self.mode, self.tempo))
        sure = (self.style, self.lead, self.backing, self.tempo, MODE_TAGS[self.mode])
        maybe = (self.percussion, self.phrasing, self.production, mood)
        return (*sure, *(tag for tag in maybe if tag))[:MAX_TAGS]


@dataclass(frozen=True)
class Changes:
    """The clock and the harmony of one section; `degrees` are its chords, a bar each, 0 is I."""

    section: Section
    style: Style
    degrees: tuple[int, ...]

    def at(self, bar: int, step: float) -> float:
        """Seconds from the start to `step` of `bar`, swing included."""
        beat, phase = divmod(step * self.style.beats / self.style.steps, 1.0)
        swing = self.style.swing
        swung = 2 * phase * swing if phase < 0.5 else swing + (2 * phase - 1) * (1 - swing)
        return bar * self.section.bar_s + (beat + swung) * 60 / self.section.bpm

    def scale(self, degree: int) -> tuple[int, ...]:
        """Semitones of the mode; on the fifth degree of minor, with the leading note."""
        mode = MODES[self.section.mode]
        return (*mode[:6], 11) if self.section.mode == "minor" and degree == 4 else mode

    def chord(self, degree: int) -> list[int]:
        """Pitch classes of the chord on `degree`, root first; three, or four with a seventh."""
        scale = self.scale(degree)
        pitches = [scale[(degree + step) % 7] for step in (0, 2, 4, 6)]
        if self.style.sevenths == "dominant":
            pitches[3] = pitches[0] + 10
        count = 4 if self.style.sevenths else 3
        return [(self.section.tonic + pitch) % 12 for pitch in pitches[:count]]


def key_above(pitch_class: int, key: int) -> int:
    """The lowest MIDI key of `pitch_class` that is not below `key`."""
    return key + (pitch_class - key) % 12
