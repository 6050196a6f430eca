"""Tags of real files of each kind, and of broken ones: nothing raises, nothing hangs."""

import os
import struct
import time
import zlib

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


# ---- tags as writers leave them ----------------------------------------------------------------


def flac(path, *comments, front=b""):
    """A second of a tone with these Vorbis comments, as bytes or text."""
    data = tagged(path, None, title=None, artist=None, album=None, date=None).read_bytes()
    at = 4
    while not (last := data[at] & 0x80):
        at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    at += 4 + int.from_bytes(data[at + 1 : at + 4], "big")
    body = vorbis(*comments)
    blocks = data[4:42] + b"\x84" + len(body).to_bytes(3, "big") + body
    path.write_bytes(front + b"fLaC" + bytes([blocks[0] & 0x7F]) + blocks[1:] + data[at:])
    assert last
    return path


def vorbis(*comments):
    raw = [c.encode() if isinstance(c, str) else c for c in comments]
    listed = b"".join(struct.pack("<I", len(c)) + c for c in raw)
    return struct.pack("<I", 1) + b"x" + struct.pack("<I", len(raw)) + listed


def ogg_page(body, number, granule, flags=0):
    lacing = b"\xff" * (len(body) // 255) + bytes([len(body) % 255])
    head = b"OggS\0" + bytes([flags]) + struct.pack("<qIII", granule, 5, number, 0)
    return head + bytes([len(lacing)]) + lacing + body


def box(name, *parts):
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + name + body


def m4a(*atoms):
    meta = box(b"meta", bytes(4), box(b"hdlr", bytes(25)), box(b"ilst", *atoms))
    return box(b"ftyp", b"M4A \0\0\0\0") + box(b"moov", box(b"udta", meta))


def value(text):
    return box(b"data", b"\0\0\0\1\0\0\0\0", text.encode())


def ape(**items):
    body = b"".join(
        struct.pack("<II", len(v.encode()), 0) + k.encode() + b"\0" + v.encode()
        for k, v in items.items()
    )
    foot = b"APETAGEX" + struct.pack("<4I", 2000, len(body) + 32, len(items), 0) + bytes(8)
    return body + foot


def id3v24(*frames):
    body = b"".join(name + struct.pack(">I", len(data)) + b"\0\0" + data for name, data in frames)
    return b"ID3\4\0\0" + struct.pack(">I", len(body)) + body


@pytest.mark.parametrize(
    "kind", ["flac", "flac artists", "opus", "m4a", "m4a artists", "id3", "id3 artists", "ape"]
)
def test_every_artist_is_kept_in_the_form_that_the_standards_prescribe(tmp_path, kind):
    listed = ("ARTIST=Alba & Bruno", "ARTISTS=Alba", "ARTISTS=Bruno")
    own = b"----", box(b"mean", bytes(4)), box(b"name", bytes(4), b"ARTISTS")
    path = tmp_path / "x"
    if kind.startswith("flac"):
        flac(tmp_path / "x.flac", *(("ARTIST=Alba", "ARTIST=Bruno") if kind == "flac" else listed))
        path = tmp_path / "x.flac"
    path_of = {
        "opus": ogg_page(b"OpusHead\1\1" + bytes(9), 0, 0, 2)
        + ogg_page(b"OpusTags" + vorbis("artist=Alba", "Artist=Bruno"), 1, 0)
        + ogg_page(b"audio", 2, 960, 4),
        "m4a": m4a(box(b"\xa9ART", value("Alba"), value("Bruno"))),
        "m4a artists": m4a(
            box(*own, value("Alba"), value("Bruno")), box(b"\xa9ART", value("Alba & Bruno"))
        ),
        "id3": id3v24((b"TPE1", b"\3Alba\0Bruno")),
        "id3 artists": id3v24((b"TXXX", b"\3ARTISTS\0Alba\0Bruno"), (b"TPE1", b"\3Alba & Bruno")),
        "ape": b"\xff\xfb\x90\0" * 100 + ape(Artist="Alba\0Bruno"),
    }
    if kind in path_of:
        path.write_bytes(path_of[kind])
    (row,) = read(path)
    assert row["artists"] == ["Alba", "Bruno"]
    assert row["artist"] == ("Alba & Bruno" if "artists" in kind else "Alba; Bruno")


def test_artists_written_as_one_text_are_several_and_a_name_with_signs_is_one(tmp_path):
    texts = ["Alba; Bruno", "Alba / Bruno", "Alba feat. Bruno", "Alba (ft. Bruno)"]
    one = [
        "AC/DC",
        "Simon & Garfunkel",
        "Tyler, The Creator",
        "Little Feat",
        "Crosby, Stills & Nash",
    ]
    paths = [flac(tmp_path / f"{n}.flac", f"ARTIST={t}") for n, t in enumerate([*texts, *one])]
    rows = read(*paths)
    assert [row["artist"] for row in rows] == [*texts, *one]
    assert [row["artists"] for row in rows] == [["Alba", "Bruno"]] * 4 + [[name] for name in one]


def test_the_field_that_players_show_is_the_artist_wherever_others_stand(tmp_path):
    rows = read(
        flac(tmp_path / "a.flac", "AUTHOR=Writer;Other", "COMPOSER=C", "ARTIST=Singer"),
        flac(tmp_path / "b.flac", "ALBUM ARTIST=Band", "PERFORMER=P"),
        flac(tmp_path / "c.flac", "PERFORMER=Glenn Gould"),
        flac(tmp_path / "d.flac", "ARTIST=\u200b", "ALBUMARTIST=Band"),
    )
    assert [row["artist"] for row in rows] == ["Singer", "Band", "Glenn Gould", "Band"]


def test_id3_frames_of_all_ages(tmp_path):
    wide = lambda text: b"\1\xff\xfe" + text.encode("utf-16-le")  # noqa: E731
    safe = lambda n: bytes(n >> s & 127 for s in (21, 14, 7, 0))  # noqa: E731
    stuffed = lambda raw: raw.replace(b"\xff", b"\xff\0")  # noqa: E731
    size = lambda n: struct.pack(">I", n)  # noqa: E731
    body23 = b"TPE1" + size(len(wide("Křižák"))) + b"\0\0" + wide("Křižák")
    title = wide("Zażółć")
    made = {
        "unsynchronised 2.3": b"ID3\3\0\x80" + safe(len(stuffed(body23))) + stuffed(body23),
        "extended header": b"ID3\3\0\x40" + safe(len(body23) + 10) + size(6) + bytes(6) + body23,
    }
    for name, flags, data in (
        ("data length", 1, safe(len(title)) + title),
        ("unsynchronised frame", 3, safe(len(title)) + stuffed(title)),
        ("deflated", 9, safe(len(title)) + zlib.compress(title)),
    ):
        frame = b"TPE1" + safe(len(data)) + bytes([0, flags]) + data
        made[name] = b"ID3\4\0\0" + safe(len(frame)) + frame
    plain = b"TALB" + size(301) + b"\0\0\3" + b"A" * 300 + b"TPE1" + size(5) + b"\0\0\3Anna"
    made["plain sizes"] = b"ID3\4\0\0" + safe(len(plain)) + plain
    old = b"TP1" + (6).to_bytes(3, "big") + b"\0Anna\0"
    made["version 2.2"] = b"ID3\2\0\0" + safe(len(old)) + old
    made["two tags"] = id3(TSSE="x") + id3(TPE1="Anna")
    rows = []
    for name, head in made.items():
        (tmp_path / name).write_bytes(head + b"\xff\xfb\x90\0" * 50)
        rows += read(tmp_path / name)
    assert dict(zip(made, [row["artist"] for row in rows], strict=True)) == {
        "unsynchronised 2.3": "Křižák",
        "extended header": "Křižák",
        "data length": "Zażółć",
        "unsynchronised frame": "Zażółć",
        "deflated": "Zażółć",
        "plain sizes": "Anna",
        "version 2.2": "Anna",
        "two tags": "Anna",
    }


def riff(*chunks):
    body = b"WAVE" + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)
        for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def info(**items):
    return b"LIST", b"INFO" + b"".join(
        name.encode() + struct.pack("<I", len(data)) + data + b"\0" * (len(data) & 1)
        for name, data in items.items()
    )


