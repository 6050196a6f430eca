"""The search request, validated once for Python, the command line and HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np

from raymtr.errors import InputError
from raymtr.index.filters import Filter, parse_filter
from raymtr.index.track_table import TrackTable
from raymtr.search.cursor import mark_of

Mode = Literal["auto", "semantic", "keyword", "hybrid"]
Sound = str | bytes | tuple[np.ndarray, int]

MOST_HITS = 100
LONGEST_TEXT = 2_000  # characters; a text tower reads far fewer
MOST_EXAMPLES = 100


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """A validated request. `like` and `unlike` map track ids to positive weights."""

    text: str | None
    like: Mapping[str, float]
    unlike: Mapping[str, float]
    exclude: tuple[str, ...]
    audio: Sound | None
    where: Filter | None
    where_text: str | None
    mode: Mode
    k: int | None  # None ranks all matches; internal callers only
    per_artist: int | None
    diversity: float
    fold_duplicates: bool
    cursor: str | None
    similar_artist: str | None  # an artist name of the catalog, not parsed as a query

    def ranking(self, k: int | None) -> SearchRequest:
        """This request with another number of hits; None for all matches."""
        return replace(self, k=k)

    def echo(self) -> dict[str, Any]:
        """The request as an answer repeats it."""
        return {
            "text": self.text,
            "like": dict(self.like),
            "unlike": dict(self.unlike),
            "exclude": list(self.exclude),
            "audio": self.audio is not None,
            "where": self.where_text,
            "mode": self.mode,
            "k": self.k,
            "per_artist": self.per_artist,
            "diversity": self.diversity,
            "fold_duplicates": self.fold_duplicates,
            **({"similar_artist": self.similar_artist} if self.similar_artist else {}),
        }

    def mark(self, build: str) -> str:
        """The mark in a cursor of this request on that build."""
        audio = self.audio
        if isinstance(audio, tuple):
            audio = audio[0].tobytes() + str(audio[1]).encode()
        if isinstance(audio, bytes):
            audio = hashlib.blake2b(audio).hexdigest()
        return mark_of(build, self.echo() | {"audio": audio})


def read_request(asked: Mapping[str, Any], table: TrackTable) -> SearchRequest:
    """Validates `asked` (the arguments of `Searcher.search`) against the table to be searched.

    Raises InputError that names the invalid key and what it accepts.
    """
    known = [name for name in SearchRequest.__dataclass_fields__ if name != "where_text"]
    unknown = sorted(set(asked) - set(known))
    if unknown:
        raise InputError(f"unknown key {unknown[0]!r} in a search; accepted: {', '.join(known)}")
    text, similar_artist = _text(asked.get("text")), asked.get("similar_artist") or None
    if similar_artist is not None and (text or not isinstance(similar_artist, str)):
        raise InputError("similar_artist is a name, in the place of a text")
    like = _examples(asked.get("like"), "like")
    unlike = _examples(asked.get("unlike"), "unlike")
    audio = asked.get("audio")
    if not text and not similar_artist and not like and audio is None:
        raise InputError("a search needs a non-empty text, like or audio")
    check_ids([*like, *unlike], table)
    mode: Any = asked.get("mode") or "auto"
    if mode not in get_args(Mode):
        raise InputError(f"mode is one of {', '.join(get_args(Mode))}; got {mode!r}")
    where = asked.get("where")
    if where is not None and not isinstance(where, str):
        raise InputError(f'where is a text such as "year > 1990", got {where!r}')
    return SearchRequest(
        text=text,
        like=like,
        unlike=unlike,
        exclude=_terms(asked.get("exclude")),
        audio=audio,
        where=parse_filter(where, table.filterable) if where and where.strip() else None,
        where_text=where,
        mode=mode,
        k=_whole(asked.get("k", 10), "k", most=MOST_HITS),
        per_artist=None
        if asked.get("per_artist") is None
        else _whole(asked["per_artist"], "per_artist", most=MOST_HITS),
        diversity=_share(asked.get("diversity"), "diversity"),
        fold_duplicates=_yes_or_no(asked.get("fold_duplicates"), "fold_duplicates"),
        cursor=_cursor(asked.get("cursor")),
        similar_artist=similar_artist,
    )


def _share(value: Any, name: str) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise InputError(f"{name} is a number from 0 to 1, got {value!r}")
    return float(value)


def _yes_or_no(value: Any, name: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InputError(f"{name} is true or false, got {value!r}")
    return bool(value)


def _cursor(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and 0 < len(value) <= 200):
        raise InputError("cursor is the next_cursor of an answer")
    return value or None


def _text(text: Any) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise InputError(f"text is a string, got {text!r}")
    if len(text) > LONGEST_TEXT:
        raise InputError(f"text has {len(text)} characters, at most {LONGEST_TEXT} are read")
    # Control characters mean nothing in a query and some tokenizers refuse them.
    return " ".join("".join(c if c.isprintable() else " " for c in text).split()) or None


def _examples(given: Any, name: str) -> dict[str, float]:
    """Converts `["id", {"track_id": "id", "weight": 0.5}]` to weights by id."""
    wanted = f"{name} is a list of track ids, or of {{'track_id', 'weight'}}"
    if given is None:
        return {}
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise InputError(f"{wanted}; got {given!r}")
    if len(given) > MOST_EXAMPLES:
        raise InputError(f"{name} takes at most {MOST_EXAMPLES} tracks, got {len(given)}")
    weights: dict[str, float] = {}
    for item in given:
        entry = {"track_id": item} if isinstance(item, str) else item
        if not isinstance(entry, Mapping) or set(entry) - {"track_id", "weight"}:
            raise InputError(f"{wanted}; got {item!r}")
        track_id, weight = entry.get("track_id"), entry.get("weight", 1.0)
        if not isinstance(track_id, str):
            raise InputError(f"{wanted}; got {item!r}")
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight <= 10:
            raise InputError(f"a weight in {name} is a number above 0, at most 10; got {weight!r}")
        weights[track_id] = weights.get(track_id, 0.0) + float(weight)
    return weights


def check_ids(ids: Sequence[str], table: TrackTable) -> None:
    """Raises InputError if an id is not a track, or its track has no vector."""
    found = table.vectors(ids) if ids else {}
    for track_id in ids:
        if track_id in found:
            continue
        if table.rows([track_id], ["track_id"]):
            raise InputError(
                f"track {track_id!r} has no audio vector: it cannot be used as an example"
            )
        raise InputError(f"unknown track_id {track_id!r}")


def _terms(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, (str, bytes)) or not isinstance(given, Sequence):
        raise InputError(f"exclude is a list of terms, got {given!r}")
    for term in given:
        if not isinstance(term, str) or not term.strip():
            raise InputError(f"exclude is a list of non-empty terms, got {term!r}")
    return tuple(term.strip() for term in given)


def _whole(value: Any, name: str, *, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise InputError(f"{name} is a whole number from 1 to {most}, got {value!r}")
    return value
