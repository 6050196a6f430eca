"""Which tokens a caption is drawn to: the words of its tags that it does not hold yet."""

import pytest
import torch

from raymtr.captions.pairs import read_pairs
from raymtr.captions.pretrain import train_tokenizer
from raymtr.captions.tag_words import OpenWords, extra_args, tag_words

SLOW, PIANO, PIANIST = [5], [7, 8, 9], [7, 8, 4]


def test_a_word_is_drawn_to_until_it_is_written():
    words = OpenWords([[SLOW], [PIANO]])
    assert words.after([]) == [5, 7]
    assert words.after([1, 5]) == [7], "slow is written"
    assert words.after([7]) == [7, 8], "a word begun goes on"
    assert words.after([8]) == [7, 9]
    assert words.after([9]) == [], "nothing is left"
    assert words.after([5, 7, 8]) == [], "and said again, it is no news"


def test_a_word_that_is_broken_off_stays_open():
    words = OpenWords([[PIANO]])
    assert words.after([7, 8, 2]) == [7]
    assert words.after([7, 7]) == [7, 8], "it may begin at any token"


def test_two_words_that_begin_alike_are_told_apart():
    words = OpenWords([[PIANO], [PIANIST]])
    assert words.after([7, 8]) == [4, 7, 9]
    assert words.after([4]) == [7]
    assert words.after([7, 8]) == [7, 9]


def test_any_spelling_ends_a_word_but_it_is_drawn_to_its_own():
    words = OpenWords([[SLOW, [6]]])
    assert words.after([]) == [5]
    assert words.after([6]) == []


def test_words_are_spelt_as_inside_a_sentence(pair_file, small_spec):
    tokenizer = train_tokenizer(read_pairs(pair_file), small_spec.toy)
    found = tag_words(tokenizer, ["slow hi-hat", "Rock and roll", "of"])
    texts = [[tokenizer.decode(spelling) for spelling in spellings] for spellings in found]
    assert texts == [
        [" Rock", " rock"],
        [" hi-hat", " Hi-hat"],
        [" roll", " Roll"],
        [" slow", " Slow"],
    ], "small words are no tags"
    assert tag_words(tokenizer, ["of", "and"]) == tag_words(tokenizer, []) == []


def test_vllm_is_drawn_to_the_same_tokens():
    pytest.importorskip("vllm", reason="vLLM is not installed here")
    from vllm import SamplingParams

    from raymtr.captions.vllm_tag_words import TagWords

    processor = TagWords(None, torch.device("cpu"), False)
    asked = SamplingParams(extra_args=extra_args([[SLOW], [PIANO]], 2.0))
    favour = processor.new_req_logits_processor(asked)
    written: list[int] = []
    own = OpenWords([[SLOW], [PIANO]])
    for token in [1, 7, 8, 5, 9, 7, 2]:
        scores = favour(written, torch.zeros(10))
        wanted = torch.zeros(10)
        wanted[own.after(written[-1:])] = 2.0
        assert torch.equal(scores, wanted)
        written.append(token)
    assert processor.new_req_logits_processor(SamplingParams()) is None
