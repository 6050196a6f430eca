"""Every suffix that a scan lists, on a small sample of it: recognised, described, decoded."""

from __future__ import annotations

import base64
import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile as sf

from raymtr.audio import SUFFIXES, AudioError, decode, describe
from raymtr.audio.formats import FORMATS, identify
from raymtr.tower_specs import AudioSpec

RATE, SECONDS = 44_100, 1.0
TONE = 0.3 * np.sin(np.arange(RATE) / 20).astype(np.float32)
# Encoders that no package brings: 54 ms in Musepack SV8 (mpcenc), 250 ms in Speex (speexenc).
MPC = """
TVBDS1NIDe8NB3gIkmAADQtSRwwBAAAAAAAAAABFSQdxAR4BU08IhXIAAABBUIVq9U47a7XaZ8EAAggEkjHGgAgGJABwWlAB
ZVgDC1IAKvAHOtAAVwA0rAAktAEMQArYBDEAZoAhoAj7/77877j/rN1liZJBnQNBBHiWpjOykkC/5u8PCphMJAIgxDai0AXA
owkkh9gA06/KA5reaAi1kICZ+MwBZ58Pv/D6dVXycRNoILW99LiXawNZ8v/9HZu05pfR+iv/1Doxr2MtstCX08yqrwfSSce8
i6YF9/v5r8dtD+AaAicf17ABzrZzSbL8ym/+cjneNz7H32y+kYhNsT5xIAFp/vz/l7tnBgKvMH5mDEBbDyXBz9mmw2q/HwrU
axJLpA2c3KKppQMx++/z884yKwBs18wPx7NjPe4Vut21tkzVXcpMRq4EIiSSHX777Vl5s4+17/tRrU4lt6lkoHfynVNxyIp8
3NbRd6fXk/PmdAPbAfjzQD7Wtqr2lSrbRSASdRuSPeBZOFsh6vypUAFpVoBYPuIg3G9zjBVtDS+cDVsk6r+9ELF1nULvV2cX
sVetGZUel8mVtJ1r/uTN+nQ7pqa5HujbQViT6L+8AYd1BvNF9ZHZsJ+yaf/8Zj/fTqlX6Kihz38AD+2k0yccNf85vuJVE9tW
W9qbVlvagCQDAetQABkwDOiBJWAE3HAZXIDsAEfToGUbkHQUmZqHSagZ6aGKUwjRYicDyXg2KDCqdg+fGY2jOJoVxPHYTh5F
weBdTAtnhcPEgK/eztP0AAAAUA3wMAooA3cLAo8A3wCwKDAN+DQKHABALAoAAABoFBABQYAAABg0AAACgwCg5MHo5EhgSqkl
6A7JAxkrMTU1NTU1NTU1NTU1NTU1NTU1NTU1NV//UODwA4ESKzStf/BAGBgYGBgYGBgYGB1//yhFENE1//hBRRRRRRRRRRb/
+4IJAgktv/4EEEEEEEEEEEH/+QcHv/8BgMBgMBgP/wiBn/gCgFAKAX/wiL/+AEAIAQAoHdwP//AAYx4H////sYgD////wFNU
BgESwFNFAw==
"""
SPX = """
T2dnUwACAAAAAAAAAACf/RMXAAAAAMcOw5sBUFNwZWV4ICAgMS4yLjEAAAAAAAAAAAAAAAAAAAABAAAAUAAAAEAfAAAAAAAA
BAAAAAEAAAD/////oAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAT2dnUwAAAAAAAAAAAACf/RMXAQAAAKwRMv8BIBgAAABFbmNv
ZGVkIHdpdGggU3BlZXggMS4yLjEAAAAAT2dnUwAE0AcAAAAAAACf/RMXAgAAAFD/JusNDw8PDw8PDw8PDw8PDxdEBCKA7u4A
NFJcJhNOEhdEBCKCiADkxAJDogThMBdEBCKcowmMQAJmIBIXEBdEBCKCcJhNOEiiHDkrDhdEBCKJC4hrgEJowCMQ4BdEBCKc
mYeIBEcoAhNGABdEBCKAiHDkzDiAIjlOEBdEBCKRqgAMRQJmYoQBEBdEBCKcpwiMUARmKBMzFBdEBCKAAIjlOERigBsxQBdE
BCKJmYoABEJpwiMQABdEBCKcmIBMzEeAJjlGEhHI5oryi2M8uZvtuME31g==
"""
BY_SOUNDFILE = {  # suffix -> format, subtype
    ".wav": ("WAV", None),
    ".wave": ("WAV", "FLOAT"),
    ".w64": ("W64", None),
    ".aif": ("AIFF", None),
    ".aiff": ("AIFF", "PCM_24"),
    ".aifc": ("AIFF", "FLOAT"),
    ".caf": ("CAF", None),
    ".au": ("AU", None),
    ".snd": ("AU", "PCM_24"),
    ".flac": ("FLAC", None),
    ".ogg": ("OGG", "VORBIS"),
    ".mp3": ("MP3", None),
    ".mpga": ("MP3", None),
}
BY_PYAV = {  # suffix -> container, codec, rate
    ".oga": ("ogg", "flac", RATE),
    ".opus": ("ogg", "libopus", 48_000),
    ".m4a": ("ipod", "aac", RATE),
    ".m4b": ("ipod", "alac", RATE),
    ".mp4": ("mp4", "aac", RATE),
    ".wma": ("asf", "wmav2", RATE),
    ".asf": ("asf", "wmav2", RATE),
    ".mka": ("matroska", "flac", RATE),
    ".webm": ("webm", "libopus", 48_000),
    ".weba": ("webm", "libopus", 48_000),
    ".wv": ("wv", "wavpack", RATE),
    ".tta": ("tta", "tta", RATE),
    ".ac3": ("ac3", "ac3", RATE),
    ".amr": ("amr", "libopencore_amrnb", 8_000),
    ".mp2": ("mp2", "mp2", RATE),
    ".aac": ("adts", "aac", RATE),
}


