"""Every format, wherever it lies and whatever it is called; spans; damaged files."""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import av
import numpy as np
import pytest
import soxr

from raymtr import audio
from raymtr.audio import AudioError, decode, decode_span, random_clip
from raymtr.errors import InputError
from raymtr.tower_specs import AudioSpec

SPEC = AudioSpec(window_s=2.0)
SECONDS = 6.0
FORMATS = (
    *("wav", "wav float", "w64", "caf", "au", "flac", "aiff", "ogg", "opus", "mp3", "mp3 vbr"),
    *("m4a", "m4a alac", "aac", "wma", "webm", "mp3 bare", "mp3 vbr bare"),
)
LENGTHLESS = {"aac", "mp3 bare", "mp3 vbr bare"}  # half of one is a shorter whole one
Files = Mapping[str, bytes]
Encode = Callable[..., bytes]


def lag_and_correlation(a: np.ndarray, b: np.ndarray) -> tuple[int, float]:
    """By how many samples `b` lies behind `a`, and how alike they are there."""
    size = 1 << (len(a) + len(b)).bit_length()
    cross = np.fft.irfft(np.conj(np.fft.rfft(a, size)) * np.fft.rfft(b, size), size)
    at = int(cross.argmax())
    alike = float(cross[at] / np.sqrt(float(a @ a) * float(b @ b)))
    return (at if at < size // 2 else at - size), alike


def refused(source: object, **limits: float) -> AudioError:
    with pytest.raises(AudioError) as error:
        decode(source, SPEC, **limits)  # type: ignore[arg-type]
    assert error.value.reason
    return error.value


# ---- formats -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_piece(name: str, files: Files, music: np.ndarray) -> None:
    decoded = decode(files[name], SPEC)
    truth = soxr.resample(music.mean(axis=1), 44_100, SPEC.sample_rate, quality="HQ")
    assert decoded.samples.dtype == np.float32 and decoded.samples.ndim == 1
    assert abs(len(decoded.samples) / SPEC.sample_rate - SECONDS) < 0.05
    assert decoded.expected_seconds == pytest.approx(decoded.seconds, abs=0.05)
    lag, alike = lag_and_correlation(truth, decoded.samples)
    assert alike > 0.995
    assert abs(lag) <= 1200  # encoder delay where the container does not say it; WMA's lost frame
    assert np.sqrt(np.mean(decoded.samples**2)) == pytest.approx(
        np.sqrt(np.mean(truth**2)), rel=0.1
    )
    if name in ("wav", "flac", "aiff", "m4a alac"):
        assert np.abs(decoded.samples - truth).max() < 1e-4


def test_a_variable_mp3_without_its_header_is_whole(files: Files) -> None:
    # libsndfile guesses the length from the quiet start and stops after 3.4 of 6 s
    decoded = decode(files["mp3 vbr bare"], SPEC)
    assert decoded.seconds == pytest.approx(SECONDS, abs=0.05)
    assert decoded.backend == "pyav"


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_the_name_does_not_matter(name: str, files: Files, tmp_path: Path) -> None:
    expected = decode(files[name], SPEC).samples
    for suffix in (".mp3", ".wav", ".txt", ""):
        path = tmp_path / f"piece{suffix}"
        path.write_bytes(files[name])
        assert np.array_equal(decode(str(path), SPEC).samples, expected)


def test_odd_names_and_uris(files: Files, tmp_path: Path) -> None:
    expected = decode(files["ogg"], SPEC).samples
    for name in ("100% Beyoncé #1?.ogg", "日本 語.ogg", os.fsdecode(b"latin \xe9\xff.ogg")):
        path = tmp_path / name
        try:
            path.write_bytes(files["ogg"])
        except OSError:
            continue  # a file system that wants UTF-8
        uri = "file://" + quote(os.fsencode(path))
        for source in (str(path), path, uri):
            assert np.array_equal(decode(source, SPEC).samples, expected)


@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8])
def test_channels_are_averaged(channels: int, encode: Encode) -> None:
    rate = SPEC.sample_rate
    samples = np.random.default_rng(0).uniform(-0.9, 0.9, (rate, channels)).astype(np.float32)
    wav = encode(samples, rate, format="WAV", subtype="FLOAT")
    assert np.allclose(decode(wav, SPEC).samples, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize("options", [{"container": "ipod", "codec": "aac", "layout": "5.1"}])
def test_backends_neither_mix_nor_lose_a_channel(options: dict, encode: Encode) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 500 * np.arange(88_200) / 44_100)
    one_of_six = np.zeros((88_200, 6), np.float32)
    one_of_six[:, 2] = tone  # the centre, which a mixer would weigh its own way
    samples = decode(encode(one_of_six, 44_100, **options), SPEC).samples[4000:-4000]
    assert np.abs(samples).max() == pytest.approx(0.5 / 6, rel=0.05)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 32_000, 48_000, 96_000, 192_000])
