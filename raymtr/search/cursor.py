"""Pagination cursors: a position in a list of hits, as a text that clients send back.

A version of the tables never changes, so the list can be computed again. So a cursor only stores
the position, and a checksum of that version and the rest of the request (its mark). A cursor of
another query or another version, or a mistyped one, is rejected, because it would repeat or skip
hits. A cursor is not secret and grants no access.
"""

from __future__ import annotations

import base64
import hashlib
import json

from raymtr.errors import InputError

FARTHEST = 10_000  # largest position in a list; use `Searcher.rank` for more
TTL_S = 900  # of a cursor


def make_cursor(position: int, *, mark: str, now_s: float) -> str:
    """The cursor of the page that starts at `place`."""
    expires = int(now_s) + TTL_S
    text = json.dumps([position, expires, _check(position, expires, mark)])
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, *, mark: str, now_s: float) -> int:
    """The position in a cursor. Raises InputError if it belongs to another search or is too old."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position, expires, check = json.loads(text)
        fits = bool(_check(int(position), int(expires), mark) == check)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("cursor was not returned by a search") from error
    if not fits:
        raise InputError(
            "cursor belongs to another search or to tables that are no longer live; "
            "repeat the search without it"
        )
    if now_s > expires:
        raise InputError("cursor has expired; repeat the search without it")
    return int(position)


def mark_of(build: str, request: object) -> str:
    """The mark of a list: a hash of the build and of the request without its cursor."""
    text = json.dumps([build, request], sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _check(position: int, expires: int, mark: str) -> str:
    return hashlib.blake2b(f"{position} {expires} {mark}".encode(), digest_size=9).hexdigest()
