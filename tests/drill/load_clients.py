"""The clients of the load drill: what they ask, and what they make of the answers.

Each has a key of its own. What breaks the contract is noted as it happens. Hits are noted beside
the version of the tables that gave them, to be compared with the exact ones when the load is over.
"""

from __future__ import annotations

import io
import random
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
import soundfile
from made_music import ARTISTS, SOUNDS

from raymtr.search.searcher import Searcher

PAGES, PAGE = 3, 7
MOODS = ["calm", "rainy", "late night", "sunny", "sad", "fast", "slow", "driving", "warm", "odd"]
Hits = tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Question:
    """A valid request: how it is sent, and how the library is asked the same."""

    kind: str
    asked: dict[str, Any]

    def send(self, http: httpx.Client, *, cursor: str | None = None) -> httpx.Response:
        """Over HTTP, in the form of its kind."""
        if self.kind == "upload":
            rest = {key: value for key, value in self.asked.items() if key != "audio"}
            files = {"file": ("a.wav", self.asked["audio"])}
            return http.post("/v1/search/audio", params=rest, files=files)
        if self.kind == "similar track":
            rest = {key: value for key, value in self.asked.items() if key != "like"}
            return http.get(f"/v1/tracks/{self.asked['like'][0]}/similar", params=rest)
        return http.post("/v1/search", json=self.asked | ({"cursor": cursor} if cursor else {}))

    def exact(self, searcher: Searcher) -> list[Hits]:
        """The right hits of each page."""
        answer = searcher.search(**self.asked)
        pages = [hits_of(answer)]
        while self.kind == "pages" and len(pages) < PAGES:
            answer = searcher.search(**self.asked, cursor=answer["next_cursor"])
            pages.append(hits_of(answer))
        return pages


def questions() -> list[Question]:
    """What the valid clients ask; enough different texts to keep the encoder busy."""
    texts = [f"{mood} {sound}" for mood in MOODS for sound in SOUNDS]
    filters = ["year > 1990", "tags has 'even' and year < 2000", "artist = 'Bo Wren'"]
    names = ["Tune 17", "ada lark", "Bo Wrenn", "cy swift", "Tune 5 by Cy Lark", "tune 333"]
    rng = np.random.default_rng(2)
    recordings = [wav(rng.uniform(-0.5, 0.5, 32_000)) for _ in range(3)]
    near = [{"like": ["t0003", "t0104"], "unlike": ["t0200"]}, {"like": ["t0011"]}]
    near += [{"like": [{"track_id": "t0042", "weight": 2}], "text": "calm", "diversity": 0.4}]
    return [
        *(Question("description", {"text": text}) for text in texts),
        *(
            Question("filter", {"text": text, "where": where, "k": 20})
            for text, where in zip(texts, filters * 8, strict=False)
        ),
        *(Question("exclude", {"text": text, "exclude": ["odd"]}) for text in texts[::8]),
        *(Question("name", {"text": name, "k": 5}) for name in names),
        *(Question("similar", {"text": f"similar to {a}", "per_artist": 2}) for a in ARTISTS),
        *(Question("similar", {"text": f"like Tune {n} but calmer"}) for n in range(20, 26)),
        *(Question("examples", asked | {"k": 12}) for asked in near),
        *(Question("similar track", {"like": [f"t{n:04}"], "k": 5}) for n in range(50, 56)),
        *(Question("pages", {"text": text, "k": PAGE}) for text in texts[::5]),
        *(Question("upload", {"audio": recording, "k": 5}) for recording in recordings),
    ]


def hits_of(answer: dict[str, Any]) -> Hits:
    """What is compared of an answer: which tracks, how they are called, where in them."""
    return tuple(
        (hit["track_id"], hit["title"], *(hit["segment"] or {}).values()) for hit in answer["hits"]
    )


def wav(samples: np.ndarray) -> bytes:
    """A WAV file at 16 kHz."""
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="WAV")
    return file.getvalue()


QUESTIONS = questions()


