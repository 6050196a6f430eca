"""Searcher: a published build and the model that made it, behind one verb.

It follows the pointer when it is opened and stays on that build, until the build's files are gone:
then `search` goes on with the one that serves. The model is the one kept with the embeddings; it is
loaded when a query first needs it (words alone do not), and refused when its fingerprint is not the
table's. How a query is read stands in `understand`, what is looked up in `retrievers`, how lists
become one in `ranking`; here they are put in order and made into an answer.
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
from raymtr.embeddings.store import matrix_of
from raymtr.errors import InputError, UnusableError
from raymtr.index.deadlines import LostTableError
from raymtr.index.publish import live_build
from raymtr.index.track_table import TrackTable
from raymtr.names import spoken_name
from raymtr.search.constraints import always, binds_to_tracks, tiers
from raymtr.search.cursor import FARTHEST, make_cursor, read_cursor
from raymtr.search.lexicon import Lexicon, load_lexicon
from raymtr.search.ranking import Candidate, Retrieved, cap_per_artist, diversify, fold_groups, fuse
from raymtr.search.request import SearchRequest, Sound, read_request
from raymtr.search.retrievers import Direction, retrieve, sentences_of
from raymtr.search.steering import directions_of, hits_along, sentences_beside
from raymtr.search.suggest import suggestions
from raymtr.search.understand import Understood, similar_artist, understand
from raymtr.search.vocabulary import Vocabulary, vocabulary_of
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model, Side

RETRIEVER_THREADS = 8  # of all searches of one searcher; two queries' retrievers
CANDIDATES = 100  # of each retriever, for a page of 10
WORDS_ONLY = "this catalog has words only: search it by text with mode=keyword"
LEAST_SURE = 0.1  # score of the best hit where nothing of the question was understood
HIT_COLUMNS = ("title", "artist", "artists", "album", "year", "duration", "tags", "uri")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request as understood, and what a model has to encode before it can be answered."""

    request: SearchRequest
    understood: Understood
    sentences: list[str]  # for the text tower: to search by, then both ends of each direction,
    reads: int  # (so many to search by) then what is to be avoided by its sound
    took_s: float

    @property
    def recording(self) -> Sound | None:
        """For the audio tower."""
        return self.request.audio


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """The unit vectors of a plan: text [N, D], one row a sentence, and the recording's [D]."""

    text: np.ndarray | Sequence[np.ndarray] = ()
    recording: np.ndarray | None = None
    took_s: float = 0.0
    notes: tuple[str, ...] = ()  # what to tell of the encoding


