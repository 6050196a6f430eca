"""Turns slots into the filters that a search runs under, strictest first.

Facets and exclusions always apply. Where an exclusion is on a column, tracks that are known to
meet it come before those of unknown value. Includes are first required in full, then in a wider
sense. If the hits still do not fill a page, and no facet narrows the search, includes are left to
the ranking. Directions are conditions relative to the anchors: on columns if both have values, else
on tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raymtr.index.conditions import Condition
from raymtr.index.filters import Filter, joined, parse_filter
from raymtr.index.track_table import TrackTable
from raymtr.search.facets import quoted
from raymtr.search.slots import Direction, Exclude, Tag, Understood
from raymtr.search.vocabulary import CatalogVocabulary

STEP = 0.03  # how far beyond the anchors' mean a column must be, as a share of it


def always(understood: Understood, where: Filter | None, table: TrackTable) -> Filter | None:
    """The request's own filter, facets, exclusions and, where it binds, the named tracks."""
    parts: list[Filter] = [] if where is None else [where]
    parts += [parse_filter(slot.where, table.filterable) for slot in understood.filters]
    parts += [without(slot, table) for slot in understood.excluded if slot.tags or slot.artist]
    if binds_to_tracks(understood):
        parts.append(Condition("track_id", "in", understood.tracks))
    return joined("and", *parts) if parts else None


def binds_to_tracks(understood: Understood) -> bool:
    """Whether hits are limited to the named album, or, if the query says more, to the artist."""
    narrowed = understood.include or understood.filters or understood.excluded
    return understood.kind == "album" or (understood.kind == "artist" and bool(narrowed))


def tiers(
    understood: Understood, base: Filter | None, vocabulary: CatalogVocabulary
) -> list[Filter | None]:
    """Filters to try in order until there are enough hits."""
    ways = [_toward(way, understood, vocabulary) for way in understood.directions]
    strict = [_any(slot.tags) for slot in understood.include if slot.tags]
    wide = [_any(slot.wider) for slot in understood.include if slot.wider]
    sound = [
        _any((*slot.tags, *slot.wider))
        for slot in understood.include
        if slot.theme in ("genres", "instruments")
    ]
    some = [_any([tag for slot in understood.include for tag in slot.wider])]
    both = [f for strong, _ in ways for f in strong]
    either = [f for _, weak in ways for f in weak]
    lists: list[list[Filter | None]] = [[*strict, *both], [*strict, *either], [*wide, *either]]
    if not (understood.filters and all(slot.exact for slot in understood.include) and strict):
        lists += [[*sound, *either]] if sound else []
        lists += [[*some, *either], [*either], []]
    table = vocabulary.table
    known = [parse_filter(f.known, table.filterable) for f in understood.filters if f.known]
    found: list[Filter | None] = []
    for parts in [whole for each in lists for whole in ([*each, *known], each)]:
        kept = [part for part in (base, *parts) if part is not None]
        tier = joined("and", *kept) if kept else None
        if tier not in found:
            found.append(tier)
    return found


def without(slot: Exclude, table: TrackTable) -> Filter:
    """Filter: a track has none of the exclusion's tags, or is not by its artist."""
    if slot.artist is not None:
        where = f"(artist is null or artist != {quoted(slot.artist)})"
        return parse_filter(where, table.filterable)
    by_column: dict[str, list[str]] = {}
    for tag in slot.tags:
        by_column.setdefault(tag.column, []).append(tag.value)
    return joined(
        "and",
        *(
            joined(
                "or",
                Condition(column, "null"),
                joined("and", *(Condition(column, "has", (v,), negated=True) for v in values)),
            )
            for column, values in by_column.items()
        ),
    )


def _any(tags: Iterable[Tag]) -> Filter | None:
    conditions = [Condition(tag.column, "has", (tag.value,)) for tag in dict.fromkeys(tags)]
    return joined("or", *conditions) if conditions else None


def _toward(
    way: Direction, understood: Understood, vocabulary: CatalogVocabulary
) -> tuple[list[Filter | None], list[Filter | None]]:
    """A direction as two conditions: all of its evidence, or any of it."""
    axis = vocabulary.lexicon.axes[way.axis]
    tags = _any([tag for key in axis.tags(way.sign) for tag in vocabulary.tag(key)])
    other = [tag for key in axis.tags(-way.sign) for tag in vocabulary.tag(key)]
    not_other = (
        without(Exclude(term="", words="", tags=tuple(other)), vocabulary.table) if other else None
    )
    columns = [
        condition
        for name in axis.columns
        if name in vocabulary.columns
        and (condition := _beyond(name, way.sign, understood.tracks, vocabulary)) is not None
    ]
    strong: list[Filter | None] = [*columns, tags, not_other]
    weak = joined("and", *columns) if columns else tags
    return strong, [weak, not_other]


def _beyond(
    column: str, sign: int, tracks: Sequence[str], vocabulary: CatalogVocabulary
) -> Filter | None:
    """Filter: a column is beyond the mean of the given tracks. Tracks may lack the column."""
    rows = vocabulary.table.rows(tracks, [column]).values()
    values = [row[column] for row in rows if row[column] is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    edge = mean + sign * STEP * abs(mean)
    return parse_filter(
        f"{column} {'>' if sign > 0 else '<'} {edge:.6g}", vocabulary.table.filterable
    )
