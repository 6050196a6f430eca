"""Renders notes as sound: a General MIDI soundfont, a fixed balance, a production.

Each part is rendered separately and set to its own level before the mix, so that every instrument
named by a tag is audible. One pass over all channels would be a little cheaper but could not ensure
that. tinysoundfont renders at the final rate: a higher rate with resampling sounds slightly cleaner
in the cymbals and takes three times as long.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable

import numpy as np

from raymtr.errors import UnusableError
from raymtr.synthetic.compose import compose
from raymtr.synthetic.instruments import INSTRUMENTS, PERCUSSION
from raymtr.synthetic.section import Note, Section
from raymtr.synthetic.styles import STYLES

SAMPLE_RATE = 22_050  # Hz, stereo
PEAK = 0.8
FADE_S = 0.3
LEVELS = {"lead": 1.0, "backing": 0.5, "bass": 0.5, "drums": 0.5}  # relative RMS of the parts
CHANNELS = {"lead": 0, "backing": 1, "bass": 2, "drums": 9}
DRUM_BANK = 128
PANS = {"lead": 64, "backing": 44, "bass": 64, "drums": 76}  # MIDI pan: 64 is the centre
FRAME_BYTES = 8  # two float32
HISS = 0.02  # relative to the level of the music
SETTLE = 2_048  # frames; the synthesiser's fastest release is 10 ms
BLOCK = 1_024  # frames per measurement of a level
SILENT = 1e-3  # share of the loudest block's energy below which blocks do not count (-30 dB)


def find_soundfont() -> str:
    """Path of the General MIDI soundfont inside the package pretty_midi.

    The package is located, not imported, because importing it needs more than its data file.
    Raises UnusableError if it, or the synthesiser, is not installed.
    """
    cure = "`make setup` installs it"
    if importlib.util.find_spec("tinysoundfont") is None:
        raise UnusableError(
            f"the package tinysoundfont, which plays the synthetic music, is missing; {cure}"
        )
    spec = importlib.util.find_spec("pretty_midi")
    path = os.path.join(os.path.dirname(spec.origin or ""), "TimGM6mb.sf2") if spec else ""
    if not os.path.isfile(path):
        raise UnusableError(
            f"the soundfont TimGM6mb.sf2 of the package pretty_midi is missing; {cure}"
        )
    return path


def frames_of(section: Section) -> int:
    """Length of a section's sound in frames."""
    return round(section.seconds * SAMPLE_RATE)


class Renderer:
    """A synthesiser with its soundfont loaded; renders one section after another."""

    def __init__(self, soundfont: str) -> None:
        import tinysoundfont

        self._synth = tinysoundfont.Synth(samplerate=SAMPLE_RATE)
        self._soundfont = self._synth.sfload(soundfont)

    def render(self, section: Section, rng: np.random.Generator) -> np.ndarray:
        """`section` played and produced: float32 [frames, 2] with its peak at `PEAK`."""
        frames = frames_of(section)
        notes = compose(section, rng)
        mix = np.zeros((frames, 2), np.float32)
        for part, level in LEVELS.items():
            stem = self.play(section, part, [n for n in notes if n.part == part], frames)
            loud = _rms(stem)
            if loud > 0:
                mix += stem * (level / loud)
        mix = produce(mix, section, rng)
        mix *= PEAK / np.abs(mix).max()
        fade = round(FADE_S * SAMPLE_RATE)
        mix[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)[:, None]
        return mix

    def play(self, section: Section, part: str, notes: list[Note], frames: int) -> np.ndarray:
        """One part alone, float32 [frames, 2]."""
        synth, channel = self._synth, CHANNELS[part]
        bank, program = _program(section, part)
        synth.program_select(channel, self._soundfont, bank, program, part == "drums")
        synth.control_change(channel, 10, PANS[part])
        buffer = memoryview(bytearray(frames * FRAME_BYTES))
        here = 0
        for frame, is_on, key, velocity in _events(notes):
            if frame > here:
                stop = min(frame, frames)
                synth.generate_simple(stop - here, buffer[here * FRAME_BYTES : stop * FRAME_BYTES])
                here = stop
            if here >= frames:
                break
            if is_on:
                synth.noteon(channel, key, velocity)
            else:
                synth.noteoff(channel, key)
        if here < frames:
            synth.generate_simple(frames - here, buffer[here * FRAME_BYTES :])
        synth.sounds_off()
        synth.generate_simple(SETTLE)  # lets stopped voices fade before the next part
        return np.frombuffer(buffer, np.float32).reshape(frames, 2)


