"""Specs go to JSON and back unchanged, and say no by name."""

import dataclasses
import json

import pytest

from raymtr.caption_specs import CaptionSpec
from raymtr.errors import InputError
from raymtr.recipes import RECIPES
from raymtr.specs import EmbedSpec, Settings, TrainSpec
from raymtr.tower_specs import AudioSpec, TowersSpec
from raymtr.validation import from_dict, to_dict


@pytest.mark.parametrize("name", RECIPES)
def test_json_and_back(name):
    settings = RECIPES[name]()
    assert from_dict(Settings, json.loads(json.dumps(to_dict(settings)))) == settings


def test_the_published_audio_numbers():
    spec = AudioSpec()
    assert spec.window_samples == 220_500
    assert spec.frames == 1_002  # 220500 / 220, centred, last frame dropped


def test_absent_keys_keep_their_defaults_and_whole_numbers_are_floats():
    spec = from_dict(TowersSpec, {"audio": {"window_s": 5}})
    assert spec == TowersSpec(audio=AudioSpec(window_s=5.0))
    assert isinstance(spec.audio.window_s, float)


def test_specs_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        AudioSpec().hop = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("cls", "values", "words"),
    [
        (AudioSpec, {"hopp": 1}, "unknown setting 'hopp'; accepted here: sample_rate, window_s"),
        (CaptionSpec, {"tensor_parallel": 2}, "tensor_parallel=2 counts GPUs; set use_gpu=true"),
        (CaptionSpec, {"gpu_memory": 1.5}, "gpu_memory is over 0 and at most 1, got 1.5"),
        (CaptionSpec, {"max_num_seqs": 0}, "max_num_seqs is at least 1, got 0"),
        (CaptionSpec, {"passes": 0}, "passes is at least 1, got 0"),
        (TowersSpec, {"audio": {"hop": "220"}}, "'audio.hop' is a int, got '220'"),
        (TowersSpec, {"audio": 5}, "'audio' is a group"),
        (AudioSpec, {"hop": True}, "'hop' is a int"),
        (AudioSpec, {"window_s": float("inf")}, "finite"),
        (TrainSpec, {"mixture": [1]}, "'mixture' is a mapping"),
        (TrainSpec, {"mixture": {"fma": "much"}}, "'mixture.fma' is a float"),
        (Settings, {}, "'recipe' is missing"),
        (
            Settings,
            {"recipe": "r", "train": {"steps": 0}},
            "setting train.steps is at least 1, got 0",
        ),
        (Settings, {"recipe": "r", "embed": {"actors": 0}}, "setting embed.actors is at least 1"),
        (TrainSpec, {"workers": 769}, "global_batch .* got 768 over 769 workers"),
        (TrainSpec, {"min_workers": 2}, "min_workers is at most 1, got 2"),
        (EmbedSpec, {"actors": 2, "min_actors": 3}, "min_actors is at most 2, got 3"),
        (TowersSpec, {"audio": {"window_s": 0}}, "setting audio.window_s is at least 0.1, got 0"),
    ],
)
def test_wrong_values_are_named_with_their_path(cls, values, words):
    with pytest.raises(InputError, match=words):
        from_dict(cls, values)


def test_moved_names_answer_with_a_warning() -> None:
    from raymtr import caption_specs, specs, validation

    for home, name in ((caption_specs, "ToyLlamaSpec"), (validation, "to_dict")):
        with pytest.warns(DeprecationWarning, match=f"{name} is {home.__name__}.{name}"):
            assert getattr(specs, name) is getattr(home, name)
    with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
        specs.Unknown  # noqa: B018