def test_sample_rates(rate: int, encode: Encode) -> None:
    time_s = np.arange(2 * rate) / rate
    tone = 0.5 * np.sin(2 * np.pi * 440 * time_s).astype(np.float32)
    samples = decode(encode(tone, rate, format="WAV", subtype="FLOAT"), SPEC).samples
    assert len(samples) == 2 * SPEC.sample_rate
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / SPEC.sample_rate)
    assert np.abs(samples - expected)[1000:-1000].max() < 1e-3


def test_silence_one_sample_and_beyond_full_scale(encode: Encode) -> None:
    for quiet in (np.zeros((44_100, 2)), np.zeros((1, 1)), np.full((44_100, 2), 3e-5)):
        assert refused(encode(quiet, 44_100, format="WAV")).code == "silent"
    one = encode(np.full(1, 0.5), 22_050, format="WAV")
    assert decode(one, SPEC).samples == pytest.approx([0.5], abs=1e-4)
    loud = np.full(22_050, 4.0, np.float32)
    assert decode(encode(loud, 22_050, format="WAV", subtype="FLOAT"), SPEC).samples.max() == 4.0


def test_tags_and_covers_in_front(files: Files) -> None:
    picture = b"APIC" + b"\0" * 200_000 + b"\xff\xfb\x90\x00" * 100  # bytes that look like frames
    size = bytes(len(picture) >> shift & 127 for shift in (21, 14, 7, 0))
    tag = b"ID3\4\0\0" + size + picture
    for name in ("mp3", "mp3 vbr bare", "aac", "flac", "wav", "aiff", "m4a", "ogg"):
        for data in (tag + files[name], tag + tag + files[name]):
            assert decode(data, SPEC).seconds == pytest.approx(SECONDS, abs=0.05), name


@pytest.mark.slow
def test_the_same_samples_in_any_process(files: Files, tmp_path: Path) -> None:
    script = (
        "import sys, hashlib\n"
        "from raymtr.audio import decode\n"
        "from raymtr.tower_specs import AudioSpec\n"
        "for path in sys.argv[1:]:\n"
        "    print(hashlib.md5(decode(path, AudioSpec()).samples.tobytes()).hexdigest())\n"
    )
    paths, here = [], []
    for name in ("mp3", "mp3 vbr bare", "ogg", "m4a", "flac"):
        path = tmp_path / name
        path.write_bytes(files[name])
        paths.append(str(path))
        here.append(hashlib.md5(decode(files[name], SPEC).samples.tobytes()).hexdigest())
    run = subprocess.run(
        [sys.executable, "-c", script, *paths],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"},
    )
    assert run.stdout.split() == here


