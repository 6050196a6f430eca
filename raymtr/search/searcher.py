"""Searcher: search over a published build and the model that encoded it.

A searcher reads the live pointer when it is opened and stays on that build. If the build's files
are deleted, `search` continues on the live build. The model is the one stored with the embeddings.
It is loaded when a query first needs it; full-text queries do not. A model with another fingerprint
than the table's is an error. `understand` parses a query, `candidates` finds and ranks tracks; this
file calls them in order and builds the answer.
"""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

from raymtr.audio import AudioError, Sound
from raymtr.duplicates.find import read_groups
from raymtr.embeddings.kept_model import load_kept_side
from raymtr.embeddings.store import EmbeddingStore
from raymtr.errors import InputError
from raymtr.index.deadlines import LostTableError
from raymtr.index.publish import live_build
from raymtr.index.sharded_table import ShardLostError, open_table
from raymtr.index.track_table import TrackTable
from raymtr.search.answer_parts import Mode
from raymtr.search.candidates import CandidateSearch
from raymtr.search.contract import Example, Rerank, SearchAnswer, SearchRequest
from raymtr.search.cursor import FARTHEST, make_cursor, read_cursor
from raymtr.search.lexicon import Lexicon, load_lexicon
from raymtr.search.plan import Encoded, Plan, stage_times
from raymtr.search.present import hits_of, query_of
from raymtr.search.ranking import Candidate
from raymtr.search.request import CheckedRequest, check_request
from raymtr.search.rerank import Matcher, Matchers, rerank
from raymtr.search.retrievers import QueryVector, sentences_of
from raymtr.search.steering import directions_of, steering_sentences
from raymtr.search.understand import Understood, similar_artist, understand
from raymtr.search.vocabulary import CatalogVocabulary, vocabulary_of
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model, Side

T = TypeVar("T")
RETRIEVER_THREADS = 8  # shared by all searches of one searcher; enough for two queries' retrievers
WORDS_ONLY = "this catalog has words only, no vectors: search it by text with mode=keyword"


