"""The elements of a piece besides its style: instruments, tempi, modes, phrasings, effects.

Every word here that becomes a tag is true of the sound; `compose` and `render` ensure that. The
words are plain English that people search with, and share no root with each other where possible
(`steelpan`, not `steel drums`).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Instrument:
    """A General MIDI sound and the range it plays melodies in (MIDI keys)."""

    program: int
    low: int
    high: int
    sustained: bool = False  # the note sounds as long as the key is held


INSTRUMENTS = {
    "accordion": Instrument(21, 55, 72, True),
    "acoustic guitar": Instrument(24, 52, 76),
    "banjo": Instrument(105, 55, 79),
    "brass": Instrument(61, 50, 74, True),
    "cello": Instrument(42, 38, 62, True),
    "choir": Instrument(52, 52, 74, True),
    "clarinet": Instrument(71, 55, 82, True),
    "distorted guitar": Instrument(30, 45, 72, True),
    "electric guitar": Instrument(27, 50, 76),
    "electric piano": Instrument(4, 52, 80),
    "flute": Instrument(73, 65, 91, True),
    "harmonica": Instrument(22, 60, 84, True),
    "harp": Instrument(46, 52, 86),
    "harpsichord": Instrument(6, 53, 82),
    "marimba": Instrument(12, 48, 76),
    "music box": Instrument(10, 76, 100),
    "oboe": Instrument(68, 60, 84, True),
    "organ": Instrument(16, 52, 79, True),
    "piano": Instrument(0, 60, 91),
    "saxophone": Instrument(65, 53, 77, True),
    "sitar": Instrument(104, 50, 72),
    "steelpan": Instrument(114, 60, 84),
    "strings": Instrument(48, 52, 79, True),
    "synth lead": Instrument(81, 57, 84, True),
    "synth pad": Instrument(90, 52, 76, True),
    "trombone": Instrument(57, 41, 65, True),
    "trumpet": Instrument(56, 60, 82, True),
    "vibraphone": Instrument(11, 62, 86),
    "violin": Instrument(40, 62, 91, True),
}
BACKINGS = (
    "brass",
    "choir",
    "electric guitar",
    "electric piano",
    "harpsichord",
    "organ",
    "piano",
    "strings",
    "synth pad",
)
LEADS = tuple(name for name in INSTRUMENTS if name == "piano" or name not in BACKINGS)

TEMPI = {"slow": (62, 80), "mid-tempo": (94, 112), "fast": (136, 160)}  # beats per minute

MODES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
}
MODE_TAGS = {"major": "major key", "minor": "minor key", "dorian": "dorian mode"}
MAJOR_TONICS = (
    "C",
    "D flat",
    "D",
    "E flat",
    "E",
    "F",
    "F sharp",
    "G",
    "A flat",
    "A",
    "B flat",
    "B",
)
OTHER_TONICS = (
    "C",
    "C sharp",
    "D",
    "E flat",
    "E",
    "F",
    "F sharp",
    "G",
    "G sharp",
    "A",
    "B flat",
    "B",
)

# Moods for combinations where mode and tempo agree; other combinations get no mood.
MOODS = {
    ("major", "fast"): "cheerful",
    ("major", "slow"): "peaceful",
    ("minor", "slow"): "melancholic",
    ("minor", "fast"): "tense",
}

# kit (program of bank 128) and the keys of kick, snare and hat
PERCUSSION = {
    "drums": (0, (36, 38, 42)),
    "drum machine": (25, (36, 39, 46)),
    "hand percussion": (0, (64, 63, 70)),
}

HELD_PHRASINGS = ("legato", "staccato")  # only audible on instruments with sustained notes
PHRASINGS = ("arpeggios", "fast runs", "repeated notes", "sparse", "trills")
PRODUCTIONS = ("echo", "lo-fi", "reverb")
