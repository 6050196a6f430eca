"""Track, the one record of the system, and its Arrow schema.

Jobs pass tracks as Arrow tables and rows as plain dicts, as Ray Data does. So this file has the
schema and the function that converts any table to it, and nothing about the source of the rows. A
source's further columns are kept as extras: they keep their names and types and can be filtered on.

Checks run on whole Arrow columns, because a catalog has up to 10^8 rows. Only when one fails is the
faulty row searched for, so that the message can name it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from raymtr.errors import InputError


class Track(TypedDict, total=False):
    """One recording. `track_id` is URL-safe and unique; everything else may be absent."""

    track_id: str
    uri: str | None  # None: a track with text only
    title: str | None
    artist: str | None  # as displayed by the file or table; one artist or several
    artists: list[str] | None  # each artist's name
    album: str | None
    year: int | None
    duration: float | None  # seconds
    tags: list[str] | None
    similar_artists: list[str] | None  # most similar first
    dataset: str | None  # source in the training mixture
    split: str | None  # train, valid or test; by artist
    file_version: str | None  # version of the audio file at the scan; equal for the same file
    audio_digest: str | None  # hash of its coded audio; equal for the same audio


SCHEMA = pa.schema(
    [
        pa.field("track_id", pa.string(), nullable=False),
        pa.field("uri", pa.string()),
        pa.field("title", pa.string()),
        pa.field("artist", pa.string()),
        pa.field("artists", pa.list_(pa.string())),
        pa.field("album", pa.string()),
        pa.field("year", pa.int32()),
        pa.field("duration", pa.float64()),
        pa.field("tags", pa.list_(pa.string())),
        pa.field("similar_artists", pa.list_(pa.string())),
        pa.field("dataset", pa.string()),
        pa.field("split", pa.string()),
        pa.field("file_version", pa.string()),
        pa.field("audio_digest", pa.string()),
    ]
)
KNOWN = tuple(SCHEMA.names)
# Optional columns, lists of text: captions that came with a dataset, titles of playlists.
PUBLISHED, PLAYLISTS = "published_captions", "playlists"
# Optional column: tracks with the same one play one melody, at the same times from their start.
TUNE = "tune"
SPLITS = ("train", "valid", "test")
RESERVED = frozenset({"vector", "score", "fingerprint", "words", "names", "row_index"})

DEAD_LETTER = pa.schema(
    [
        pa.field("track_id", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("code", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

ID_RULE = "1 to 128 of the characters A-Z a-z 0-9 . _ ~ -"
_ID_PATTERN = "^[A-Za-z0-9._~-]{1,128}$"
_EXPECTED = {
    pa.string(): "text",
    pa.int32(): "a whole number such as 1999",
    pa.float64(): "a number (a duration is in seconds)",
    pa.list_(pa.string()): "a list of texts",
}
_MISFIT = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)
_LETTERS = str.maketrans(  # letters that Unicode does not decompose, and typographic characters
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"}
    | dict.fromkeys("‘’ʼ´`", "'")
    | dict.fromkeys("“”", '"')
    | dict.fromkeys("‐‑‒–—", "-")
)


def extras_of(table: pa.Table) -> list[str]:
    """Names of the columns beyond the schema's."""
    return [name for name in table.column_names if name not in KNOWN]


def artist_key(name: str) -> str:
    """The normalised form in which spellings of one artist are equal: `The Beyoncés` -> `beyonces`.

    It drops case, accents, width, typographic variants, repeated white space and a leading "The".
    Only the marks of Latin, Greek and Cyrillic count as accents: in other scripts they are letters.
    """
    parts = unicodedata.normalize("NFKD", name.casefold())
    bare = "".join(c for c in parts if not "\u0300" <= c <= "\u036f")
    key = " ".join(unicodedata.normalize("NFKC", bare.translate(_LETTERS)).split())
    return key.removeprefix("the ") or key


# Separators between artists in one text. Comma, "&" and bare slash are none: Tyler, the Creator;
# Simon & Garfunkel; AC/DC.
_BETWEEN_ARTISTS = re.compile(r"\s*[;\0]\s*|\s+/\s+")
_GUESTS = re.compile(
    r"\s+[(\[]?(?:feat\.|ft\.|featuring)\s+(?P<guests>[^)\]]+)[)\]]?", re.IGNORECASE
)


def split_artists(text: str) -> list[str]:
    """`Alba; Bruno feat. Carla` -> Alba, Bruno, Carla; without repeats."""
    names: list[str] = []
    for part in _BETWEEN_ARTISTS.split(text):
        guests = _GUESTS.findall(part)
        names += [name.strip() for name in (_GUESTS.sub("", part), *guests)]
    return list(dict.fromkeys(filter(None, names)))


def with_artists(table: pa.Table) -> pa.Table:
    """`table` with the column `artists`, filled from `artist` where missing or null.

    A catalog scanned before this column existed gets it when it is read.
    """
    kind = pa.list_(pa.string())
    chunks = []
    for shown in table["artist"].chunks:
        coded = shown.dictionary_encode()
        names = coded.dictionary.to_pylist()
        chunks.append(pa.array(map(split_artists, names), kind).take(coded.indices))
    column = pa.chunked_array(chunks, kind)
    if "artists" not in table.column_names:
        return table.add_column(table.column_names.index("artist") + 1, "artists", column)
    column = pc.coalesce(table["artists"].cast(kind), column)
    return table.set_column(table.column_names.index("artists"), "artists", column)


def lead_artist(artist: str) -> str | None:
    """The main artist: of `X feat. Y` and of `X; Y` it is X; None for an empty text."""
    return next(iter(split_artists(artist)), None)


