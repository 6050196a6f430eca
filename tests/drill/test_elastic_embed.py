"""An embedding that starts on the node there is, and takes the one that joins later."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from nodes import Nodes, until

from raymtr import storage

TRACKS = 240

pytestmark = pytest.mark.drill


def test_a_node_that_joins_embeds_too(
    nodes: Callable[[], Nodes], make_workspace: Callable, tiny_model: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    uri = str(tmp_path / "a.wav")
    soundfile.write(uri, 0.1 * rng.standard_normal(22_050 * 120), 22_050)
    workspace = make_workspace([{"track_id": f"t{n:04}", "uri": uri} for n in range(TRACKS)])
    cluster = nodes()
    cluster.lose(cluster.workers[0])
    script = tmp_path / "embed.py"
    script.write_text(
        "import sys\n"
        "from jobs import shard_rows\n"
        "from jobs.__main__ import main\n"
        "shard_rows.SECONDS_PER_ACTOR = 1\n"
        "sys.exit(main(['embed', '--recipe', 'tiny', '--json', *sys.argv[1:]]))\n"
    )
    wide = "--set embed.actors=2 --set embed.min_actors=1 --set embed.windows_per_block=24"
    job = cluster.submit(
        f"python {script} --workspace {workspace.root} --model {tiny_model} {wide}"
    )
    root = Path(workspace.root)
    until(lambda: list(root.glob("embeddings/*/tracks/*.parquet")) or cluster.ended(job))
    assert not cluster.ended(job), cluster.client.get_job_logs(job)[-2000:]
    cluster.add()
    assert cluster.finished(job) == "SUCCEEDED", cluster.client.get_job_logs(job)[-2000:]
    log = cluster.client.get_job_logs(job)
    answer = json.loads(next(line for line in log.splitlines() if line.startswith('{"')))
    assert (answer["embedded"], answer["replicas"]) == (TRACKS, 2)
    assert len(storage.list_folders(workspace.path("embeddings"))) == 1
