"""Composes the notes of a section from its description.

The style decides when each part plays, mode and progression decide which notes fit, and the rng
decides the rest. Nothing here depends on sound: notes are plain tuples in seconds, so that a test
can count them.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from raymtr.synthetic.instruments import PERCUSSION
from raymtr.synthetic.melody import melody
from raymtr.synthetic.section import Changes, Note, Section, key_above
from raymtr.synthetic.styles import STYLES

LOWEST_CHORD_KEY = 54  # chords are voiced in the octave from here
LOWEST_BASS_KEY = 33
ACCENTS = {"o": 0.55, "x": 0.8, "X": 1.0}
LATE_S = 0.004  # standard deviation of human timing


def compose(section: Section, rng: np.random.Generator) -> list[Note]:
    """The notes of `section`, in no particular order. None starts after its last bar."""
    style = STYLES[section.style]
    progression = str(rng.choice(style.progressions))
    degrees = [int(progression[bar % len(progression)]) - 1 for bar in range(section.bars)]
    degrees[-1] = 0
    changes = Changes(section, style, tuple(degrees))
    notes = [*melody(changes, rng), *backing(changes), *bass(changes), *drums(changes)]
    late = rng.normal(0, LATE_S, len(notes))
    harder = rng.normal(0, 5, len(notes))
    return [
        note._replace(
            start_s=max(0.0, note.start_s + float(late[i])),
            velocity=int(np.clip(note.velocity + harder[i], 1, 127)),
        )
        for i, note in enumerate(notes)
    ]


def rhythm_of(line: str) -> Iterator[tuple[int, int, str]]:
    """(step, length in steps, character) of each note of a rhythm string."""
    for step, mark in enumerate(line):
        if mark in ".-":
            continue
        length = 1
        while step + length < len(line) and line[step + length] == "-":
            length += 1
        yield step, length, mark


def drums(changes: Changes) -> list[Note]:
    """Kick, snare and hat of the style; empty for a section without drums."""
    kind = changes.section.percussion
    if kind is None:
        return []
    style, (_, keys) = changes.style, PERCUSSION[kind]
    return [
        Note("drums", changes.at(bar, step), 0.2, key, int(110 * ACCENTS[mark]))
        for bar in range(len(changes.degrees))
        for key, line in zip(keys, (style.kick, style.snare, style.hat), strict=True)
        for step, _, mark in rhythm_of(line)
    ]


def backing(changes: Changes) -> list[Note]:
    """Block or broken chords in one close octave."""
    notes = []
    for bar, degree in enumerate(changes.degrees):
        keys = sorted(key_above(pitch, LOWEST_CHORD_KEY) for pitch in changes.chord(degree))
        for step, length, mark in rhythm_of(changes.style.chords):
            start = changes.at(bar, step)
            sounds = changes.at(bar, step + length - 0.3) - start
            picked = [[*keys, keys[0] + 12][int(mark) - 1]] if mark.isdigit() else keys
            velocity = int(100 * ACCENTS.get(mark, 0.8))
            notes += [Note("backing", start, sounds, key, velocity) for key in picked]
    return notes


def bass(changes: Changes) -> list[Note]:
    """The bass line; its letters are relative to the chord of the bar."""
    notes = []
    chords = [changes.chord(degree) for degree in changes.degrees]
    for bar, chord in enumerate(chords):
        root = key_above(chord[0], LOWEST_BASS_KEY)
        next_root = key_above(chords[(bar + 1) % len(chords)][0], LOWEST_BASS_KEY)
        keys = {"r": root, "o": root + 12, "s": root + 9, "a": next_root - 1}
        keys |= {"t": key_above(chord[1], root), "f": key_above(chord[2], root)}
        for step, length, mark in rhythm_of(changes.style.bass):
            start = changes.at(bar, step)
            sounds = changes.at(bar, step + length - 0.2) - start
            notes.append(Note("bass", start, sounds, keys[mark], 95))
    return notes
