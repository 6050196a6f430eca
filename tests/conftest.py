"""What several test folders share: one small Ray cluster, one small saved model, a made index.

Nothing here starts before a test asks for it. A test that starts Ray, or processes that do, carries
the marker `ray`: by the fixture `ray_cluster`, or by `pytestmark = pytest.mark.ray` in its file.
"""

from __future__ import annotations

import os

for _key, _value in {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # at Ray's own 15 a busy machine leaves its workers no time
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_key, _value)

import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Iterator  # noqa: E402
from pathlib import Path  # noqa: E402
from urllib.error import URLError  # noqa: E402
from urllib.request import urlopen  # noqa: E402

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pytest  # noqa: E402

from raymtr import storage  # noqa: E402
from raymtr.track import check_tracks  # noqa: E402
from raymtr.vectors import unit  # noqa: E402
from raymtr.workspace import Workspace  # noqa: E402

TEST_DATA = "RAYMTR_TEST_DATA"
WANTS_DATA = f"the large data is not here: {TEST_DATA} names its folder (tests/data/README.md)"


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What asks for the cluster is marked `ray`."""
    for item in items:
        if "ray_cluster" in getattr(item, "fixturenames", ()):
            item.add_marker("ray")


@pytest.fixture(autouse=True)
def ray_only_where_marked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test without the marker `ray` that starts Ray fails, so that `make check` stays quick."""
    ray = sys.modules.get("ray")
    running = ray is not None and ray.is_initialized()
    yield
    ray = sys.modules.get("ray")
    if not running and ray is not None and ray.is_initialized():
        assert request.node.get_closest_marker("ray"), "it starts Ray: mark it `ray`"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests wanted data that is not here."""
    skipped = terminalreporter.stats.get("skipped", ())
    wanting = [report for report in skipped if WANTS_DATA in str(report.longrepr)]
    if wanting:
        terminalreporter.write_line(f"{len(wanting)} tests skipped: {WANTS_DATA}")


@pytest.fixture(scope="session")
def large_data() -> Path:
    """The folder of the large data, `data/` and `fixtures/`: RAYMTR_TEST_DATA, or ../shared."""
    told = os.environ.get(TEST_DATA)
    folder = Path(told) if told else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "data").is_dir():
        assert not told, f"{TEST_DATA}={told} has no folder data/"
        pytest.skip(WANTS_DATA)
    return folder


@pytest.fixture(scope="session")
def ttmrpp_release(large_data: Path) -> Path:
    """A folder in the layout of TTMR++'s release, at toy size, with the authors' own vectors."""
    return large_data / "fixtures" / "ttmrpp-tiny"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    from jobs.cluster import start_local
    from jobs.serve import SERVE_ENVIRONMENT

    os.environ.update(SERVE_ENVIRONMENT)  # as `raymtr serve` has it
    start_local(num_cpus=2, object_store_memory=200 << 20, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a saved model of the tiny recipe, random but for its text tower."""
    from raymtr.model.model_folder import save_towers
    from raymtr.model.two_towers import build_towers
    from raymtr.recipes import tiny

    folder = str(tmp_path_factory.mktemp("tiny") / "model")
    save_towers(build_towers(tiny().towers, seed=0), folder)
    return folder


@pytest.fixture(scope="session")
def make_workspace(tmp_path_factory: pytest.TempPathFactory) -> Callable[[list[dict]], Workspace]:
    """A function: rows of tracks -> a new workspace with that catalog."""

    def make(rows: list[dict]) -> Workspace:
        folder = tmp_path_factory.mktemp("made") / "workspace"
        workspace = Workspace.open(str(folder), create=True)
        table = check_tracks(pa.Table.from_pylist(rows))
        storage.write_table(f"{workspace.tracks}/part-0.parquet", table)
        return workspace

    return make


@pytest.fixture(scope="session")
def commit_vectors() -> Callable[..., None]:
    """A function: unit window vectors by track id -> finished embeddings of a made-up model."""
    from raymtr.embeddings.store import EMBEDDED_SCHEMA, EmbeddingStore, ModelRef

    def commit(
        workspace: Workspace, windows: dict[str, np.ndarray], *, fingerprint: str = "made-up"
    ) -> None:
        dim = next(iter(windows.values())).shape[1]
        made_by = ModelRef(fingerprint=fingerprint, precision="fp32", dim=dim)
        shards = EmbeddingStore(workspace.embeddings(fingerprint), made_by)
        shards.take()
        rows = []
        for track_id, vectors in windows.items():
            mean = vectors.mean(axis=0)
            starts = [10.0 * index for index in range(len(vectors))]
            rows.append(
                {
                    "track_id": track_id,
                    "uri": f"/{track_id}.wav",
                    "starts_s": starts,
                    "ends_s": [start + 10.0 for start in starts],
                    "vector": unit(mean),
                    "windows": vectors.reshape(-1),
                }
            )
        shards.commit(pa.Table.from_pylist(rows, schema=EMBEDDED_SCHEMA))
        shards.release()

    return commit


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which `s3://music` is reached: a real S3 server, moto's, on loopback.

    A process of its own, so that pyarrow's, Ray's and LanceDB's clients all reach it as they would
    reach any other.
    """
    pytest.importorskip("moto.server", reason="moto's S3 server is not installed")
    import boto3

    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        address = _address(log)
        keys = {"aws_access_key_id": "key", "aws_secret_access_key": "secret"}
        client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
        client.create_bucket(Bucket="music")
        yield os.environ | {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": address,
            "AWS_ENDPOINT": address,
            "AWS_ALLOW_HTTP": "true",
        }
    finally:
        process.kill()
        process.wait()


def _address(log: Path) -> str:
    """What the server that writes `log` says it listens at, once it answers there."""
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if "http://127.0.0.1:" in line:
                address = line[line.index("http://") :].split()[0]
                try:
                    urlopen(address, timeout=5).close()
                    return address
                except URLError:
                    pass
        time.sleep(0.1)
    raise AssertionError(f"no S3 server: {log.read_text()}")
