"""Words inside a container: Vorbis comments, APEv2 items, chunks of WAV, AIFF and CAF, MP4, ASF.

Each reader gives what stands there, as lists under the names of Vorbis comments; what one means for
a track is for the catalog to say. Written here and not taken from a library, because none of a
licence that fits Apache-2.0 keeps lists and bytes that are no UTF-8 (tinytag, PyAV); those that do
(mutagen, pytaglib) are GPL, and would make everything built with this so. Pictures are leapt over.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from raymtr.audio.extent import Extent, read_at
from raymtr.audio.id3 import GENRES, Fields, read_id3v1, read_id3v2
from raymtr.plain_text import from_bytes

MOST = 1 << 20  # bytes of words read from one place
_MOST_PARTS = 1_000  # chunks, blocks, items or boxes looked at


def gathered(pairs: Iterable[tuple[str, str]]) -> Fields:
    """Lists of values by name, in their order."""
    fields: Fields = {}
    for name, value in pairs:
        fields.setdefault(name.upper(), []).append(value)
    return fields


def outer_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """What the tags around the audio say: ID3v2, then APEv2, then ID3v1."""
    readers = {"id3v2": read_id3v2, "ape": read_ape, "id3v1": read_id3v1}
    found = []
    for kind, read in readers.items():
        found += [read(file, tag.start) for tag in extent.tags if tag.kind == kind]
    return found


# ---- Vorbis comments and APEv2 -----------------------------------------------------------------


def vorbis_comments(data: bytes) -> Fields:
    """A comment header behind its magic (Vorbis I, 5): vendor, count, NAME=value each."""
    at = 4 + int.from_bytes(data[:4], "little")
    count, at = int.from_bytes(data[at : at + 4], "little"), at + 4
    pairs = []
    for _ in range(min(count, _MOST_PARTS)):
        if at + 4 > len(data):
            break
        length = int.from_bytes(data[at : at + 4], "little")
        name, equals, value = data[at + 4 : at + 4 + min(length, MOST)].partition(b"=")
        if equals and not name.upper().endswith(b"PICTURE"):
            pairs.append((from_bytes(name), from_bytes(value)))
        at += 4 + length
    return gathered(pairs)


def flac_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The comments among the metadata blocks (RFC 9639, 8)."""
    at = extent.start + 4
    for _ in range(_MOST_PARTS):
        head = read_at(file, at, 4)
        length = int.from_bytes(head[1:], "big")
        if len(head) == 4 and head[0] & 0x7F == 4:
            return [vorbis_comments(read_at(file, at + 4, min(length, MOST)))]
        if len(head) < 4 or head[0] & 0x80:
            break
        at += 4 + length
    return []


def read_ape(file: BinaryIO, start: int) -> Fields:
    """The text items of the APEv2 tag at `start`, which may have no header."""
    data = read_at(file, start, MOST)
    at = 32 if data[:8] == b"APETAGEX" else 0
    pairs = []
    for _ in range(_MOST_PARTS):
        end = data.find(b"\0", at + 8)
        if end < 0 or data[at : at + 8] == b"APETAGEX":
            break
        length, flags = struct.unpack_from("<II", data, at)
        if not flags & 6:  # text
            for value in data[end + 1 : end + 1 + length].split(b"\0"):
                pairs.append((from_bytes(data[at + 8 : end]), from_bytes(value)))
        at = end + 1 + length
    return gathered(pairs)


# ---- chunks ------------------------------------------------------------------------------------

_INFO = {
    b"INAM": "TITLE",
    b"IART": "ARTIST",
    b"IPRD": "ALBUM",
    b"ICRD": "DATE",
    b"IGNR": "GENRE",
}
_CAF = {"YEAR": "DATE", "RECORDED DATE": "DATE"}
_AIFF = {b"NAME": "TITLE", b"AUTH": "ARTIST"}