class Searcher:
    """Search over the live build of a workspace (its folder or URI)."""

    def __init__(
        self,
        workspace: str | Workspace,
        table: TrackTable | None = None,
        *,
        matchers: Matchers | None = None,
    ) -> None:
        """With `table`, searches read that table, whose shards may be in other processes.

        `matchers` re-rank; without them, runs are loaded into this process.
        """
        root = workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)
        self.workspace = root
        self.table = table or open_table(root.db, live_build(root))
        self.build = self.table.build
        self._models: dict[Side, Model] = {}  # loaded and checked, by tower
        self._matchers = matchers or functools.cache(functools.partial(_load_matcher, root))
        self._loading = Lock()
        self._threads = ThreadPoolExecutor(RETRIEVER_THREADS, thread_name_prefix="retriever")

    def model(self, side: Side) -> Model:
        """The model that computed the table's vectors, with the tower of `side` checked.

        A search rarely needs both towers. Raises InputError if the table has no vectors. Raises
        UnusableError if the stored model has another fingerprint, or does not reproduce its golden
        vectors on this machine.
        """
        if side not in self._models:
            made_by = self.build.made_by
            if made_by is None:
                raise InputError(WORDS_ONLY)
            folder = EmbeddingStore.of_model(self.workspace, made_by).model_folder
            self._models[side] = load_kept_side(folder, made_by, side)
        return self._models[side]

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
            raise InputError("this workspace has no duplicate groups; run `raymtr duplicates`")
        return groups

    def search(
        self,
        text: str | None = None,
        *,
        like: Sequence[str | Mapping[str, str | float] | Example] | None = None,
        unlike: Sequence[str | Mapping[str, str | float] | Example] | None = None,
        exclude: Sequence[str] | None = None,
        where: str | None = None,
        mode: Mode | None = None,
        k: int = 10,
        per_artist: int | None = None,
        diversity: float | None = None,
        fold_duplicates: bool | None = None,
        rerank: Rerank | Mapping[str, str | float] | None = None,
        cursor: str | None = None,
        audio: Sound | None = None,
        similar_artist: str | None = None,
    ) -> SearchAnswer:
        """The best hits for a text, example tracks, a recording, or a combination of them.

        `like`, `unlike`: track ids, or `{"track_id", "weight"}`; `exclude`: terms that tags and
        captions of a hit must not have; `where`: a filter such as `year > 1990 and tags has
        'jazz'`; `mode`: auto, semantic, keyword or hybrid; `k`: 1 to 100; `per_artist`: maximum
        hits per artist; `diversity`: 0 to 1, how much hits should differ from one another;
        `fold_duplicates`: return only the best of the tracks that are one song, with the ids of
        the others; `rerank`: `{"depth"}`, maybe with `run` and `mix`: the matching head of a MuLaP
        run looks at that many hits again; `cursor`: the `next_cursor` of an answer, to get the next
        page; `audio`: a path, a URI, the bytes of a file, or `(samples, rate)`; `similar_artist`:
        instead of a text, the name of an artist to find similar artists of. Raises InputError on
        anything else.
        """
        arguments = locals()  # the parameters of this method, by name
        return self.find(SearchRequest.read({k: v for k, v in arguments.items() if k != "self"}))

    def find(self, request: SearchRequest) -> SearchAnswer:
        """The answer to a request. Raises InputError if the tables have no such track or column."""

        def answer(here: Searcher) -> SearchAnswer:
            plan = here.plan(request)
            return here.answer(plan, here._encode(plan))

        try:
            return self._on_present_shards(answer)
        except LostTableError:
            if live_build(self.workspace).table_version == self.build.table_version:
                raise
            return self._successor.find(request)

    def present(self, lost: Collection[int] = ()) -> Searcher:
        """This searcher without the table shards in `lost`, or that do not answer now.

        Raises UnusableError if none answers.
        """
        table = self.table.present(lost)
        if table is self.table:
            return self
        here = copy.copy(self)
        here.table = table
        return here

    def _on_present_shards(self, look_up: Callable[[Searcher], T]) -> T:
        """The result of `look_up` on the table shards that answer all of its reads."""
        lost: set[int] = set()
        while True:  # each repetition has fewer shards
            try:
                return look_up(self.present(lost))
            except ShardLostError as error:
                lost |= error.shards

    def plan(self, request: SearchRequest) -> Plan:
        """The first half of a search: checks the request and parses its text.

        Any process can encode the plan's inputs, with the model of this build's fingerprint.
        `answer` is the second half.
        """
        started = time.perf_counter()
        checked = check_request(request, self.table)
        if request.audio is not None and self.build.made_by is None:
            raise InputError(WORDS_ONLY)
        understood = self._understand(checked)
        queries: list[str] = []
        steering: list[str] = []
        if checked.mode != "keyword" and self.build.rows["vectors"]:
            queries = sentences_of(understood)
            steering = steering_sentences(understood, self.lexicon)
        return Plan(
            request=checked,
            understood=understood,
            sentences=queries + steering,
            query_count=len(queries),
            took_s=time.perf_counter() - started,
        )

    def answer(self, plan: Plan, encoded: Encoded) -> SearchAnswer:
        """The second half of a search, given the vectors of the plan's inputs."""
        started = time.perf_counter()
        request, k = plan.request, plan.request.k or 1
        mark, now_s = request.original.mark(self.build.table_version), time.time()
        cursor = request.original.cursor
        first = read_cursor(cursor, mark=mark, now_s=now_s) if cursor else 0
        directions = self._directions(plan, encoded)
        options = request.original.rerank
        depth = options.depth if options else 0
        # One hit more than the page shows whether there is a next page.
        candidates, searched = self._search(plan, directions).best(max(first + k + 1, depth))
        notes, rerank_s = [*self._missing_note(), *encoded.notes], None
        if options:
            candidates, rerank_notes, rerank_s = self._rerank(plan, options, candidates)
            notes += rerank_notes
        shown = candidates[first : first + k]
        folds = bool(request.original.fold_duplicates)
        hits = hits_of(shown, plan.understood, directions, self.vocabulary, folds=folds)
        last = first + k
        more = len(candidates) > last and last < FARTHEST
        ended = time.perf_counter()
        return {
            "query": query_of(request, plan.understood, self.vocabulary, candidates),
            "hits": hits,
            "next_cursor": make_cursor(last, mark=mark, now_s=now_s) if more else None,
            "model": self.build.fingerprint,
            "table_version": self.build.table_version,
            "partial": bool(self.table.missing),
            "notes": notes,
            "took_ms": stage_times(
                encoded.took_s, plan.took_s + searched - started, ended - searched, rerank_s
            ),
        }

    def _missing_note(self) -> list[str]:
        count, missing = len(self.build.shards), self.table.missing
        note = f"{len(missing)} of {count} table shards did not answer; their tracks are left out"
        return [note] if missing else []

    def _rerank(
        self, plan: Plan, options: Rerank, candidates: list[Candidate]
    ) -> tuple[list[Candidate], tuple[str, ...], float | None]:
        """The candidates re-ranked, notes, and the seconds it took without loading the run.

        The time is None if the order is still that of the first stage.

        Raises InputError if the search has no text, or the workspace has no MuLaP run with stored
        features.
        """
        if not plan.request.original.text:
            raise InputError("rerank needs a text, and this search has none")
        sentence = plan.sentences[0] if plan.query_count else plan.request.original.text
        matcher = self._matcher(options.run)
        started = time.perf_counter()
        found = rerank(candidates, sentence, matcher, depth=options.depth, mix=options.mix)
        took_s = time.perf_counter() - started if found.done else None
        return found.candidates, found.notes, took_s

    def _matcher(self, run: str | None) -> Matcher:
        """The matching head of a run (None: the newest one)."""
        from raymtr.mulap.matcher import newest_run

        with self._loading:
            return self._matchers(run or newest_run(self.workspace))

    def rank(
        self, text: str | None = None, *, k: int | None = None, **terms: object
    ) -> list[tuple[str, float]]:
        """Ids and scores of all tracks that pass a filter, best first; arguments as for `search`.

        For evaluation: `k` has no upper limit. Without `k` every matching track is returned.
        """
        plan = self.plan(SearchRequest.read({"text": text, **terms}))
        return self._ranked(plan, self._encode(plan), k)

    def rank_texts(
        self, texts: Sequence[str], *, where: str | None = None
    ) -> Iterator[list[tuple[str, float]]]:
        """The list of `rank` for each text. The texts are encoded together, in batches."""
        plans = [self.plan(SearchRequest.read({"text": text, "where": where})) for text in texts]
        sentences = [sentence for plan in plans for sentence in plan.sentences]
        vectors = iter(self.model("text").encode_text(sentences) if sentences else ())
        for plan in plans:
            text = list(islice(vectors, len(plan.sentences)))
            yield self._ranked(plan, Encoded(text=text), None)

    def _ranked(self, plan: Plan, encoded: Encoded, k: int | None) -> list[tuple[str, float]]:
        plan = replace(plan, request=plan.request.with_k(k))
        search = self._search(plan, self._directions(plan, encoded))
        candidates, _ = search.best(k or self.build.rows["tracks"])
        return [(candidate.track_id, candidate.score) for candidate in candidates[:k]]

    def _understand(self, request: CheckedRequest) -> Understood:
        """The parsed text; in modes other than auto a description. `similar_artist` is a name."""
        if request.original.similar_artist:
            return similar_artist(request.original.similar_artist, self.table)
        text = request.original.text or ""
        if text and request.mode == "auto":
            return understand(text, self.table, self.lexicon)
        return Understood(kind="description", text=text, unmatched=text)

    def _encode(self, plan: Plan) -> Encoded:
        """Encodes a plan's inputs with the model in this process, which is loaded only if needed.

        The time to load the model does not count as search time.
        """
        text_model = self.model("text") if plan.sentences else None
        audio_model = self.model("audio") if plan.recording is not None else None
        started = time.perf_counter()
        text = text_model.encode_text(plan.sentences) if text_model else ()
        recording = None
        if audio_model and plan.recording is not None:
            try:
                recording = audio_model.encode_audio([plan.recording])[0]
            except AudioError as error:
                raise InputError(f"the recording to search by cannot be used: {error}") from error
        return Encoded(
            text=text,
            recording=recording,
            took_s=time.perf_counter() - started,
            notes=text_model.unread(plan.sentences) if text_model else (),
        )

    def _search(self, plan: Plan, directions: list[QueryVector]) -> CandidateSearch:
        return CandidateSearch(
            table=self.table,
            request=plan.request,
            understood=plan.understood,
            directions=directions,
            vocabulary=self.vocabulary,
            groups=lambda: self.groups,
            threads=self._threads,
        )

    def _directions(self, plan: Plan, encoded: Encoded) -> list[QueryVector]:
        return directions_of(
            self.table,
            plan.request,
            plan.understood,
            self.lexicon,
            text_vectors=list(encoded.text),
            query_count=plan.query_count,
            recording=encoded.recording,
        )


def _load_matcher(workspace: Workspace, run: str) -> Matcher:
    from raymtr.mulap.matcher import RunMatcher

    return RunMatcher(workspace, run)
