"""`raymtr finetune` on a real, small Ray cluster: pairs in, a captioner that writes out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.finetune_captioner import describe, finetune_captioner, kept_base, within_reach
from raymtr import storage
from raymtr.caption_specs import CaptionSpec, FinetuneSpec
from raymtr.captions.captioner import open_captioner
from raymtr.captions.learning.pairs import hold_out, read_pairs
from raymtr.errors import InputError, UnusableError
from raymtr.recipes import tiny
from raymtr.trained_on import known, pair_names, read_record
from raymtr.workspace import Workspace


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> str:
    words = ["piano", "violin", "drums", "slow", "fast", "happy", "sad", "jazz", "rock", "waltz"]
    rows = [
        {
            "ytid": f"c{i}",
            "tags": [words[i % 10], words[(i * 3 + 1) % 10]],
            "caption": f"A piece of {words[i % 10]} and {words[(i * 3 + 1) % 10]}, number {i}.",
        }
        for i in range(40)
    ]
    file = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(file)


@pytest.fixture(scope="module")
def workspace(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return Workspace.open(str(tmp_path_factory.mktemp("finetune") / "w"), create=True)


def test_pairs_become_a_captioner_and_the_same_command_answers_at_once(
    workspace: Workspace, pairs: str
) -> None:
    answer = finetune_captioner(workspace, tiny().finetune, pairs=pairs)
    assert answer["held_out"] == 5 and "validation" in describe(answer)
    captioner = open_captioner(workspace.captioner)
    assert captioner.base == f"{workspace.captioner}/base"
    held = storage.read_bytes(f"{workspace.captioner}/held_out.jsonl").decode().splitlines()
    clips = {json.loads(line)["ytid"] for line in held}
    assert clips == {pair.clip for pair in hold_out(read_pairs(pairs)).held_out}
    metrics = storage.read_bytes(f"{workspace.captioner}/metrics.jsonl").decode().splitlines()
    phases = [(row["phase"], row["step"]) for row in map(json.loads, metrics)]
    assert phases == [("pretrain", 2), ("pretrain", 4), ("lora", 2), ("lora", 4)]
    facts = storage.read_json(f"{workspace.captioner}/captioner.json")
    assert facts["base_identity"] == captioner.base_identity
    sets, record = hold_out(read_pairs(pairs)), read_record(workspace.captioner)
    assert record is not None
    for part, learnt in ((sets.train, True), (sets.held_out, False), (sets.valid, False)):
        names = [pair_names(pair.clip, pair.tags, pair.caption) for pair in part]
        assert set(known(record, names).tolist()) == {learnt}
    assert len(facts["samples"]) == 3 and facts["settings"]["rank"] == 8

    again = finetune_captioner(workspace, tiny().finetune, pairs=pairs)
    assert again == answer


def test_a_run_that_was_cut_continues_to_the_same_weights(workspace: Workspace, pairs: str) -> None:
    before = open_captioner(workspace.captioner)
    (run,) = storage.list_folders(f"{workspace.captioner}/runs")
    folder = f"{workspace.captioner}/runs/{run}"
    for lost in ("answer.json", "adapter"):  # killed after LoRA's last state, before its end
        storage.delete(f"{folder}/{lost}")
    answer = finetune_captioner(workspace, tiny().finetune, pairs=pairs)
    assert answer["resumed_from_step"] == 4
    assert open_captioner(workspace.captioner) == before


def test_an_error_that_would_recur_ends_the_run_at_once(workspace: Workspace, pairs: str) -> None:
    """In its own words, and not after three restarts."""
    spec = replace(tiny().finetune, targets="no_such_layer")
    with pytest.raises(InputError, match=r"^finetune\.targets: \['no_such_layer'\] not in"):
        finetune_captioner(workspace, spec, pairs=pairs)


def test_workers_that_may_come_later_are_no_other_run(workspace: Workspace, pairs: str) -> None:
    before = storage.list_folders(f"{workspace.captioner}/runs")
    spec = replace(tiny().finetune, workers=3, min_workers=1, validate_every=1)
    answer = finetune_captioner(workspace, spec, pairs=pairs)
    assert answer["resumed_from_step"] == 4, "it answers at once, from what one worker did"
    assert storage.list_folders(f"{workspace.captioner}/runs") == before


def test_judged_pairs_in_parts_and_a_preference_stage_give_a_captioner(
    ray_cluster: None, tmp_path: Path, pairs: str
) -> None:
    here = Workspace.open(str(tmp_path / "w"), create=True)
    spec = replace(
        tiny().finetune, judged=True, accumulate=2, patience=1, preference_steps=1, upper_layers=1
    )
    answer = finetune_captioner(here, spec, pairs=pairs)
    assert answer["metrics"]["preference_pairs"] >= 0
    assert open_captioner(here.captioner).is_toy


def test_a_captioner_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    captioner, base = tmp_path / "captioner", tmp_path / "base"
    storage.write_bytes(f"{base}/config.json", b"{}")
    storage.write_bytes(f"{captioner}/bases/small/config.json", b"{}")
    assert kept_base(str(captioner), None, "x") == "base"
    assert kept_base(str(captioner), "owner/model", "x") == "owner/model"
    assert kept_base(str(captioner), "s3://music/base", "x") == "s3://music/base"
    assert kept_base(str(captioner), f"{captioner}/bases/small", "x") == "bases/small"
    assert kept_base(str(captioner), str(base), "0123") == "bases/0123"
    assert storage.read_bytes(f"{captioner}/bases/0123/config.json") == b"{}"


def test_wrong_use_is_rejected_before_anything_starts(tmp_path: Path, pairs: str) -> None:
    here = Workspace.open(str(tmp_path / "w"), create=True)
    with pytest.raises(InputError, match="no file"):
        finetune_captioner(here, tiny().finetune, pairs=str(tmp_path / "none.jsonl"))
    with pytest.raises(InputError, match="--base"):
        finetune_captioner(here, tiny().finetune, pairs=pairs, base=str(tmp_path))
    spec = tiny().finetune
    wide = replace(spec, max_tokens=600, toy=replace(spec.toy, max_tokens=512))
    with pytest.raises(
        InputError, match=r"max_tokens is at most the 512 positions of finetune\.toy"
    ):
        finetune_captioner(here, wide, pairs=pairs)
    assert storage.list_folders(here.root) == []


@pytest.mark.slow
def test_what_lies_on_this_machine_goes_with_a_run_that_lies_elsewhere(
    object_store: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pairs: str
) -> None:
    """Workers on other nodes read it there. What they reach as well as we do stays where it is."""
    for name, value in object_store.items():
        monkeypatch.setenv(name, value)
    files = {"config.json": b"{}", "model.safetensors": b"weights", "part/tokenizer.json": b"[]"}
    for name, data in files.items():
        storage.write_bytes(f"{tmp_path}/base/{name}", data)
    base, run = str(tmp_path / "base"), "s3://music/reach/runs/1"
    assert within_reach(str(tmp_path / "run"), pairs, base) == (pairs, base)
    assert within_reach(run, pairs, base) == (f"{run}/pairs.jsonl", None)
    assert storage.read_bytes(f"{run}/pairs.jsonl") == storage.read_bytes(pairs)
    for name, data in files.items():
        assert storage.read_bytes(f"{run}/base/{name}") == data
    there = f"{run}/pairs.jsonl"
    assert within_reach(f"{run}2", there, "owner/model") == (there, "owner/model")
    assert within_reach(f"{run}2", there, None) == (there, None)
    storage.delete(f"{tmp_path}/base/model.safetensors")
    assert within_reach(run, pairs, base)[1] is None
    assert storage.exists(f"{run}/base/model.safetensors"), "a whole copy is not made again"


def test_gpus_that_are_not_there_are_an_error(
    ray_cluster: None, tmp_path: Path, pairs: str
) -> None:
    import ray

    if ray.cluster_resources().get("GPU"):
        pytest.skip("this cluster has a GPU")
    here = Workspace.open(str(tmp_path / "w"), create=True)
    with pytest.raises(UnusableError, match="GPU requested"):
        finetune_captioner(here, replace(tiny().finetune, use_gpu=True), pairs=pairs)


def test_specs_say_what_the_paper_says() -> None:
    spec = FinetuneSpec()
    assert (spec.rank, spec.alpha, spec.dropout) == (8, 32, 0.05)
    assert spec.targets == "q_proj,v_proj" and CaptionSpec().top_k == 50
