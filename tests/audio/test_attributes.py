"""Tempo, key, loudness and brightness of sounds whose truth is known."""

import csv
from pathlib import Path

import numpy as np
import pytest

from raymtr import audio
from raymtr.audio.attributes import measure
from raymtr.tower_specs import AudioSpec

RATE = 16_000
MIDI = Path(__file__).resolve().parents[2].parent / "shared/data/midi"


def notes(hz: list[float], beat_s: float, seconds: float = 12.0) -> np.ndarray:
    """Plucked notes one after another, one a beat."""
    t = np.arange(int(seconds * RATE)) / RATE
    since = t % beat_s
    pitch = np.array(hz)[(t // beat_s).astype(int) % len(hz)]
    overtones = sum(np.sin(2 * np.pi * k * pitch * t) / k for k in (1, 2, 3))
    return np.asarray(0.2 * overtones * np.exp(-6 * since), np.float32)


A_MINOR = [440.0, 523.25, 659.25, 440.0, 587.33, 698.46, 659.25, 493.88, 440.0, 329.63]


@pytest.mark.slow
def test_a_plucked_tune_has_its_tempo_and_key() -> None:
    measured = measure(notes(A_MINOR, 0.5), RATE)
    assert measured.key == "A minor" and measured.mode == "minor"
    assert measured.bpm == pytest.approx(120, rel=0.04)
    assert 0 < measured.bpm_confidence <= 1 and 0 <= measured.key_confidence <= 1
    assert any(bpm == pytest.approx(60, rel=0.04) for bpm in measured.bpm_alternatives)


@pytest.mark.slow
def test_only_loudness_follows_the_level() -> None:
    tune = notes(A_MINOR, 0.5)
    loud, quiet = measure(tune, RATE), measure(tune / 4, RATE)
    assert loud.loudness_lufs is not None and quiet.loudness_lufs is not None
    assert loud.loudness_lufs - quiet.loudness_lufs == pytest.approx(12.04, abs=0.1)
    assert (loud.bpm, loud.key) == (quiet.bpm, quiet.key)
    assert quiet.energy == pytest.approx(loud.energy, abs=1e-3)
    assert quiet.brightness == pytest.approx(loud.brightness, abs=1e-3)


def test_a_higher_sound_is_brighter() -> None:
    low, high = (measure(notes([hz], 0.5), RATE).brightness for hz in (220.0, 1760.0))
    assert 0 <= low < high <= 1


def test_half_a_second_has_no_tempo_and_no_key() -> None:
    measured = measure(notes(A_MINOR, 0.5, seconds=0.3), RATE)
    assert (measured.bpm, measured.key, measured.loudness_lufs) == (None, None, None)
    assert measured.bpm_confidence == 0.0 and np.isfinite(measured.brightness)


@pytest.mark.slow
@pytest.mark.skipif(not MIDI.exists(), reason=f"no {MIDI}")
def test_tunes_of_known_key_are_mostly_heard_in_it() -> None:
    with open(MIDI / "midi_tracks.csv", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["key"] and row["clips"] == "1"][:8]
    right = 0
    for row in rows:
        clip = MIDI / "clips" / f"{row['track_id']}_0.ogg"
        samples = audio.decode(str(clip), AudioSpec(sample_rate=RATE)).samples
        key = f"{row['key'].rstrip('m')} {'minor' if row['key'].endswith('m') else 'major'}"
        right += measure(samples, RATE).key == key
    assert right >= 5