def _nth_row(index: int) -> str:
    return f"row {index + 1}"


def check_tracks(table: pa.Table, *, place: Callable[[int], str] = _nth_row) -> pa.Table:
    """`table` in the catalog's form: known columns first and typed, extras after, sorted by id.

    `place` gives the source of a row of `table`, for messages. Raises InputError on a missing,
    empty, repeated or not URL-safe track_id, a value that does not fit its column, a duration that
    is negative or not finite, an unknown split, or a column name that is not allowed.
    """
    _check_names(table.column_names)
    columns: dict[str, pa.ChunkedArray] = {}
    for field in SCHEMA:
        if field.name in table.column_names:
            columns[field.name] = fit_column(table[field.name], field, place=place)
        else:
            columns[field.name] = pa.chunked_array([pa.nulls(len(table), field.type)])
    for name in extras_of(table):
        columns[name] = table[name]
    _check_ids(columns["track_id"], place)
    seconds = columns["duration"]
    _refuse(
        pc.or_(pc.less(seconds, 0.0), pc.invert(pc.is_finite(seconds))),
        seconds,
        place,
        "duration {value} in {row}: expected seconds, 0 or more; leave it empty where unknown",
    )
    _refuse(
        pc.invert(pc.is_in(columns["split"], value_set=pa.array([*SPLITS, None], pa.string()))),
        columns["split"],
        place,
        f"split {{value}} in {{row}}: expected one of {', '.join(SPLITS)}, or nothing",
    )
    return with_artists(pa.table(columns)).sort_by("track_id")


def _check_names(names: list[str]) -> None:
    if "track_id" not in names:
        raise InputError(f"no track_id column; columns seen: {', '.join(names) or 'none'}")
    taken: set[str] = set(KNOWN)  # filters ignore case, so names must differ in more
    for position, name in enumerate(names, start=1):
        if not name:
            raise InputError(f"column {position} has no name; name it or leave it out")
        if name in RESERVED or name.startswith("_") or "." in name:
            raise InputError(
                f"column {name!r} has a reserved name ({', '.join(sorted(RESERVED))}, a leading _ "
                "or a dot); rename it"
            )
        if name not in KNOWN and name.lower() in taken:
            raise InputError(f"column {name!r} differs from another name only in case; rename it")
        if "`" in name or any(unicodedata.category(sign)[0] == "C" for sign in name):
            raise InputError(f"column {name!r} cannot be named in a filter; rename it")
        if names.count(name) > 1:
            raise InputError(f"column {name!r} occurs more than once; rename or drop one")
        taken.add(name.lower())


def fit_column(
    column: pa.ChunkedArray, field: pa.Field, *, place: Callable[[int], str]
) -> pa.ChunkedArray:
    """`column` as `field.type`. Raises InputError naming the first value that does not fit."""
    numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)

    def cast(part: pa.ChunkedArray) -> pa.ChunkedArray:
        if numeric and pa.types.is_boolean(part.type):
            raise pa.ArrowTypeError("a truth value is not a number")
        if field.name == "track_id" and pa.types.is_floating(part.type):
            raise pa.ArrowTypeError("an id is not a fraction")
        if pa.types.is_integer(field.type) and pa.types.is_string(part.type):
            part = pc.replace_substring_regex(part, r"\.0+$", "")
        try:
            return part.cast(field.type)
        except _MISFIT:
            if not pa.types.is_integer(field.type):
                raise
            return part.cast(pa.float64()).cast(field.type)  # 1e3 is a whole number too

    try:
        return cast(column)
    except _MISFIT as error:
        row = _first_misfit(column, cast)
        raise InputError(
            f"column {field.name!r}, {place(row)}: {column[row].as_py()!r} does not fit; "
            f"expected {_EXPECTED.get(field.type, f'{field.type}, as the catalog has it')}"
        ) from error


def _first_misfit(
    column: pa.ChunkedArray, cast: Callable[[pa.ChunkedArray], pa.ChunkedArray]
) -> int:
    """Index of the first value that `cast` refuses, by bisection; there must be one."""
    low, high = 0, len(column)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            cast(column.slice(low, middle - low))
            low = middle
        except _MISFIT:
            high = middle
    return low


def _check_ids(ids: pa.ChunkedArray, place: Callable[[int], str]) -> None:
    safe = pc.match_substring_regex(pc.fill_null(ids, ""), _ID_PATTERN)
    dots = pc.is_in(ids, value_set=pa.array([".", ".."]))  # would walk up in a URL
    _refuse(
        pc.or_(pc.invert(safe), dots),
        ids,
        place,
        f"track_id {{value}} in {{row}} is not URL-safe: expected {ID_RULE}; every track needs one",
    )
    if pc.count_distinct(ids).as_py() == len(ids):
        return
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
    first = pc.index(ids, twice[0]).as_py()
    second = first + 1 + pc.index(ids.slice(first + 1), twice[0]).as_py()
    raise InputError(
        f"{len(twice)} track_id occur more than once, among them "
        f"{', '.join(twice[:3].to_pylist())} ({place(first)} and {place(second)}); "
        "each track needs its own id"
    )


def _refuse(
    bad: pa.ChunkedArray, column: pa.ChunkedArray, place: Callable[[int], str], message: str
) -> None:
    """Raise InputError with the first row where `bad` is true, if there is one."""
    row: Any = pc.index(bad, True).as_py()
    if row >= 0:
        raise InputError(message.format(value=repr(column[row].as_py()), row=place(row)))
