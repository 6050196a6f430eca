"""The whole pipeline with recordings and workspace in an object store, against a real S3 server.

The pipeline runs in its own process, as the server does: Ray's workers take their credentials from
the environment they start in.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytestmark = pytest.mark.ray

BUCKET = "s3://music"  # of the fixture `object_store`
PUT = """
import sys
from raymtr import storage
storage.write_bytes(sys.argv[1], sys.stdin.buffer.read())
"""
ROAD = """
import json, sys
from jobs.build_index import build_index
from jobs.embed_catalog import embed_catalog
from jobs.scan_catalog import scan_catalog
from jobs.write_captions import write_captions
from raymtr import Searcher, storage
from raymtr.recipes import tiny
from raymtr.workspace import Workspace

root, manifest, model = sys.argv[1:]
workspace, settings = Workspace.open(root, create=True), tiny()
scan_catalog(workspace, settings, manifest)
write_captions(workspace, settings)
first = embed_catalog(workspace, settings, model=model)
again = embed_catalog(workspace, settings, model=model)
built = [build_index(workspace, settings)["build"] for _ in range(2)]
searcher = Searcher(root)
like = searcher.search(like=["t2"], k=5)
words = searcher.search(text="Third", mode="keyword", k=1)
print(json.dumps({
    "first": first, "again": again, "built": built,
    "like": [hit["track_id"] for hit in like["hits"]],
    "words": [hit["track_id"] for hit in words["hits"]],
    "letters": storage.read_tables(f"{workspace.embeddings(first['fingerprint'])}/dead_letter")
    .to_pylist(),
}))
"""


def test_the_road_through_an_object_store(
    object_store: dict[str, str], tiny_model: str, tmp_path: Path
) -> None:
    rows = [
        {"track_id": f"t{n}", "uri": f"{BUCKET}/100% ñ {n}.wav", "title": title, "tags": ["piano"]}
        for n, title in enumerate(["First", "Second", "Third", "Broken"])
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, rows)))
    for n in range(4):
        data = _wave(200.0 * 2**n) if n < 3 else b"no audio"
        subprocess.run(
            [sys.executable, "-c", PUT, rows[n]["uri"]], input=data, env=object_store, check=True
        )
    done = subprocess.run(
        [sys.executable, "-c", ROAD, f"{BUCKET}/w", str(manifest), tiny_model],
        env=object_store,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "fork support" not in done.stderr  # Ray starts after LanceDB is loaded
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    assert (answer["first"]["embedded"], answer["first"]["failed"]) == (3, 1)
    assert answer["again"]["new"] == 0 and answer["again"]["embedded"] == 3
    assert [letter["track_id"] for letter in answer["letters"]] == ["t3"]
    assert len(set(answer["built"])) == 2
    assert answer["words"] == ["t2"] and set(answer["like"]) == {"t0", "t1"}


def _wave(hz: float) -> bytes:
    seconds = np.arange(22_050 * 3) / 22_050
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(2 * np.pi * hz * seconds), 22_050, format="WAV")
    return file.getvalue()