def _program(section: Section, part: str) -> tuple[int, int]:
    """Bank and program of a part."""
    if part == "drums":
        return DRUM_BANK, PERCUSSION[section.percussion][0] if section.percussion else 0
    if part == "bass":
        return 0, STYLES[section.style].bass_program
    return 0, INSTRUMENTS[section.lead if part == "lead" else section.backing].program


def _events(notes: Iterable[Note]) -> list[tuple[int, bool, int, int]]:
    """(frame, is note-on, key, velocity), in order; a key's note-off is before its next note-on."""
    struck: dict[int, int] = {}
    events: list[tuple[int, bool, int, int]] = []
    for note in sorted(notes, key=lambda n: n.start_s, reverse=True):
        start = round(note.start_s * SAMPLE_RATE)
        stop = max(start + 1, round((note.start_s + note.length_s) * SAMPLE_RATE))
        next_start = struck.get(note.key)
        events.append((start, True, note.key, note.velocity))
        events.append((stop if next_start is None else min(stop, next_start), False, note.key, 0))
        struck[note.key] = start
    return sorted(events)


def _rms(sound: np.ndarray) -> float:
    """RMS level of the non-silent blocks of a sound [frames, 2]; 0.0 for silence."""
    blocks = sound[: len(sound) // BLOCK * BLOCK].reshape(-1, 2 * BLOCK)
    power = np.einsum("bs,bs->b", blocks, blocks) / (2 * BLOCK)
    loudest = float(power.max(initial=0.0))
    return float(np.sqrt(power[power > loudest * SILENT].mean())) if loudest > 0 else 0.0


def produce(mix: np.ndarray, section: Section, rng: np.random.Generator) -> np.ndarray:
    """The mix [frames, 2] with the section's production effect."""
    if section.production == "echo":
        return _echo(mix, delay_s=45 / section.bpm)
    if section.production == "reverb":
        return _reverb(mix, rng)
    return _lo_fi(mix, rng) if section.production == "lo-fi" else mix


def _echo(mix: np.ndarray, *, delay_s: float) -> np.ndarray:
    """Dotted-quaver echoes, each softer than the last."""
    wet, delay = mix.copy(), round(delay_s * SAMPLE_RATE)
    for repeat in range(1, 5):
        if repeat * delay < len(mix):
            wet[repeat * delay :] += 0.6**repeat * mix[: -repeat * delay]
    return wet


def _reverb(mix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A large hall: exponentially decaying noise, 60 dB in 2.5 s (Moorer 1979), mixed in wet."""
    frames = round(2.5 * SAMPLE_RATE)
    decay = np.exp(-6.91 * np.arange(frames, dtype=np.float32) / frames)
    hall = rng.standard_normal((2, frames), dtype=np.float32) * decay
    size = _fast_size(len(mix) + frames)
    wet = np.fft.irfft(np.fft.rfft(_mono(mix), size) * np.fft.rfft(hall, size), size)
    wet = np.ascontiguousarray(wet[:, : len(mix)].T)
    return mix + wet * np.float32(_rms(mix) / max(_rms(wet), 1e-9))


def _lo_fi(mix: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An old cheap record: mono, dull above 2.5 kHz, hiss, and a dozen crackles a second."""
    frames, size = len(mix), _fast_size(len(mix))
    dullness = 1 / (1 + (np.fft.rfftfreq(size, 1 / SAMPLE_RATE) / 2500) ** 8)
    dull = np.fft.irfft(np.fft.rfft(_mono(mix), size) * dullness.astype(np.float32), size)[:frames]
    loud = np.float32(np.sqrt(np.mean(np.square(dull))))
    dull += rng.standard_normal(frames, dtype=np.float32) * (HISS * loud)
    crackles = rng.integers(frames, size=frames * 12 // SAMPLE_RATE)
    dull[crackles] += rng.normal(0, 1.5 * loud, len(crackles)).astype(np.float32)
    return np.stack([dull, dull], axis=1)


def _mono(mix: np.ndarray) -> np.ndarray:
    """[frames, 2] -> [frames], the mean of both sides."""
    mono: np.ndarray = mix @ np.array([0.5, 0.5], np.float32)
    return mono


def _fast_size(frames: int) -> int:
    """The next length of the form 2^a 3^b, b at most 2, for which the FFT is fast."""
    return min(base << ((frames - 1) // base).bit_length() for base in (1, 3, 9))
