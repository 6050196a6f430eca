"""TREC's run and qrels lines, so that every figure can be recomputed with other tools.

trec_eval sorts a run by its score column and ignores the rank. So the score written here counts
down from the number of hits, and any ranking is recomputed in its own order. Of the figures,
`ndcg_cut` equals ours; `success` is our recall (any relevant track among the first k).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from raymtr.errors import InputError

DEPTH = 1000  # hits of a ranking in a run file, as at TREC


def qrels_lines(right: Mapping[str, Mapping[str, int]]) -> list[str]:
    """`query_id 0 track_id grade`, one line per relevant track."""
    return [
        f"{query_id} 0 {track_id} {grade}"
        for query_id, answers in right.items()
        for track_id, grade in answers.items()
    ]


def run_lines(run: Mapping[str, Sequence[str]], *, tag: str) -> Iterator[str]:
    """`query_id Q0 track_id rank score tag` of ranked lists, best first, ranks from 1."""
    for query_id, ranked in run.items():
        kept = ranked[:DEPTH]
        for rank, track_id in enumerate(kept, start=1):
            yield f"{query_id} Q0 {track_id} {rank} {len(kept) + 1 - rank} {tag}"


def parse_qrel(line: str, where: str) -> tuple[str, str, int]:
    """Query, track and grade of one qrels line. Raises InputError that names the location."""
    fields = line.split()
    try:
        query_id, _, track_id, grade = fields
        number = int(grade)
    except ValueError as error:
        raise InputError(
            f"{where}: expected `query_id 0 track_id grade`, got {line[:60]!r}"
        ) from error
    if number < 0:
        raise InputError(f"{where}: a grade is 0 (wrong) or more, got {number}")
    return query_id, track_id, number


def parse_run(lines: Iterable[str], where: str) -> dict[str, list[str]]:
    """Query -> its tracks by score, best first; ties as trec_eval has them, the greater id first.

    Raises InputError that names the line of a malformed one, or of a track ranked twice.
    """
    scored: dict[str, dict[str, float]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            query_id, _, track_id, _, score, _ = line.split()
            value = float(score)
        except ValueError as error:
            raise InputError(
                f"{where}:{number}: expected `query_id Q0 track_id rank score tag`, "
                f"got {line[:60]!r}"
            ) from error
        scores = scored.setdefault(query_id, {})
        if track_id in scores:
            raise InputError(f"{where}:{number}: query {query_id!r} ranks {track_id!r} twice")
        scores[track_id] = value
    return {
        query_id: sorted(scores, key=lambda track: (scores[track], track), reverse=True)
        for query_id, scores in scored.items()
    }
