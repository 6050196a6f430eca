"""The toy base: its tokenizer knows every byte, its sentences teach copying."""

import json
from pathlib import Path

import numpy as np
import torch

from raymtr.captions.learning.pairs import (
    Draw,
    Pair,
    by_people,
    faithful_tags,
    find_terms,
    hold_out,
    read_pairs,
    words_of,
)
from raymtr.captions.learning.pretrain import build_toy, pretrain_draw, train_tokenizer


def test_the_tokenizer_loses_nothing(pair_file, small_spec):
    tokenizer = train_tokenizer(read_pairs(pair_file), small_spec.toy)
    for text in (" A slow piano.", " 中国 موسيقى 🎹", " C# minor"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text
    assert len(tokenizer) <= small_spec.toy.vocabulary
    assert tokenizer("x")["input_ids"][0] == tokenizer.bos_token_id


def test_the_same_seed_builds_the_same_llama(pair_file, small_spec):
    tokenizer = train_tokenizer(read_pairs(pair_file), small_spec.toy)
    one, same, other = (build_toy(tokenizer, small_spec.toy, seed=s) for s in (1, 1, 2))
    weights = [m.model.embed_tokens.weight for m in (one, same, other)]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_sentences_hold_every_tag_and_come_at_their_share(pair_file, small_spec):
    draw = pretrain_draw(read_pairs(pair_file), small_spec.toy, weights={})
    rng = np.random.default_rng(0)
    for _ in range(50):
        tags, text = draw.sentence(rng)
        assert all(tag.casefold() in text.casefold() for tag in tags)
    made = sum("written by" not in draw(rng)[1] for _ in range(600)) / 600
    assert abs(made - small_spec.toy.sentences) < 0.08


def test_held_out_clips_are_in_no_other_set(pair_file):
    pairs = read_pairs(pair_file)
    sets = hold_out(pairs)
    train, valid, held = (
        {p.clip for p in part} for part in (sets.train, sets.valid, sets.held_out)
    )
    assert not train & valid and not train & held and not valid & held
    assert all(p.source == "x_human" and p.split == "eval" for p in sets.held_out)
    assert len(sets.held_out) == round(60 * 0.125)
    again = hold_out(pairs[::-1])
    assert {p.clip for p in again.held_out} == held, "the order of lines does not matter"


def write_pairs(path: Path, rows: list[dict]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_one_recording_under_many_ids_is_held_out_whole(tmp_path: Path):
    rows = [
        {"tags": [f"tag {i % 6}", "x"][:: 1 - 2 * (i % 2)], "caption": f"It is a piece {i % 6}."}
        | {"track_id": f"t{i}"}
        for i in range(60)
    ]
    sets = hold_out(read_pairs(write_pairs(tmp_path / "p.jsonl", rows)))
    said = [{p.caption for p in part} for part in (sets.train, sets.valid, sets.held_out)]
    assert all(said) and sum(map(len, said)) == 6, "no caption is in two sets"
    assert len(sets.held_out) == 10


def test_a_clip_numbered_0_is_a_clip(tmp_path: Path):
    rows = [
        {"tags": [f"tag {i}"], "caption": f"It is a piece {i}.", "clip_id": i // 2}
        for i in range(20)
    ]
    pairs = read_pairs(write_pairs(tmp_path / "p.jsonl", rows))
    assert [pair.clip for pair in pairs[:4]] == ["0", "0", "1", "1"]


def test_what_people_wrote_is_told_from_the_rest(pair_file):
    pairs = read_pairs(pair_file)
    people = by_people(pairs)
    assert {p.source for p in people} == {"x_human"} and len(people) == len(pairs) // 2
    nobody_says = [p for p in pairs if p.source == "machine"]
    assert by_people(nobody_says) == nobody_says


def test_faithful_tags_are_in_the_caption():
    caption = "A slow electric guitar plays over a drum machine."
    known = {"slow", "electric guitar", "guitar", "drum machine", "piano"}
    terms = tuple(find_terms(caption, known))
    assert terms == ("slow", "electric guitar", "drum machine"), "the longest term wins"
    pair = Pair(("slow", "sad violin", "guitar"), caption, "", "c", "", terms)
    tags = faithful_tags(pair)
    assert tags == ["slow", "guitar", "electric guitar", "drum machine"]
    assert all(set(words_of(tag)) <= set(words_of(caption)) for tag in tags)


def test_a_source_comes_as_often_as_its_weight_says(pair_file):
    draw = Draw(read_pairs(pair_file), weights={"machine": 0.25}, faithful=0.0)
    rng = np.random.default_rng(0)
    machine = sum("machine" in draw(rng)[1] for _ in range(1000)) / 1000
    assert abs(machine - 0.2) < 0.05
