"""A catalog indexed partition by partition gives the tables that it gives as a whole."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import build_index as job
from jobs.index_workers import RayTasks
from raymtr import storage
from raymtr.errors import InputError
from raymtr.index.build import KINDS, table_name
from raymtr.recipes import tiny
from raymtr.tagging.columns import INDEXED
from raymtr.vectors import unit
from raymtr.workspace import Workspace
from tests.builders import divide

TRACKS, LACKING = 60, 7  # tracks of the catalog, and those of them without a vector


@pytest.fixture
def workspace(make_workspace: Callable, commit_vectors: Callable) -> Workspace:
    rows = [
        {"track_id": f"t{n:02}", "uri": f"/{n}.wav", "title": f"Tune {n}", "mood": f"m{n % 3}"}
        for n in range(TRACKS)
    ]
    made: Workspace = make_workspace(rows)
    rng = np.random.default_rng(0)
    embedded = [row["track_id"] for row in rows[LACKING:]] + ["left the catalog"]
    commit_vectors(
        made, {name: unit(rng.standard_normal((1 + n % 3, 8))) for n, name in enumerate(embedded)}
    )
    captions = {"track_id": ["t10", "t10", "t20"], "caption": ["A bell.", "A gong.", "A drum."]}
    storage.write_table(f"{made.captions}/part-0.parquet", pa.table(captions))
    heard = dict.fromkeys(INDEXED, pa.array([None, 0.5], pa.float32()))
    heard |= {"track_id": ["t11", "t30"], "key": ["C major", None], "heard": [["piano"], []]}
    storage.write_table(f"{made.heard}/tracks/a.parquet", pa.table(heard))
    return made


def published(
    workspace: Workspace, workers: int = 1
) -> tuple[job.PublishedBuild, dict[str, list[dict]]]:
    """What `index` answers, and the rows of each table without the order of loading."""
    settings = tiny()
    search = replace(settings.search, index_workers=workers)
    answer = job.build_index(workspace, replace(settings, search=search))
    db = lancedb.connect(workspace.db)
    rows = {}
    for kind in KINDS:
        held = db.open_table(table_name(kind, answer["build"])).to_arrow()
        held = held.select([name for name in held.column_names if name != "row_index"])
        rows[kind] = held.sort_by([(name, "ascending") for name in held.column_names[:2]])
    return answer, {kind: held.to_pylist() for kind, held in rows.items()}


@pytest.mark.slow
def test_partitions_give_the_tables_of_the_whole(workspace: Workspace) -> None:
    whole, rows = published(workspace)
    divide(workspace, 4)
    parts, same_rows = published(workspace)
    assert same_rows == rows
    for answer in (whole, parts):
        assert (answer["tracks"], answer["vectors"]) == (TRACKS - LACKING,) * 2
        assert answer["left_out"] == LACKING
    files = sorted(storage.list_files(f"{workspace.index_parts}/tracks/4", suffix=".parquet"))
    sizes = [
        pq.read_metadata(f"{workspace.index_parts}/tracks/4/{name}").num_rows for name in files
    ]
    assert len(sizes) == 4 and sum(sizes) == TRACKS and max(sizes) < TRACKS


def test_vectors_of_no_track_of_the_catalog_are_refused(
    make_workspace: Callable, commit_vectors: Callable
) -> None:
    workspace = make_workspace([{"track_id": "a", "uri": "/a.wav"}])
    commit_vectors(workspace, {"b": np.eye(2, dtype=np.float32)})
    divide(workspace, 2)
    with pytest.raises(InputError, match="none of the 1 tracks has a vector"):
        job.build_index(workspace, tiny())
    assert not storage.exists(workspace.live_pointer)


@pytest.mark.ray
def test_ray_tasks_give_the_tables_of_one_process(
    ray_cluster: None, workspace: Workspace, tmp_path: Path
) -> None:
    divide(workspace, 4)
    _, rows = published(workspace)
    answer, same_rows = published(workspace, workers=2)
    assert same_rows == rows and answer["left_out"] == LACKING

    def die_once(number: int) -> int:
        mark = tmp_path / str(number)
        if number == 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 10 * number

    def fail(number: int) -> int:
        raise InputError(f"no part {number}")

    tasks = RayTasks(2, memory_gb=2)
    assert tasks(die_once, [3, 1, 2]) == [30, 10, 20] and (tmp_path / "1").exists()
    with pytest.raises(InputError, match="no part 1"):
        tasks(fail, [1])
    assert tasks(lambda number: number, [5, 6]) == [5, 6]  # the driver survives a failed task
