"""What several test folders share: one small Ray cluster, one small saved model, a made index.

Nothing here starts before a test asks for it.
"""

from __future__ import annotations

import os

for _key, _value in {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_key, _value)

from collections.abc import Callable, Iterator  # noqa: E402

import numpy as np  # noqa: E402
import pyarrow as pa  # noqa: E402
import pytest  # noqa: E402

from raymtr import storage  # noqa: E402
from raymtr.track import check_tracks  # noqa: E402
from raymtr.workspace import Workspace  # noqa: E402


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    import ray

    if ray.is_initialized():
        yield
        return
    from jobs.serve import STRAIGHT

    os.environ.update(STRAIGHT)  # as `raymtr serve` has it
    ray.init(
        address="local",  # never another's that `ray start` left on this machine
        num_cpus=2,
        include_dashboard=False,
        object_store_memory=200 << 20,
        log_to_driver=False,
        configure_logging=False,
    )
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
    from raymtr.index.shards import EMBEDDED, MadeBy, Shards

    def commit(
        workspace: Workspace, windows: dict[str, np.ndarray], *, fingerprint: str = "made-up"
    ) -> None:
        dim = next(iter(windows.values())).shape[1]
        made_by = MadeBy(fingerprint=fingerprint, precision="fp32", dim=dim)
        shards = Shards(workspace.embeddings(fingerprint), made_by)
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
                    "vector": mean / np.linalg.norm(mean),
                    "windows": vectors.reshape(-1),
                }
            )
        shards.commit(pa.Table.from_pylist(rows, schema=EMBEDDED))
        shards.release()

    return commit
