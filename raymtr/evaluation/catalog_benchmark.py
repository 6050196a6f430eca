"""A benchmark from a catalog's own held-out tracks, with five kinds of query.

    kind             text (search)                   sentence (towers)         relevant
    caption          a held-out caption of its tags  the same                  that track
    tag              the tag                         the same                  tracks with it
    title            T, and T by A, alternating      music track T (by A)      tracks so named
    artist           A, and songs by A, alternating  music track by A          A's tracks
    similar_artist   similar to X                    similar with artist X     see below

The sentences are TTMR++'s (raymtr.text), which the towers were trained on. X is an artist of the
train split, so the towers know the name. Relevant are the pool's tracks whose artist lists X as
similar, or is listed by X. Grades are 0 or 1, because a list says who is similar but ranks in lists
of different lengths are not comparable (TTMR++ scores OLGA the same way).

No two queries have the same words. Queries that could not be built are counted in the benchmark's
notes, so a catalog without artists, titles or tags still has a benchmark with fewer kinds.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from raymtr.captions.writing.realiser import realise
from raymtr.errors import InputError
from raymtr.evaluation.benchmarks import Benchmark, Query
from raymtr.text import metadata_sentence, similar_artists_sentence
from raymtr.track import artist_key

REDRAWS = 50  # tries for a caption that no other track has
MOST_QUERIES = 500  # of one kind; more hardly narrow the interval

Row = dict[str, Any]


@dataclass(frozen=True)
class CandidateQuery:
    """A candidate query: (text, sentence) in order of preference, and the relevant track ids."""

    wordings: Iterable[tuple[str, str]]
    right: set[str]


def catalog_benchmark(
    tracks: pa.Table, *, seed: int, split: str = "test", pool: Sequence[str] | None = None
) -> Benchmark:
    """All kinds of query for the tracks of `split`, or for those whose ids are `pool`.

    `tracks` is the whole catalog, in track.SCHEMA's columns. The same catalog and seed give the
    same benchmark. Raises InputError where the pool is empty or gives no query.
    """
    columns = ["track_id", "title", "artist", "tags", "similar_artists", "split"]
    catalog: list[Row] = tracks.select(columns).sort_by("track_id").to_pylist()
    rows = _pool(catalog, split, pool)
    rng = np.random.default_rng(seed)
    draft = _Draft(len(rows))
    draft.add("caption", caption_questions(rows, rng), rng)
    draft.add("tag", tag_questions(rows), rng)
    draft.add("title", title_questions(rows), rng)
    draft.add("artist", artist_questions(rows), rng)
    draft.add("similar_artist", similar_artist_questions(rows, catalog), rng)
    if not draft.queries:
        raise InputError(
            f"no query can be built from {len(rows)} tracks of the catalog; "
            "that needs two or more that differ in tags, title or artist"
        )
    return Benchmark(
        pool=tuple(row["track_id"] for row in rows),
        queries=tuple(draft.queries),
        right=draft.right,
        notes=draft.notes(),
    )


def _pool(catalog: list[Row], split: str, pool: Sequence[str] | None) -> list[Row]:
    if pool is not None:
        wanted = set(pool)
        unknown = sorted(wanted - {row["track_id"] for row in catalog})
        if unknown:
            raise InputError(
                f"{len(unknown)} tracks of the pool are not in the catalog, among them "
                f"{', '.join(unknown[:3])}"
            )
        return [row for row in catalog if row["track_id"] in wanted]
    rows = [row for row in catalog if row["split"] == split]
    if not rows:
        seen = Counter(row["split"] or "no split" for row in catalog)
        counts = ", ".join(f"{count} in {name}" for name, count in sorted(seen.items()))
        raise InputError(f"no tracks in split {split!r}; seen: {counts or 'no tracks at all'}")
    return rows


def caption_questions(pool: Sequence[Row], rng: np.random.Generator) -> Iterator[CandidateQuery]:
    """A held-out caption of each track with tags, redrawn until its words are unique."""
    for row in pool:
        if row["tags"]:
            yield CandidateQuery(_captions(row["tags"], rng), {row["track_id"]})


def _captions(tags: Sequence[str], rng: np.random.Generator) -> Iterator[tuple[str, str]]:
    for _ in range(REDRAWS):
        caption = realise(tags, int(rng.integers(1 << 31)), held_out=True)
        if caption:
            yield caption.text, caption.text


def tag_questions(pool: Sequence[Row]) -> Iterator[CandidateQuery]:
    """Every tag on at least two tracks and on fewer than half; others do not discriminate."""
    right: dict[str, set[str]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for row in pool:
        for tag in row["tags"] or ():
            right[same_words(tag)].add(row["track_id"])
            spelling.setdefault(same_words(tag), tag.strip())
    for name, answers in sorted(right.items()):
        if name and 2 <= len(answers) < len(pool) / 2:
            yield CandidateQuery([(spelling[name], spelling[name])], answers)


def title_questions(pool: Sequence[Row]) -> Iterator[CandidateQuery]:
    """The title alone and `{title} by {artist}`, alternating, one query per song."""
    titled: dict[str, set[str]] = defaultdict(set)
    songs: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in pool:
        if same_words(row["title"]):
            titled[same_words(row["title"])].add(row["track_id"])
            songs[same_words(row["title"]), artist_key(row["artist"] or "")].append(row)
    for turn, ((name, artist_name), rows) in enumerate(songs.items()):
        title, artist = rows[0]["title"].strip(), rows[0]["artist"]
        if artist_name and turn % 2:
            text = f"{title} by {artist.strip()}"
            sentence = metadata_sentence(title, artist.strip(), None)
            yield CandidateQuery([(text, sentence)], _ids(rows))
        else:
            yield CandidateQuery([(title, metadata_sentence(title, None, None))], titled[name])


def artist_questions(pool: Sequence[Row]) -> Iterator[CandidateQuery]:
    """The artist's name and `songs by {name}`, alternating."""
    for turn, (artist, rows) in enumerate(_by_artist(pool).values()):
        wordings = [artist, f"songs by {artist}"]
        preferred = wordings if turn % 2 == 0 else wordings[::-1]
        sentence = metadata_sentence(None, artist, None)
        yield CandidateQuery([(text, sentence) for text in preferred], _ids(rows))


