"""Tags of real files of each kind, and of broken ones: nothing raises, nothing hangs."""

import os
import struct
import time

import av
import numpy as np
import pyarrow as pa
import pytest
import soundfile as sf

from raymtr.catalog.file_tags import read_tags
from raymtr.track import SCHEMA

RATE = 8_000
WORDS = {"title": "Tïtle ♥", "artist": "Ärtist", "album": "Album", "date": "1999-05-01"}


def read(*paths):
    names = [f"t{i}" for i in range(len(paths))]
    uris = [str(path) for path in paths]
    return read_tags(pa.table({"track_id": names, "uri": uris, "title": names})).to_pylist()


def tagged(path, genre, **words):
    """One second of a tone with tags, by libsndfile."""
    tone = 0.1 * np.sin(np.arange(RATE) / 5)
    with sf.SoundFile(path, "w", RATE, 1) as file:
        for name, text in (WORDS | words | {"genre": genre}).items():
            if text:
                setattr(file, name, text)
        file.write(tone)
    return path


def id3(**frames):
    """An ID3v2.4 tag by hand: values of one frame stand apart by NUL."""
    body = b""
    for name, text in frames.items():
        data = b"\x03" + text.encode()
        size = bytes((len(data) >> shift) & 0x7F for shift in (21, 14, 7, 0))
        body += name.encode() + size + b"\0\0" + data
    size = bytes((len(body) >> shift) & 0x7F for shift in (21, 14, 7, 0))
    return b"ID3\x04\0\0" + size + body


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_words_seconds_and_genres(tmp_path, suffix):
    (row,) = read(tagged(tmp_path / f"x.{suffix}", "Rock; Pop/Rap,rock"))
    assert row["title"] == "Tïtle ♥" and row["artist"] == "Ärtist" and row["album"] == "Album"
    assert row["year"] == 1999
    assert row["tags"] == ["Rock", "Pop", "Rap"]
    assert row["duration"] == pytest.approx(1.0, abs=0.2)
    assert row["code"] is None and list(row)[: len(SCHEMA)] == SCHEMA.names


def test_m4a(tmp_path):
    with av.open(str(tmp_path / "x.m4a"), "w") as container:
        container.metadata.update({"title": "Tïtle", "genre": "Drum & Bass", "date": "2003"})
        stream = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16_000), np.float32), "fltp", "mono")
        frame.rate = 16_000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    (row,) = read(tmp_path / "x.m4a")
    assert (row["title"], row["year"], row["tags"]) == ("Tïtle", 2003, ["Drum & Bass"])
    assert row["duration"] == pytest.approx(1.0, abs=0.15)


def test_tags_are_read_by_content_where_the_suffix_lies(tmp_path):
    os.rename(tagged(tmp_path / "x.flac", "Jazz"), tmp_path / "x.mp3")
    (row,) = read(tmp_path / "x.mp3")
    assert row["title"] == "Tïtle ♥" and row["duration"] == pytest.approx(1.0)


def test_values_of_one_frame_and_numbered_genres(tmp_path):
    sf.write(tmp_path / "x.mp3", np.zeros(RATE), RATE)
    audio = (tmp_path / "x.mp3").read_bytes()
    head = id3(TCON="(17)\0Shoegaze\0Synth-Pop", TPE2="Band", TIT2=" A \0B\r\n", TDRC="c. 05/2001")
    (tmp_path / "y.mp3").write_bytes(head + audio)
    (row,) = read(tmp_path / "y.mp3")
    assert row["tags"] == ["Rock", "Shoegaze", "Synth-Pop"]
    assert (row["artist"], row["title"], row["year"]) == ("Band", "A", 2001)


@pytest.mark.parametrize(
    ("date", "year"),
    [
        ("1999", 1999),
        ("19990501", 1999),
        ("", None),
        ("unknown", None),
        ("0000", None),
        ("99", None),
    ],
)
def test_years(tmp_path, date, year):
    (row,) = read(tagged(tmp_path / "x.flac", "x", date=date))
    assert row["year"] == year


def test_a_stream_whose_header_promises_hours_has_the_seconds_of_its_bytes(tmp_path):
    data = bytearray(tagged(tmp_path / "x.wav", "Rock").read_bytes())
    at = data.index(b"data")
    data[at + 4 : at + 8] = struct.pack("<I", 0xFFFFFFFF)
    (tmp_path / "x.wav").write_bytes(data)
    (row,) = read(tmp_path / "x.wav")
    assert row["duration"] == pytest.approx(1.0, abs=0.02) and row["code"] is None


def test_untagged_and_unreadable_tags_leave_the_name(tmp_path):
    (tmp_path / "text.mp3").write_text("no music here " * 50)
    (tmp_path / "half.flac").write_bytes(tagged(tmp_path / "x.flac", "x").read_bytes()[:60])
    (tmp_path / "x.mka").write_bytes(b"\x1aE\xdf\xa3" + b"\0" * 100)
    rows = read(tmp_path / "text.mp3", tmp_path / "half.flac", tmp_path / "x.mka")
    assert [row["title"] for row in rows] == ["t0", "t1", "t2"]
    assert all(row["code"] is None and row["artist"] is None for row in rows)


def test_empty_missing_and_pipes_are_error_rows(tmp_path):
    (tmp_path / "empty.mp3").touch()
    os.mkfifo(tmp_path / "pipe.mp3")
    rows = read(tmp_path / "empty.mp3", tmp_path / "gone.mp3", tmp_path / "pipe.mp3", tmp_path)
    assert [row["code"] for row in rows] == ["empty", "missing", "unreadable", "unreadable"]
    assert all(row["reason"] for row in rows)


@pytest.mark.parametrize(
    "head", [b"", b"RIFF\0\0\0\0WAVE", b"OggS\0", b"ID3\x04\0\0\x7f\x7f\x7f\x7f"]
)
def test_gigabytes_of_nothing_do_not_hold_up_the_scan(tmp_path, head):
    path = tmp_path / ("x.wav" if head.startswith(b"RIFF") else "x.mp3")
    path.write_bytes(head)
    os.truncate(path, 4 << 30)
    started = time.process_time()
    (row,) = read(path)
    assert row["code"] is None and row["title"] == "t0"
    assert time.process_time() - started < 5


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_flipped_bytes_never_raise(tmp_path, suffix):
    rng = np.random.default_rng(0)
    good = np.frombuffer(tagged(tmp_path / f"x.{suffix}", "Rock").read_bytes(), np.uint8)
    paths = []
    for number in range(40):
        bad = good.copy()
        bad[rng.integers(0, min(len(bad), 400), 8)] = rng.integers(0, 256, 8)
        paths.append(tmp_path / f"{number}.{suffix}")
        paths[-1].write_bytes(bad[: rng.integers(50, len(bad))].tobytes())
    rows = read(*paths)
    assert len(rows) == 40 and all(row["title"] for row in rows)
