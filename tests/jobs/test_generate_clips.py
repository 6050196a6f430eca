"""From a catalog to sound on Ray: tokenize, train, generate; a bad file and bad requests."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from token_builders import make_catalog, settings_of

from jobs.__main__ import main
from jobs.generate import TOGETHER, generate_prompts
from jobs.tokenize_catalog import describe, tokenize_catalog
from jobs.train_towers import train_towers
from raymtr import storage
from raymtr.errors import InputError
from raymtr.generation.requests import Prompt, read_prompts, read_story
from raymtr.generation.sound_file import is_generated
from raymtr.workspace import Workspace
from tests.generation.conftest import MUSICLM


@pytest.mark.ray
def test_from_a_catalog_to_sound(
    tmp_path: Path,
    tiny_model: str,
    ray_cluster: None,
) -> None:
    workspace, settings = make_catalog(tmp_path), settings_of(steps=4)
    with pytest.raises(InputError, match="run `raymtr tokenize` with the same recipe first"):
        train_towers(workspace, settings)
    made = tokenize_catalog(workspace, settings, model=tiny_model)
    assert (made["embedded"], made["failed"], made["new"]) == (10, 1, 11)
    assert set(made["books"]) == {"semantic", "acoustic 1", "acoustic 2", "acoustic 3"}
    assert "1 failed" in describe(made)
    again = tokenize_catalog(workspace, settings, model=tiny_model)
    assert (again["new"], again["fingerprint"]) == (0, made["fingerprint"])

    answer = train_towers(workspace, settings, run="lm")
    assert answer["metrics"]["valid_semantic"] > 0
    other = dataclasses.replace(settings, musiclm=dataclasses.replace(MUSICLM, layers=1))
    with pytest.raises(InputError, match=r"musiclm\.layers was 2 and is 1"):
        train_towers(workspace, other, run="lm")

    out = tmp_path / "a.wav"
    asked = ["generate", "a low tone", "--workspace", workspace.root, "--seconds", "2"]
    assert main([*asked, "--out", str(out)]) == 0 and is_generated(out.read_bytes())

    prompts = [Prompt("p1", "a low tone", 1), Prompt("p2", "noise", 2)]
    first = generate_prompts(workspace, settings, prompts, 2.0, model="lm")
    assert (first["clips"], first["new"], first["failed"]) == (2, 2, 0)
    more = [*prompts, Prompt("p3", "noise", 3)]
    second = generate_prompts(workspace, settings, more, 2.0, model="lm")
    assert (second["clips"], second["new"]) == (3, 1)
    kept = storage.read_tables(f"{first['out']}/manifest")
    assert kept is not None and sorted(kept["clip_id"].to_pylist()) == ["p1", "p2", "p3"]
    assert kept["model"].unique().to_pylist() == [answer_model(workspace)]

    killed(workspace, "lm")
    many = [Prompt(f"m{n:02}", "noise", n) for n in range(MANY)]
    before = clips_of(first["out"])
    assert len(before) < 3 + MANY
    rest = generate_prompts(workspace, settings, many, 2.0, model="lm")
    assert (rest["clips"], rest["failed"]) == (MANY, 0)
    assert rest["new"] == MANY + 3 - len(before)  # no clip with a row is made again
    after = clips_of(first["out"])
    assert len(after) == 3 + MANY and before.items() <= after.items()
    assert all(is_generated(data) for data in after.values())


MANY = 3 * TOGETHER
DRIVER = """
import sys
from jobs.generate import TOGETHER, generate_prompts
from raymtr.generation.requests import Prompt
from raymtr.workspace import Workspace
from token_builders import settings_of
many = [Prompt(f"m{n:02}", "noise", n) for n in range(int(sys.argv[3]))]
generate_prompts(Workspace.open(sys.argv[1]), settings_of(4), many, 2.0, model=sys.argv[2])
"""


def killed(workspace: Workspace, model: str) -> None:
    """Start a job of MANY prompts and kill it after its first row."""
    import ray

    repository = Path(__file__).resolve().parents[2]
    manifest = f"{workspace.generated}/{answer_model(workspace)}/manifest"
    rows = len(storage.list_files(manifest, suffix=".parquet"))
    environment = os.environ | {
        "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
        "PYTHONPATH": f"{repository}:{repository}/tests",
    }
    command = [sys.executable, "-c", DRIVER, workspace.root, model, str(MANY)]
    driver = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 300
        while len(storage.list_files(manifest, suffix=".parquet")) == rows:
            assert driver.poll() is None, "the driver ended before it could be killed"
            assert time.monotonic() < deadline, "no row within 300 s"
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()


def clips_of(folder: str) -> dict[str, bytes]:
    """The bytes of the clip of every row; fails if a clip has two rows or no file."""
    rows = storage.read_tables(f"{folder}/manifest", ["clip_id", "uri"])
    assert rows is not None
    ids = rows["clip_id"].to_pylist()
    assert len(set(ids)) == len(ids)
    return {row["clip_id"]: Path(row["uri"]).read_bytes() for row in rows.to_pylist()}


def answer_model(workspace: Workspace) -> str:
    return str(storage.read_json(f"{workspace.run('lm')}/model/musiclm.json")["fingerprint"])


def test_files_of_prompts_and_stories(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"

    def write(*rows: object) -> str:
        file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
        return str(file)

    prompts = read_prompts(write({"text": "a"}, {"text": "a", "seed": 9}), 5, 3)
    assert [prompt.seed for prompt in prompts] == [3, 9]
    assert prompts == read_prompts(write({"text": "a"}, {"text": "a", "seed": 9}), 5, 3)
    story = read_story(write({"text": "a", "start_s": 0}, {"text": "b", "start_s": 15}), 30)
    assert [scene.start_s for scene in story] == [0.0, 15.0]
    for rows, words in (
        ([{"text": "a"}, {"text": "a", "seed": 4}], None),
        ([{"text": ""}], "the text is empty"),
        ([{"words": "a"}], "line 1: a row has text"),
        ([["a"]], "not a JSON object"),
        ([], "has no line"),
        ([{"text": "a", "seed": 5}, {"text": "a", "seed": 5}], "one clip twice"),
    ):
        path = write(*rows)
        if words:
            with pytest.raises(InputError, match=words):
                read_prompts(path, 5, 3)
    with pytest.raises(InputError, match="a row has text and start_s"):
        read_story(write({"text": "a"}), 30)
    with pytest.raises(InputError, match="there is no file"):
        read_prompts(str(tmp_path / "none"), 5, 3)


def test_the_balanced_subset_of_musiccaps_is_a_file_of_prompts(tmp_path: Path) -> None:
    file = tmp_path / "musiccaps-public.csv"
    rows = ["caption,is_balanced_subset", '"A slow, sad song.",True', "Fast.,False", "Loud.,True"]
    file.write_text("\n".join(rows), encoding="utf-8")
    prompts = read_prompts(str(file), 5, 3)
    assert [(p.text, p.seed) for p in prompts] == [("A slow, sad song.", 3), ("Loud.", 4)]
    file.write_text("\n".join(rows[:1] + rows[2:3]), encoding="utf-8")
    with pytest.raises(InputError, match="has 1 rows, none with is_balanced_subset True"):
        read_prompts(str(file), 5, 3)
    file.write_text("text\nA slow song.", encoding="utf-8")
    with pytest.raises(InputError, match="lacks column 'caption'; other prompts are JSON Lines"):
        read_prompts(str(file), 5, 3)