# ---- spans and clips ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_a_span_is_the_slice_of_a_full_decode(name: str, files: Files, tmp_path: Path) -> None:
    path = tmp_path / "piece"
    path.write_bytes(files[name])
    whole = decode(str(path), SPEC).samples
    for start_s, length_s in ((0, 1), (0.013, 2), (2.3456, 1.7), (3, 3), (5.9, 2), (5.2, 0.5)):
        span = decode_span(str(path), SPEC, start_s=start_s, length_s=length_s)
        start, count = round(start_s * SPEC.sample_rate), round(length_s * SPEC.sample_rate)
        expected = whole[start : start + count]
        assert len(span) == len(expected)
        if name == "m4a":  # AAC draws its substituted noise anew, so sample for sample is too much
            lag, alike = lag_and_correlation(expected, span)
            assert lag == 0 and alike > 0.99
        else:
            assert np.abs(span - expected).max() < 1e-5
    assert not len(decode_span(str(path), SPEC, start_s=7, length_s=1))


def test_a_span_from_the_last_page_of_a_long_page_ogg(encode: Encode) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (13 * 8_000 + 333, 1)).astype(np.float32)
    ogg = encode(noise, 8_000, format="OGG", subtype="VORBIS")
    whole = decode(ogg, SPEC).samples
    for start_s in (1.0, 9.7, 12.5):
        span = decode_span(ogg, SPEC, start_s=start_s, length_s=1)
        expected = whole[round(start_s * SPEC.sample_rate) :][: len(span)]
        assert np.abs(span - expected).max() < 1e-5


def test_a_span_below_zero_is_rejected(files: Files) -> None:
    with pytest.raises(InputError):
        decode_span(files["wav"], SPEC, start_s=-1, length_s=1)


@pytest.mark.parametrize("name", ["wav", "flac", "mp3", "ogg", "opus", "mp3 bare", "mp3 vbr bare"])
def test_a_clip_is_a_window_of_the_full_decode(name: str, files: Files) -> None:
    whole = decode(files[name], SPEC).samples
    window = SPEC.window_samples
    for seed in range(3):
        clip = random_clip(files[name], SPEC, np.random.default_rng(seed))
        start = audio.clip_start(len(whole), window, np.random.default_rng(seed).random())
        assert np.abs(clip - whole[start : start + window]).max() < 1e-5


def test_a_clip_decodes_only_what_it_needs(files: Files) -> None:
    flac = bytearray(files["flac"])
    flac[-50_000:-40_000] = bytes(10_000)
    clips = 0
    for seed in range(12):
        try:
            assert len(random_clip(bytes(flac), SPEC, np.random.default_rng(seed))) == 44_100
            clips += 1
        except AudioError as error:
            assert error.code == "truncated"
    assert 0 < clips < 12


def test_a_short_track_is_repeated(encode: Encode) -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 10_000).astype(np.float32)
    wav = encode(samples, SPEC.sample_rate, format="WAV", subtype="FLOAT")
    clip = random_clip(wav, SPEC, np.random.default_rng(0))
    assert np.array_equal(clip, np.resize(samples, SPEC.window_samples))


# ---- damage: whole or refused, never short in silence ------------------------------------------


def assert_whole_or_refused(data: bytes, least_s: float = SECONDS) -> None:
    try:
        decoded = decode(data, SPEC)
    except AudioError as error:
        assert error.code == "truncated", error
        figures = re.match(r"decoded ([\d.]+) s of ([\d.]+) s expected: ", error.reason)
        assert figures, error.reason
        assert float(figures[1]) < float(figures[2])
    else:
        assert decoded.seconds > least_s - 0.11


