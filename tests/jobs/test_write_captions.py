"""Captions on a real, small Ray cluster."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs import write_captions as job
from jobs.write_captions import describe, write_captions
from raymtr import storage
from raymtr.caption_specs import CaptionSpec
from raymtr.captions.judging.faithfulness import MusicTerms, judge
from raymtr.captions.writing.engine import require_room
from raymtr.captions.writing.realiser import realise
from raymtr.captions.writing.tag_words import IN_VLLM
from raymtr.captions.writing.templates import SCHEMA
from raymtr.errors import InputError, UnusableError
from raymtr.recipes import tiny
from raymtr.track import check_tracks
from raymtr.workspace import Workspace


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


@pytest.mark.usefixtures("ray_cluster")
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
        assert provenance["source"] == "realised"
        again = realise(provenance["tags"], provenance["seed"])
        assert (again.text, again.structure) == (row["caption"], provenance["structure"])
        assert provenance["tags"] == ROWS[number]["tags"]
        known = ["slow", "waltz", "violin"]  # of four, the word of unknown role is left out
        assert all(tag in row["caption"].casefold() for tag in known)
        assert "Secret" not in row["caption"] and "Nobody" not in row["caption"]

    many = catalog(tmp_path / "many", ROWS, files=7)
    stale = pa.table({"track_id": ["gone"], "caption": ["Old."], "provenance": ["{}"]})
    storage.write_table(f"{many.captions}/part-00003.parquet", stale)
    write_captions(many, tiny(), per_track=3, seed=1)
    assert storage.read_tables(many.captions).equals(captions)


@pytest.mark.usefixtures("ray_cluster")
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


def test_a_captioner_that_is_not_whole_is_not_replaced_by_templates(tmp_path):
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    storage.write_bytes(f"{workspace.captioner}/adapter_model.safetensors", b"killed on its way")
    parser = argparse.ArgumentParser()
    job.add_arguments(parser)
    with pytest.raises(InputError, match=r"the captioner in .* is incomplete: it has no"):
        job.run(parser.parse_args([]), workspace, tiny())
    assert not storage.list_files(workspace.captions)


@pytest.fixture(scope="module")
def captioner(tmp_path_factory):
    """An untrained captioner: it writes nonsense, by the path a good one takes."""
    from raymtr.captions.base_model import add_lora, base_identity
    from raymtr.captions.learning.pairs import Pair
    from raymtr.captions.learning.pretrain import build_toy, train_tokenizer
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
        assert provenance["engine"] == engine and provenance["source"] in ("model", "realised")
        wanted = {"base", "adapter", "prompt", "sampling", "seed", "coverage", "invention"}
        assert wanted <= set(provenance)
        if provenance["source"] == "realised":  # nonsense was sent back, and never kept
            assert provenance["because"] not in (None, "ok")


@pytest.mark.usefixtures("ray_cluster")
def test_a_captioner_writes_resumes_and_is_replaced_by_the_realiser(tmp_path, captioner):
    workspace = catalog(tmp_path / "w", ROWS, files=3)
    options = {"per_track": 1, "captioner": captioner, "engine": "transformers"}
    answer = write_captions(workspace, tiny(), **options)
    check_model_captions(workspace, answer, "transformers")
    assert "by realised" in describe(answer)
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


@pytest.mark.usefixtures("ray_cluster")
def test_some_tracks_by_the_model_and_the_rest_by_the_realiser(tmp_path, captioner):
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    answer = write_captions(
        workspace, tiny(), per_track=1, captioner=captioner, engine="transformers", model_tracks=5
    )
    table = storage.read_tables(workspace.captions)
    asked = [json.loads(text) for text in table["provenance"].to_pylist()]
    assert sum("engine" in provenance for provenance in asked) == 5
    assert answer["captioned"] == 16


@pytest.mark.usefixtures("ray_cluster")
def test_the_real_vllm_writes_through_ray_data(tmp_path, captioner):
    pytest.importorskip("vllm", reason="vLLM is not installed; make test does on Linux x86-64")
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    settings = tiny()
    settings = replace(settings, caption=replace(settings.caption, passes=1, tag_bias=50.0))
    answer = write_captions(workspace, settings, per_track=1, captioner=captioner, engine="vllm")
    check_model_captions(workspace, answer, "vllm")
    for row in storage.read_tables(workspace.captions).to_pylist():
        provenance = json.loads(row["provenance"])
        drawn = provenance.get("instead_of", row["caption"])  # an untrained model's, kept or not
        found = judge(drawn, provenance["tags"], MusicTerms.of_tags(()))
        assert found.coverage >= 0.75, f"drawn to {provenance['tags']}, it wrote {drawn!r}"


@pytest.fixture(scope="module")
def weights(captioner, tmp_path_factory):
    """The captioner's, merged."""
    from raymtr.captions.captioner import Weights, merge, open_captioner

    folder = str(tmp_path_factory.mktemp("merged") / "bf16")
    merge(open_captioner(captioner), folder, "bf16")
    return Weights(folder)


