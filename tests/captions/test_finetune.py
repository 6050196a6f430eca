"""LoRA and pretraining: what is learned, what is resumed, what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from raymtr.captions.base_model import (
    add_lora,
    base_identity,
    check_vocabulary,
    load_base,
    load_tokenizer,
)
from raymtr.captions.learning.loop import Phase
from raymtr.captions.learning.pairs import Draw, read_pairs, that_fit
from raymtr.captions.learning.pretrain import build_toy, pretrain_draw, train_tokenizer
from raymtr.captions.learning.step import AnswerLoss, FinetuneStep, batches_from, pad
from raymtr.captions.prompt import encode
from raymtr.errors import InputError, UnusableError

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def made(pair_file, small_spec):
    pairs = read_pairs(pair_file)
    return pairs, train_tokenizer(pairs, small_spec.toy)


def trainer(tokenizer, spec, *, lora=False):
    model = build_toy(tokenizer, spec.toy, seed=0)
    model = add_lora(model, spec) if lora else model
    return FinetuneStep(model, spec, device=CPU, steps=spec.steps, rate=spec.learning_rate)


def test_the_loss_is_transformers_own_over_the_answer(made, small_spec):
    pairs, tokenizer = made
    rows = [encode(tokenizer, p.tags, p.caption, max_tokens=64) for p in pairs[:5]]
    batch = pad(rows, tokenizer.pad_token_id)
    model = build_toy(tokenizer, small_spec.toy, seed=0).eval()
    answer_tokens = int((batch.labels[:, 1:] != -100).sum())
    ours = AnswerLoss(model)(batch) / answer_tokens
    theirs = model(
        input_ids=batch.input_ids, attention_mask=batch.attention_mask, labels=batch.labels
    ).loss
    assert torch.isclose(ours, theirs, atol=1e-5)
    alone = AnswerLoss(model)(pad(rows[:1], tokenizer.pad_token_id))
    short = encode(tokenizer, pairs[0].tags, pairs[0].caption, max_tokens=64)[0]
    assert torch.isfinite(alone) and len(short) <= batch.input_ids.shape[1]


def test_pretraining_learns_and_a_resumed_run_is_the_same_run(made, small_spec):
    pairs, tokenizer = made
    spec = replace(small_spec, steps=20)
    draw = pretrain_draw(pairs, spec.toy, weights={})

    def go(step, first, last):
        return [
            step(batch, number)["loss"]
            for number, batch in enumerate(
                batches_from(draw, tokenizer, spec, first=first, steps=last), start=first
            )
        ]

    whole = trainer(tokenizer, spec)
    losses = go(whole, 0, 20)
    assert losses[-1] < losses[0] - 0.5
    half = trainer(tokenizer, spec)
    go(half, 0, 10)
    resumed = trainer(tokenizer, spec)
    resumed.restore(half.state())
    assert go(resumed, 10, 20) == losses[10:]


def test_lora_trains_its_pairs_and_leaves_the_base_alone(made, small_spec):
    pairs, tokenizer = made
    step = trainer(tokenizer, small_spec, lora=True)
    before = {n: p.clone() for n, p in step.model.named_parameters()}
    draw = Draw(pairs, weights={}, faithful=1.0)
    for number, batch in enumerate(batches_from(draw, tokenizer, small_spec, first=0, steps=6)):
        step(batch, number)
    for name, parameter in step.model.named_parameters():
        changed = not torch.equal(parameter, before[name])
        assert changed == ("lora_" in name), name
    adapted = {name.split(".")[-4] for name in step.learned}
    assert adapted == {"q_proj", "v_proj"}


def test_a_batch_read_in_parts_is_the_same_step(made, small_spec):
    pairs, tokenizer = made
    rows = [encode(tokenizer, p.tags, p.caption, max_tokens=64) for p in pairs[:8]]
    batch, after = pad(rows, tokenizer.pad_token_id), []
    for accumulate in (1, 3):
        step = trainer(tokenizer, replace(small_spec, accumulate=accumulate, dropout=0), lora=True)
        figures = [step(batch, number)["loss"] for number in range(2)]
        after.append((figures, step.weights()))
    assert after[0][0] == pytest.approx(after[1][0], rel=1e-5)
    for name, weight in after[0][1].items():
        assert torch.allclose(weight, after[1][1][name], atol=1e-5), name


def test_the_adapter_is_on_upper_layers_and_recomputing_changes_nothing(made, small_spec):
    pairs, tokenizer = made
    rows = [encode(tokenizer, p.tags, p.caption, max_tokens=64) for p in pairs[:4]]
    batch = pad(rows, tokenizer.pad_token_id)
    spec = replace(small_spec, upper_layers=1, dropout=0)
    plain, saving = (
        trainer(tokenizer, replace(spec, checkpointing=on), lora=True) for on in (False, True)
    )
    assert plain.learned and all(".layers.1." in name for name in plain.learned)
    assert plain(batch, 0)["loss"] == pytest.approx(saving(batch, 0)["loss"], rel=1e-5)
    for name, weight in plain.weights().items():
        assert torch.allclose(weight, saving.weights()[name], atol=1e-6), name
    with pytest.raises(InputError, match="upper_layers is at most the 2 layers of this base"):
        trainer(tokenizer, replace(spec, upper_layers=3), lora=True)


def test_training_stops_with_the_validation_loss_and_keeps_the_best_weights(made, small_spec):
    _, tokenizer = made
    step = trainer(tokenizer, replace(small_spec, patience=2), lora=True)
    phase = Phase("lora", "nowhere", step, tokenizer, [])
    stops, best = [], {}
    for loss in (3.0, 2.0, 2.5, 2.6):
        stops.append(phase._is_last(loss))
        best = step.weights() if loss == 2.0 else best
        step.restore_weights({name: value + 1 for name, value in step.weights().items()})
    assert stops == [False, False, False, True]
    phase.keep_best()
    assert all(torch.equal(value, best[name]) for name, value in step.weights().items())
    never = Phase("pretrain", "nowhere", step, tokenizer, [])
    assert not any(never._is_last(loss) for loss in (1.0, 2.0, 3.0, 4.0))


def test_pairs_without_room_for_their_caption_are_left_out_and_counted(made):
    pairs, tokenizer = made
    many = tuple(f"very long tag number {n}" for n in range(20))
    long = [replace(pair, tags=many) for pair in pairs[:12]]
    endless = [replace(pair, caption="A slow piano. " * 40) for pair in pairs[:3]]
    fit, notes = that_fit([*long, *endless, *pairs[20:30]], tokenizer, max_tokens=64)
    assert fit == [*long, *pairs[20:30]]
    assert notes[0].startswith("3 of 25 pairs are left out: their caption does not fit")
    assert notes[1].startswith("12 of 25 pairs lose tags")
    assert that_fit(pairs, tokenizer, max_tokens=64) == (pairs, [])


def test_too_little_room_for_any_pair_is_rejected_with_the_room_there_should_be(made):
    pairs, tokenizer = made
    endless = [replace(pair, caption="A slow piano. " * 40) for pair in pairs]
    with pytest.raises(
        InputError, match=r"finetune.max_tokens=64 .* 0 of 120 pairs; at least 10"
    ) as refused:
        that_fit(endless, tokenizer, max_tokens=64)
    enough = int(re.search(r"(\d+) all", str(refused.value))[1])
    assert that_fit(endless, tokenizer, max_tokens=enough)[0] == endless


@pytest.mark.parametrize("lora", [False, True])
def test_an_update_that_spoils_the_weights_is_seen_in_its_own_step(made, small_spec, lora):
    pairs, tokenizer = made
    spec = replace(small_spec, learning_rate=1e30, steps=1, warmup=0.0)
    step = trainer(tokenizer, spec, lora=lora)
    (batch,) = batches_from(
        Draw(pairs, weights={}, faithful=1.0), tokenizer, spec, first=0, steps=1
    )
    setting = "finetune.learning_rate" if lora else "finetune.toy.learning_rate"
    with pytest.raises(UnusableError, match=f"norm of the weights became inf .* lower {setting}"):
        step(batch, 0)


def test_what_cannot_be_is_rejected_in_words(made, small_spec, tmp_path):
    pairs, tokenizer = made
    model = build_toy(tokenizer, small_spec.toy, seed=0)
    with pytest.raises(InputError, match=r"w_proj.*q_proj"):
        add_lora(model, replace(small_spec, targets="w_proj"))
    with pytest.raises(InputError, match="--base"):
        load_tokenizer(str(tmp_path / "nothing"))
    base = str(tmp_path / "base")
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    check_vocabulary(base, load_tokenizer(base))
    other = load_tokenizer(base)
    other.add_tokens(["<one>", "<more>"])
    with pytest.raises(InputError, match=r"has \d+ tokens and its weights have \d+: .*two models"):
        check_vocabulary(base, other)
    other.eos_token = None
    other.save_pretrained(str(tmp_path / "endless"))
    with pytest.raises(InputError, match="has no end-of-sequence token"):
        load_tokenizer(str(tmp_path / "endless"))
    with pytest.raises(InputError, match="no model at"):
        check_vocabulary(str(tmp_path / "endless"), other)
    if not torch.cuda.is_available():
        with pytest.raises(UnusableError, match="bitsandbytes"):
            load_base("any", replace(small_spec, quantization="4bit"))
    step = trainer(tokenizer, replace(small_spec, learning_rate=1e30))
    with pytest.raises(UnusableError, match="learning_rate"):
        draw = pretrain_draw(pairs, small_spec.toy, weights={})
        batches = batches_from(draw, tokenizer, small_spec, first=0, steps=9)
        for number, batch in enumerate(batches):
            step(batch, number)


def test_bases_are_distinguished(made, small_spec, tmp_path):
    _, tokenizer = made
    for name, seed in (("one", 1), ("same", 1), ("other", 2)):
        build_toy(tokenizer, small_spec.toy, seed=seed).save_pretrained(tmp_path / name)
    one, same, other = (base_identity(str(tmp_path / n)) for n in ("one", "same", "other"))
    assert one == same != other
    assert base_identity("meta-llama/Llama-2-7b-hf") == "meta-llama/Llama-2-7b-hf"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("no json", "line 2"),
        ('{"tags": ["a"]}', "caption"),
        ('{"tags": 3, "caption": "x"}', "list of texts"),
        ('{"tags": ["a"], "caption": null}', "is a text"),
    ],
)
def test_bad_pairs_are_named(tmp_path, line, says):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"tags": "a, b", "caption": "c"}) + f"\n{line}\n")
    with pytest.raises(InputError, match=says):
        read_pairs(str(file))


def test_too_few_pairs_are_rejected(tmp_path):
    file = tmp_path / "p.jsonl"
    file.write_text(json.dumps({"tags": "a, b", "caption": "c"}) + "\n")
    with pytest.raises(InputError, match="1 pairs"):
        read_pairs(str(file))
    with pytest.raises(InputError, match="no file"):
        read_pairs(str(tmp_path / "none.jsonl"))


WORKER = """
import os, sys, torch, torch.distributed as dist
from dataclasses import replace
from raymtr.captions.base_model import add_lora
from raymtr.captions.learning.step import FinetuneStep, batches_from
from raymtr.captions.learning.pairs import Draw, read_pairs
from raymtr.captions.learning.pretrain import build_toy, train_tokenizer
from raymtr.caption_specs import FinetuneSpec, ToyLlamaSpec
torch.set_num_threads(1)
pairs, out, strategy, precision = sys.argv[1:]
world = int(os.environ["WORLD_SIZE"])
if world > 1:
    dist.init_process_group("gloo")
