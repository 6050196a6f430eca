import re

import numpy as np
import pytest

from raymtr.captions.writing.templates import (
    MAX_TAGS,
    TEMPLATES,
    fill,
    template_caption,
)

TAG_LISTS = [
    ["chiptune", "8-bit", "video game", "upbeat"],
    ["guitar"],
    ["minor key"],
    ["sad"],
    ["rock"],
    ["slow", "waltz", "violin", "organ", "minor key", "drums", "legato", "reverb"],
    ["drum and bass", "female vocals", "80s", "Hip-Hop", "{what}", "[x]", r"\1"],
    [f"tag number {i}" for i in range(30)],
]


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("tags", TAG_LISTS, ids=lambda tags: tags[0])
def test_every_template_holds_every_tag_once_and_reads_as_a_sentence(template, tags):
    tags = tags[:MAX_TAGS]
    caption = fill(template, tags, rng())
    for tag in tags:
        assert len(re.findall(rf"(?<!\w){re.escape(tag)}(?!\w)", caption, re.IGNORECASE)) == 1
    assert caption[0] == caption[0].upper() and caption.endswith(".")
    assert "  " not in caption and " ," not in caption and "a(n)" not in caption
    assert not re.search(r"\ba [aeio]|\ban [bcdfgjkpqstvwz]", caption)


def test_sentences_by_eye():
    tags = ["slow", "violin", "minor key", "waltz", "organ"]
    assert sorted({fill(TEMPLATES[0], tags, np.random.default_rng(s)) for s in range(9)}) == [
        "A slow waltz track featuring organ and violin, in a minor key.",
        "A slow waltz track featuring violin and organ, in a minor key.",
    ]
    assert fill(TEMPLATES[0], ["upbeat", "8-bit"], rng()) == "An upbeat 8-bit track."
    assert fill(TEMPLATES[1], ["ukulele"], rng()) == "This is a piece with ukulele."
    assert fill(TEMPLATES[1], ["UK garage"], rng()) == "This is a UK garage piece."
    assert fill(TEMPLATES[3], ["drum and bass"], rng()) == "A drum and bass song."


def test_no_tags_no_caption():
    for tags in ([], None, ["", "  "]):
        assert template_caption(tags, rng()) is None


def test_at_most_twenty_tags_and_none_twice():
    caption = template_caption([f"t{i}x" for i in range(30)], rng())
    assert len(re.findall(r"t\d+x", caption, re.IGNORECASE)) == MAX_TAGS
    assert template_caption(["Rock", "rock ", "rock"], rng()).casefold().count("rock") == 1
