"""Searcher: search over a published build and the model that encoded it.

A searcher reads the live pointer when it is opened and stays on that build. If the build's files
are deleted, `search` continues on the live build. The model is the one stored with the embeddings.
It is loaded when a query first needs it; full-text queries do not. It is refused if its fingerprint
differs from the table's. `understand` parses a query, `retrievers` runs the look-ups, `ranking`
fuses the lists; this file calls them in order and builds the answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raymtr.audio import AudioError
from raymtr.duplicates.find import read_groups
from raymtr.embeddings.kept_model import load_kept_model
from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.errors import InputError
from raymtr.index.deadlines import LostTableError
from raymtr.index.publish import live_build
from raymtr.index.track_table import TrackTable
from raymtr.names import spoken_name
from raymtr.search.constraints import always, binds_to_tracks, tiers
from raymtr.search.cursor import FARTHEST, make_cursor, read_cursor
from raymtr.search.lexicon import Lexicon, load_lexicon
from raymtr.search.ranking import Candidate, Retrieved, cap_per_artist, diversify, fold_groups, fuse
from raymtr.search.request import SearchRequest, Sound, read_request
from raymtr.search.retrievers import QueryVector, retrieve, sentences_of
from raymtr.search.steering import directions_of, hits_along, sentences_beside
from raymtr.search.suggest import suggestions
from raymtr.search.understand import Understood, similar_artist, understand
from raymtr.search.vocabulary import CatalogVocabulary, vocabulary_of
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model, Side

RETRIEVER_THREADS = 8  # shared by all searches of one searcher; enough for two queries' retrievers
CANDIDATES = 100  # per retriever, for a page of 10
WORDS_ONLY = "this catalog has words only: search it by text with mode=keyword"
LEAST_SURE = 0.1  # score of the best hit if no part of the query was understood
HIT_COLUMNS = ("title", "artist", "artists", "album", "year", "duration", "tags", "uri")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A parsed request, and what a model has to encode before it can be answered."""

    request: SearchRequest
    understood: Understood
    sentences: list[str]  # for the text tower: texts to search by, both ends of each direction,
    reads: int  # (the number of texts to search by) then texts of sounds to avoid
    took_s: float

    @property
    def recording(self) -> Sound | None:
        """The recording for the audio tower."""
        return self.request.audio


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The unit vectors of a plan: text [N, D], one row per sentence, and the recording's [D]."""

    text: np.ndarray | Sequence[np.ndarray] = ()
    recording: np.ndarray | None = None
    took_s: float = 0.0
    notes: tuple[str, ...] = ()  # messages about the encoding