def test_text_that_is_no_utf8_is_read_and_never_lost(tmp_path):
    (tmp_path / "x.wav").write_bytes(riff(info(INAM="Café".encode("cp1252"))))
    rows = read(
        tmp_path / "x.wav",
        flac(tmp_path / "a.flac", "TITLE=Café".encode("latin-1")),
        flac(tmp_path / "b.flac", "TITLE=Песня".encode("cp1251")),
        flac(tmp_path / "c.flac", "TITLE=\ufffd\ufffd"),
    )
    assert [row["title"] for row in rows] == ["Café", "Café", "Песня", "t3"]
    assert [row["named_by_tag"] for row in rows] == [True, True, True, False]


def test_the_better_of_two_tags_wins(tmp_path):
    tag = b"id3 ", id3(TIT2="长相思")
    (tmp_path / "x.wav").write_bytes(riff(info(INAM=b"???", IART=b"Anna"), tag))
    rows = read(tmp_path / "x.wav", flac(tmp_path / "y.flac", "TITLE=Own", front=id3(TIT2="Outer")))
    assert [(row["title"], row["artist"]) for row in rows] == [("长相思", "Anna"), ("Own", None)]


def test_tags_before_and_behind_any_container_are_found(tmp_path):
    twice = id3(TSSE="x") + id3(TPE1="Anna")
    v1 = b"TAG" + b"Old".ljust(30, b"\0") + bytes(94) + b"\x11"
    path = flac(tmp_path / "x.flac", "TITLE=Own", front=twice)
    path.write_bytes(path.read_bytes() + v1)
    (row,) = read(path)
    assert (row["title"], row["artist"], row["tags"]) == ("Own", "Anna", ["Rock"])
    assert row["duration"] == pytest.approx(1.0)
    (tmp_path / "empty.mp3").write_bytes(b"\xff\xfb\x90\0" * 50 + b"TAG" + bytes(125))
    assert read(tmp_path / "empty.mp3")[0]["tags"] is None, "an empty tag is no Blues"


