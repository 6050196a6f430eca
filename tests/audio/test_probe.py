"""What headers state, on headers made by hand."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import pytest

from raymtr.audio.formats import state as probe
from raymtr.audio.probe import Stated


def state(data: bytes) -> Stated:
    stated = probe(io.BytesIO(data))
    assert stated is not None
    return stated


def wav(stated_size: int, present: int, *, magic: bytes = b"RIFF", before: bytes = b"") -> bytes:
    form = b"fmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8000, 16000, 2, 16)
    data = b"data" + struct.pack("<I", stated_size) + bytes(present)
    return magic + struct.pack("<I", 0) + b"WAVE" + before + form + data


def test_a_torn_chunk_of_samples() -> None:
    assert state(wav(16_000, 16_000)).stretch == 1
    assert state(wav(16_000, 4_000)).stretch == 4
    assert state(wav(16_000, 16_000) + b"LIST....").stretch == 1
    odd = b"note" + struct.pack("<I", 3) + b"abc\0"  # chunks are padded to even lengths
    assert state(wav(16_000, 8_000, before=odd)).stretch == 2


@pytest.mark.parametrize(
    "size",
    [
        0,
        0xFFFF_FFFF,
        0x7FFF_FFDB,
        0x8000_0000,
        0xFFFF_FFDB,
        0xFFFF_FF00,
        0x7FFE_FFFF,
        2_000_000_000,
    ],
)
def test_a_streamed_wav_leaves_its_size_open(size: int) -> None:
    assert state(wav(size, 4_000)).stretch == 1


def test_a_long_wav_has_its_size_elsewhere() -> None:
    ds64 = b"ds64" + struct.pack("<IQQQI", 28, 0, 16_000, 0, 0)
    assert state(wav(0xFFFF_FFFF, 4_000, magic=b"RF64", before=ds64)).stretch == 4


def test_a_wav_without_samples_cannot_be_whole() -> None:
    assert state(wav(16_000, 16_000)[:30]).missing


def test_a_flac_states_its_samples(files: Mapping[str, bytes]) -> None:
    assert state(files["flac"]).seconds == 6.0
    assert state(files["flac"][:3000]).seconds == 6.0


def test_every_page_of_an_ogg_is_verified(files: Mapping[str, bytes]) -> None:
    for name in ("ogg", "opus"):
        whole = state(files[name])
        assert whole.seconds == pytest.approx(6.0) and not whole.missing
        flipped = bytearray(files[name])
        flipped[len(flipped) // 2] ^= 1
        assert state(bytes(flipped)).missing
        assert state(bytes(flipped)).seconds == pytest.approx(6.0)
        page = files[name].rindex(b"OggS")
        assert "the last page is cut off" in state(files[name][: page + 100]).missing
        assert state(files[name] * 2).seconds == pytest.approx(12.0)


def test_an_mp4_without_its_index(files: Mapping[str, bytes]) -> None:
    assert not state(files["m4a"]).missing
    torn = state(files["m4a"][:50_000])
    assert "moov" in torn.missing
    assert torn.seconds is not None and torn.seconds > 1


def test_tags_in_front_are_skipped(files: Mapping[str, bytes]) -> None:
    tag = b"ID3\4\0\0\0\0\x10\0" + bytes(2048)
    for name in ("flac", "wav", "ogg"):
        assert state(tag + files[name]).form == state(files[name]).form
        assert state(tag + files[name]).start == len(tag)


def test_no_header_hangs_it() -> None:
    for data in (
        b"RIFF\0\0\0\0WAVE" + bytes(100_000),
        b"\0\0\0\x08ftyp" + b"\0\0\0\x08free" * 50_000,
        b"\0\0\0\x01ftyp" + b"\xff" * 100,
        bytes.fromhex("726966662e91cf11a5d628db04c10000") + b"\xff" * 200,
        b"caff\0\1\0\0desc" + b"\x7f" * 100,
        b"OggS" * 100_000,
    ):
        assert probe(io.BytesIO(data)) is not None
