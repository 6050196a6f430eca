"""Measures attributes of a recording: tempo, key, loudness, energy, brightness.

Rhythm and chroma come from librosa, loudness from pyloudnorm (ITU-R BS.1770-4). Of a long recording
only the middle is measured, except for loudness. Estimates come with a confidence in [0, 1].

Tempo: the mean tempogram (autocorrelation of the onset strength, Grosche et al. 2010) is read
twice. A wide prior finds the family of tempi; a narrow prior around 120 BPM selects the one that
people tap (Parncutt 1994). The rest of the family are the alternatives. Key: the mean chroma, its
tuning removed, is correlated with the 24 rotations of Albrecht and Shanahan's profiles (2013).

Limitation: changes of tempo and key within a track are not detected.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass

import numpy as np

from raymtr.errors import UnusableError

VERSION = "attributes-2"  # raised whenever the same sound would give other values
MOST_S = 90.0  # measured in the middle of a recording
LEAST_S = 3.0  # shorter recordings get no tempo and no key
HOP, CHROMA_FFT, CHROMA_HOP = 256, 4_096, 1_024  # samples
TEMPOGRAM_S = 8.0
WIDE, NARROW = 1.0, 0.35  # widths of the two priors, in octaves around 120 BPM
SLOWEST, FASTEST, USUAL = 30.0, 320.0, 120.0  # BPM
MULTIPLES, REFINED_BY = 4, 0.07  # of a lag, and the share of it by which it is refined
FAMILY = (0.5, 2 / 3, 1.0, 1.5, 2.0)
DARKEST_HZ, BRIGHTEST_HZ = 250.0, 4_000.0  # spectral centroids at brightness 0 and 1
KEYS = ("C", "C#", "D", "Eb", "E", "F", "F#", "G", "Ab", "A", "Bb", "B")
PROFILES = {
    "major": (0.238, 0.006, 0.111, 0.006, 0.137, 0.094, 0.016, 0.214, 0.009, 0.080, 0.008, 0.081),
    "minor": (0.220, 0.006, 0.104, 0.123, 0.019, 0.103, 0.012, 0.214, 0.062, 0.022, 0.061, 0.052),
}


@dataclass(frozen=True, kw_only=True)
class Attributes:
    """The attributes of one recording; None if it is too short, or has no beat or no tone."""

    bpm: float | None
    bpm_alternatives: tuple[float, ...]  # half, double and so on, most likely first
    bpm_confidence: float
    key: str | None  # "A minor"
    mode: str | None  # "major", "minor"
    key_confidence: float
    loudness_lufs: float | None  # of the mono mix played on two speakers
    energy: float  # from the mean onset strength, independent of level, 0 to 1
    brightness: float  # from the median spectral centroid, on a scale of octaves, 0 to 1


def measure(samples: np.ndarray, rate: int) -> Attributes:
    """Attributes of mono samples float32 [n] that are not silent.

    Raises UnusableError if librosa or pyloudnorm is not installed.
    """
    try:
        import librosa
        from librosa.onset import onset_strength
    except ImportError as error:
        raise UnusableError(
            f"attributes need librosa: pip install 'raymtr[ears]' ({error})"
        ) from error
    middle = _middle(samples, round(MOST_S * rate))
    middle = middle / max(float(np.abs(middle).max()), 1e-9)
    with warnings.catch_warnings():  # for a sound without a tone or shorter than a frame
        warnings.simplefilter("ignore", UserWarning)
        mel = librosa.feature.melspectrogram(y=middle, sr=rate, hop_length=HOP)
        onsets = onset_strength(S=librosa.power_to_db(mel), sr=rate, hop_length=HOP)
        spectrum = np.abs(librosa.stft(middle, n_fft=CHROMA_FFT, hop_length=CHROMA_HOP))
        centroid = librosa.feature.spectral_centroid(S=spectrum, sr=rate)[0]
        long_enough = len(middle) >= LEAST_S * rate
        tempo = _tempo(onsets, rate) if long_enough else None
        key = _key(spectrum, rate) if long_enough else None
    octaves = np.log2(max(float(np.median(centroid)), 1.0) / DARKEST_HZ)
    flux = float(onsets.mean())  # dB between frames
    return Attributes(
        bpm=tempo[0] if tempo else None,
        bpm_alternatives=tempo[1] if tempo else (),
        bpm_confidence=tempo[2] if tempo else 0.0,
        key=f"{key[0]} {key[1]}" if key else None,
        mode=key[1] if key else None,
        key_confidence=key[2] if key else 0.0,
        loudness_lufs=_loudness(samples, rate),
        energy=flux / (flux + 1.0),
        brightness=float(np.clip(octaves / np.log2(BRIGHTEST_HZ / DARKEST_HZ), 0.0, 1.0)),
    )


def _middle(samples: np.ndarray, most: int) -> np.ndarray:
    start = max(0, (len(samples) - most) // 2)
    return samples[start : start + most]


def _tempo(onsets: np.ndarray, rate: int) -> tuple[float, tuple[float, ...], float] | None:
    """BPM, the rest of its family, and how periodic the onsets are; None if they are not."""
    import librosa

    lags = int(TEMPOGRAM_S * rate / HOP)
    periodic = librosa.feature.tempogram(
        onset_envelope=onsets, sr=rate, hop_length=HOP, win_length=lags
    ).mean(axis=1)
    tempi = librosa.tempo_frequencies(len(periodic), hop_length=HOP, sr=rate)
    periodic = np.maximum(np.nan_to_num(periodic), 0.0)
    possible = (tempi >= SLOWEST) & (tempi <= FASTEST)
    if not periodic[possible].any():
        return None
    # Weighs strength and prior as librosa's own estimator does.
    strength = np.log1p(1e6 * periodic)
    found = int(np.where(possible, strength + _prior(tempi, WIDE), -np.inf).argmax())
    first = 60 * rate / HOP / _period(periodic, found)
    scored = []
    for ratio in FAMILY:
        near = int(np.abs(tempi - first * ratio).argmin())
        best = max(range(max(1, near - 1), min(len(tempi), near + 2)), key=periodic.__getitem__)
        score = strength[best] + _prior(np.array([first * ratio]), NARROW)[0]
        scored.append((float(score), float(first * ratio), float(periodic[best])))
    scored.sort(reverse=True)
    bpms = [round(bpm, 2) for _, bpm, _ in scored]
    return bpms[0], tuple(bpms[1:]), float(np.clip(scored[0][2], 0.0, 1.0))


def _period(values: np.ndarray, at: int) -> float:
    """The lag near `at` whose multiples are strongest together.

    One lag is coarse, and a rhythm may shift its peak; at four times the lag the beat is estimated
    more precisely.
    """
    lags = _peak(values, at) * np.linspace(1 - REFINED_BY, 1 + REFINED_BY, 57)
    places = np.arange(1, MULTIPLES + 1)[:, None] * lags
    inside = places < len(values) - 1
    strengths = np.where(inside, np.interp(places, np.arange(len(values)), values), 0.0)
    return float(lags[(strengths.sum(axis=0) / np.maximum(inside.sum(axis=0), 1)).argmax()])


def _peak(values: np.ndarray, at: int) -> float:
    """Maximum of a parabola through `at` and its neighbours."""
    if not 0 < at < len(values) - 1:
        return float(at)
    left, middle, right = (float(values[at + step]) for step in (-1, 0, 1))
    bend = left - 2 * middle + right
    return at + (0.5 * (left - right) / bend if bend < 0 and middle >= max(left, right) else 0.0)


def _prior(tempi: np.ndarray, octaves: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.asarray(-0.5 * (np.log2(np.maximum(tempi, 1e-3) / USUAL) / octaves) ** 2)


def _key(spectrum: np.ndarray, rate: int) -> tuple[str, str, float] | None:
    """Tonic, mode and the margin over the second best key; None for a sound without a tone."""
    import librosa

    tuning = librosa.estimate_tuning(S=spectrum, sr=rate, n_fft=CHROMA_FFT)
    chroma = librosa.feature.chroma_stft(
        S=spectrum**2, sr=rate, n_fft=CHROMA_FFT, hop_length=CHROMA_HOP, tuning=tuning
    ).mean(axis=1)
    if not np.isfinite(chroma).all() or chroma.std() < 1e-6:
        return None
    scored = sorted(
        (float(np.corrcoef(chroma, profile)[0, 1]), tonic, mode)
        for tonic, mode, profile in _rotations()
    )
    (second, _, _), (first, tonic, mode) = scored[-2:]
    return tonic, mode, float(np.clip(10 * (first - second), 0.0, 1.0) * max(first, 0.0))


@functools.cache
def _rotations() -> tuple[tuple[str, str, np.ndarray], ...]:
    """Tonic, mode and profile of each of the 24 keys."""
    return tuple(
        (tonic, mode, np.roll(profile, place))
        for mode, profile in PROFILES.items()
        for place, tonic in enumerate(KEYS)
    )


def _loudness(samples: np.ndarray, rate: int) -> float | None:
    """Integrated loudness in LUFS; None for samples shorter than its block of 0.4 s."""
    try:
        import pyloudnorm
    except ImportError as error:
        raise UnusableError(
            f"loudness needs pyloudnorm: pip install 'raymtr[ears]' ({error})"
        ) from error
    meter = pyloudnorm.Meter(rate)
    if len(samples) < meter.block_size * rate:
        return None
    with np.errstate(divide="ignore"):  # no block is above the loudness gate
        both = np.stack([samples, samples], axis=1).astype(np.float64)
        loudness = float(meter.integrated_loudness(both))
    return loudness if np.isfinite(loudness) else None
