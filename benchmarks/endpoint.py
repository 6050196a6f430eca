"""The cost of the HTTP path, compared with the same search called in process.

    python benchmarks/endpoint.py [--tracks 3000] [--requests 200] [--rounds 3] [--uploads 16]

Target, with HAProxy and Serve's settings as in `k8s/`: one client's p50 within 3 ms of encode +
search + rank in process for the fused layout, within 8 ms for the composed one; at 16 clients at
most 6 core-ms per request above the in-process path. Serve's default proxy, as in `raymtr serve`,
and a repeated query, which is answered from a cache, are measured too.

With `--uploads N` that many clients repeatedly send recordings of four minutes, while one client
sends text queries. Reported are the status and latency of each upload, and the p50 of text queries
with and without uploads.

Every query is a new text, sent in turn to the endpoint and to this process, which has a searcher
over the same tables. The endpoint is a separate process tree. Its CPU is counted there, including
Ray's daemons (their idle usage is printed too), and the clients' is not. Towers of the laptop
recipe with random weights, one thread; synthetic tracks with synthetic vectors.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import io
import itertools
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import psutil
import pyarrow as pa
import soundfile
import torch
import yaml

from jobs.build_index import build_index
from jobs.serve import SERVE_ENVIRONMENT
from raymtr import storage
from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef
from raymtr.model.model_folder import save_towers
from raymtr.model.pretrained import load_model
from raymtr.model.two_towers import build_towers
from raymtr.recipes import laptop
from raymtr.search.searcher import Searcher
from raymtr.track import check_tracks
from raymtr.vectors import unit
from raymtr.workspace import Workspace

TARGET_P50_MS = {"fused": 3.0, "composed": 8.0}
TARGET_CORE_MS, CLIENTS = 6.0, 16
REST_S = 5.0
UPLOADING_S = 20.0
KEY = "key of the benchmark"
REPOSITORY = Path(__file__).resolve().parents[1]
WORDS = [
    line.split()
    for line in (
        "calm rainy late sunny sad fast slow driving warm odd",
        "night morning street forest train summer winter ocean city kitchen",
        "piano guitar strings drums bass trumpet organ choir flute synthesizer",
        "ballad waltz jazz metal techno folk blues house march lullaby",
    )
]
SERVE = """
import json, ray, sys
from ray import serve
from jobs.cluster import start_ray
from serve.app import build_app
given = json.loads(sys.argv[1])
start_ray()
address = {"host": "127.0.0.1", "port": given.pop("port")}
serve.start(proxy_location="HeadOnly", http_options=address)
serve.run(build_app(given), name="raymtr", route_prefix="/")
print("up", flush=True)
sys.stdin.read()
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tracks", type=int, default=3_000)
    parser.add_argument("--requests", type=int, default=200, help="in each round of each way")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--uploads", type=int, default=0, help="clients that send recordings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    texts = new_texts()
    with tempfile.TemporaryDirectory(prefix="raymtr") as folder:
        workspace = make_workspace(Path(folder), arguments.tracks)
        searcher = Searcher(workspace)
        searcher.search("warm")
        for proxy, layout in itertools.product(("HAProxy", "default proxy"), TARGET_P50_MS):
            own = Path(tempfile.mkdtemp(prefix="e"))  # not in `folder`: socket paths must be short
            with endpoint(own, workspace, proxy=proxy, layout=layout) as served:
                measure(served, searcher, texts, arguments, (proxy, layout))
    return 0


def measure(
    served: Endpoint,
    searcher: Searcher,
    texts: Iterator[str],
    arguments: argparse.Namespace,
    names: tuple[str, str],
) -> None:
    """One proxy and layout: p50 of one client, core-ms at 16, a repeated query."""
    count, (proxy, layout) = arguments.requests, names
    ask = served.client()
    for _ in range(20):
        ask(next(texts))
    there, here, here_cpu = [], [], []
    for _ in range(arguments.rounds):
        sent = list(itertools.islice(texts, count))
        there += [timed(ask, text) for text in sent]
        began = time.process_time()
        here += [timed(searcher.search, text) for text in sent]
        here_cpu.append((time.process_time() - began) / count)
    repeated = [timed(ask, sent[0]) for _ in range(count)]
    rest = served.cpu_at_rest()
    many = [served.load(itertools.islice(texts, count)) for _ in range(arguments.rounds)]
    core_ms, rate = min(cpu for cpu, _ in many), max(rate for _, rate in many)
    above = 1e3 * (statistics.median(there) - statistics.median(here))
    extra = 1e3 * (core_ms - min(here_cpu))
    bars = proxy == "HAProxy"
    p50 = {name: f"{1e3 * statistics.median(s):.1f}" for name, s in (("", there), ("in", here))}
    print(f"{proxy}, {layout}: {len(there)} queries by one client, {count} a round by {CLIENTS}")
    tell(
        f"p50 {p50['']} ms, in process {p50['in']}; above it, ms",
        above,
        TARGET_P50_MS[layout],
        bars,
    )
    tell(
        f"core-ms per request above {1e3 * min(here_cpu):.1f} in process",
        extra,
        TARGET_CORE_MS,
        bars,
    )
    print(
        f"  {rate:.0f} requests/s at {CLIENTS} clients; at rest {1e3 * rest:.0f} core-ms per second"
    )
    print(f"  the same query again: p50 {1e3 * statistics.median(repeated):.1f} ms", flush=True)
    if arguments.uploads:
        measure_uploads(served, texts, arguments.uploads)