def chunks(file: BinaryIO, start: int, end: int, order: str) -> Iterator[tuple[bytes, int, int]]:
    """(id, start, size) of the chunks from `start`, their sizes in the byte order "<" or ">".

    Some writers leave the padding of odd sizes out: then the next id stands a byte early.
    """
    at = start
    for _ in range(_MOST_PARTS):
        head = read_at(file, at, 9)
        if len(head) < 8 or at + 8 > end:
            return
        if head[0] == 0 and head[1:5].isalnum():  # padding that no size told of
            at, head = at + 1, head[1:] + read_at(file, at + 9, 1)
        name, size = struct.unpack_from(f"{order}4sI", head)
        yield name, at + 8, min(size, end - at - 8)
        at += 8 + size
        if size & 1 and not read_at(file, at, 4).isalnum():
            at += 1


def wav_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """An ID3 chunk, then INFO."""
    order = ">" if read_at(file, extent.start, 4) == b"RIFX" else "<"
    info: list[Fields] = []
    id3: list[Fields] = []
    for name, at, size in chunks(file, extent.start + 12, extent.end, order):
        if name.lower() in (b"id3 ", b"id32"):
            id3.append(read_id3v2(file, at))
        elif name == b"LIST" and read_at(file, at, 4) == b"INFO":
            found = [
                (_INFO[kind], from_bytes(read_at(file, p, min(n, MOST)).split(b"\0")[0]))
                for kind, p, n in chunks(file, at + 4, at + size, order)
                if kind in _INFO
            ]
            info.append(gathered(found))
    return id3 + info


def aiff_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """An ID3 chunk, then NAME and AUTH."""
    own, id3 = [], []
    for name, at, size in chunks(file, extent.start + 12, extent.end, ">"):
        if name.upper() == b"ID3 ":
            id3.append(read_id3v2(file, at))
        elif name in _AIFF:
            own.append((_AIFF[name], from_bytes(read_at(file, at, min(size, MOST)))))
    return [*id3, gathered(own)]


def caf_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The chunk `info`: a count, then names and values, each ended by a zero byte."""
    at = extent.start + 8
    for _ in range(_MOST_PARTS):
        head = read_at(file, at, 12)
        if len(head) < 12:
            break
        name, size = struct.unpack(">4sq", head)
        if name == b"info":
            texts = read_at(file, at + 16, min(max(size - 4, 0), MOST)).split(b"\0")
            pairs = zip(map(from_bytes, texts[::2]), map(from_bytes, texts[1::2]), strict=False)
            return [gathered((_CAF.get(key.upper(), key), value) for key, value in pairs)]
        if size < 0:  # the last chunk, of a length left open
            break
        at += 12 + size
    return []


def dsf_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The ID3v2 tag that the header of a DSF file points to."""
    at = int.from_bytes(read_at(file, extent.start + 20, 8), "little")
    return [read_id3v2(file, at)] if read_at(file, at, 3) == b"ID3" else []


# ---- MP4 and ASF -------------------------------------------------------------------------------

