"""Captioners on disk, writing with own seeds, and what becomes of drafts."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from raymtr import storage
from raymtr.caption_specs import CaptionSpec
from raymtr.captions.captioner import Weights, bytes_to_merge, merge, open_captioner
from raymtr.captions.judging.faithfulness import MusicTerms
from raymtr.captions.writing.drafts import (
    DRAFT,
    OK,
    best_drafts,
    caption_row,
    judge_drafts,
    plan_drafts,
    realised_row,
    seed_of,
)
from raymtr.captions.writing.realiser import realise
from raymtr.captions.writing.store import CaptionStore
from raymtr.captions.writing.transformers_writer import SeededSampling, Writer
from raymtr.errors import InputError, UnusableError

pytestmark = pytest.mark.slow

SPEC = CaptionSpec(max_new_tokens=12, batch=4, draws=2)
TRACKS = pa.Table.from_pylist(
    [
        {
            "track_id": f"t{i}",
            "uri": None,
            "tags": ["slow", "piano", "Nobody Special"][: i % 4],
            "title": "Zork",
            "artist": "Nobody Special",
            "album": None,
        }
        for i in range(8)
    ]
)


@pytest.fixture(scope="module")
def captioner(make_captioner, tmp_path_factory):
    return make_captioner(tmp_path_factory.mktemp("captioner"))


@pytest.fixture(scope="module")
def merged(captioner, tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("merged") / "fp32")
    merge(open_captioner(captioner), folder, "fp32")
    return Weights(folder)


def test_each_row_is_drawn_by_its_own_seed_whatever_its_neighbours(merged):
    writer = Writer(merged, SPEC)
    drafts = plan_drafts(TRACKS, per_track=1, seed=0, draws=range(2))
    assert len(drafts) == 12, "two tracks have no tags"
    together = writer(drafts)["text"].to_pylist()
    order = np.random.default_rng(0).permutation(len(drafts))
    shuffled = writer(drafts.take(order))["text"].to_pylist()
    assert [together[i] for i in order] == shuffled
    assert together[0] != together[1], "two draws of one caption"


def test_draws_of_one_prompt_share_its_prefill_and_write_the_same(merged):
    writer = Writer(merged, replace(SPEC, batch=12))
    drafts = plan_drafts(TRACKS, per_track=1, seed=0, draws=range(2))
    assert len(set(drafts["prompt"].to_pylist())) < len(drafts)
    alone = Writer(merged, replace(SPEC, batch=1))
    assert writer(drafts)["text"].to_pylist() == alone(drafts)["text"].to_pylist()


def test_sampling_follows_the_softmax():
    scores = torch.tensor([[0.0, 1.0, 2.0, -9.0]])
    spec = CaptionSpec(temperature=0.5, top_k=2)
    sampler = SeededSampling([3], spec)
    drawn = [int(sampler(torch.empty(0), scores).argmax()) for _ in range(3000)]
    share = np.bincount(drawn, minlength=4) / 3000
    wanted = torch.softmax(torch.tensor([1.0, 2.0]) / 0.5, 0).numpy()
    assert np.allclose(share, [0, *wanted, 0], atol=0.03)
    greedy = SeededSampling([3], replace(spec, temperature=0.0))
    assert int(greedy(torch.empty(0), scores).argmax()) == 2


def test_tags_are_favoured_until_they_are_written():
    spec = CaptionSpec(temperature=0.0, tag_bias=2.0, presence_penalty=1.5)
    words = [[[[1]], [[2, 3]]], [[[0]]]]  # the first row waits for two words, the other for one
    sampler = SeededSampling([3, 4], spec, asked=1, words=words)
    rows, scores = [[1], [0]], torch.zeros(2, 4)
    after = sampler(torch.tensor(rows), scores)
    assert after.tolist() == [[0, 2, 2, 0], [2, 0, 0, 0]], "the prompt is no caption"
    after = sampler(torch.tensor([[1, 2], [0, 0]]), scores)
    assert after.tolist() == [[0, 2, 0.5, 2], [-1.5, 0, 0, 0]], "what is written is written"
    after = sampler(torch.tensor([[1, 2, 3], [0, 0, 3]]), scores)
    assert after.tolist() == [[0, 2, -1.5, -1.5], [-1.5, 0, 0, -1.5]]


def test_merged_weights_write_what_the_adapter_writes(captioner, merged):
    drafts = plan_drafts(TRACKS, per_track=1, seed=0, draws=range(1))
    served = Writer(Weights(f"{captioner}/base", captioner), SPEC)(drafts)
    assert Writer(merged, SPEC)(drafts)["text"].to_pylist() == served["text"].to_pylist()


def test_weights_are_merged_in_the_precision_they_write_in(captioner, tmp_path):
    from safetensors import safe_open

    opened = open_captioner(captioner)
    merge(opened, str(tmp_path / "half"), "bf16")
    with safe_open(tmp_path / "half/model.safetensors", "pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.bfloat16}
    whole, half = bytes_to_merge(opened, "fp32"), bytes_to_merge(opened, "bf16")
    stored = (tmp_path / "half/model.safetensors").stat().st_size
    assert stored < whole - half < 1.5 * stored, "a quarter more than the weights, and a start"


def test_an_adapter_of_another_base_is_rejected(captioner, make_captioner, tmp_path):
    other = make_captioner(tmp_path / "other", seed=5)
    shutil.rmtree(f"{other}/base")
    shutil.copytree(f"{captioner}/base", f"{other}/base")
    with pytest.raises(InputError, match="was tuned on base"):
        open_captioner(other)
    facts = storage.read_json(f"{captioner}/captioner.json")
    storage.write_json(f"{other}/captioner.json", facts | {"prompt": "another"})
    with pytest.raises(InputError, match="trained with prompt another"):
        open_captioner(other)
    with pytest.raises(InputError, match="no captioner"):
        open_captioner(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        (
            "captioner.json",
            None,
            "it has no captioner.json. Probably `raymtr finetune` was stopped",
        ),
        ("adapter_config.json", None, "no adapter_config.json"),
        ("adapter_model.safetensors", None, "no adapter_model.safetensors"),
        ("adapter_model.safetensors", b"", "incomplete or has no weights"),
        ("adapter_model.safetensors", b"\2\0\0\0\0\0\0\0{}", "incomplete or has no weights"),
        ("adapter_model.safetensors", 0.9, "incomplete or has no weights"),
    ],
)
def test_what_is_less_than_a_captioner_says_so(captioner, tmp_path, name, data, says):
    shutil.copytree(captioner, tmp_path / "c")
    whole = (tmp_path / "c" / name).read_bytes()
    (tmp_path / "c" / name).unlink()
    if data is not None:
        cut = whole[: int(data * len(whole))] if isinstance(data, float) else data
        (tmp_path / "c" / name).write_bytes(cut)
    with pytest.raises(InputError, match=says):
        open_captioner(str(tmp_path / "c"))


def test_a_base_that_was_deleted_is_said_to_be_gone(captioner, tmp_path):
    shutil.copytree(captioner, tmp_path / "c")
    shutil.rmtree(tmp_path / "c/base")
    with pytest.raises(
        InputError, match=r"base of the captioner in \S+ is missing: .* put it back"
    ):
        open_captioner(str(tmp_path / "c"))


def test_a_base_that_was_moved_is_found_where_the_captioner_says(captioner, tmp_path):
    whole = open_captioner(captioner)
    shutil.copytree(captioner, tmp_path / "c")
    facts = storage.read_json(f"{tmp_path}/c/captioner.json")
    facts["base"] = str(tmp_path / "c/elsewhere")
    storage.write_json(f"{tmp_path}/c/captioner.json", facts)
    with pytest.raises(InputError, match=r"is missing: \S+/elsewhere has no model"):
        open_captioner(str(tmp_path / "c"))
    shutil.move(tmp_path / "c/base", tmp_path / "c/elsewhere")
    moved = open_captioner(str(tmp_path / "c"))
    assert (moved.identity, moved.base) == (whole.identity, facts["base"])
    shutil.move(tmp_path / "c", tmp_path / "d")  # and with all that it has, when that is inside
    facts["base"] = "elsewhere"
    storage.write_json(f"{tmp_path}/d/captioner.json", facts)
    assert open_captioner(str(tmp_path / "d")).identity == whole.identity


def test_an_adapter_of_another_shape_is_rejected(captioner, tmp_path):
    shutil.copytree(captioner, tmp_path / "c")
    config = json.loads((tmp_path / "c/adapter_config.json").read_text())
    (tmp_path / "c/adapter_config.json").write_text(json.dumps(config | {"r": 2}))
    with pytest.raises(InputError, match="does not fit"):
        merge(open_captioner(str(tmp_path / "c")), str(tmp_path / "merged"), "fp32")
    assert not (tmp_path / "merged").exists()


def test_seeds_are_a_draws_own_and_the_same_everywhere():
    seeds = {seed_of(s, t, c, d) for s in (0, 1) for t in "ab" for c in (0, 1) for d in (0, 1)}
    assert len(seeds) == 16 and max(seeds) < 2**31


def drafts_with(*texts: str | None) -> pa.Table:
    row = {"track_id": "t", "caption": 0, "tags": '["slow", "piano"]', "names": '["Zork"]'}
    rows = [{**row, "draw": i, "seed": i, "text": text} for i, text in enumerate(texts)]
    return pa.Table.from_pylist(rows, DRAFT)


def test_the_most_faithful_acceptable_draft_is_kept():
    judged = judge_drafts(
        drafts_with(
            "A slow tune with trumpet and violin and drums.",
            "A slow piano piece.",
            "Zork is a slow piano piece.",
            "piano piano piano piano piano piano piano piano piano",
            None,
        ),
        MusicTerms.of_tags(["slow", "piano", "trumpet", "violin"]),
    ).to_pylist()
    verdicts = [row["verdict"] for row in judged]
    assert verdicts[1] == OK and verdicts[2] == "leaks a name" and "repeats" in verdicts[3]
    assert judged[4]["error"] == "the engine wrote nothing"
    (best,) = best_drafts(judged)
    assert best["draw"] == 1
    provenance = json.loads(caption_row(best, {"engine": "transformers"})["provenance"])
    assert provenance["source"] == "model" and provenance["coverage"] == 1.0
    assert provenance["tags"] == ["slow", "piano"] and provenance["engine"] == "transformers"


def test_the_realiser_is_the_fallback_and_says_so():
    judged = judge_drafts(drafts_with("Zork."), MusicTerms.of_tags([])).to_pylist()
    row = realised_row(best_drafts(judged)[0], {})
    provenance = json.loads(row["provenance"])
    assert provenance["source"] == "realised" and provenance["instead_of"] == "Zork."
    again = realise(provenance["tags"], provenance["seed"])
    assert (again.text, again.structure) == (row["caption"], provenance["structure"])
    assert "slow" in row["caption"].casefold() and "piano" in row["caption"].casefold()


def test_other_settings_replace_only_when_they_are_done(tmp_path):
    folder = str(tmp_path / "captions")

    def rows(who: str, *ids: str) -> list[dict[str, str]]:
        return [{"track_id": i, "caption": who, "provenance": "{}"} for i in ids]

    first = CaptionStore(folder, {"seed": 0})
    first.take()
    first.commit(rows("one", "a", "b"), [])
    first.finish()
    letter = {"track_id": "d", "uri": None, "code": "generation", "reason": "died"}
    second = CaptionStore(folder, {"seed": 1})
    second.take()
    second.commit(rows("two", "a"), [letter])
    assert storage.read_tables(folder)["caption"].to_pylist() == ["one", "one"]
    again = CaptionStore(folder, {"seed": 1})
    again.take()
    assert again.done().to_pylist() == ["a"]
    with pytest.raises(UnusableError, match="taken over"):
        second.commit(rows("two", "c"), [])
    again.commit(rows("two", "b"), [letter])
    again.finish()
    assert sorted(storage.read_tables(folder)["track_id"].to_pylist()) == ["a", "b"]
    assert set(storage.read_tables(folder)["caption"].to_pylist()) == {"two"}
    assert storage.list_folders(folder) == ["dead_letter"]
    more = CaptionStore(folder, {"seed": 1})
    more.take()
    assert sorted(more.done().to_pylist()) == ["a", "b"], "the same settings go on"
