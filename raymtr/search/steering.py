"""Query vectors, moved along directions and away from excluded terms.

Examples have vectors of their own. The text tower encodes the rest: both ends of each direction
("calmer" is calm minus energetic), and excluded terms that have no tag.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from raymtr.index.track_table import TrackTable
from raymtr.search.contract import Reason
from raymtr.search.lexicon import Lexicon
from raymtr.search.request import CheckedRequest
from raymtr.search.retrievers import QueryVector, example_vectors, steer_away, steer_toward
from raymtr.search.slots import Direction, Understood
from raymtr.search.vocabulary import CatalogVocabulary


def steering_sentences(understood: Understood, lexicon: Lexicon) -> list[str]:
    """The texts at both ends of each direction, then excluded terms without a tag."""
    ends = [
        text
        for direction in _encodable_directions(understood, lexicon)
        for text in (lexicon.axes[direction.axis].up_text, lexicon.axes[direction.axis].down_text)
    ]
    return ends + [slot.term for slot in understood.excluded if not slot.tags and not slot.artist]


def _encodable_directions(understood: Understood, lexicon: Lexicon) -> list[Direction]:
    """The directions from anchors along axes that have texts for the text tower."""
    axis_directions = understood.directions if understood.anchors else ()
    return [direction for direction in axis_directions if lexicon.axes[direction.axis].up_text]


def directions_of(
    table: TrackTable,
    request: CheckedRequest,
    understood: Understood,
    lexicon: Lexicon,
    *,
    text_vectors: Sequence[np.ndarray],
    query_count: int,
    recording: np.ndarray | None,
) -> list[QueryVector]:
    """The query vectors of examples, a recording and the text.

    `text_vectors` are unit vectors [D] of the text tower: `query_count` of the query's sentences,
    then those of `steering_sentences`.
    """
    axis_directions = _encodable_directions(understood, lexicon) if text_vectors else []
    directions = []
    pairs = text_vectors[query_count:]
    for example in example_vectors(table, request, understood):
        for position, direction in enumerate(axis_directions):
            ends = pairs[2 * position], pairs[2 * position + 1]
            example = steer_toward(example, *(ends if direction.sign > 0 else ends[::-1]))
        directions.append(QueryVector("sound", example))
    if recording is not None:
        vector = steer_away(table, request, recording)
        directions.append(QueryVector("sound", vector))
    for vector in text_vectors[:query_count]:
        vector = steer_away(table, request, vector)
        for avoided in pairs[2 * len(axis_directions) :]:
            vector = steer_toward(vector, vector, avoided)
        directions.append(QueryVector("text", vector))
    return directions


def reasons_along(
    understood: Understood, ids: Sequence[str], vocabulary: CatalogVocabulary
) -> dict[str, list[Reason]]:
    """For each hit, its evidence of the requested directions: columns, tags, a concept vector."""
    if not understood.directions:
        return {}
    found: dict[str, list[Reason]] = {track_id: [] for track_id in ids}
    encodable = _encodable_directions(understood, vocabulary.lexicon)
    has_vectors = vocabulary.table.build.rows["vectors"] > 0
    for direction in understood.directions:
        axis = vocabulary.lexicon.axes[direction.axis]
        columns = [c for c in axis.columns if c in vocabulary.columns]
        toward = {tag for key in axis.tags(direction.sign) for tag in vocabulary.tag(key)}
        rows = vocabulary.table.rows(ids, [*columns, *vocabulary.counts])
        for track_id in ids:
            row = rows[track_id]
            reason: Reason = {
                "by": "direction",
                "toward": direction.words,
                "columns": {name: row[name] for name in columns},
                "tags": sorted({t.value for t in toward if t.value in (row[t.column] or ())}),
            }
            if has_vectors and direction in encodable:
                reason["concept"] = " minus ".join(
                    (axis.up_text, axis.down_text)[:: direction.sign]
                )
            found[track_id].append(reason)
    return found
