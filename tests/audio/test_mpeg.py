"""Counting frames, on rows of frames made by hand."""

from __future__ import annotations

import struct

import pytest

from raymtr.audio.extent import id3_length
from raymtr.audio.mpeg import Counted, count_frames

HEADER = b"\xff\xfb\x90\x00"  # MPEG 1 layer III, 128 kb/s, 44.1 kHz, stereo
SIZE = 144 * 128_000 // 44_100  # bytes
FRAME = HEADER + bytes(SIZE - 4)
FRAME_S = 1152 / 44_100


def count(data: bytes) -> Counted:
    counted = count_frames(lambda n: data[:n], len(data))
    assert counted is not None
    return counted


def xing_frame(frames: int, size: int, *, delay: int = 0, padding: int = 0) -> bytes:
    info = b"Xing" + struct.pack(">III", 0b1111, frames, size) + bytes(100) + bytes(4)
    lame = b"LAME3.100" + bytes(12) + (delay << 12 | padding).to_bytes(3, "big")
    return (HEADER + bytes(32) + info + lame).ljust(SIZE, b"\0")


def test_frames_are_counted() -> None:
    counted = count(FRAME * 100)
    assert counted.form == "mp3"
    assert counted.seconds == pytest.approx(100 * FRAME_S)
    assert counted.missing_s == 0
    assert counted.frame_s == pytest.approx(FRAME_S)


def test_bitrates_may_change_and_the_last_frame_may_be_cut() -> None:
    faster = b"\xff\xfb\xb2\x00" + bytes(144 * 192_000 // 44_100 + 1 - 4)  # 192 kb/s, padded
    counted = count((FRAME + faster) * 50 + FRAME[:200])
    assert counted.seconds == pytest.approx(100 * FRAME_S)
    assert counted.missing_s == 0


@pytest.mark.parametrize(
    ("header", "size", "samples", "rate"),
    [
        (b"\xff\xf3\x80\x00", 72 * 64_000 // 22_050, 576, 22_050),  # MPEG 2
        (b"\xff\xe3\x48\x00", 72 * 32_000 // 8_000, 576, 8_000),  # MPEG 2.5
        (b"\xff\xfd\xa4\x00", 144 * 192_000 // 48_000, 1152, 48_000),  # MPEG 1 layer II
        (b"\xff\xfa\x90\x00", SIZE, 1152, 44_100),  # with a checksum
    ],
)
def test_other_kinds(header: bytes, size: int, samples: int, rate: int) -> None:
    counted = count((header + bytes(size - 4)) * 60)
    assert counted.seconds == pytest.approx(60 * samples / rate)


def test_adts() -> None:
    size = 300
    header = bytes([0xFF, 0xF1, 0x50, 0x80 | size >> 11, size >> 3 & 255, (size & 7) << 5, 0])
    counted = count((header + bytes(size - 7)) * 80)
    assert counted.form == "aac"
    assert counted.seconds == pytest.approx(80 * 1024 / 44_100)


def test_a_gap_counts_as_the_audio_it_held() -> None:
    for data in (FRAME * 50 + b"\x55" * (20 * SIZE) + FRAME * 50, FRAME * 100 + bytes(20 * SIZE)):
        counted = count(data)
        assert counted.seconds == pytest.approx(120 * FRAME_S)
        assert counted.missing_s == pytest.approx(21 * FRAME_S)  # with the one that leads there


def test_bytes_outside_an_unbroken_row_are_no_missing_audio() -> None:
    cover = b"\xff\xd8\xff\xe0" + bytes(range(1, 256)) * 2000  # half a megabyte
    for junk in (b"\x55" * (20 * SIZE), b"words " * 900, cover, bytes(4000)):
        for data in (junk + FRAME * 200, FRAME * 200 + junk, junk + FRAME * 200 + junk):
            counted = count(data)
            assert counted.missing_s == 0
            assert counted.seconds == pytest.approx(200 * FRAME_S)
            assert counted.first == (len(junk) if data.startswith(junk) else 0)


def test_a_damaged_length_hides_nothing() -> None:
    size = 300
    header = bytes([0xFF, 0xF1, 0x50, 0x80 | size >> 11, size >> 3 & 255, (size & 7) << 5, 0])
    data = bytearray((header + bytes(size - 7)) * 80)
    data[40 * size + 3] |= 2  # 4,096 bytes more: frames 41 to 54 are leapt over
    counted = count(bytes(data))
    assert counted.seconds == pytest.approx(80 * 1024 / 44_100)
    assert counted.missing_s < 2 * counted.frame_s


def test_tags_are_no_gap() -> None:
    id3v1 = b"TAG" + bytes(125)
    id3v2 = b"ID3\4\0\0\0\0\x20\0" + b"\x55" * 4096
    ape = bytes(9_000) + b"APETAGEX" + struct.pack("<III", 2000, 9_032, 3) + bytes(12)
    lyrics = b"LYRICSBEGIN" + b"la" * 900
    lyrics += f"{len(lyrics):06}".encode() + b"LYRICS200"
    for data in (
        FRAME * 60 + id3v1,
        FRAME * 60 + ape + id3v1,
        FRAME * 60 + lyrics + id3v1,
        FRAME * 30 + id3v1 + id3v2 + FRAME * 30,
    ):
        counted = count(data)
        assert counted.missing_s == 0
        assert counted.seconds == pytest.approx(60 * FRAME_S)


def test_an_encoders_count_is_believed_where_it_fits() -> None:
    size = 101 * SIZE
    whole = xing_frame(100, size, delay=576, padding=1000) + FRAME * 100
    assert count(whole).seconds == pytest.approx((100 * 1152 - 1576) / 44_100)
    assert count(whole).missing_s == 0
    assert count(whole + b"TAG" + bytes(125)).missing_s == 0

    half = whole[: len(whole) // 2]
    assert count(half).seconds == pytest.approx((100 * 1152 - 1576) / 44_100)
    assert count(half).missing_s == pytest.approx(51 * FRAME_S, abs=1.5 * FRAME_S)

    twice = whole + FRAME * 100
    assert count(twice).seconds == pytest.approx((200 * 1152 - 1576) / 44_100)


def test_what_is_no_row_of_frames() -> None:
    for data in (b"", b"\xff", b"words " * 999, b"\xff" * 9999, FRAME[:4] + bytes(9999)):
        assert count_frames(lambda n, data=data: data[:n], len(data)) is None  # type: ignore[misc]


def test_the_length_of_an_id3_tag() -> None:
    assert id3_length(b"ID3\4\0\0\0\0\2\1") == 10 + 257
    assert id3_length(b"ID3\4\0\x10\0\0\2\1") == 20 + 257  # with a footer
    assert id3_length(b"RIFF......") == id3_length(b"ID3") == 0