@pytest.mark.parametrize(
    ("comments", "year"),
    [
        (["DATE=0000", "DATE=1971"], 1971),
        (["YEAR=1971"], 1971),
        (["ORIGINALDATE=1971-01-01"], 1971),
        (["ORIGINALDATE=1971", "DATE=2015"], 2015),
        (["DATE='69", "YEAR=20041"], None),
    ],
)
def test_the_year_is_the_first_that_can_be_one(tmp_path, comments, year):
    assert read(flac(tmp_path / "x.flac", *comments))[0]["year"] == year


def test_genres_that_hold_a_separator_stay_whole(tmp_path):
    whole = ["Singer/Songwriter", "Folk, World, & Country"]
    made = [f"GENRE={genre}" for genre in [*whole, "Hip-Hop", "hip-hop", "Pop/Rap"]]
    (row,) = read(flac(tmp_path / "x.flac", *made))
    assert row["tags"] == [*whole, "Hip-Hop", "Pop", "Rap"]


def test_what_steers_a_terminal_ends_at_the_reader(tmp_path):
    (row,) = read(
        flac(tmp_path / "x.flac", "TITLE=a\x1b]0;owned\x07b\u202e", "ARTIST=\x1b[31mc\x9b")
    )
    assert (row["title"], row["artist"], row["artists"]) == ("ab", "c", ["c"])


def test_a_cover_of_megabytes_costs_no_seconds(tmp_path):
    cover = "METADATA_BLOCK_PICTURE=" + "A" * 8_000_000
    packet, number = b"OpusTags" + vorbis(cover, "TITLE=Big"), 1
    pages = [ogg_page(b"OpusHead\1\1" + bytes(9), 0, 0, 2)]
    for at in range(0, len(packet), 255 * 250):
        piece = packet[at : at + 255 * 250]
        page = bytearray(ogg_page(piece, number, -1))
        if at + len(piece) < len(packet):  # goes on in the next page
            page = bytearray(page[:26] + bytes([250]) + b"\xff" * 250 + piece)
        pages.append(bytes(page))
        number += 1
    (tmp_path / "x.opus").write_bytes(b"".join(pages) + ogg_page(b"audio", number, 960, 4))
    started = time.process_time()
    assert read(tmp_path / "x.opus")[0]["title"] == "Big"
    assert time.process_time() - started < 3


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
