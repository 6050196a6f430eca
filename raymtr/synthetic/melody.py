"""Composes the lead: a tune or a figure, in the phrasing of the section.

A tune has two rhythm cells, each with its own contour, in the order A A B A over the changing
chords, with chord tones on the beat, and ends on the tonic. Arpeggios and runs replace the tune;
other phrasings (trills, staccato) modify its notes. The speeds of ornaments are absolute, because
they are heard so.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

import numpy as np

from raymtr.synthetic.instruments import INSTRUMENTS
from raymtr.synthetic.section import RING_S, Changes, Note

FORM = (0, 0, 1, 0)  # which of the two cells each bar takes
STEPS = (-3, -2, -1, -1, -1, 0, 1, 1, 1, 2, 3)  # scale steps from one note to the next
LEAST_GAP_S = {"legato": 0.8, "sparse": 2.4, "trills": 0.7, "repeated notes": 0.7}
STACCATO_S = 0.09
ORNAMENT_S = 0.09  # between notes of a trill or a repeated note
RUN_S = 0.11
ARPEGGIO_S = 0.12  # least time between notes; the next larger grid step is used
VELOCITY = 104


@dataclass(frozen=True)
class Pitches:
    """The lead's keys in one bar, by scale index: in the mode and the instrument's range."""

    keys: list[int]  # ascending
    chord: list[int]  # indices into `keys` of chord tones

    def nearest_chord_tone(self, index: int) -> int:
        """The chord tone nearest to scale index `index`, the lower of two."""
        return min(self.chord, key=lambda tone: (abs(tone - index), tone))


def pitches_of(changes: Changes, degree: int) -> Pitches:
    """What the lead may play over the chord on `degree`."""
    instrument, tonic = INSTRUMENTS[changes.section.lead], changes.section.tonic
    scale = {(tonic + step) % 12 for step in changes.scale(degree)}
    keys = [k for k in range(instrument.low, instrument.high + 1) if k % 12 in scale]
    chord = set(changes.chord(degree)[:3])
    return Pitches(keys, [i for i, k in enumerate(keys) if k % 12 in chord])


def melody(changes: Changes, rng: np.random.Generator) -> list[Note]:
    """The lead's notes, and the tonic to end on."""
    phrasing = changes.section.phrasing
    if phrasing == "arpeggios":
        played = _arpeggios(changes)
    elif phrasing == "fast runs":
        played = _runs(changes, rng)
    else:
        played = _tune(changes, rng)
    last_bar = changes.at(len(changes.degrees) - 1, 0)
    starts = [note.start_s for note in played]
    played = played[: bisect.bisect_left(starts, last_bar - 0.01)]
    keys = pitches_of(changes, 0).keys
    tonics = [key for key in keys if key % 12 == changes.section.tonic]
    final = min(tonics, key=lambda key: abs(key - (played[-1].key if played else keys[0])))
    length = STACCATO_S if phrasing == "staccato" else changes.section.bar_s + RING_S / 2
    return [*played, _note(last_bar, length, final)]


def _note(start_s: float, length_s: float, key: int) -> Note:
    return Note("lead", start_s, length_s, key, VELOCITY)


def _tune(changes: Changes, rng: np.random.Generator) -> list[Note]:
    """The two cells over the chords, thinned and modified for the phrasing."""
    style, phrasing = changes.style, changes.section.phrasing
    beat = style.steps // style.beats
    cells = []
    for line in rng.choice(style.melodies, size=2):
        onsets = [step for step, mark in enumerate(str(line)) if mark == "x"]
        cells.append((onsets, rng.choice(STEPS, size=len(onsets))))
    height = float(rng.uniform(0.35, 0.65))  # position of the tune in the range
    tune: list[tuple[float, Pitches, int]] = []
    for bar, degree in enumerate(changes.degrees):
        pitches = pitches_of(changes, degree)
        top = len(pitches.keys) - 1
        index = pitches.nearest_chord_tone(round(height * top))
        onsets, contour = cells[FORM[bar % len(FORM)]]
        for step, move in zip(onsets, contour, strict=True):
            index = abs(index + int(move))
            index = top - abs(top - index)  # reflect at both ends of the range
            if step % beat == 0:
                index = pitches.nearest_chord_tone(index)
            start = changes.at(bar, step)
            if not tune or start - tune[-1][0] >= LEAST_GAP_S.get(phrasing or "", 0.0):
                tune.append((start, pitches, index))
    ends = [start for start, _, _ in tune[1:]] + [changes.at(len(changes.degrees), 0)]
    played: list[Note] = []
    for (start, pitches, index), end in zip(tune, ends, strict=True):
        played += _dress(phrasing, start, end - start, pitches, index)
    return played


def _dress(
    phrasing: str | None, start: float, gap: float, pitches: Pitches, index: int
) -> list[Note]:
    """One note of the tune in the phrasing; `gap` is the time to the next note in s."""
    key = pitches.keys[index]
    if phrasing in ("trills", "repeated notes"):
        upper = pitches.keys[min(index + 1, len(pitches.keys) - 1)]
        pair = (key, upper) if phrasing == "trills" else (key, key)
        count = max(2, int(0.9 * gap / ORNAMENT_S))
        return [_note(start + i * ORNAMENT_S, 0.85 * ORNAMENT_S, pair[i % 2]) for i in range(count)]
    length = {"staccato": STACCATO_S, "legato": 1.03 * gap, "sparse": min(0.8, 0.7 * gap)}
    return [_note(start, length.get(phrasing or "", 0.75 * gap), key)]


def _arpeggios(changes: Changes) -> list[Note]:
    """Broken chords up and down two octaves, on the grid."""
    step_s = changes.section.bar_s / changes.style.steps
    stride = 1 if step_s >= ARPEGGIO_S else 2
    played = []
    for bar, degree in enumerate(changes.degrees):
        pitches = pitches_of(changes, degree)
        first = len(pitches.chord) // 2 - 3
        ladder = pitches.chord[max(0, first) : max(0, first) + 6]
        ladder = ladder + ladder[-2:0:-1]
        for count, step in enumerate(range(0, changes.style.steps, stride)):
            key = pitches.keys[ladder[count % len(ladder)]]
            played.append(_note(changes.at(bar, step), 0.9 * stride * step_s, key))
    return played


def _runs(changes: Changes, rng: np.random.Generator) -> list[Note]:
    """Scales up and down at their own speed, with random turning points."""
    played: list[Note] = []
    index, direction, left = 5, 1, 0
    for bar, degree in enumerate(changes.degrees):
        pitches = pitches_of(changes, degree)
        top = len(pitches.keys) - 1
        start, count = changes.at(bar, 0), int(0.93 * changes.section.bar_s / RUN_S)
        for i in range(count):
            if left == 0 or not 0 <= index + direction <= top:
                direction, left = (-direction, int(rng.integers(4, 10)))
            index = min(max(index + direction, 0), top)
            left -= 1
            played.append(_note(start + i * RUN_S, 0.95 * RUN_S, pitches.keys[index]))
    return played