class Searcher:
    """Search over the live build of a workspace (its folder or URI)."""

    def __init__(self, workspace: str | Workspace) -> None:
        root = workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)
        self.workspace = root
        self.build = live_build(root)
        self.table = TrackTable(root.db, self.build)
        self._checked: set[Side] = set()  # of the model
        self._threads = ThreadPoolExecutor(RETRIEVER_THREADS, thread_name_prefix="retriever")

    def model(self, side: Side) -> Model:
        """The model that made the table's vectors, that side of it checked.

        A search seldom needs both. Raises InputError where the table has no vectors, UnusableError
        where the model kept with it is another, or does not compute here what it computed there.
        """
        if side not in self._checked:
            self._model.check_golden([side])
            self._checked.add(side)
        return self._model

    @cached_property
    def _model(self) -> Model:
        from raymtr.model.pretrained import load_model

        made_by = self.build.made_by
        if made_by is None:
            raise InputError(WORDS_ONLY)
        folder = f"{self.workspace.embeddings(made_by.fingerprint)}/model"
        model = load_model(folder, precision=made_by.precision)
        if model.fingerprint != made_by.fingerprint:
            raise UnusableError(
                f"the table's vectors are of model {made_by.fingerprint}, {folder} holds "
                f"{model.fingerprint}: run `raymtr embed` and `raymtr index` with one model"
            )
        return model

    @cached_property
    def lexicon(self) -> Lexicon:
        """The words of the domain, the workspace's own before the packaged ones."""
        return load_lexicon(self.workspace.path("lexicon"))

    @property
    def vocabulary(self) -> Vocabulary:
        """What can be said of this build's tracks."""
        return vocabulary_of(self.table, self.lexicon)

    @cached_property
    def _successor(self) -> Searcher:
        """A searcher of what serves by now. This one stays as it is, for threads in the middle."""
        return Searcher(self.workspace)

    @cached_property
    def groups(self) -> dict[str, int]:
        """The group of each track that has duplicates, as found by the time they are first needed.

        Raises InputError where they were never looked for.
        """
        groups = read_groups(self.workspace)
        if groups is None:
            raise InputError("no duplicates are known here yet; run `raymtr duplicates` first")
        return groups

    def search(self, text: str | None = None, **asked: Any) -> dict[str, Any]:
        """The best hits for a text, for example tracks, for a recording, or for all together.

        `similar_artist`, in the place of a text: the name of an artist to find similar ones of;
        `like`, `unlike`: track ids, or `{"track_id", "weight"}`; `exclude`: terms that tags and
        captions of a hit must not have; `audio`: a path, the bytes of a file, or
        `(samples, rate)`; `where`: a filter such as `year > 1990 and tags has 'jazz'`; `mode`:
        auto, semantic, keyword or hybrid; `k`: 1 to 100; `per_artist`: most hits of one artist;
        `diversity`: 0 to 1, how much hits should differ from one another; `fold_duplicates`: of
        tracks that are one song only the best, which names the others; `cursor`: an answer's
        `next_cursor`, to read on. Raises InputError on anything else.
        """
        try:
            plan = self.plan({"text": text, **asked})
            return self.answer(plan, self._encode(plan))
        except LostTableError:
            if live_build(self.workspace).table_version == self.build.table_version:
                raise
            return self._successor.search(text, **asked)

    def plan(self, asked: Mapping[str, Any]) -> Plan:
        """The first half of a search: check and understand. What it needs encoded can be encoded
        anywhere, by the model of this build's fingerprint; then `answer` does the rest.
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
        # One more than the page tells whether there is a next one.
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
        """Ids and scores of all tracks that a filter lets through, best first; as `search`.

        For evaluation: `k` is free here, and without it nothing that matches is left out.
        """
        k = asked.pop("k", None)
        plan = self.plan({"text": text, **asked, "k": 1})
        plan = replace(plan, request=plan.request.ranking(k))
        directions = self._directions(plan, self._encode(plan))
        candidates, _ = self._candidates(plan, directions, wanted=k or self.build.rows["tracks"])
        return [(candidate.track_id, candidate.score) for candidate in candidates[:k]]

    def _understand(self, request: SearchRequest) -> Understood:
        """What the words mean; outside of auto they are a description. A name is not read."""
        if request.similar_artist:
            return similar_artist(request.similar_artist, self.table)
        if request.text and request.mode == "auto":
            return understand(request.text, self.table, self.lexicon)
        text = request.text or ""
        return Understood(kind="description", text=text, unsaid=text)

    def _echo(self, plan: Plan, found: int) -> dict[str, Any]:
        """The request and how its text was understood, with what might help."""
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
        """What a plan needs encoded, by the model in this process; loaded only where needed.

        Loading is not part of the time that a search took.
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

    def _directions(self, plan: Plan, encoded: Encoded) -> list[Direction]:
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
        self, plan: Plan, directions: list[Direction], *, wanted: int
    ) -> tuple[list[Candidate], float]:
        """Fused candidates, best first, and when the last search ended.

        Looks further down the lists until enough are left after exclusions and the artist cap.
        What was found before keeps its place, so that every page is cut from the same list.
        """
        request, everything = plan.request, self.build.rows["tracks"]
        understood = plan.understood
        k = request.k or everything
        block = max(CANDIDATES, 4 * k)  # what is made diverse at a time
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
        """The retrievers' candidates behind those found before, none scored above them.

        A score says how much of the question was understood, too: nonsense does not score 1.
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
        """Without the examples themselves, excluded terms, duplicates, too many of one artist."""
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
        self, plan: Plan, candidates: Sequence[Candidate], directions: list[Direction]
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
        self, candidates: Sequence[Candidate], directions: list[Direction]
    ) -> dict[str, dict[str, float]]:
        """Of each track the window nearest to the query; for a sure hit, to the track itself."""
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
    """Whether tags or captions have one of the terms; "no vocals" does not have vocals."""
    said = spoken_name(row["words"])
    return any(
        re.search(rf"(?<!\bno )(?<!\bwithout )\b{re.escape(term.removesuffix('s'))}s?\b", said)
        for term in terms
    )
