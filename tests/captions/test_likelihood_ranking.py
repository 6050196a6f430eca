"""Ranking of realised captions: the likeliest is kept, and nothing else changes."""

import json

import pyarrow as pa
import pytest
import torch

from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.writing.ranking import CANDIDATES, Ranker
from raymtr.captions.writing.realised_rows import caption_tracks
from raymtr.captions.writing.realiser import realise
from raymtr.track import check_tracks


@pytest.fixture(scope="module")
def base(make_captioner, tmp_path_factory) -> str:
    torch.set_num_threads(1)
    return f"{make_captioner(tmp_path_factory.mktemp('base'))}/base"


@pytest.mark.slow
def test_the_likeliest_of_a_tracks_captions_are_kept(base):
    rows = [{"track_id": f"t{i}", "tags": ["slow", "piano", f"kind{i}"]} for i in range(3)]
    rows.append({"track_id": "untagged", "tags": None})
    tracks = check_tracks(pa.Table.from_pylist(rows))
    kept = Ranker(base, per_track=2, seed=1)(tracks).to_pylist()
    everything = caption_tracks(tracks, per_track=2 * CANDIDATES, seed=1).to_pylist()
    likelihood = Likelihood(base)
    for row in rows[:3]:
        texts = [one["caption"] for one in everything if one["track_id"] == row["track_id"]]
        nats = likelihood.given_tags(texts, [row["tags"]] * len(texts))
        best = [texts[i] for i in nats.argsort(kind="stable")[:2]]
        assert [one["caption"] for one in kept if one["track_id"] == row["track_id"]] == best
    for row in kept:
        told = json.loads(row["provenance"])
        assert told["source"] == "realised" and told["ranked"] == 2 * CANDIDATES
        assert realise(told["tags"], told["seed"]).text == row["caption"]
