"""Reads ID3 tags: the text frames of versions 2.2 to 2.4, and version 1.

All values of a frame are kept, in order. The reader supports what writers have produced over thirty
years: unsynchronised tags and frames, extended headers, data lengths, compression, version 2.4 with
the plain sizes of old iTunes, and text with a wrong declared encoding. Pictures are skipped.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from raymtr.audio.extent import read_at, syncsafe
from raymtr.plain_text import from_bytes

Fields = dict[str, list[str]]  # name of a Vorbis comment, in capitals -> values

_MOST_TEXT = 1 << 20  # bytes of one frame
_MOST_TAG = 1 << 25  # bytes of a tag that must be read whole
_MOST_FRAMES = 2_000
_NAMES = {
    "TITLE": "TIT2 TT2",
    "ARTIST": "TPE1 TP1",
    "ALBUMARTIST": "TPE2 TP2",
    "COMPOSER": "TCOM TCM",
    "ALBUM": "TALB TAL",
    "DATE": "TDRC",
    "YEAR": "TYER TYE",
    "ORIGINALDATE": "TDOR TORY TOR",
    "GENRE": "TCON TCO",
}
_KEYS = {frame.encode(): key for key, frames in _NAMES.items() for frame in frames.split()}
_OWN = (b"TXXX", b"TXX")  # user-defined text: a name, then its values
_GENRES = """
Blues|Classic Rock|Country|Dance|Disco|Funk|Grunge|Hip-Hop|Jazz|Metal|New Age|Oldies|Other|Pop|R&B
|Rap|Reggae|Rock|Techno|Industrial|Alternative|Ska|Death Metal|Pranks|Soundtrack|Euro-Techno
|Ambient|Trip-Hop|Vocal|Jazz+Funk|Fusion|Trance|Classical|Instrumental|Acid|House|Game|Sound Clip
|Gospel|Noise|Alternative Rock|Bass|Soul|Punk|Space|Meditative|Instrumental Pop|Instrumental Rock
|Ethnic|Gothic|Darkwave|Techno-Industrial|Electronic|Pop-Folk|Eurodance|Dream|Southern Rock|Comedy
|Cult|Gangsta Rap|Top 40|Christian Rap|Pop/Funk|Jungle|Native American|Cabaret|New Wave
|Psychedelic|Rave|Showtunes|Trailer|Lo-Fi|Tribal|Acid Punk|Acid Jazz|Polka|Retro|Musical
|Rock & Roll|Hard Rock|Folk|Folk-Rock|National Folk|Swing|Fast Fusion|Bebop|Latin|Revival|Celtic
|Bluegrass|Avantgarde|Gothic Rock|Progressive Rock|Psychedelic Rock|Symphonic Rock|Slow Rock
|Big Band|Chorus|Easy Listening|Acoustic|Humour|Speech|Chanson|Opera|Chamber Music|Sonata|Symphony
|Booty Bass|Primus|Porn Groove|Satire|Slow Jam|Club|Tango|Samba|Folklore|Ballad|Power Ballad
|Rhythmic Soul|Freestyle|Duet|Punk Rock|Drum Solo|A Cappella|Euro-House|Dance Hall|Goa|Drum & Bass
|Club-House|Hardcore|Terror|Indie|BritPop|Worldbeat|Polsk Punk|Beat|Christian Gangsta Rap
|Heavy Metal|Black Metal|Crossover|Contemporary Christian|Christian Rock|Merengue|Salsa
|Thrash Metal|Anime|JPop|Synthpop
"""
GENRES = tuple(_GENRES.replace("\n", "").split("|"))  # by the number that ID3v1 and MP4 store
_NUMBERS = re.compile(r"^(?:\((\d{1,3}|RX|CR)\))+")
_ID = re.compile(rb"[A-Z][A-Z0-9]{2,3}")


def read_id3v2(file: BinaryIO, start: int) -> Fields:
    """The text of the ID3v2 tag at `start`; empty if it cannot be read."""
    head = read_at(file, start, 10)
    version, flags, size = head[3], head[5], syncsafe(head[6:10])
    if not 2 <= version <= 4:
        return {}
    stream, at, end = file, start + 10, start + 10 + size
    if flags & 0x80 and version < 4:  # the whole tag is unsynchronised
        stream = io.BytesIO(_synchronised(read_at(file, at, min(size, _MOST_TAG))))
        at, end = 0, stream.seek(0, 2)
    if flags & 0x40 and version > 2:
        at += _extended_length(read_at(stream, at, 4), version)
    fields: Fields = {}
    for name, data in _frames(stream, at, end, version=version, unsync=bool(flags & 0x80)):
        values = _texts(data)
        key = _KEYS.get(name, "")
        if name in _OWN and values:
            key, *values = values
        if key:
            kept = fields.setdefault(key.upper(), [])
            kept += [v for text in values for v in (_genres(text) if key == "GENRE" else [text])]
    return fields


def read_id3v1(file: BinaryIO, start: int) -> Fields:
    """The ID3v1 tag in the 128 bytes at `start`: title, artist, album, year, genre by number.

    A tag without any text is ignored, including its genre 0 (Blues).
    """
    tag = read_at(file, start, 128)
    texts = {"TITLE": tag[3:33], "ARTIST": tag[33:63], "ALBUM": tag[63:93], "YEAR": tag[93:97]}
    fields = {key: [from_bytes(raw.split(b"\0")[0].rstrip())] for key, raw in texts.items()}
    if any(values[0] for values in fields.values()) and tag[127] < len(GENRES):
        fields["GENRE"] = [GENRES[tag[127]]]
    return fields


def _synchronised(data: bytes) -> bytes:
    """`data` without the zero bytes that keep a tag from looking like audio frames."""
    return data.replace(b"\xff\x00", b"\xff")


def _extended_length(four: bytes, version: int) -> int:
    """Size of the extended header; version 2.3 excludes its four size bytes, 2.4 includes them."""
    return 4 + int.from_bytes(four, "big") if version == 3 else syncsafe(four.ljust(4, b"\0"))


def _frames(
    stream: BinaryIO, at: int, end: int, *, version: int, unsync: bool
) -> Iterator[tuple[bytes, bytes]]:
    """(name, data) of all text frames."""
    width = 6 if version == 2 else 10
    name_length = 3 if version == 2 else 4
    for _ in range(_MOST_FRAMES):
        head = read_at(stream, at, width)
        name = head[:name_length]
        if at + width > end or len(head) < width or not _ID.fullmatch(name):
            return
        size = int.from_bytes(head[name_length : 6 if version == 2 else 8], "big")
        if version == 4:
            size = _size_of_v24(stream, head[4:8], at, end)
        if (name in _KEYS or name in _OWN) and size <= _MOST_TEXT:
            data = read_at(stream, at + width, min(size, end - at - width))
            yield name, _unpacked(data, version, head[9] if version > 2 else 0, unsync=unsync)
        at += width + size


def _size_of_v24(stream: BinaryIO, four: bytes, at: int, end: int) -> int:
    """Frame size: syncsafe, unless only the plain number leads to a frame, padding or the end."""
    plain, safe = int.from_bytes(four, "big"), syncsafe(four)
    if plain == safe or len(four) < 4 or max(four) > 0x7F:
        return plain
    for size in (safe, plain):
        head = read_at(stream, at + 10 + size, 10)
        if at + 10 + size == end or (at + 10 + size < end and _leads_on(head, end)):
            return size
    return safe


def _leads_on(head: bytes, end: int) -> bool:
    """Whether ten bytes are padding or a frame header: a name, a size that fits, flags."""
    is_frame = _ID.fullmatch(head[:4]) and int.from_bytes(head[4:8], "big") < end
    return head == bytes(10) or bool(is_frame and not head[8] & 0x8F and not head[9] & 0xB0)


def _unpacked(data: bytes, version: int, flags: int, *, unsync: bool) -> bytes:
    """A frame's data without the prefixes and encodings that its flags state; b"" if encrypted."""
    if version == 3 and flags:
        data = data[4:] if flags & 0x80 else data
        data = b"" if flags & 0x40 else data[1:] if flags & 0x20 else data
        return _inflated(data) if flags & 0x80 else data
    if version == 4:
        data = b"" if flags & 0x04 else data[1:] if flags & 0x40 else data
        data = data[4:] if flags & 0x01 else data
        data = _synchronised(data) if flags & 0x02 or unsync else data
        return _inflated(data) if flags & 0x08 else data
    return data