def encoded(container: str, codec: str, rate: int, **words: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        output.metadata.update(words)
        stream = output.add_stream(codec, rate=rate, layout="mono")
        if codec == "wmav2":
            stream.bit_rate = 64_000
        wanted = stream.codec_context.format or av.AudioFormat("fltp")
        tone = np.resize(TONE, (1, rate))
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        fitted = av.AudioResampler(wanted.name, "mono", rate).resample(frame)
        packets = [packet for part in fitted for packet in stream.encode(part)]
        for packet in [*packets, *stream.encode(None)]:
            output.mux(packet)
    return file.getvalue()


def dsf() -> bytes:
    """Half a second of a DSD stream that alternates, so a tone is heard where its share moves."""
    blocks, size = 22, 4096
    share = (np.sin(np.arange(blocks * size) / 60) > 0).astype(np.uint8)
    bits = np.where(share, 0xF6, 0x09).astype(np.uint8).tobytes()
    form = struct.pack("<QIIIIIIQII", 52, 1, 0, 1, 1, 2_822_400, 1, len(bits) * 8, size, 0)
    data = b"data" + struct.pack("<Q", 12 + len(bits)) + bits
    head = b"DSD " + struct.pack("<QQQ", 28, 28 + 52 + len(data), 0)
    return head + b"fmt " + form + data


def monkeys() -> bytes:
    """Half a second of Monkey's Audio, of the kind of frame that a hand can write: silence."""
    frame = struct.pack("<II", 0x8000_0000, 3) + bytes(64)
    sizes = struct.pack("<7I", 52, 24, 4, 0, len(frame), 0, 0)
    head = struct.pack("<HHIIIHHI", 2000, 0x20, 1 << 18, RATE // 2, 1, 16, 2, RATE)
    return b"MAC " + struct.pack("<HH", 3990, 0) + sizes + bytes(16) + head + b"P\0\0\0" + frame


def sample(suffix: str) -> bytes:
    if suffix in BY_SOUNDFILE:
        container, subtype = BY_SOUNDFILE[suffix]
        file = io.BytesIO()
        sf.write(file, TONE, RATE, format=container, subtype=subtype)
        return file.getvalue()
    if suffix in BY_PYAV:
        return encoded(*BY_PYAV[suffix])
    by_hand = {".mpc": MPC, ".spx": SPX}
    if suffix in by_hand:
        return base64.b64decode(by_hand[suffix])
    return {".dsf": dsf, ".ape": monkeys}[suffix]()


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_what_is_listed_can_be_read(suffix: str) -> None:
    data = sample(suffix)
    known = identify(io.BytesIO(data)).format
    listed = {s: each.form for each in FORMATS for s in each.suffixes.split()}
    assert known.form.removesuffix("8") == listed[suffix]
    described = describe(io.BytesIO(data))
    assert described.digest
    if suffix == ".ape":
        with pytest.raises(AudioError, match=r"its 0\.5 s are silent") as silent:
            decode(data, AudioSpec())
        assert silent.value.code == "silent"
        return
    decoded = decode(data, AudioSpec())
    seconds = {".dsf": 0.255, ".mpc": 0.08, ".spx": 0.25}.get(suffix, SECONDS)
    assert decoded.seconds == pytest.approx(seconds, abs=0.06)
    assert np.abs(decoded.samples).max() > 0.05
    assert decoded.digest == described.digest
    if described.seconds is not None:
        assert described.seconds == pytest.approx(decoded.seconds, abs=0.1 + (suffix == ".aac"))


@pytest.mark.parametrize("suffix", [".mka", ".webm", ".caf", ".m4a", ".wma", ".oga", ".opus"])
def test_words_of_a_container_are_found(suffix: str) -> None:
    how = BY_PYAV.get(suffix, ("caf", "pcm_s16le", RATE))
    words = describe(io.BytesIO(encoded(*how, title="Tïtle", artist="Anna"))).words
    values = {name: text for fields in reversed(words) for name, text in fields.items()}
    assert values["TITLE"][0] == "Tïtle" and values["ARTIST"][0] == "Anna"


def test_damage_leaves_out_what_it_hits_and_raises_nothing() -> None:
    rng = np.random.default_rng(0)
    for suffix in sorted(SUFFIXES):
        good = np.frombuffer(sample(suffix), np.uint8)
        for _ in range(12):
            bad = good.copy()
            bad[rng.integers(0, min(len(bad), 600), 6)] = rng.integers(0, 256, 6)
            describe(io.BytesIO(bad[: rng.integers(10, len(bad))].tobytes()))
