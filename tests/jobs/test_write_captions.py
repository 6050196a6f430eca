"""Captions on a real, small Ray cluster."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import ray

from jobs.write_captions import describe, write_captions
from raymtr import storage
from raymtr.captions.faithfulness import Vocabulary, judge
from raymtr.captions.templates import SCHEMA, TRAIN_TEMPLATES
from raymtr.errors import InputError, UnusableError
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


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """An untrained captioner: it writes nonsense, by the path a good one takes."""
    from raymtr.captions.base_model import add_lora, base_identity
    from raymtr.captions.pairs import Pair
    from raymtr.captions.pretrain import build_toy, train_tokenizer
    from raymtr.captions.prompt import prompt_hash

    folder = tmp_path_factory.mktemp("captioner")
    pairs = [Pair(tuple(r["tags"]), f"A {r['tags']}.", "", r["track_id"], "") for r in ROWS]
    spec = tiny().finetune
    tokenizer = train_tokenizer(pairs, spec.toy)
    model = build_toy(tokenizer, spec.toy, seed=0)
    model.save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    add_lora(model, spec).save_pretrained(folder)
    facts = {"base": "base", "base_identity": base_identity(str(folder / "base"))}
    storage.write_json(f"{folder}/captioner.json", facts | {"prompt": prompt_hash()})
    return str(folder)


def check_model_captions(workspace: Workspace, answer: dict, engine: str) -> None:
    """Every tagged track once; whoever wrote, the provenance says so."""
    assert (answer["tracks"], answer["captioned"], answer["untagged"]) == (20, 16, 4)
    assert answer["engine"] == engine and answer["failed"] == 0
    table = storage.read_tables(workspace.captions)
    assert table.schema.equals(SCHEMA)
    assert sorted(table["track_id"].to_pylist()) == sorted(r["track_id"] for r in ROWS if r["tags"])
    for text in table["provenance"].to_pylist():
        provenance = json.loads(text)
        assert provenance["engine"] == engine and provenance["source"] in ("model", "template")
        wanted = {"base", "adapter", "prompt", "sampling", "seed", "coverage", "invention"}
        assert wanted <= set(provenance)
        if provenance["source"] == "template":  # nonsense was sent back, and never kept
            assert provenance["because"] not in (None, "ok")


@pytest.mark.usefixtures("cluster")
def test_a_captioner_writes_resumes_and_is_replaced_by_templates(tmp_path, captioner):
    workspace = catalog(tmp_path / "w", ROWS, files=3)
    options = {"per_track": 1, "captioner": captioner, "engine": "transformers"}
    answer = write_captions(workspace, tiny(), **options)
    check_model_captions(workspace, answer, "transformers")
    assert "by template" in describe(answer)
    before = storage.read_tables(workspace.captions).sort_by("track_id")

    lost = storage.list_files(workspace.captions, suffix=".parquet")
    for name in lost:
        storage.delete(f"{workspace.captions}/{name}")
    kept = before.slice(0, 10)
    storage.write_table(f"{workspace.captions}/part-kept.parquet", kept)
    write_captions(workspace, tiny(), **options)
    assert storage.read_tables(workspace.captions).sort_by("track_id").equals(before)

    write_captions(workspace, tiny(), per_track=1)
    table = storage.read_tables(workspace.captions)
    assert all("engine" not in json.loads(text) for text in table["provenance"].to_pylist())
    assert storage.list_files(workspace.captions) == ["part-00000.parquet"]


@pytest.mark.usefixtures("cluster")
def test_some_tracks_by_the_model_and_the_rest_by_templates(tmp_path, captioner):
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    answer = write_captions(
        workspace, tiny(), per_track=1, captioner=captioner, engine="transformers", model_tracks=5
    )
    table = storage.read_tables(workspace.captions)
    asked = [json.loads(text) for text in table["provenance"].to_pylist()]
    assert sum("engine" in provenance for provenance in asked) == 5
    assert answer["captioned"] == 16


@pytest.mark.usefixtures("cluster")
def test_the_real_vllm_writes_through_ray_data(tmp_path, captioner):
    pytest.importorskip("vllm", reason="vLLM is not installed; make test does on Linux x86-64")
    from dataclasses import replace

    workspace = catalog(tmp_path / "w", ROWS, files=1)
    settings = tiny()
    settings = replace(settings, caption=replace(settings.caption, passes=1, tag_bias=50.0))
    answer = write_captions(workspace, settings, per_track=1, captioner=captioner, engine="vllm")
    check_model_captions(workspace, answer, "vllm")
    for row in storage.read_tables(workspace.captions).to_pylist():
        provenance = json.loads(row["provenance"])
        drawn = provenance.get("instead_of", row["caption"])  # an untrained model's, kept or not
        found = judge(drawn, provenance["tags"], Vocabulary.of_tags(()))
        assert found.coverage >= 0.75, f"drawn to {provenance['tags']}, it wrote {drawn!r}"


def test_an_engine_that_is_not_there_is_an_error(tmp_path, captioner):
    import importlib.util

    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is here")
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    with pytest.raises(UnusableError, match="vLLM is not installed"):
        write_captions(workspace, tiny(), captioner=captioner, engine="vllm")
