"""Track, the one record of the system, and its Arrow schema.

Jobs pass tracks as Arrow tables and rows as plain dicts (that is what Ray Data hands out), so
this file holds the schema, the rule that turns any table into it, and nothing about where rows
come from. Columns a source has beyond these are kept as extras: they stay in the table under
their own names, typed as they came, and can be filtered on.

Checks run on whole Arrow columns, because a catalog has up to 10^8 rows; only when one fails is
the offending row looked for, so that the message can name it.
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
    uri: str | None  # None: a track known by words alone
    title: str | None
    artist: str | None  # as the file or the table shows it, of one or of several
    artists: list[str] | None  # each of them by name
    album: str | None
    year: int | None
    duration: float | None  # seconds
    tags: list[str] | None
    similar_artists: list[str] | None  # most similar first
    dataset: str | None  # which source of the training mixture it belongs to
    split: str | None  # train, valid or test; by artist
    file_version: str | None  # of the audio when scanned: the same one, the same file
    audio_digest: str | None  # of its coded audio: the same one, the same sound


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
_LETTERS = str.maketrans(  # letters that Unicode does not take apart, and typographic signs
    {"ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "æ": "ae", "œ": "oe", "ı": "i"}
    | dict.fromkeys("‘’ʼ´`", "'")
    | dict.fromkeys("“”", '"')
    | dict.fromkeys("‐‑‒–—", "-")
)


def extras_of(table: pa.Table) -> list[str]:
    """Names of the columns beyond the known ones."""
    return [name for name in table.column_names if name not in KNOWN]


def artist_key(name: str) -> str:
    """The form in which two spellings of one artist are equal: `The Beyoncés` -> `beyonces`.

    Case, accents, width, typographic signs, runs of white space and a leading "The" are gone.
    Only the marks of Latin, Greek and Cyrillic count as accents: in other scripts they are letters.
    """
    parts = unicodedata.normalize("NFKD", name.casefold())
    bare = "".join(c for c in parts if not "\u0300" <= c <= "\u036f")
    key = " ".join(unicodedata.normalize("NFKC", bare.translate(_LETTERS)).split())
    return key.removeprefix("the ") or key


# What sets artists apart in one text. No comma, no "&", no bare slash: Tyler, the Creator; Simon &
# Garfunkel; AC/DC.
_BETWEEN_ARTISTS = re.compile(r"\s*[;\0]\s*|\s+/\s+")
_GUESTS = re.compile(
    r"\s+[(\[]?(?:feat\.|ft\.|featuring)\s+(?P<guests>[^)\]]+)[)\]]?", re.IGNORECASE
)


def split_artists(text: str) -> list[str]:
    """`Alba; Bruno feat. Carla` -> Alba, Bruno, Carla; none twice."""
    names: list[str] = []
    for part in _BETWEEN_ARTISTS.split(text):
        guests = _GUESTS.findall(part)
        names += [name.strip() for name in (_GUESTS.sub("", part), *guests)]
    return list(dict.fromkeys(filter(None, names)))


def with_artists(table: pa.Table) -> pa.Table:
    """`table` with the column `artists` where it had none, and filled from `artist` where null.

    A catalog that was scanned before there was such a column gets it on the way to its readers.
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
    """The one whose track it is: of `X feat. Y` and of `X; Y` it is X; None where nothing is."""
    return next(iter(split_artists(artist)), None)


def _nth_row(index: int) -> str:
    return f"row {index + 1}"


def check_tracks(table: pa.Table, *, place: Callable[[int], str] = _nth_row) -> pa.Table:
    """`table` in the catalog's form: known columns first and typed, extras after, sorted by id.

    `place` says where a row of `table` came from, for messages. Raises InputError on a missing,
    empty, repeated or not URL-safe track_id, a value that does not fit its column, a duration
    that is no time, an unknown split, or a column name that cannot be kept.
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
    taken: set[str] = set(KNOWN)  # filters do not tell case apart, so neither may names
    for position, name in enumerate(names, start=1):
        if not name:
            raise InputError(f"column {position} has no name; name it or leave it out")
        if name in RESERVED or name.startswith("_") or "." in name:
            raise InputError(
                f"column {name!r} has a reserved name ({', '.join(sorted(RESERVED))}, a leading _ "
                "or a dot); rename it"
            )
        if name not in KNOWN and name.lower() in taken:
            raise InputError(f"column {name!r} has the name of another but for case; rename it")
        if "`" in name or any(unicodedata.category(sign)[0] == "C" for sign in name):
            raise InputError(f"column {name!r} cannot be named in a filter; rename it")
        if names.count(name) > 1:
            raise InputError(f"column {name!r} stands more than once; rename or drop one")
        taken.add(name.lower())


def fit_column(
    column: pa.ChunkedArray, field: pa.Field, *, place: Callable[[int], str]
) -> pa.ChunkedArray:
    """`column` as `field.type`. Raises InputError naming the first value that does not fit."""
    numeric = pa.types.is_integer(field.type) or pa.types.is_floating(field.type)

    def cast(part: pa.ChunkedArray) -> pa.ChunkedArray:
        if numeric and pa.types.is_boolean(part.type):
            raise pa.ArrowTypeError("a truth value is no number")
        if field.name == "track_id" and pa.types.is_floating(part.type):
            raise pa.ArrowTypeError("an id is no fraction")
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
    """Index of the first value that `cast` refuses, by halving; there is one."""
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
    dots = pc.is_in(ids, value_set=pa.array([".", ".."]))  # a URL would walk up
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
        f"{len(twice)} track_id stand more than once, among them "
        f"{', '.join(twice[:3].to_pylist())} ({place(first)} and {place(second)}); "
        "each track needs an id of its own"
    )


def _refuse(
    bad: pa.ChunkedArray, column: pa.ChunkedArray, place: Callable[[int], str], message: str
) -> None:
    """Raise InputError with the first row where `bad` is true, if there is one."""
    row: Any = pc.index(bad, True).as_py()
    if row >= 0:
        raise InputError(message.format(value=repr(column[row].as_py()), row=place(row)))
