"""The digest of the sound: the same through tags, moves of tags and paging; another for another."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping

import numpy as np
import pytest

from raymtr.audio import describe

Files = Mapping[str, bytes]
ID3 = b"ID3\4\0\0\0\0\x10\0" + bytes(2048)
ID3V1 = b"TAG" + b"Title".ljust(125, b"\0")
APE = b"APETAGEX" + struct.pack("<4I", 2000, 32, 0, 0) + bytes(8)


def digest(data: bytes) -> str | None:
    return describe(io.BytesIO(data)).digest


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mp3", "mp3 vbr bare", "aac", "flac", "wav", "aiff", "m4a", "ogg"]
)
def test_tags_around_the_audio_change_nothing(name: str, files: Files) -> None:
    of = digest(files[name])
    assert of and of.startswith("1-")
    for data in (ID3 + files[name], files[name] + ID3V1, ID3 + ID3 + files[name] + APE + ID3V1):
        assert digest(data) == of


def test_another_sound_has_another_digest(files: Files) -> None:
    assert len({digest(data) for data in files.values()}) == len(files)


def test_comments_inside_flac_change_nothing(files: Files) -> None:
    flac = files["flac"]
    padded = flac[:4] + b"\0" + flac[5:42] + b"\1\0\1\0" + bytes(256) + flac[42:]
    assert digest(padded) == digest(flac)
    unsigned = flac[:26] + bytes(16) + flac[42:]  # an encoder that leaves the MD5 out
    assert digest(unsigned) not in (None, digest(flac))


def test_chunks_before_and_behind_the_samples_change_nothing(files: Files) -> None:
    wav = files["wav"]
    note = b"LIST" + struct.pack("<I", 8) + b"INFOxxxx"
    at = wav.index(b"data")
    assert digest(wav[:at] + note + wav[at:]) == digest(wav + note) == digest(wav)


def test_a_moved_index_changes_nothing(files: Files) -> None:
    m4a = files["m4a"]
    boxes, at = {}, 0
    while at < len(m4a):
        size = int.from_bytes(m4a[at : at + 4], "big")
        boxes[m4a[at + 4 : at + 8]] = m4a[at : at + size]
        at += size
    first = boxes.pop(b"ftyp") + boxes.pop(b"moov") + struct.pack(">I", 16) + b"free" + bytes(8)
    assert digest(first + b"".join(boxes.values())) == digest(m4a)


def test_longer_comments_in_ogg_renumber_pages_and_change_nothing(files: Files) -> None:
    opus, out, shift = files["opus"], [], 0
    at, number = 0, 0
    while at < len(opus):
        segments = opus[at + 26]
        size = 27 + segments + sum(opus[at + 27 : at + 27 + segments])
        page = bytearray(opus[at : at + size])
        page[18:22] = struct.pack("<I", number + shift)
        out.append(bytes(page))
        if number == 0:  # a comment header over two pages instead of one
            shift = 1
            rest = b"OpusTags" + struct.pack("<I", 0) + struct.pack("<II", 1, 255 * 260) + b"X=" * 9
            lacing = b"\xff" * 255
            body = rest.ljust(255 * 255, b"y")
            out.append(
                page[:4]
                + b"\0\0"
                + page[6:18]
                + struct.pack("<I", 1)
                + bytes(4)
                + b"\xff"
                + lacing
                + body
            )
            continued = page[:4] + b"\0\1" + page[6:18] + struct.pack("<I", 2) + bytes(4)
            out.append(continued + b"\1\x09" + b"z" * 9)
            at += size  # the old comment page is dropped
            segments = opus[at + 26]
            size = 27 + segments + sum(opus[at + 27 : at + 27 + segments])
            number += 1
        at, number = at + size, number + 1
    assert digest(b"".join(out)) == digest(opus)


def test_an_edit_that_keeps_the_size_of_bare_samples_is_seen(files: Files) -> None:
    for part in range(6):
        wav = bytearray(files["wav"])
        size = len(wav) - 44
        start = 44 + size * part // 6
        wav[start : start + size // 16] = bytes(size // 16)  # a muted sixteenth, somewhere
        samples = np.frombuffer(bytes(wav[44:]), np.int16)
        assert samples.any() and digest(bytes(wav)) != digest(files["wav"])


def test_what_is_no_audio_has_none() -> None:
    assert digest(b"no music here " * 500) is None
    assert digest(b"") is None
