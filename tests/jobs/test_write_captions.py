"""Captions on a real, small Ray cluster."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from jobs.write_captions import describe, write_captions
from raymtr import storage
from raymtr.captions.templates import TRAIN_TEMPLATES
from raymtr.errors import InputError
from raymtr.recipes import tiny
from raymtr.track import check_tracks
from raymtr.workspace import Workspace


@pytest.fixture(scope="module")
def cluster():
    started = not ray.is_initialized()
    if started:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=200 << 20,
            log_to_driver=False,
        )
    yield
    if started:
        ray.shutdown()


def catalog(root: Path, rows: list[dict], files: int) -> Workspace:
    """A workspace whose tracks lie in `files` Parquet files."""
    workspace = Workspace.open(str(root), create=True)
    table = check_tracks(pa.Table.from_pylist(rows))
    for part, chosen in enumerate(np.array_split(np.arange(len(rows)), files)):
        storage.write_table(f"{workspace.tracks}/part-{part:05d}.parquet", table.take(chosen))
    return workspace


ROWS = [
    {
        "track_id": f"t{i:02d}",
        "title": "Secret Title",
        "artist": "Nobody Special",
        "tags": ["slow", "waltz", "violin", f"tag{i}"] if i % 5 else [],
        "split": ("train", "test")[i % 2],
    }
    for i in range(20)
]


@pytest.mark.usefixtures("cluster")
def test_every_tagged_track_gets_its_captions_however_the_blocks_lie(tmp_path):
    one = catalog(tmp_path / "one", ROWS, files=1)
    answer = write_captions(one, tiny(), per_track=3, seed=1)
    assert (answer["tracks"], answer["untagged"], answer["captions"]) == (20, 4, 48)
    assert "4 without tags" in describe(answer)
    captions = storage.read_tables(one.captions)
    assert set(captions["track_id"].to_pylist()) == {r["track_id"] for r in ROWS if r["tags"]}
    for row in captions.to_pylist():
        number = int(row["track_id"][1:])
        provenance = json.loads(row["provenance"])
        assert provenance["source"] == "template" and provenance["seed"] == 1
        assert provenance["tags"] == ROWS[number]["tags"]
        assert provenance["template"] in TRAIN_TEMPLATES
        assert all(tag in row["caption"].casefold() for tag in ROWS[number]["tags"])
        assert "Secret" not in row["caption"] and "Nobody" not in row["caption"]

    many = catalog(tmp_path / "many", ROWS, files=7)
    stale = pa.table({"track_id": ["gone"], "caption": ["Old."], "provenance": ["{}"]})
    storage.write_table(f"{many.captions}/part-00003.parquet", stale)
    write_captions(many, tiny(), per_track=3, seed=1)
    assert storage.read_tables(many.captions).equals(captions)


@pytest.mark.usefixtures("cluster")
def test_a_catalog_without_tags_gives_an_empty_table(tmp_path):
    workspace = catalog(tmp_path / "w", [{"track_id": "a"}, {"track_id": "b"}], files=1)
    answer = write_captions(workspace, tiny())
    assert (answer["captions"], answer["untagged"]) == (0, 2)
    assert storage.read_tables(workspace.captions).num_rows == 0


def test_without_a_catalog_or_sense_the_job_says_so(tmp_path):
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    with pytest.raises(InputError, match="raymtr scan"):
        write_captions(workspace, tiny())
    with pytest.raises(InputError, match="per-track"):
        write_captions(workspace, tiny(), per_track=0)
