import json
import re
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raymtr.captions.templates import (
    HELD_OUT_TEMPLATES,
    MAX_TAGS,
    TRAIN_TEMPLATES,
    caption_tracks,
    fill,
    template_caption,
)
from raymtr.track import check_tracks

ALL = TRAIN_TEMPLATES + HELD_OUT_TEMPLATES
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


@pytest.mark.parametrize("template", ALL)
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
    assert sorted({fill(TRAIN_TEMPLATES[0], tags, np.random.default_rng(s)) for s in range(9)}) == [
        "A slow waltz track featuring organ and violin, in a minor key.",
        "A slow waltz track featuring violin and organ, in a minor key.",
    ]
    assert fill(TRAIN_TEMPLATES[0], ["upbeat", "8-bit"], rng()) == "An upbeat 8-bit track."
    assert fill(TRAIN_TEMPLATES[1], ["ukulele"], rng()) == "This is a piece with ukulele."
    assert fill(TRAIN_TEMPLATES[1], ["UK garage"], rng()) == "This is a UK garage piece."
    assert fill(TRAIN_TEMPLATES[3], ["drum and bass"], rng()) == "A drum and bass song."


def test_no_tags_no_caption():
    for tags in ([], None, ["", "  "]):
        assert template_caption(tags, rng()) is None


def test_at_most_twenty_tags_and_none_twice():
    caption = template_caption([f"t{i}x" for i in range(30)], rng())
    assert len(re.findall(r"t\d+x", caption, re.IGNORECASE)) == MAX_TAGS
    assert template_caption(["Rock", "rock ", "rock"], rng()).casefold().count("rock") == 1


def test_held_out_wording_is_not_training_wording():
    assert not set(TRAIN_TEMPLATES) & set(HELD_OUT_TEMPLATES)
    tags = ["slow", "waltz", "violin", "minor key"]

    def frames(held_out: bool) -> set[str]:
        captions = {
            template_caption(tags, np.random.default_rng(s), held_out=held_out) for s in range(60)
        }
        return {re.sub("slow|waltz|violin|minor key", "_", c, flags=re.I) for c in captions}

    assert len(frames(False)) == len(TRAIN_TEMPLATES)
    assert len(frames(True)) == len(HELD_OUT_TEMPLATES)
    assert not frames(False) & frames(True)


def catalog_of(rows: list[dict[str, Any]]) -> pa.Table:
    return check_tracks(pa.Table.from_pylist(rows))


def test_no_template_says_a_tracks_names():
    row = {"track_id": "a", "tags": ["Queen", "rock"], "artist": "Queen", "title": "Radio Ga Ga"}
    for caption in caption_tracks(catalog_of([row]), per_track=8, seed=0)["caption"].to_pylist():
        assert "rock" in caption.casefold() and "queen" not in caption.casefold()
    only = [row | {"tags": ["queen"]}]
    assert len(caption_tracks(catalog_of(only), per_track=1, seed=0)) == 0


def test_a_tracks_captions_are_its_own_affair():
    rows = [{"track_id": f"t{i}", "tags": ["slow", "waltz", f"kind{i}"]} for i in range(6)]
    rows.append({"track_id": "untagged", "tags": None})
    together = caption_tracks(catalog_of(rows), per_track=3, seed=1).to_pylist()
    assert len(together) == 18 and len({row["caption"] for row in together}) == 18
    alone = caption_tracks(catalog_of(rows[4:5]), per_track=3, seed=1).to_pylist()
    assert alone == [row for row in together if row["track_id"] == "t4"]
    assert alone != caption_tracks(catalog_of(rows[4:5]), per_track=3, seed=2).to_pylist()
    for row in together:
        provenance = json.loads(row["provenance"])
        assert provenance["source"] == "template" and provenance["template"] in TRAIN_TEMPLATES


def test_more_captions_than_wordings_are_still_different():
    table = catalog_of([{"track_id": "a", "tags": ["rock"]}])
    captions = caption_tracks(table, per_track=40, seed=0)["caption"].to_pylist()
    assert len(captions) == len(set(captions)) == len(TRAIN_TEMPLATES)