def similar_artist_questions(
    pool: Sequence[Row], catalog: Sequence[Row]
) -> Iterator[CandidateQuery]:
    """`similar to {X}` for train artists related to an artist of the pool by a similarity list."""
    present = _by_artist(pool)
    trained = _by_artist(row for row in catalog if row["split"] == "train")
    right: dict[str, set[str]] = defaultdict(set)
    for _, rows in present.values():
        for name in _similar(rows):
            right[name] |= _ids(rows)
    for key, (_, rows) in trained.items():
        for name in _similar(rows) & present.keys():
            right[key] |= _ids(present[name][1])
    for key, (artist, _) in trained.items():
        if right[key] and key not in present:
            yield CandidateQuery(
                [(f"similar to {artist}", similar_artists_sentence([artist]))], right[key]
            )


def _by_artist(rows: Iterable[Row]) -> dict[str, tuple[str, list[Row]]]:
    """Key -> (the name as first spelled, its tracks), sorted by key."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["artist"] and artist_key(row["artist"]):
            found[artist_key(row["artist"])].append(row)
    return {key: (tracks[0]["artist"].strip(), tracks) for key, tracks in sorted(found.items())}


def _ids(rows: Iterable[Row]) -> set[str]:
    return {row["track_id"] for row in rows}


def _similar(rows: Iterable[Row]) -> set[str]:
    """Keys of the artists that these tracks list as similar."""
    return {artist_key(name) for row in rows for name in row["similar_artists"] or ()}


def same_words(text: str | None) -> str:
    """Equal for texts that differ only in case and spaces; empty for none.

    Stricter than search's matching of names: C# minor must not count as C minor.
    """
    return " ".join(unicodedata.normalize("NFKC", text or "").casefold().split())


class _Draft:
    """The queries so far, no two with the same words, and a count of what was left out."""

    def __init__(self, pool_size: int) -> None:
        self.queries: list[Query] = []
        self.right: dict[str, dict[str, int]] = {}
        self._left_out: Counter[str] = Counter()
        self._absent: list[str] = []
        self._pool_size = pool_size
        self._taken: set[str] = set()

    def add(self, kind: str, questions: Iterable[CandidateQuery], rng: np.random.Generator) -> None:
        """Number the queries of one kind, at most MOST_QUERIES of them drawn at random."""
        chosen = list(questions)
        if not chosen:
            self._absent.append(kind)
        if len(chosen) > MOST_QUERIES:
            self._left_out[f"{kind} queries beyond {MOST_QUERIES}"] = len(chosen) - MOST_QUERIES
            chosen = [chosen[i] for i in sorted(rng.permutation(len(chosen))[:MOST_QUERIES])]
        count = 0
        for question in chosen:
            wording = self._unused(question)
            if len(question.right) == self._pool_size:
                self._left_out[f"{kind} queries that every track answers"] += 1
            elif wording is None:
                self._left_out[f"{kind} queries in the words of another"] += 1
            else:
                count += 1
                self._append(f"{kind}-{count:04d}", kind, wording, question.right)

    def notes(self) -> tuple[str, ...]:
        """Notes on what was left out."""
        absent = [f"no {kind} queries: the catalog has no words for them" for kind in self._absent]
        left_out = [f"left out {count} {reason}" for reason, count in self._left_out.items()]
        return (*absent, *left_out)

    def _unused(self, question: CandidateQuery) -> tuple[str, str] | None:
        return next((w for w in question.wordings if same_words(w[0]) not in self._taken), None)

    def _append(self, query_id: str, kind: str, wording: tuple[str, str], right: set[str]) -> None:
        text, sentence = wording
        self._taken.add(same_words(text))
        self.queries.append(Query(query_id=query_id, kind=kind, text=text, sentence=sentence))
        self.right[query_id] = dict.fromkeys(sorted(right), 1)