@pytest.mark.usefixtures("ray_cluster")
def test_an_engine_over_two_gpus_is_one_actor_that_holds_them(tmp_path, weights):
    shutil.copytree(weights.model, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}  # the toy has one
    config.write_text(json.dumps(json.loads(config.read_text()) | heads))
    weights = replace(weights, model=str(tmp_path / "model"))
    vllm = pytest.importorskip("vllm", reason="vLLM is not installed here")
    from raymtr.captions.writing.vllm_engine import engine_options, writer

    wide = CaptionSpec(
        use_gpu=True, tensor_parallel=2, max_num_seqs=999, gpu_memory=0.8, tag_bias=1.0
    )
    arguments = vllm.AsyncEngineArgs(weights.model, **engine_options(weights, wide))
    assert (arguments.tensor_parallel_size, arguments.max_num_seqs) == (2, 999)
    assert (arguments.gpu_memory_utilization, arguments.dtype) == (0.8, "bfloat16")
    stage = writer(weights, wide).get_stage_by_name("vLLMEngineStage")
    assert (stage.map_batches_kwargs["num_gpus"], stage.map_batches_kwargs["num_cpus"]) == (2, 1)
    assert stage.map_batches_kwargs["max_concurrency"] * 64 >= 2 * 999
    assert "ray_remote_args_fn" not in stage.map_batches_kwargs, "GPUs of several nodes"
    runner = stage.map_batches_kwargs["runtime_env"]["env_vars"]["VLLM_USE_V2_MODEL_RUNNER"]
    assert (runner, arguments.logits_processors) == ("1", [IN_VLLM.format(runner="V2")])
    with pytest.raises(InputError, match="does not divide the model's"):
        engine_options(weights, replace(wide, tensor_parallel=7))


@pytest.mark.usefixtures("ray_cluster")
def test_what_the_cluster_lacks_is_rejected_by_name(tmp_path, captioner):
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    wide = replace(tiny(), caption=CaptionSpec(use_gpu=True, actors=3, tensor_parallel=2))
    with pytest.raises(InputError, match=r"caption\.tensor_parallel=2 needs vLLM"):
        write_captions(workspace, wide, captioner=captioner, engine="transformers")
    with pytest.raises(UnusableError, match=r"caption\.tensor_parallel=2 needs 6 GPUs"):
        require_room("vllm", wide.caption)


@pytest.mark.usefixtures("ray_cluster")
def test_a_base_too_big_to_merge_on_any_node_is_rejected(tmp_path, captioner):
    from raymtr.captions.captioner import open_captioner
    from raymtr.captions.writing.engine import prepare_weights

    shutil.copytree(captioner, tmp_path / "c")
    opened = open_captioner(str(tmp_path / "c"))
    (tmp_path / "c/base/more.bin").touch()
    os.truncate(tmp_path / "c/base/more.bin", 1 << 40)  # a terabyte that takes no room
    with pytest.raises(UnusableError, match=r"needs 128\d\.\d GiB on one node"):
        prepare_weights(opened, CaptionSpec(), home=str(tmp_path))


def test_an_engine_that_is_not_there_is_an_error(tmp_path, captioner):
    import importlib.util

    if importlib.util.find_spec("vllm"):
        pytest.skip("vLLM is here")
    workspace = catalog(tmp_path / "w", ROWS, files=1)
    with pytest.raises(UnusableError, match="vLLM is not installed"):
        write_captions(workspace, tiny(), captioner=captioner, engine="vllm")


TWO_NODES = """
import json, sys
from dataclasses import replace
import pyarrow as pa
import ray
from ray.cluster_utils import Cluster
from jobs.write_captions import write_captions
from raymtr import storage
from raymtr.captions.writing.engine import require_room
from raymtr.errors import UnusableError
from raymtr.recipes import tiny
from raymtr.caption_specs import CaptionSpec
from raymtr.track import check_tracks
from raymtr.workspace import Workspace

made, root, engine, rows, other = sys.argv[1:]
storage.copy_folder(made, f"{root}/captioner", last="captioner.json")
workspace = Workspace.open(root, create=True)
table = check_tracks(pa.Table.from_pylist(json.loads(rows)))
storage.write_table(f"{workspace.tracks}/part-0.parquet", table)
memory = {"object_store_memory": 100 << 20}
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "num_gpus": 1, **memory})
cluster.add_node(num_cpus=3, num_gpus=1, env_vars={"TMPDIR": other}, **memory)
ray.init(address=cluster.address, log_to_driver=False)
require_room("vllm", CaptionSpec(use_gpu=True, actors=2))
try:
    require_room("vllm", CaptionSpec(use_gpu=True, tensor_parallel=2))
    raise AssertionError("two GPUs, but not on one node")
except UnusableError as error:
    assert "has 2 (1 on one node at most)" in str(error), error
settings = tiny()
settings = replace(settings, caption=replace(settings.caption, passes=1))
answers = [
    write_captions(
        workspace,
        replace(settings, caption=replace(settings.caption, serve=serve)),
        per_track=1,
        captioner=f"{root}/captioner",
        engine=engine,
    )
    for serve in ("merged", "adapter")
]
print(json.dumps(answers), flush=True)
ray.shutdown()
cluster.shutdown()
"""


@pytest.mark.drill
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
def test_a_captioner_in_an_object_store_is_brought_to_the_node_that_writes(
    object_store, captioner, tmp_path, engine
):
    driver, other = tmp_path / "driver", tmp_path / "other"
    driver.mkdir(), other.mkdir()
    root = f"s3://music/{engine}"
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as own:
        arguments = [captioner, root, engine, json.dumps(ROWS), str(other)]
        done = subprocess.run(
            [sys.executable, "-c", TWO_NODES, *arguments],
            env=object_store | {"TMPDIR": str(driver), "RAY_TMPDIR": own},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-3000:]
    for answer in json.loads(done.stdout.strip().splitlines()[-1]):
        assert (answer["captioned"], answer["failed"]) == (16, 0) and answer["engine"] == engine
        assert "model" in answer["by"] or "realised" in answer["by"]
    assert not list(driver.rglob("*.safetensors")), "the driver has no use for weights"
    brought = {path.name for path in other.glob("raymtr-copies-*/*/*.safetensors")}
    assert brought == {"model.safetensors", "adapter_model.safetensors"}