@dataclass
class Book:
    """What all clients saw."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    hits: Counter[tuple[int, int, str, Hits]] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def note(self, who: str, answer: httpx.Response, *, may: set[int]) -> None:
        """Count an answer; a fault unless its status is among `may`, its Retry-After there."""
        code = "" if answer.status_code == 200 else answer.json().get("code", "")
        late = answer.status_code in (429, 503) and "retry-after" not in answer.headers
        with self.lock:
            self.counts[who.split()[0], f"{answer.status_code} {code}".strip()] += 1
            if answer.status_code not in may or late:
                said = f"{who}: {answer.status_code} {answer.text[:300]} {answer.headers}"
                self.faults.append(said)


class Client(ABC, threading.Thread):
    """Asks until the book is closed, with pauses about `pause_s` long."""

    def __init__(self, who: str, http: httpx.Client, book: Book, *, pause_s: float) -> None:
        super().__init__(name=who, daemon=True)
        self.who, self.http, self.book, self.pause_s = who, http, book, pause_s
        self.rng = random.Random(who)

    def run(self) -> None:
        """Ask, and pause, until it is over; a broken connection is a fault."""
        while not self.book.over.wait(self.rng.uniform(0.5, 1.5) * self.pause_s):
            try:
                self.ask()
            except (httpx.HTTPError, ValueError) as error:
                with self.book.lock:
                    self.book.faults.append(f"{self.who}: {error!r}")

    @abstractmethod
    def ask(self) -> None:
        """One request, or one after another that belong together."""


class Valid(Client):
    """Asks what can be answered."""

    may = frozenset({200, 503})
    pool: Sequence[int] = range(len(QUESTIONS))

    def ask(self) -> None:
        """A question at random, all its pages."""
        number = self.rng.choice(self.pool)
        question, cursor = QUESTIONS[number], None
        for page in range(PAGES if question.kind == "pages" else 1):
            answer = question.send(self.http, cursor=cursor)
            if cursor and answer.status_code == 422 and "no longer live" in answer.text:
                with self.book.lock:
                    self.book.counts[
                        self.who.split()[0], "422 the tables of the page before are gone"
                    ] += 1
                return
            self.book.note(self.who, answer, may=set(self.may))
            if answer.status_code != 200:
                return
            said = answer.json()
            cursor = said["next_cursor"]
            with self.book.lock:
                self.book.hits[number, page, said["table_version"], hits_of(said)] += 1


class Flood(Valid):
    """Asks as fast as it can, the short questions only; most of it is told to wait."""

    may = frozenset({200, 429, 503})
    pool = tuple(n for n, q in enumerate(QUESTIONS) if q.kind not in ("upload", "pages"))


class Garbage(Client):
    """Sends what is no request, each with the statuses it may get."""

    def ask(self) -> None:
        """One piece of garbage."""
        may, verb, path, sent = self.rng.choice(GARBAGE)
        answer = self.http.request(verb, path, **sent)
        self.book.note(self.who, answer, may={may, 503})


def _garbage() -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    for data in (b"", b"no music", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"ID3" + bytes(500), b"fLaC\0"):
        yield 422, "POST", "/v1/search/audio", {"files": {"file": ("a.mp3", data)}}
    long = wav(np.zeros(32_000))[:-20_000] + bytes(range(256)) * 200
    yield 422, "POST", "/v1/search/audio", {"files": {"file": ("a.flac", b"fLaC" + long[4:])}}
    for body in (
        {"texx": "a"},
        {"text": "a", "k": 101},
        {"text": " "},
        {"like": ["nobody"]},
        {"text": "a", "where": "year > 1990; drop table tracks"},
        {"text": "a", "cursor": "abc"},
        {"audio": {"data": "bm8gbXVzaWM="}},
    ):
        yield 422, "POST", "/v1/search", {"json": body}
    kind = {"content-type": "application/json"}
    yield 400, "POST", "/v1/search", {"content": b'{"text": ', "headers": kind}
    yield 401, "POST", "/v1/search", {"json": {"text": "a"}, "headers": {"authorization": "x"}}
    yield 404, "GET", "/v1/tracks/nobody", {}
    yield 405, "PUT", "/v1/search", {}
    yield 413, "POST", "/v1/embeddings", {"json": {"input": "a" * 300_000}}


GARBAGE = list(_garbage())