toy = ToyLlamaSpec(width=64, layers=2, heads=1, inner=96, vocabulary=600)
spec = FinetuneSpec(steps=3, batch=8, learning_rate=5e-3, max_tokens=64, dropout=0.0, toy=toy,
                    strategy=strategy, precision=precision)
pairs = read_pairs(pairs)
tokenizer = train_tokenizer(pairs, toy)
base = build_toy(tokenizer, toy, seed=0)
model = add_lora(base.to(torch.bfloat16) if precision == "bf16" else base, spec)
if strategy == "fsdp" and world > 1:
    def refuse(*_):
        raise AssertionError("the whole model on one device")
    model.to = refuse
step = FinetuneStep(model, spec, device=torch.device("cpu"), steps=3, rate=spec.learning_rate)
draw = Draw(pairs, weights={}, faithful=1.0)
for number, batch in enumerate(batches_from(draw, tokenizer, spec, first=0, steps=3)):
    loss = step(batch, number)["loss"]
state = step.state()
step.restore(state)
if not int(os.environ["RANK"]):
    torch.save({"loss": loss, "weights": state["weights"]}, out)
if world > 1:
    dist.destroy_process_group()
os._exit(0)  # gloo's threads may still drop tensors: in Python's own exit that would abort
"""


def train_on(
    world: int, pairs: str, strategy: str, folder: Path, *, precision: str = "fp32"
) -> dict:
    """The same three steps on `world` processes; rank 0's weights."""
    out = folder / f"{strategy}-{world}.pt"
    port = str(20_000 + os.getpid() % 10_000 + world)
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, pairs, str(out), strategy, precision],
            env=os.environ
            | {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_PORT": port}
            | {"MASTER_ADDR": "127.0.0.1", "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
        for rank in range(world)
    ]
    assert [worker.wait(timeout=600) for worker in workers] == [0] * world
    return torch.load(out, weights_only=True)


@pytest.fixture(scope="module")
def one_worker(pair_file, tmp_path_factory):
    return train_on(1, pair_file, "ddp", tmp_path_factory.mktemp("one"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_take_the_step_of_one(pair_file, tmp_path, strategy, one_worker):
    one = one_worker
    two = train_on(2, pair_file, strategy, tmp_path)
    assert abs(one["loss"] - two["loss"]) < 1e-4
    strip = {name.removeprefix("module."): p for name, p in two["weights"].items()}
    assert set(strip) == set(one["weights"])
    for name, weight in one["weights"].items():
        assert torch.allclose(weight, strip[name], atol=2e-4), name


def test_shards_of_a_bf16_base_learn_in_fp32(pair_file, tmp_path):
    one = train_on(1, pair_file, "fsdp", tmp_path, precision="bf16")
    two = train_on(2, pair_file, "fsdp", tmp_path, precision="bf16")
    assert abs(one["loss"] - two["loss"]) < 0.05
    for name, weight in one["weights"].items():
        assert weight.dtype == two["weights"][name].dtype == torch.float32
        other = two["weights"][name]
        # Adam moves a weight by its whole rate even where rounding decides the gradient's sign, so
        # the tensors are compared as wholes.
        assert (weight - other).norm() < 0.1 * weight.norm(), name