def _inflated(data: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(data, _MOST_TEXT)
    except zlib.error:
        return b""


def _texts(data: bytes) -> list[str]:
    """The values of a text frame, separated by NUL characters (ID3v2.4, 4.2)."""
    kind, body = data[:1], data[1:]
    if kind in (b"\1", b"\2"):
        little = body[:2] == b"\xff\xfe" or (kind == b"\1" and body[:2] != b"\xfe\xff")
        even = body[: len(body) // 2 * 2]
        text = even.decode("utf-16-le" if little else "utf-16-be", "ignore")
        return [value.strip("\ufeff\ufffe") for value in text.rstrip("\0").split("\0")]
    if kind in (b"\0", b"\3"):  # many write UTF-8 but declare Latin-1, or the reverse
        return [from_bytes(value) for value in body.rstrip(b"\0").split(b"\0")]
    return []


def _genres(text: str) -> list[str]:
    """Genre names of `(17)(6)Shoegaze` or `17`; a name that repeats a number's is dropped."""
    found = _NUMBERS.match(text)
    named = found[0].strip("()").split(")(") if found else []
    rest = text[found.end() :] if found else text
    if text.isdigit():
        named, rest = [text], ""
    words = {"RX": "Remix", "CR": "Cover"}
    known = [
        words.get(n) or (GENRES[int(n)] if n.isdigit() and int(n) < len(GENRES) else "")
        for n in named
    ]
    return list(dict.fromkeys(filter(None, [*known, rest.removeprefix("(")])))