class Searcher:
    """Search over the live build of a workspace (its folder or URI)."""

    def __init__(self, workspace: str | Workspace) -> None:
        root = workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)
        self.workspace = root
        self.build = live_build(root)
        self.table = TrackTable(root.db, self.build)
        self._checked: set[Side] = set()  # checked sides of the model
        self._threads = ThreadPoolExecutor(RETRIEVER_THREADS, thread_name_prefix="retriever")

    def model(self, side: Side) -> Model:
        """The model that made the table's vectors, with that side checked.

        A search rarely needs both sides. Raises InputError if the table has no vectors. Raises
        UnusableError if the stored model has another fingerprint, or does not reproduce its golden
        vectors on this machine.
        """
        if side not in self._checked:
            self._model.check_golden([side])
            self._checked.add(side)
        return self._model

    @cached_property
    def _model(self) -> Model:
        made_by = self.build.made_by
        if made_by is None:
            raise InputError(WORDS_ONLY)
        folder = EmbeddingStore.of_model(self.workspace, made_by).model_folder
        return load_kept_model(folder, made_by, sides=())  # `model` checks the side it is asked for

    @cached_property
    def lexicon(self) -> Lexicon:
        """The lexicon, with the workspace's own entries before the packaged ones."""
        return load_lexicon(self.workspace.path("lexicon"))

    @property
    def vocabulary(self) -> CatalogVocabulary:
        """The vocabulary of this build's tracks."""
        return vocabulary_of(self.table, self.lexicon)

    @cached_property
    def _successor(self) -> Searcher:
        """A searcher of the current live build; this one stays unchanged for threads using it."""
        return Searcher(self.workspace)

    @cached_property
    def groups(self) -> dict[str, int]:
        """The group of each track that has duplicates, read at first use.

        Raises InputError if duplicates were never searched for.
        """
        groups = read_groups(self.workspace)
        if groups is None:
            raise InputError("no duplicates are known here yet; run `raymtr duplicates` first")
        return groups

    def search(self, text: str | None = None, **asked: Any) -> dict[str, Any]:
        """The best hits for a text, example tracks, a recording, or a combination of them.

        `similar_artist`: instead of a text, the name of an artist to find similar artists of;
        `like`, `unlike`: track ids, or `{"track_id", "weight"}`; `exclude`: terms that tags and
        captions of a hit must not have; `audio`: a path, the bytes of a file, or `(samples, rate)`;
        `where`: a filter such as `year > 1990 and tags has 'jazz'`; `mode`: auto, semantic, keyword
        or hybrid; `k`: 1 to 100; `per_artist`: maximum hits per artist; `diversity`: 0 to 1, how
        much hits should differ from one another; `fold_duplicates`: return only the best of the
        tracks that are one song, with the ids of the others; `cursor`: the `next_cursor` of an
        answer, to get the next page. Raises InputError on anything else.
        """
        try:
            plan = self.plan({"text": text, **asked})
            return self.answer(plan, self._encode(plan))
        except LostTableError:
            if live_build(self.workspace).table_version == self.build.table_version:
                raise
            return self._successor.search(text, **asked)

    def plan(self, asked: Mapping[str, Any]) -> Plan:
        """The first half of a search: validates and parses the request.

        What the plan needs encoded can be encoded anywhere, by the model with this build's
        fingerprint. `answer` does the rest.
        """
        started = time.perf_counter()
        request = read_request(asked, self.table)
        if request.audio is not None and self.build.made_by is None:
            raise InputError(WORDS_ONLY)
        understood = self._understand(request)
        reads = request.mode != "keyword" and self.build.rows["vectors"]
        to_read = sentences_of(understood) if reads else []
        return Plan(
            request=request,
            understood=understood,
            sentences=to_read + (sentences_beside(understood, self.lexicon) if reads else []),
            reads=len(to_read),
            took_s=time.perf_counter() - started,
        )

    def answer(self, plan: Plan, encoded: Encoded) -> dict[str, Any]:
        """The second half of a search, given the vectors of what the plan needs encoded."""
        started = time.perf_counter()
        request, k = plan.request, plan.request.k or 1
        mark, now_s = request.mark(self.build.table_version), time.time()
        first = read_cursor(request.cursor, mark=mark, now_s=now_s) if request.cursor else 0
        directions = self._directions(plan, encoded)
        # One hit more than the page shows whether there is a next page.
        candidates, searched = self._candidates(plan, directions, wanted=first + k + 1)
        hits = self._hits(plan, candidates[first : first + k], directions)
        last = first + k
        more = len(candidates) > last and last < FARTHEST
        ended = time.perf_counter()
        took = {
            "encode": encoded.took_s,
            "search": plan.took_s + searched - started,
            "rank": ended - searched,
        }
        took["total"] = sum(took.values())
        return {
            "query": self._echo(plan, len(candidates)),
            "hits": hits,
            "next_cursor": make_cursor(last, mark=mark, now_s=now_s) if more else None,
            "model": self.build.fingerprint,
            "table_version": self.build.table_version,
            "notes": list(encoded.notes),
            "took_ms": {stage: round(1e3 * seconds, 3) for stage, seconds in took.items()},
        }

    def rank(self, text: str | None = None, **asked: Any) -> list[tuple[str, float]]:
        """Ids and scores of all tracks that pass a filter, best first; arguments as for `search`.

        For evaluation: `k` has no limit here. Without `k` every matching track is returned.
        """
        k = asked.pop("k", None)
        plan = self.plan({"text": text, **asked, "k": 1})
        plan = replace(plan, request=plan.request.ranking(k))
        directions = self._directions(plan, self._encode(plan))
        candidates, _ = self._candidates(plan, directions, wanted=k or self.build.rows["tracks"])
        return [(candidate.track_id, candidate.score) for candidate in candidates[:k]]

    def _understand(self, request: SearchRequest) -> Understood:
        """Parses the text; outside mode auto it is a description. An artist name is not parsed."""
        if request.similar_artist:
            return similar_artist(request.similar_artist, self.table)
        if request.text and request.mode == "auto":
            return understand(request.text, self.table, self.lexicon)
        text = request.text or ""
        return Understood(kind="description", text=text, unsaid=text)

    def _echo(self, plan: Plan, found: int) -> dict[str, Any]:
        """The request, how its text was understood, and suggestions."""
        request, understood = plan.request, plan.understood
        given = [{"term": term, "words": term} for term in request.exclude]
        said = understood.echo()
        said["exclude"] = given + said["exclude"]
        if not found and understood.unsaid and not said["ignored"]:
            why = "no name, tag or caption of this catalog has these words"
            said["ignored"] = [{"words": understood.unsaid, "why": why}]
        advice = (
            suggestions(understood, request.where, self.vocabulary, found) if request.text else []
        )
        return request.echo() | said | {"suggestions": advice}

    def _encode(self, plan: Plan) -> Encoded:
        """Encodes what a plan needs with the model in this process, which is loaded only if needed.

        The time to load the model does not count as search time.
        """
        reads = self.model("text") if plan.sentences else None
        hears = self.model("audio") if plan.recording is not None else None
        started = time.perf_counter()
        text = reads.encode_text(plan.sentences) if reads else ()
        recording = None
        if hears and plan.recording is not None:
            try:
                recording = hears.encode_audio([plan.recording])[0]
            except AudioError as error:
                raise InputError(f"the recording to search by cannot be used: {error}") from error
        return Encoded(
            text=text,
            recording=recording,
            took_s=time.perf_counter() - started,
            notes=reads.unread(plan.sentences) if reads else (),
        )

    def _directions(self, plan: Plan, encoded: Encoded) -> list[QueryVector]:
        return directions_of(
            self.table,
            plan.request,
            plan.understood,
            self.lexicon,
            read=list(encoded.text),
            reads=plan.reads,
            recording=encoded.recording,
        )

    def _candidates(
        self, plan: Plan, directions: list[QueryVector], *, wanted: int
    ) -> tuple[list[Candidate], float]:
        """Fused candidates, best first, and the time when the last search ended.

        Reads further down the lists until enough candidates remain after exclusions and the artist
        cap. Candidates found earlier keep their place, so every page is cut from the same list.
        """
        request, everything = plan.request, self.build.rows["tracks"]
        understood = plan.understood
        k = request.k or everything
        block = max(CANDIDATES, 4 * k)  # number of candidates diversified at a time
        if request.diversity:
            wanted = -(-wanted // block) * block
        base = always(understood, request.where, self.table)
        found: dict[str, Candidate] = {}
        kept: list[Candidate] = []
        searched = time.perf_counter()
        for tier in tiers(understood, base, self.vocabulary):
            limit = min(everything, block)
            while True:
                retrieved = retrieve(
                    self.table,
                    replace(request, where=base),
                    understood,
                    directions,
                    limit=limit,
                    threads=self._threads,
                    tier=tier,
                )
                searched = time.perf_counter()
                self._add(retrieved, understood, found)
                kept = self._allowed(request, understood, list(found.values()))
                full = any(len(one.ranked) >= limit for one in retrieved)
                if len(kept) >= wanted or limit >= everything or not full:
                    break
                limit = min(everything, 4 * limit)
            if len(kept) >= wanted or (kept and binds_to_tracks(understood)):
                break
        if not request.diversity:
            return kept, searched
        vectors = self.table.vectors([candidate.track_id for candidate in kept])
        blocks = (kept[start : start + block] for start in range(0, len(kept), block))
        return [
            c for b in blocks for c in diversify(b, vectors, diversity=request.diversity)
        ], searched

    def _add(
        self, retrieved: Sequence[Retrieved], understood: Understood, found: dict[str, Candidate]
    ) -> None:
        """Appends the retrievers' candidates after earlier ones, with scores no higher than theirs.

        A score also reflects how much of the query was understood: a nonsense query does not score
        1.
        """
        sure = max(understood.known_share, LEAST_SURE)
        least = min((candidate.score for candidate in found.values()), default=1.0)
        for candidate in fuse(retrieved):
            if candidate.track_id not in found:
                score = candidate.score if candidate.sure else sure * candidate.score
                candidate.score = min(score, least)
                found[candidate.track_id] = candidate

    def _allowed(
        self, request: SearchRequest, understood: Understood, candidates: list[Candidate]
    ) -> list[Candidate]:
        """Removes the examples, excluded terms, duplicates and hits over the artist cap."""
        examples = {*request.like, *request.unlike}
        if understood.kind == "similar":
            examples |= {track for anchor in understood.anchors for track in anchor.tracks}
        kept = [c for c in candidates if c.track_id not in examples]
        terms = [spoken_name(term) for term in (*request.exclude, *understood.exclude)]
        if terms or request.per_artist:
            ids = [candidate.track_id for candidate in kept]
            rows = self.table.rows(ids, ["artist", "tags", "words"])
            kept = [c for c in kept if not _has_term(rows[c.track_id], terms)]
        if request.fold_duplicates:
            kept = fold_groups(kept, self.groups)
        if request.per_artist:
            most = request.per_artist
            kept = cap_per_artist(kept, lambda track_id: rows[track_id]["artist"], most)
        return kept

    def _hits(
        self, plan: Plan, candidates: Sequence[Candidate], directions: list[QueryVector]
    ) -> list[dict[str, Any]]:
        request, understood = plan.request, plan.understood
        ids = [candidate.track_id for candidate in candidates]
        rows = self.table.rows(ids, HIT_COLUMNS)
        segments = self._segments(candidates, directions)
        words = set(spoken_name(understood.text).split())
        wanted = {tag.value for slot in understood.include for tag in (*slot.tags, *slot.wider)}
        ways = hits_along(understood, ids, self.vocabulary)
        hits = []
        for candidate in candidates:
            row = rows[candidate.track_id]
            tags = [
                t for t in row["tags"] or () if t in wanted or set(spoken_name(t).split()) & words
            ]
            why = candidate.why + ([{"by": "tags", "matched": tags}] if tags else [])
            why = why + ways.get(candidate.track_id, [])
            hits.append(
                {"track_id": candidate.track_id}
                | {name: row[name] for name in HIT_COLUMNS}
                | {"score": round(candidate.score, 6)}
                | {"segment": segments.get(candidate.track_id), "why": why}
                | ({"duplicates": candidate.folded} if request.fold_duplicates else {})
            )
        return hits

    def _segments(
        self, candidates: Sequence[Candidate], directions: list[QueryVector]
    ) -> dict[str, dict[str, float]]:
        """For each track the window nearest to the query; for a sure hit, to the track itself."""
        ids = [candidate.track_id for candidate in candidates]
        windows = self.table.windows(ids)
        if not len(windows):
            return {}
        sure = {candidate.track_id for candidate in candidates if candidate.sure}
        own = self.table.vectors([i for i in ids if i in sure or not directions])
        vectors = matrix_of(windows["vector"]).astype(np.float32)
        best: dict[str, tuple[float, dict[str, float]]] = {}
        times = windows.select(["track_id", "start_s", "end_s"]).to_pylist()
        for row, vector in zip(times, vectors, strict=True):
            track_id = row.pop("track_id")
            query = own[track_id] if track_id in sure or not directions else directions[0].vector
            fit = float(vector @ query)
            if track_id not in best or fit > best[track_id][0]:
                best[track_id] = fit, row
        return {track_id: row for track_id, (_, row) in best.items()}


def _has_term(row: Mapping[str, Any], terms: Sequence[str]) -> bool:
    """Whether tags or captions contain one of the terms. "no vocals" does not contain vocals."""
    said = spoken_name(row["words"])
    return any(
        re.search(rf"(?<!\bno )(?<!\bwithout )\b{re.escape(term.removesuffix('s'))}s?\b", said)
        for term in terms
    )
