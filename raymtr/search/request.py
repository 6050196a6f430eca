"""A search request checked against the tables it searches: its filter and its example tracks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raymtr.errors import InputError
from raymtr.index.filters import Filter, parse_filter
from raymtr.index.track_table import TrackTable
from raymtr.search.answer_parts import Mode
from raymtr.search.contract import SearchRequest, weights_of


@dataclass(frozen=True, kw_only=True)
class CheckedRequest:
    """A request that the tables can answer. `like` and `unlike` map track ids to weights."""

    original: SearchRequest
    like: Mapping[str, float]
    unlike: Mapping[str, float]
    where: Filter | None
    k: int | None  # None ranks all matches; internal callers only

    def with_k(self, k: int | None) -> CheckedRequest:
        """This request with `k` hits; None for all matches."""
        return replace(self, k=k)

    @property
    def mode(self) -> Mode:
        """The requested mode, or auto."""
        return self.original.mode or "auto"


def check_request(request: SearchRequest, table: TrackTable) -> CheckedRequest:
    """Checks a request against the table to be searched.

    Raises InputError on an unknown track, a track without vector, or a filter that does not parse.
    """
    like, unlike = weights_of(request.like), weights_of(request.unlike)
    check_ids([*like, *unlike], table)
    where = request.where
    return CheckedRequest(
        original=request,
        like=like,
        unlike=unlike,
        where=parse_filter(where, table.filterable) if where and where.strip() else None,
        k=request.k,
    )


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