def measure_uploads(served: Endpoint, texts: Iterator[str], clients: int) -> None:
    """Sends more recordings than the endpoint accepts, for UPLOADING_S."""
    ask, data, over = served.client(), four_minutes(), threading.Event()
    before = [timed(ask, text) for text in itertools.islice(texts, 50)]
    told: list[tuple[str, float]] = []

    def send() -> None:
        while not over.is_set():
            began = time.perf_counter()
            told.append((served.upload(data), time.perf_counter() - began))
            over.wait(1)

    senders = [threading.Thread(target=send) for _ in range(clients)]
    for sender in senders:
        sender.start()
    beside, until = [], time.monotonic() + UPLOADING_S
    while time.monotonic() < until:
        beside.append(timed(ask, next(texts)))
    over.set()
    for sender in senders:
        sender.join()
    print(f"  {clients} clients send recordings of four minutes for {UPLOADING_S:.0f} s:")
    for status in sorted({status for status, _ in told}):
        took = sorted(seconds for one, seconds in told if one == status)
        p50 = took[len(took) // 2]
        print(f"    {len(took)} times {status}, p50 {p50:.2f} s, at most {took[-1]:.2f}")
    p50, p99 = 1e3 * np.quantile(beside, (0.5, 0.99))
    alone = 1e3 * statistics.median(before)
    print(f"    words: p50 {p50:.1f} ms, p99 {p99:.1f}; before, p50 {alone:.1f}", flush=True)


def four_minutes() -> bytes:
    """A recording as FLAC: 240 s of a tone and some noise at 44.1 kHz; 25 MB."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    tone = 0.3 * np.sin(np.arange(240 * 44_100) / 9)[:, None]
    soundfile.write(file, tone + rng.uniform(-0.01, 0.01, (len(tone), 2)), 44_100, format="FLAC")
    return file.getvalue()


def tell(what: str, value: float, target: float, has_bar: bool) -> None:
    bar = f", target at most {target:g}: {'ok' if value <= target else 'MISS'}" if has_bar else ""
    print(f"  {what}: {value:.2f}{bar}")


class Endpoint:
    """A running endpoint, and the resources of its process tree."""

    def __init__(self, root: subprocess.Popen[str], own: Path, port: int) -> None:
        self._root, self._own, self._port = root, str(own), port

    def client(self) -> Callable[[str], None]:
        """A function that searches for a text over a persistent connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}

        def ask(text: str) -> None:
            connection.request("POST", "/v1/search", json.dumps({"text": text}), headers)
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or len(json.loads(body)["hits"]) != 10:
                raise SystemExit(f"{answer.status} {body[:500]!r}")

        return ask

    def upload(self, data: bytes) -> str:
        """The status of an upload, and the code of its problem."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"authorization": f"Bearer {KEY}", "content-type": "audio/flac"}
        try:
            connection.request("POST", "/v1/search/audio", data, headers)
            answer = connection.getresponse()
            code = "" if answer.status == 200 else json.loads(answer.read()).get("code", "")
            return f"{answer.status} {code}".strip()
        except (BrokenPipeError, ConnectionResetError):
            return "closed before its answer"  # refused while it was being sent
        finally:
            connection.close()

    def load(self, texts: Iterator[str]) -> tuple[float, float]:
        """CPU seconds per request, and requests per second, with CLIENTS clients at once."""
        sent = list(texts)
        waiting, lock = iter(sent), threading.Lock()

        def work() -> None:
            ask = self.client()
            while True:
                with lock:
                    text = next(waiting, None)
                if text is None:
                    return
                ask(text)

        clients = [threading.Thread(target=work) for _ in range(CLIENTS)]
        began, cpu = time.monotonic(), self.cpu_s()
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        return (self.cpu_s() - cpu) / len(sent), len(sent) / (time.monotonic() - began)

    def cpu_at_rest(self) -> float:
        """CPU seconds per second without requests."""
        cpu = self.cpu_s()
        time.sleep(REST_S)
        return (self.cpu_s() - cpu) / REST_S

    def cpu_s(self) -> float:
        """CPU seconds so far of all its processes; HAProxy is identified by its folder argument."""
        root = psutil.Process(self._root.pid)
        tree = {process.pid: process for process in (root, *root.children(recursive=True))}
        for process in psutil.process_iter(["cmdline"]):
            if any(self._own in word for word in process.info["cmdline"] or ()):
                tree[process.pid] = process
        total = 0.0
        for process in tree.values():
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total


@contextmanager
def endpoint(own: Path, workspace: Workspace, *, proxy: str, layout: str) -> Iterator[Endpoint]:
    """The endpoint on a separate Ray cluster; HAProxy uses the folder `own`."""
    keys = own / "keys"
    keys.write_text(f"benchmark {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    port, metrics, stats, fallback = free_ports(4)
    environment = os.environ | (of_the_cluster() if proxy == "HAProxy" else SERVE_ENVIRONMENT)
    environment |= {
        "PYTHONPATH": str(REPOSITORY),
        "HF_HUB_OFFLINE": "1",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{own}/admin.sock",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{own}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(own),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{own}/server-state",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{own}/metrics.sock",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
    }
    given: dict[str, Any] = {"workspace": workspace.root, "layout": layout, "port": port}
    given |= {"api_keys": str(keys), "requests_per_minute": 10**6}
    given |= {"num_cpus": 0.1, "max_replicas": 1}
    log = own / "log"
    with log.open("w") as stderr:
        root = subprocess.Popen(
            [sys.executable, "-c", SERVE, json.dumps(given)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        if not any("up" in line for line in root.stdout or ()):
            raise SystemExit(f"the endpoint did not come up: {log.read_text()[-2_000:]}")
        served = Endpoint(root, own, port)
        until_ready(port)
        yield served
    finally:
        left = psutil.Process(root.pid).children(recursive=True)
        root.communicate("")  # it ends at the end of its standard input
        psutil.wait_procs(left, timeout=30)
        shutil.rmtree(own, ignore_errors=True)


def of_the_cluster() -> dict[str, str]:
    """The environment that `k8s/` sets in the endpoint's pods."""
    service = yaml.safe_load((REPOSITORY / "k8s/base/service.yaml").read_text(encoding="utf-8"))
    cluster = service["spec"]["rayClusterConfig"]
    [head] = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in head["env"]}


