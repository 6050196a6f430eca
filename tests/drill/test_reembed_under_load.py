"""Another model's vectors are made and published, and taken back, while people search.

Readers ask all the while: threads that share a searcher of the library, and clients of the real
endpoint. Not one of their queries may fail, each answer is of one model and one table, it was asked
with the vector of that very model, and it is as near to an exact scan of that table as before.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
import torch

from raymtr import storage
from raymtr.audio import decode, windows
from raymtr.index.build import Build
from raymtr.index.publish import kept_builds, live_build
from raymtr.index.track_table import TrackTable
from raymtr.model.pretrained import load_model
from raymtr.search.searcher import Searcher
from raymtr.specs import SearchSpec
from raymtr.workspace import Workspace
from serve.settings import ServeSettings

REPOSITORY = Path(__file__).resolve().parents[2]
TRACKS, LENGTH_S, RATE, K = 400, 3, 22_050, 10
TEXTS = [f"{mood} {sound}" for mood in ("slow", "loud", "sad") for sound in ("piano", "drums")]
QUERIES: list[dict[str, Any]] = [{"text": text} for text in TEXTS]
QUERIES += [{"like": [f"t{n:04}"]} for n in range(0, TRACKS, 57)]
THREADS, CLIENTS = 2, 2
PAUSE_S = {"library": 0.1, "endpoint": 0.4}  # below the endpoint's 600 requests a minute
STEADY_S = 8.0  # of load before and after each change
IN_A_ROW = 50  # answers whose mean recall must hold
TIE = 1e-5  # scores as near as this are one place
FOLLOWS_WITHIN_S = ServeSettings(workspace="").pointer_every_s + 8.0  # and a busy machine's time

pytestmark = pytest.mark.drill
Ask = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One answer a reader got, or the error in its place."""

    reader: str
    query: int
    began: float
    ended: float
    answer: dict[str, Any]
    error: str | None = None

    @property
    def table(self) -> str:
        return str(self.answer["table_version"])


