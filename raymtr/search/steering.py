"""Query vectors, and how far they move toward or away from something.

Examples have vectors of their own. The text tower encodes the rest: both ends of each direction
("calmer" is calm minus energetic), and unwanted things that have no tag.
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


def sentences_beside(understood: Understood, lexicon: Lexicon) -> list[str]:
    """The ends of each direction, then unwanted things that no tag matches."""
    ends = [
        text
        for way in _spoken_ways(understood, lexicon)
        for text in (lexicon.axes[way.axis].up_text, lexicon.axes[way.axis].down_text)
    ]
    return ends + [slot.term for slot in understood.excluded if not slot.tags and not slot.artist]


def _spoken_ways(understood: Understood, lexicon: Lexicon) -> list[Direction]:
    """The directions from anchors along axes that have sentences for a text tower."""
    ways = understood.directions if understood.anchors else ()
    return [way for way in ways if lexicon.axes[way.axis].up_text]


def directions_of(
    table: TrackTable,
    request: CheckedRequest,
    understood: Understood,
    lexicon: Lexicon,
    *,
    read: Sequence[np.ndarray],
    reads: int,
    recording: np.ndarray | None,
) -> list[QueryVector]:
    """The query vectors of examples, a recording and the text.

    `read` are the text tower's vectors: `reads` of the text, then those of `sentences_beside`.
    """
    ways = _spoken_ways(understood, lexicon) if read else []
    directions = []
    pairs = read[reads:]
    for example in example_vectors(table, request, understood):
        for place, way in enumerate(ways):
            ends = pairs[2 * place], pairs[2 * place + 1]
            example = steer_toward(example, *(ends if way.sign > 0 else ends[::-1]))
        directions.append(QueryVector("sound", example))
    if recording is not None:
        vector = steer_away(table, request, recording)
        directions.append(QueryVector("sound", vector))
    for vector in read[:reads]:
        vector = steer_away(table, request, vector)
        for avoided in pairs[2 * len(ways) :]:
            vector = steer_toward(vector, vector, avoided)
        directions.append(QueryVector("text", vector))
    return directions


def hits_along(
    understood: Understood, ids: Sequence[str], vocabulary: CatalogVocabulary
) -> dict[str, list[Reason]]:
    """For each hit, its values on the columns of the requested directions."""
    if not understood.directions:
        return {}
    found: dict[str, list[Reason]] = {track_id: [] for track_id in ids}
    for way in understood.directions:
        columns = [c for c in vocabulary.lexicon.axes[way.axis].columns if c in vocabulary.columns]
        rows = vocabulary.table.rows(ids, columns)
        for track_id in ids:
            values = {name: rows[track_id][name] for name in columns}
            found[track_id].append({"by": "direction", "toward": way.words, "columns": values})
    return found