@pytest.mark.parametrize("name", FORMATS)
def test_half_a_file(name: str, files: Files) -> None:
    half = files[name][: len(files[name]) // 2]
    if name in LENGTHLESS:
        decoded = decode(half, SPEC)
        assert decoded.seconds == pytest.approx(decoded.expected_seconds, abs=0.05)
    else:
        assert refused(half).code == "truncated"
        assert_whole_or_refused(half)
    for share in (0.7, 0.9, 0.98):
        part = files[name][: round(len(files[name]) * share)]
        assert_whole_or_refused(part, least_s=0 if name in LENGTHLESS else SECONDS)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seed", range(3))
def test_flipped_bytes(name: str, seed: int, files: Files) -> None:
    rng = np.random.default_rng(seed)
    size = len(files[name])
    for run in (1, 60, 3_000):
        data = np.frombuffer(files[name], np.uint8).copy()
        at = int(rng.integers(size // 4, size * 3 // 4 - run))
        data[at : at + run] ^= rng.integers(1, 256, run, dtype=np.uint8)
        if name == "wav float":
            data[at : at + run] &= 0x3F  # no NaN: that is another test's
        assert_whole_or_refused(data.tobytes())


@pytest.mark.parametrize(
    "name", sorted({*FORMATS} - {"wav", "wav float", "w64", "caf", "au", "aiff"})
)
def test_a_second_half_of_zeros(name: str, files: Files) -> None:
    half = len(files[name]) // 2
    assert refused(files[name][:half] + bytes(half)).code == "truncated"


def test_recordings_in_a_row_are_all_decoded(files: Files) -> None:
    for name in ("mp3", "mp3 vbr", "mp3 bare", "ogg"):
        assert decode(files[name] * 2, SPEC).seconds == pytest.approx(2 * SECONDS, abs=0.12)


# ---- what is no audio --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "empty"),
        (b"x", "not_audio"),
        (b"just words, " * 1000, "not_audio"),
        (np.random.default_rng(0).bytes(500_000), "not_audio"),
        (bytes(500_000), "not_audio"),
        (b"\xff" * 200_000, "not_audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(1000), "not_audio"),
        (b"\xff\xd8\xff\xe0\0\x10JFIF" + np.random.default_rng(1).bytes(50_000), "not_audio"),
        (b"%PDF-1.7\n" + bytes(1000), "not_audio"),
        (b"PK\3\4" + np.random.default_rng(2).bytes(50_000), "not_audio"),
        (b"OggS" * 50_000, "not_audio"),
        (b"fLaC" + bytes(1000), "not_audio"),
    ],
)
def test_what_is_no_audio(data: bytes, code: str) -> None:
    started = time.process_time()
    assert refused(data).code == code
    assert time.process_time() - started < 2


def test_no_samples(encode: Encode) -> None:
    assert refused(encode(np.zeros((0, 2)), 44_100, format="WAV")).code == "empty"


def test_a_playlist_opens_nothing(files: Files, tmp_path: Path) -> None:
    (tmp_path / "other.wav").write_bytes(files["wav"])
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{tmp_path}/other.wav\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{tmp_path}/other.wav'\n",
    ):
        assert refused(text.encode()).code == "not_audio"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.mp3")
    (tmp_path / "loop.mp3").symlink_to("loop.mp3")
    (tmp_path / "folder.mp3").mkdir()
    for name, code in {
        "fifo.mp3": "not_audio",
        "folder.mp3": "not_audio",
        "loop.mp3": "unreadable",
        "absent.mp3": "missing",
        "absent/absent.mp3": "missing",
        "nul\0.mp3": "missing",
        "lone \ud800.mp3": "missing",
    }.items():
        assert refused(f"{tmp_path}/{name}").code == code
    assert refused("nowhere://bucket/track.mp3").code == "unreadable"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_file_one_may_not_read(files: Files, tmp_path: Path) -> None:
    path = tmp_path / "locked.wav"
    path.write_bytes(files["wav"])
    path.chmod(0)
    assert refused(str(path)).code == "unreadable"


def test_limits(files: Files) -> None:
    started = time.process_time()
    for name in FORMATS:
        assert refused(files[name], max_s=5).code == "too_long"
        assert decode(files[name], SPEC, max_s=6.2, max_mb=10).seconds > 5.9
    assert refused(files["wav"], max_mb=1).code == "too_large"
    endless = bytearray(files["flac"])
    endless[21] &= 0xF0  # STREAMINFO states no length
    endless[22:26] = bytes(4)
    assert decode(bytes(endless), SPEC).seconds == SECONDS
    assert "longer than" in refused(bytes(endless), max_s=1).reason
    hours = bytearray(files["wav"])
    at = hours.index(b"data") + 4
    hours[at : at + 4] = struct.pack("<I", 0x6000_0000)
    assert refused(bytes(hours), max_s=3600).code == "too_long"
    assert time.process_time() - started < 10


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_no_sound_has(bad: float, encode: Encode) -> None:
    samples = np.zeros((44_100, 2), np.float32)
    samples[700, 1] = bad
    assert refused(encode(samples, 44_100, format="WAV", subtype="FLOAT")).code == "bad_samples"


def test_headers_with_absurd_rates(files: Files) -> None:
    for rate in (0, 5, 4_000_000_000):
        wav = bytearray(files["wav"])
        wav[24:28] = struct.pack("<I", rate)
        assert refused(bytes(wav)).code in ("not_audio", "too_long")


def test_streamed_wavs_state_no_length(files: Files) -> None:
    for size in (0, 0xFFFF_FFFF, 0x7FFF_FFDB):
        wav = bytearray(files["wav"])
        at = wav.index(b"data") + 4
        wav[at : at + 4] = struct.pack("<I", size)
        assert decode(bytes(wav), SPEC).seconds == SECONDS


# ---- what writers leave ------------------------------------------------------------------------


def page_sums(data: bytes) -> bytes:
    """The Ogg pages in `data` with their checksums made right."""
    table = []
    for byte in range(256):
        value = byte << 24
        for _ in range(8):
            value = (value << 1 ^ 0x04C11DB7) & 0xFFFFFFFF if value >> 31 else value << 1
        table.append(value)
    out, at = bytearray(data), 0
    while at < len(out):
        end = at + 27 + out[at + 26]
        end += sum(out[at + 27 : end])
        out[at + 22 : at + 26] = bytes(4)
        value = 0
        for byte in out[at:end]:
            value = (value << 8 & 0xFFFFFFFF) ^ table[value >> 24 ^ byte]
        out[at + 22 : at + 26] = struct.pack("<I", value)
        at = end
    return bytes(out)


def each_page(data: bytes) -> list[int]:
    places, at = [], 0
    while at < len(data):
        places.append(at)
        at += 27 + data[at + 26] + sum(data[at + 27 : at + 27 + data[at + 26]])
    return places


@pytest.mark.parametrize("name", ["ogg", "opus", "flac"])
@pytest.mark.parametrize("late_s", [0, 0.4, 60, 3600])
def test_ogg_may_begin_late_and_lack_its_last_flag(
    name: str, late_s: float, files: Files, music: np.ndarray, encode: Encode
) -> None:
    ogg = files[name]
    if name == "flac":
        ogg = encode(music, 44_100, container="ogg", codec="flac")
    data = bytearray(ogg)
    rate = 48_000 if name == "opus" else 44_100
    for at in each_page(ogg):
        granule = struct.unpack_from("<q", data, at + 6)[0]
        if granule > 0:
            struct.pack_into("<q", data, at + 6, granule + round(late_s * rate))
        data[at + 5] &= ~4
    live = page_sums(bytes(data))
    assert decode(live, SPEC, max_s=10).seconds == pytest.approx(SECONDS, abs=0.1)
    guess = audio.describe(io.BytesIO(live)).seconds
    assert guess == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("name", ["mp3", "mp3 bare", "mp3 vbr bare"])
@pytest.mark.parametrize("front", [b"", b"\x11" * 100_000, bytes(100_000), b"words " * 500])
@pytest.mark.parametrize("behind", [b"", b"words " * 700, bytes(9_000)])
def test_bytes_outside_the_frames_are_no_missing_audio(
    name: str, front: bytes, behind: bytes, files: Files
) -> None:
    decoded = decode(front + files[name] + behind, SPEC)
    assert decoded.seconds == pytest.approx(SECONDS, abs=0.1)


def test_a_tag_that_states_too_small_a_size_costs_no_track(files: Files) -> None:
    cover = b"APIC" + b"\xff\xd8\xff\xe0" + bytes(range(128)) * 400 + b"\xff\xd9"
    tag = b"ID3\3\0\0\0\0\2\0" + cover  # it says 256 bytes
    ape = b"APETAGEX" + struct.pack("<4I", 2000, 32 + 40, 1, 0xA0000000) + bytes(8 + 40)
    ape += b"APETAGEX" + struct.pack("<4I", 2000, 32 + 40, 1, 0x80000000) + bytes(8)
    lyrics = b"LYRICSBEGIN" + b"la " * 1500 + b"LYRICSEND" + b"TAG" + bytes(125)
    for data in (tag + files["mp3 bare"], ape + files["mp3 bare"], files["mp3 bare"] + lyrics):
        assert decode(data, SPEC).seconds == pytest.approx(SECONDS, abs=0.1)


@pytest.mark.parametrize("size", [0xFFFFFFDB, 0xFFFFFFFE, 0xFFFFFF00, 0x7FFEFFFF, 2_000_000_000])
def test_sizes_that_cannot_be_true_are_open(size: int, files: Files) -> None:
    wav = bytearray(files["wav"])
    at = wav.index(b"data") + 4
    wav[at : at + 4] = struct.pack("<I", size)
    assert decode(bytes(wav), SPEC, max_s=60).seconds == SECONDS


@pytest.mark.parametrize("form", [{"format": "WAV"}, {"container": "ipod", "codec": "aac"}])
def test_opposed_channels_are_heard(form: dict, encode: Encode) -> None:
    tone = 0.3 * np.sin(2 * np.pi * 500 * np.arange(88_200) / 44_100)
    opposed = np.stack([tone, -0.9 * tone + 0.1 * -tone], axis=1).astype(np.float32)
    data = encode(opposed, 44_100, **form)
    samples = decode(data, SPEC).samples
    assert np.abs(samples[4000:-4000]).max() == pytest.approx(0.3, rel=0.1)
    span = decode_span(data, SPEC, start_s=0.5, length_s=1)
    assert np.abs(span - samples[11_025:33_075]).max() < (1e-5 if "format" in form else 0.1)
    assert np.abs(audio.to_mono(opposed, 44_100, SPEC)).max() == pytest.approx(0.3, rel=0.1)
    beside = np.stack([tone, 0 * tone], axis=1)  # one channel alone is a half, as ever
    half = decode(encode(beside, 44_100, format="WAV"), SPEC).samples
    assert np.abs(half[4000:-4000]).max() == pytest.approx(0.15, rel=0.05)


def test_the_default_stream_is_taken() -> None:
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as output:
        streams = [output.add_stream("flac", rate=44_100, layout="mono") for _ in range(2)]
        streams[0].disposition = 0
        streams[1].disposition = av.stream.Disposition.default
        for stream, level in zip(streams, (0, 9_000), strict=True):
            tone = (level * np.sin(np.arange(44_100) / 20)).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(tone, "s16", "mono")
            frame.sample_rate, frame.pts = 44_100, 0
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                output.mux(packet)
    assert np.abs(decode(file.getvalue(), SPEC).samples).max() > 0.2


def test_encrypted_sound_is_named_so_and_plain_sound_that_is_called_so_is_heard(
    files: Files,
) -> None:
    m4a = bytearray(files["m4a"])
    entry = m4a.index(b"mp4a", m4a.index(b"stsd"))
    m4a[entry : entry + 4] = b"drms"
    assert decode(bytes(m4a), SPEC).seconds == pytest.approx(SECONDS, abs=0.1)
    data = m4a.index(b"mdat")
    size = int.from_bytes(m4a[data - 4 : data], "big") - 8
    m4a[data + 4 : data + 4 + size] = np.random.default_rng(0).bytes(size)
    assert refused(bytes(m4a)).code == "encrypted"


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_is_a_bad_row() -> None:
    env = {**os.environ, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    env |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_MAX_ATTEMPTS": "1"}
    script = (
        "from raymtr.audio import AudioError, decode\n"
        "from raymtr.tower_specs import AudioSpec\n"
        "try:\n    decode('s3://nobody/x.wav', AudioSpec())\n"
        "except AudioError as error:\n    print(error.code)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=env
    )
    assert run.stdout.split() == ["unreachable"]
