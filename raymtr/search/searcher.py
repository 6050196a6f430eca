"""Searcher: a published build and the model that made it, behind one verb.

It follows the pointer when it is opened and stays on that build. The model is the one kept with
the embeddings; it is loaded when a query first needs it (words alone do not), and refused when its
fingerprint is not the table's. How a query is read stands in `understand`, what is looked up in
`arms`, how lists become one in `ranking`; here they are put in order and made into an answer.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from raymtr.audio import AudioError
from raymtr.errors import InputError, UnusableError
from raymtr.index.names import spoken_name
from raymtr.index.publish import live_build
from raymtr.index.shards import matrix_of
from raymtr.index.track_table import TrackTable
from raymtr.search.arms import Direction, example_vector, run_arms, sentences_of, steer_away
from raymtr.search.ranking import Candidate, cap_per_artist, fuse
from raymtr.search.request import SearchRequest, Sound, read_request
from raymtr.search.understand import Understood, understand
from raymtr.workspace import Workspace

if TYPE_CHECKING:
    from raymtr.model.model import Model

CANDIDATES = 100  # of each arm, for a page of 10
HIT_COLUMNS = ("title", "artist", "album", "uri")


class Searcher:
    """Search over the live build of a workspace (its folder or URI)."""

    def __init__(self, workspace: str | Workspace) -> None:
        root = workspace if isinstance(workspace, Workspace) else Workspace.open(workspace)
        self.workspace = root
        self.build = live_build(root)
        self.table = TrackTable(root.db, self.build)

    @cached_property
    def model(self) -> Model:
        """The model that made the table's vectors.

        Raises InputError where the table has no vectors, UnusableError where the model kept with
        it is another, or does not compute here what it computed there.
        """
        from raymtr.model.pretrained import load_model

        made_by = self.build.made_by
        if made_by is None:
            raise InputError("this catalog has words only: search it by text with mode=keyword")
        folder = f"{self.workspace.embeddings(made_by.fingerprint)}/model"
        model = load_model(folder, precision=made_by.precision)
        if model.fingerprint != made_by.fingerprint:
            raise UnusableError(
                f"the table's vectors are of model {made_by.fingerprint}, {folder} holds "
                f"{model.fingerprint}: run `raymtr embed` and `raymtr index` with one model"
            )
        model.check_golden()
        return model

    def search(self, text: str | None = None, **asked: Any) -> dict[str, Any]:
        """The best hits for a text, for example tracks, for a recording, or for all together.

        `like`, `unlike`: track ids, or `{"track_id", "weight"}`; `exclude`: terms that tags and
        captions of a hit must not have; `audio`: a path, the bytes of a file, or
        `(samples, rate)`; `where`: a filter such as `year > 1990 and tags has 'jazz'`; `mode`:
        auto, semantic, keyword or hybrid; `k`: 1 to 100; `per_artist`: most hits of one artist.
        Raises InputError on anything else.
        """
        started = time.perf_counter()
        request = read_request({"text": text, **asked}, self.table)
        understood = self._understand(request)
        began = time.perf_counter()
        directions = self._directions(request, understood)
        encoded = time.perf_counter()
        candidates, searched = self._candidates(request, understood, directions)
        hits = self._hits(request, candidates[: request.k], directions)
        ended = time.perf_counter()
        return {
            "query": request.echo() | _echo(understood),
            "hits": hits,
            "next_cursor": None,
            "model": self.build.fingerprint,
            "table_version": self.build.name,
            "took_ms": {
                "encode": round(1e3 * (encoded - began), 3),
                "search": round(1e3 * (searched - encoded + began - started), 3),
                "rank": round(1e3 * (ended - searched), 3),
                "total": round(1e3 * (ended - started), 3),
            },
        }

    def rank(self, text: str | None = None, **asked: Any) -> list[tuple[str, float]]:
        """Ids and scores of all tracks that a filter lets through, best first; as `search`.

        For evaluation: `k` is free here, and without it nothing that matches is left out.
        """
        k = asked.pop("k", None)
        request = read_request({"text": text, **asked, "k": 1}, self.table).ranking(k)
        understood = self._understand(request)
        directions = self._directions(request, understood)
        candidates, _ = self._candidates(request, understood, directions)
        return [(candidate.track_id, candidate.score) for candidate in candidates[:k]]

    def _understand(self, request: SearchRequest) -> Understood:
        """What the words mean; outside of auto they are a description."""
        if request.text and request.mode == "auto":
            return understand(request.text, self.table)
        return Understood(kind="description", text=request.text or "")

    def _directions(self, request: SearchRequest, understood: Understood) -> list[Direction]:
        """The vectors to search along: of examples, of a recording, of the text."""
        directions = []
        example = example_vector(self.table, request, understood)
        if example is not None:
            directions.append(Direction("sound", example))
        if request.audio is not None:
            vector = self._encode_recording(request.audio)
            directions.append(Direction("sound", steer_away(self.table, request, vector)))
        sentences = sentences_of(understood)
        if sentences and request.mode != "keyword" and self.build.rows["vectors"]:
            for vector in self.model.encode_text(sentences):
                directions.append(Direction("text", steer_away(self.table, request, vector)))
        return directions

    def _encode_recording(self, recording: Sound) -> np.ndarray:
        try:
            vector: np.ndarray = self.model.encode_audio([recording])[0]
            return vector
        except AudioError as error:
            raise InputError(f"the recording to search by cannot be used: {error}") from error

    def _candidates(
        self, request: SearchRequest, understood: Understood, directions: list[Direction]
    ) -> tuple[list[Candidate], float]:
        """Fused candidates, best first, and when the last search ended.

        Looks further down the lists until enough are left after exclusions and the artist cap.
        """
        everything = self.build.rows["tracks"]
        wanted = request.k or everything
        limit = min(everything, max(CANDIDATES, 4 * wanted))
        while True:
            arms = run_arms(self.table, request, understood, directions, limit=limit)
            searched = time.perf_counter()
            kept = self._allowed(request, understood, fuse(arms))
            if len(kept) >= wanted or limit >= everything:
                return kept, searched
            limit = min(everything, 4 * limit)

    def _allowed(
        self, request: SearchRequest, understood: Understood, candidates: list[Candidate]
    ) -> list[Candidate]:
        """Without the examples themselves, excluded terms, and too many of one artist."""
        examples = {*request.like, *request.unlike}
        if understood.kind == "similar":
            examples |= set(understood.tracks)
        kept = [c for c in candidates if c.track_id not in examples]
        terms = [spoken_name(term) for term in (*request.exclude, *understood.exclude)]
        if terms or request.per_artist:
            ids = [candidate.track_id for candidate in kept]
            rows = self.table.rows(ids, ["artist", "tags", "words"])
            kept = [c for c in kept if not _has_term(rows[c.track_id], terms)]
            if request.per_artist:
                most = request.per_artist
                kept = cap_per_artist(kept, lambda track_id: rows[track_id]["artist"], most)
        return kept

    def _hits(
        self, request: SearchRequest, candidates: Sequence[Candidate], directions: list[Direction]
    ) -> list[dict[str, Any]]:
        ids = [candidate.track_id for candidate in candidates]
        rows = self.table.rows(ids, [*HIT_COLUMNS, "tags"])
        segments = self._segments(candidates, directions)
        words = set(spoken_name(request.text or "").split())
        hits = []
        for candidate in candidates:
            row = rows[candidate.track_id]
            tags = [t for t in row["tags"] or () if set(spoken_name(t).split()) & words]
            why = candidate.why + ([{"by": "tags", "matched": tags}] if tags else [])
            hits.append(
                {"track_id": candidate.track_id}
                | {name: row[name] for name in HIT_COLUMNS}
                | {"score": round(candidate.score, 6)}
                | {"segment": segments.get(candidate.track_id), "why": why}
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
        own = self.table.vectors(ids)
        sure = {candidate.track_id for candidate in candidates if candidate.sure}
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


def _echo(understood: Understood) -> dict[str, Any]:
    return {
        "kind": understood.kind,
        "title": understood.title,
        "artist": understood.artist,
        "description": understood.text or None,
        "understood_exclude": list(understood.exclude),
    }


def _has_term(row: Mapping[str, Any], terms: Sequence[str]) -> bool:
    """Whether tags or captions have one of the terms; "no vocals" does not have vocals."""
    said = spoken_name(row["words"])
    return any(
        re.search(rf"(?<!\bno )(?<!\bwithout )\b{re.escape(term.removesuffix('s'))}s?\b", said)
        for term in terms
    )