_ATOMS = {
    b"\xa9nam": "TITLE",
    b"\xa9ART": "ARTIST",
    b"aART": "ALBUMARTIST",
    b"\xa9wrt": "COMPOSER",
    b"\xa9alb": "ALBUM",
    b"\xa9day": "DATE",
    b"\xa9gen": "GENRE",
}
_ASF = {"AUTHOR": "ARTIST", "WM/ALBUMTITLE": "ALBUM", "WM/ALBUMARTIST": "ALBUMARTIST"}
_ASF |= {"WM/YEAR": "DATE", "WM/GENRE": "GENRE", "WM/ARTISTS": "ARTISTS"}
_ASF |= {"WM/ORIGINALRELEASEYEAR": "ORIGINALDATE", "WM/COMPOSER": "COMPOSER"}
_CONTENT = bytes.fromhex("3326b2758e66cf11a6d900aa0062ce6c")
_EXTENDED = bytes.fromhex("40a4d0d207e3d21197f000a0c95ea850")
_HEADER_EXTENSION = bytes.fromhex("b503bf5f2ea9cf118ee300c00c205365")
_LIBRARIES = (  # metadata, and metadata library
    bytes.fromhex("eacbf8c5af5b77488467aa8c44fa4cca"),
    bytes.fromhex("941c23449894d149a1411d134e457054"),
)


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, start, end) of the contents of the MP4 boxes between two places, as they state it."""
    at = start
    for _ in range(_MOST_PARTS):
        head = read_at(file, at, 16)
        if at + 8 > end or len(head) < 8:
            return
        size, width = int.from_bytes(head[:4], "big"), 8
        if size == 1:
            size, width = int.from_bytes(head[8:16], "big"), 16
        size = size or end - at
        if size < width:
            return
        yield head[4:8], at + width, at + size
        at += size


def box_at(file: BinaryIO, start: int, end: int, path: str) -> tuple[int, int] | None:
    """Start and end of the first box on a path such as `moov/udta/meta`; None for none."""
    for wanted in path.split("/"):
        found = next((b for b in boxes(file, start, end) if b[0] == wanted.encode()), None)
        if found is None:
            return None
        _, start, end = found
    return start, end


def mp4_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """iTunes' list: a box a name, with a data box for each value."""
    meta = box_at(file, extent.start, extent.end, "moov/udta/meta")
    if meta is None:
        return []
    is_full = read_at(file, meta[0] + 4, 4) not in (b"hdlr", b"ilst")  # QuickTime's is not
    ilst = box_at(file, meta[0] + 4 * is_full, meta[1], "ilst")
    pairs = []
    for name, at, end in boxes(file, *ilst) if ilst else ():
        key = _ATOMS.get(name, "GENRE" if name == b"gnre" else "")
        if not key and name != b"----":
            continue
        for kind, p, q in boxes(file, at, end):
            data = read_at(file, p, min(q - p, MOST))
            if kind == b"name":
                key = from_bytes(data[4:])
            elif kind == b"data" and name == b"gnre":
                number = int.from_bytes(data[8:10], "big") - 1
                pairs += [(key, GENRES[number])] if 0 <= number < len(GENRES) else []
            elif kind == b"data" and data[3:4] in (b"\0", b"\1"):
                pairs.append((key, from_bytes(data[8:])))
            elif kind == b"data" and data[3:4] == b"\2":
                pairs.append((key, data[8:].decode("utf-16-be", "ignore")))
    return [gathered(pairs)]


def asf_fields(file: BinaryIO, extent: Extent) -> list[Fields]:
    """The content description, the extended one, and the metadata library (ASF, 3.10, 4.8)."""
    size = int.from_bytes(read_at(file, extent.start + 16, 8), "little")
    pairs = list(_asf_objects(read_at(file, extent.start + 30, min(size, 4 * MOST))))
    return [gathered((_ASF.get(name.upper(), name), value) for name, value in pairs)]


def _asf_objects(data: bytes) -> Iterator[tuple[str, str]]:
    """Words of the objects in `data`; those of the extension last, where lists go on."""
    at, extension = 0, b""
    for _ in range(_MOST_PARTS):
        if at + 24 > len(data):
            break
        name, size = data[at : at + 16], int.from_bytes(data[at + 16 : at + 24], "little")
        body = data[at + 24 : at + size]
        if name == _CONTENT:
            lengths, p = struct.unpack_from("<5H", body.ljust(10, b"\0")), 10
            for key, length in zip(("TITLE", "AUTHOR"), lengths, strict=False):
                yield key, _wide(body[p : p + length])
                p += length
        elif name == _EXTENDED:
            yield from _asf_items(body, "<H", "<HH")
        elif name in _LIBRARIES:
            yield from _asf_items(body, "<4xHHI", "")
        elif name == _HEADER_EXTENSION:
            extension = body[22:]
        at += max(size, 24)
    if extension:
        yield from _asf_objects(extension)


def _asf_items(body: bytes, first: str, second: str) -> Iterator[tuple[str, str]]:
    """Text items: name's length, name, type and length, value; the library has all in front."""
    count, p = int.from_bytes(body[:2], "little"), 2
    for _ in range(min(count, _MOST_PARTS)):
        if p + struct.calcsize(first) > len(body):
            return
        name_length, *rest = struct.unpack_from(first, body, p)
        p += struct.calcsize(first)
        name, p = _wide(body[p : p + name_length]), p + name_length
        if not rest:
            if p + struct.calcsize(second) > len(body):
                return
            rest = list(struct.unpack_from(second, body, p))
            p += struct.calcsize(second)
        kind, length = rest
        if kind == 0:
            yield name, _wide(body[p : p + length])
        p += length


def _wide(data: bytes) -> str:
    return data.decode("utf-16-le", "ignore").rstrip("\0")