def until_ready(port: int) -> None:
    deadline = time.monotonic() + 120
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        if time.monotonic() > deadline:
            raise SystemExit("the endpoint does not get ready")
        time.sleep(0.5)


def make_workspace(folder: Path, count: int) -> Workspace:
    """`count` tracks in a published build, with the model that encodes its queries."""
    save_towers(build_towers(laptop().towers, seed=0), str(folder / "model"))
    model = load_model(str(folder / "model"))
    workspace = Workspace.open(str(folder / "workspace"), create=True)
    rng = np.random.default_rng(0)
    tracks, embedded = [], []
    for number in range(count):
        tags = [str(rng.choice(words)) for words in WORDS[2:]]
        track = {"track_id": f"t{number:06}", "uri": f"/t{number:06}.wav"}
        about = {"title": f"Tune {number}", "artist": f"Artist {number % 300}", "tags": tags}
        tracks.append(track | about | {"year": 1960 + number % 60})
        windows = unit(rng.standard_normal((3, model.spec.dim)))
        times = {"starts_s": [0.0, 10.0, 20.0], "ends_s": [10.0, 20.0, 30.0]}
        vectors = {"vector": unit(windows.mean(axis=0)), "windows": windows.reshape(-1)}
        embedded.append(track | times | vectors)
    catalog = check_tracks(pa.Table.from_pylist(tracks))
    storage.write_table(f"{workspace.tracks}/part-0.parquet", catalog)
    made_by = ModelRef(fingerprint=model.fingerprint, precision="fp32", dim=model.spec.dim)
    shards = EmbeddingStore(workspace.embeddings(model.fingerprint), made_by)
    shards.take()
    shards.commit(pa.Table.from_pylist(embedded, schema=EMBEDDED_SCHEMA))
    shards.release()
    shutil.copytree(folder / "model", shards.model_folder)
    build_index(workspace, laptop())
    return workspace


def new_texts() -> Iterator[str]:
    """Unique descriptions of four words, in a fixed random order."""
    texts = [" ".join(words) for words in itertools.product(*WORDS)]
    random.Random(0).shuffle(texts)
    yield from texts


def timed(run: Callable[[str], object], text: str) -> float:
    began = time.perf_counter()
    run(text)
    return time.perf_counter() - began


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


if __name__ == "__main__":
    raise SystemExit(main())
