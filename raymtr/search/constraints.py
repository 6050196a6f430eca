"""Turns slots into the filters of a search, strictest first.

Facets and exclusions always apply. If an exclusion is on a column, tracks that are known to meet it
come before those of unknown value. Includes are first required in full, then in a wider sense. If
the hits still do not fill a page, and no facet narrows the search, includes only affect the
ranking. Directions are conditions relative to the anchors: on columns if both have values, else on
tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from raymtr.index.conditions import Condition
from raymtr.index.filters import Filter, joined, parse_filter
from raymtr.index.track_table import TrackTable
from raymtr.search.facets import quoted
from raymtr.search.slots import Direction, Exclude, Tag, Understood
from raymtr.search.vocabulary import CatalogVocabulary

STEP = 0.03  # least distance of a column from the anchors' mean, as a share of the mean


def base_filter(understood: Understood, where: Filter | None, table: TrackTable) -> Filter | None:
    """The filter of all tiers: the request's, facets, exclusions, and the named tracks if bound."""
    parts: list[Filter] = [] if where is None else [where]
    parts += [parse_filter(slot.where, table.filterable) for slot in understood.filters]
    parts += [
        exclusion_filter(slot, table) for slot in understood.excluded if slot.tags or slot.artist
    ]
    if binds_to_tracks(understood):
        parts.append(Condition("track_id", "in", understood.tracks))
    return joined("and", *parts) if parts else None


def binds_to_tracks(understood: Understood) -> bool:
    """Whether hits are limited to the tracks of the named album, or of an artist with slots."""
    narrowed = understood.include or understood.filters or understood.excluded
    return understood.kind == "album" or (understood.kind == "artist" and bool(narrowed))


def filter_tiers(
    understood: Understood, base: Filter | None, vocabulary: CatalogVocabulary
) -> list[Filter | None]:
    """The filters to try in order, until there are enough hits."""
    direction_filters = [
        _direction_filters(direction, understood, vocabulary) for direction in understood.directions
    ]
    strict = [_any_tag(slot.tags) for slot in understood.include if slot.tags]
    wide = [_any_tag(slot.wider) for slot in understood.include if slot.wider]
    sound = [
        _any_tag((*slot.tags, *slot.wider))
        for slot in understood.include
        if slot.theme in ("genres", "instruments")
    ]
    some = [_any_tag([tag for slot in understood.include for tag in slot.wider])]
    all_evidence = [f for strong, _ in direction_filters for f in strong]
    any_evidence = [f for _, weak in direction_filters for f in weak]
    lists: list[list[Filter | None]] = [
        [*strict, *all_evidence],
        [*strict, *any_evidence],
        [*wide, *any_evidence],
    ]
    if not (understood.filters and all(slot.exact for slot in understood.include) and strict):
        lists += [[*sound, *any_evidence]] if sound else []
        lists += [[*some, *any_evidence], [*any_evidence], []]
    table = vocabulary.table
    known = [parse_filter(f.known, table.filterable) for f in understood.filters if f.known]
    found: list[Filter | None] = []
    for parts in [whole for each in lists for whole in ([*each, *known], each)]:
        kept = [part for part in (base, *parts) if part is not None]
        tier = joined("and", *kept) if kept else None
        if tier not in found:
            found.append(tier)
    return found


def exclusion_filter(slot: Exclude, table: TrackTable) -> Filter:
    """The filter for tracks without the exclusion's tags, or by another artist."""
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


def _any_tag(tags: Iterable[Tag]) -> Filter | None:
    conditions = [Condition(tag.column, "has", (tag.value,)) for tag in dict.fromkeys(tags)]
    return joined("or", *conditions) if conditions else None


def _direction_filters(
    direction: Direction, understood: Understood, vocabulary: CatalogVocabulary
) -> tuple[list[Filter | None], list[Filter | None]]:
    """A direction as two lists of filters: on columns and tags, and on columns or tags."""
    axis = vocabulary.lexicon.axes[direction.axis]
    tags = _any_tag([tag for key in axis.tags(direction.sign) for tag in vocabulary.tag(key)])
    other = [tag for key in axis.tags(-direction.sign) for tag in vocabulary.tag(key)]
    not_other = (
        exclusion_filter(Exclude(term="", words="", tags=tuple(other)), vocabulary.table)
        if other
        else None
    )
    columns = [
        condition
        for name in axis.columns
        if name in vocabulary.columns
        and (condition := _column_beyond_mean(name, direction.sign, understood.tracks, vocabulary))
        is not None
    ]
    strong: list[Filter | None] = [*columns, tags, not_other]
    weak = joined("and", *columns) if columns else tags
    return strong, [weak, not_other]


def _column_beyond_mean(
    column: str, sign: int, tracks: Sequence[str], vocabulary: CatalogVocabulary
) -> Filter | None:
    """The filter for a column beyond the mean of `tracks`; None if no track has a value."""
    rows = vocabulary.table.rows(tracks, [column]).values()
    values = [row[column] for row in rows if row[column] is not None]
    if not values:
        return None
    mean = sum(values) / len(values)
    edge = mean + sign * STEP * abs(mean)
    return parse_filter(
        f"{column} {'>' if sign > 0 else '<'} {edge:.6g}", vocabulary.table.filterable
    )
