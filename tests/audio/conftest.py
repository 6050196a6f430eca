"""A short piece of made music, in every format, written by soundfile and PyAV alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import av
import numpy as np
import pytest
import soundfile as sf
import soxr

SECONDS = 6.0
RATE = 44_100

BY_SOUNDFILE: dict[str, dict[str, object]] = {
    "wav": {"format": "WAV"},
    "wav float": {"format": "WAV", "subtype": "FLOAT"},
    "w64": {"format": "W64"},
    "caf": {"format": "CAF"},
    "au": {"format": "AU"},
    "flac": {"format": "FLAC"},
    "aiff": {"format": "AIFF"},
    "ogg": {"format": "OGG", "subtype": "VORBIS"},
    "opus": {"format": "OGG", "subtype": "OPUS"},
    "mp3": {"format": "MP3", "bitrate_mode": "CONSTANT", "compression_level": 0.6},
    "mp3 vbr": {"format": "MP3", "bitrate_mode": "VARIABLE", "compression_level": 0.2},
}
BY_PYAV = {  # container, codec
    "m4a": ("ipod", "aac"),
    "m4a alac": ("ipod", "alac"),
    "aac": ("adts", "aac"),
    "wma": ("asf", "wmav2"),
    "webm": ("webm", "libopus"),
}
BARE = ("mp3 bare", "mp3 vbr bare")  # without the encoder's first frame, which counts the others
FORMATS = (*BY_SOUNDFILE, *BY_PYAV, *BARE)


def make_music(seconds: float, rate: int, channels: int = 2) -> np.ndarray:
    """Decaying chords over noise, the first third near silence: float32 [n, channels]."""
    rng = np.random.default_rng(7)
    time = np.arange(round(seconds * rate)) / rate
    mix = 0.005 * rng.standard_normal((len(time), channels))
    for beat in np.arange(seconds / 3, seconds, 0.5):
        since = np.clip(time - beat, 0, None)
        root = 110 * 2 ** (rng.integers(0, 24) / 12)
        for step in (1, 1.25, 1.5, 2, 3):
            tone = np.exp(-3 * since) * (time >= beat) * np.sin(2 * np.pi * root * step * since)
            mix += tone[:, None] * rng.uniform(0.3, 1, channels)
    return (0.7 * mix / np.abs(mix).max()).astype(np.float32)


def encode_with_pyav(
    samples: np.ndarray, rate: int, container: str, codec: str, layout: str = "stereo"
) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), "fltp", layout)
        frame.sample_rate, frame.pts = rate, 0
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def encode_with_soundfile(samples: np.ndarray, rate: int, **options: object) -> bytes:
    file = io.BytesIO()
    sf.write(file, samples, rate, **options)
    return file.getvalue()


def without_first_frame(mp3: bytes) -> bytes:
    """Cut off the Xing frame of a layer III file of MPEG 1 at 44.1 kHz."""
    kilobits = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)[mp3[2] >> 4]
    return mp3[144_000 * kilobits // RATE + (mp3[2] >> 1 & 1) :]


@pytest.fixture(scope="session")
def music() -> np.ndarray:
    """What the files hold: float32 [n, 2] at 44.1 kHz."""
    return make_music(SECONDS, RATE)


@pytest.fixture(scope="session")
def files(music: np.ndarray) -> Mapping[str, bytes]:
    """Format -> the piece in it."""
    at_48k = soxr.resample(music, RATE, 48_000)
    made = {}
    for name, options in BY_SOUNDFILE.items():
        samples, rate = (at_48k, 48_000) if name == "opus" else (music, RATE)
        made[name] = encode_with_soundfile(samples, rate, **options)
    for name, (container, codec) in BY_PYAV.items():
        samples, rate = (at_48k, 48_000) if codec == "libopus" else (music, RATE)
        made[name] = encode_with_pyav(samples, rate, container, codec)
    for name in BARE:
        made[name] = without_first_frame(made[name.removesuffix(" bare")])
    return made


@pytest.fixture(scope="session")
def encode() -> Callable[..., bytes]:
    """`encode_with_soundfile`, or `encode_with_pyav` where a codec is named."""

    def choose(samples: np.ndarray, rate: int, **options: object) -> bytes:
        by_pyav = "codec" in options
        return (encode_with_pyav if by_pyav else encode_with_soundfile)(samples, rate, **options)  # type: ignore[operator]

    return choose