class Load:
    """Readers asking one query after the other, until the `with` block ends."""

    def __init__(self, readers: list[tuple[str, Ask]]) -> None:
        self.answers: list[Answered] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._read, args=(number, *reader))
            for number, reader in enumerate(readers)
        ]

    def _read(self, number: int, reader: str, ask: Ask) -> None:
        at = number * len(QUERIES) // len(self._threads)
        while not self._stop.wait(PAUSE_S[reader]):
            at = (at + 1) % len(QUERIES)
            began, answer, error = time.time(), {}, None
            try:
                answer = ask(QUERIES[at] | {"k": K, "mode": "semantic"})
            except Exception as fault:  # noqa: BLE001 - whatever it is, a reader was failed
                error = f"{type(fault).__name__}: {fault}"
            self.answers.append(
                Answered(
                    reader=reader,
                    query=at,
                    began=began,
                    ended=time.time(),
                    answer=answer,
                    error=error,
                )
            )

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Follower:
    """The library's searcher of whatever is live, as a program with readers of its own has it."""

    def __init__(self, workspace: Workspace) -> None:
        self.workspace, self.searcher = workspace, Searcher(workspace)
        self._lock = threading.Lock()

    def __call__(self, asked: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            if live_build(self.workspace) != self.searcher.build:
                self.searcher = Searcher(self.workspace)
            searcher = self.searcher
            assert searcher.model  # loaded once, not by each thread
        return searcher.search(**asked)


@pytest.fixture(scope="module")
def chords(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Recordings of three notes and noise."""
    folder = tmp_path_factory.mktemp("chords")
    rng = np.random.default_rng(0)
    seconds = np.arange(LENGTH_S * RATE) / RATE
    for number in range(TRACKS):
        chord = sum(np.sin(2 * np.pi * note * seconds) for note in rng.uniform(60, 6_000, 3))
        samples = 0.2 * chord + rng.uniform(0.001, 0.3) * rng.standard_normal(len(seconds))
        soundfile.write(folder / f"{number}.wav", 0.3 * samples, RATE)
    return [str(folder / f"{number}.wav") for number in range(TRACKS)]


@pytest.fixture(scope="module")
def models(chords: list[str], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Folders of two models that hear differently."""
    from raymtr.model.model_folder import save_towers
    from raymtr.model.two_towers import build_towers
    from raymtr.recipes import tiny

    spec = tiny().towers
    sounds = [windows(decode(chord, spec.audio).samples, spec.audio)[1] for chord in chords[::5]]
    folders = []
    for seed in range(2):
        towers = build_towers(spec, seed=seed)
        spread_out(towers, torch.from_numpy(np.concatenate(sounds)))
        folders.append(str(tmp_path_factory.mktemp("model") / "model"))
        save_towers(towers, folders[-1])
    return folders


@torch.no_grad()
def spread_out(towers: Any, waves: torch.Tensor) -> None:
    """Give random towers what training would: norms and a centre that fit what they hear.

    Without it all vectors lie within float16 of one another, and no index can tell them apart.
    """
    for module in towers.audio_tower.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean over all that passes
    towers.train()
    towers.embed_audio(waves)
    towers.eval()
    centre = towers.audio_tower(towers.log_mel(waves)).mean(dim=0)
    towers.audio_tower.attn_pool.c_proj.bias -= centre


@pytest.fixture(scope="module")
def workspace(make_workspace: Callable, models: list[str], chords: list[str]) -> Workspace:
    """The chords, embedded and published with the first of the models."""
    made = make_workspace(
        [
            {"track_id": f"t{n:04}", "uri": uri, "tags": [TEXTS[n % len(TEXTS)]]}
            for n, uri in enumerate(chords)
        ]
    )
    raymtr(made, "embed", "--model", models[0])
    raymtr(made, "index")
    return made


@pytest.fixture
def endpoint(ray_cluster: None, workspace: Workspace) -> Iterator[httpx.Client]:
    from ray import serve

    from jobs.serve import serve_endpoint

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    answer = serve_endpoint(workspace, port=port, layout="composed")
    with httpx.Client(base_url=answer["address"], timeout=60) as client:
        yield client
    serve.shutdown()


def raymtr(workspace: Workspace, verb: str, *words: str) -> dict[str, Any]:
    """A verb's answer, from a process of its own. Even a small table gets a vector index here."""
    command = [sys.executable, "-m", "jobs", verb, *words, "--workspace", workspace.root, "--json"]
    command += ["--recipe", "tiny", "--set", "search.exact_below=1"]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_new_model_comes_and_goes_unnoticed(
    workspace: Workspace,
    models: list[str],
    endpoint: httpx.Client,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ask_endpoint(asked: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = endpoint.post("/v1/search", json=asked).raise_for_status().json()
        return answer

    old = live_build(workspace)
    library = Follower(workspace)
    readers = [("library", library)] * THREADS + [("endpoint", ask_endpoint)] * CLIENTS
    with Load(readers) as load:
        time.sleep(STEADY_S)
        embedded = raymtr(workspace, "embed", "--model", models[1])
        raymtr(workspace, "index")
        moved = [pointer_moved(workspace)]
        new = live_build(workspace)
        time.sleep(FOLLOWS_WITHIN_S + STEADY_S)
        raymtr(workspace, "index", "--rollback")
        moved.append(pointer_moved(workspace))
        time.sleep(FOLLOWS_WITHIN_S + STEADY_S)

    assert (embedded["embedded"], embedded["failed"]) == (TRACKS, 0)
    assert new.fingerprint == embedded["fingerprint"] != old.fingerprint
    assert live_build(workspace) == old and kept_builds(workspace) == [old, new]
    assert old.index.kind == new.index.kind == "ivf_rq"
    assert [a.error for a in load.answers if a.error] == []
    pairs = Counter((a.answer["model"], a.table) for a in load.answers)
    assert set(pairs) == {(b.fingerprint, b.table_version) for b in (old, new)}
    lag = {reader: check_order(load.answers, reader, moved, old, new) for reader in PAUSE_S}
    recall = recall_in_order(workspace, load.answers)
    with capsys.disabled():
        sys.stdout.write(f"\n{report(load.answers, lag, recall, old, moved)}\n")
    assert recall.min() >= SearchSpec().target_recall


def check_order(
    answers: list[Answered], reader: str, moved: list[float], old: Build, new: Build
) -> float:
    """Old until the pointer moves, then new, then old; the longest that anybody lagged, s."""
    mine = [a for a in answers if a.reader == reader]
    there, back = moved
    within = FOLLOWS_WITHIN_S if reader == "endpoint" else 0.0
    lag = 0.0
    for a in mine:
        if a.table == new.table_version:
            assert a.ended >= there - 0.1, "an answer of the new table before it was live"
            assert a.began <= back + within, "the new table answers long after the rollback"
            lag = max(lag, a.began - back)
        else:
            assert a.began <= there + within or a.ended >= back - 0.1, "the old table answers on"
            lag = max(lag, a.began - there if a.began < back else 0.0)
    counts = Counter(a.table for a in mine)
    assert min(counts[build.table_version] for build in (old, new)) > 20
    return lag


def recall_in_order(workspace: Workspace, answers: list[Answered]) -> np.ndarray:
    """Mean recall@K of every IN_A_ROW answers in a row, by the time they came: [answers - 49]."""
    builds = {build.table_version: build for build in kept_builds(workspace)}

    @cache
    def truth(table: str) -> tuple[dict[str, int], np.ndarray]:
        """Of a table: the row of each track, and the score of each track for each query [Q, N]."""
        build = builds[table]
        ids, matrix = TrackTable(workspace.db, build).all_vectors()
        model = load_model(f"{workspace.embeddings(build.fingerprint)}/model")
        texts = model.encode_text(TEXTS)
        liked = [ids.index(query["like"][0]) for query in QUERIES if "like" in query]
        scores = np.concatenate([texts, matrix[liked]]) @ matrix.T
        scores[np.arange(len(liked)) + len(TEXTS), liked] = -np.inf  # no answer to itself
        return {track_id: row for row, track_id in enumerate(ids)}, scores

    recalls = []
    for a in sorted(answers, key=lambda a: a.ended):
        rows, scores = truth(a.table)
        least = np.sort(scores[a.query])[-K] - TIE
        hits = {hit["track_id"] for hit in a.answer["hits"]}
        recalls.append(sum(scores[a.query][rows[i]] >= least for i in hits) / K)
    return np.convolve(recalls, np.full(IN_A_ROW, 1 / IN_A_ROW), mode="valid")


def report(
    answers: list[Answered],
    lag: dict[str, float],
    recall: np.ndarray,
    old: Build,
    moved: list[float],
) -> str:
    """The counts in words."""
    lines = [f"{len(answers)} answers, none failed"]
    for reader, late in lag.items():
        mine = [a for a in answers if a.reader == reader]
        ms = 1e3 * np.array([a.ended - a.began for a in mine])
        of_old = sum(a.table == old.table_version for a in mine)
        worst = mine[int(ms.argmax())].ended - moved[0]
        lines.append(
            f"{reader}: {of_old} of the old table, {len(mine) - of_old} of the new; the other "
            f"table at most {late:.1f} s after the pointer moved; p50 {np.median(ms):.0f}, p99 "
            f"{np.quantile(ms, 0.99):.0f}, longest {ms.max():.0f} ms, which ended {worst:+.0f} s "
            "from the first move"
        )
    lines.append(f"recall@{K} of any {IN_A_ROW} in a row: {recall.min():.3f} or more")
    return "\n".join(lines)


def pointer_moved(workspace: Workspace) -> float:
    """When the live pointer was last written, seconds since 1970."""
    return storage.modified_s(workspace.live_pointer)
