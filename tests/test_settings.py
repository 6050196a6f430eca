"""Where settings come from, which source wins, and that nothing unknown is ignored."""

import json

import pytest

from raymtr.errors import InputError
from raymtr.recipes import RECIPES, laptop, ttmrpp
from raymtr.settings import load_settings


def test_a_recipe_alone_is_itself():
    for name, recipe in RECIPES.items():
        assert load_settings(name) == recipe()
    assert load_settings() == laptop()


def test_later_sources_win(tmp_path):
    config = tmp_path / "s.toml"
    config.write_text('recipe = "tiny"\n[train]\nsteps = 7\nglobal_batch = 9\nseed = 3\n')
    settings = load_settings(
        config=str(config),
        environment={"RAYMTR_SET_TRAIN__GLOBAL_BATCH": "10", "RAYMTR_SET_TRAIN__SEED": "4"},
        assignments=["train.seed=5"],
    )
    assert settings.recipe == "tiny"
    assert (settings.train.steps, settings.train.global_batch, settings.train.seed) == (7, 10, 5)
    assert load_settings("laptop", config=str(config), assignments=["train.warmup_steps=0"]).recipe


def test_json_files_words_lists_and_neighbours(tmp_path):
    config = tmp_path / "s.json"
    config.write_text(json.dumps({"towers": {"audio_tower": {"layers": [1, 2, 3, 4]}}}))
    settings = load_settings(config=str(config), assignments=["towers.text_tower.source=my/model"])
    assert settings.towers.audio_tower.layers == (1, 2, 3, 4)
    assert settings.towers.audio_tower.width == laptop().towers.audio_tower.width
    assert settings.towers.text_tower.source == "my/model"


def test_the_mixture_is_replaced_whole_or_amended_by_name():
    whole = load_settings("ttmrpp", assignments=['train.mixture={"fma": 1}'])
    assert whole.train.mixture == {"fma": 1.0}
    amended = load_settings("ttmrpp", assignments=["train.mixture.fma=0.5"])
    assert amended.train.mixture == dict(ttmrpp().train.mixture) | {"fma": 0.5}


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.stepz=1", "unknown setting 'train.stepz'; accepted here: steps, global_batch"),
        ("nothing=1", "unknown setting 'nothing'; accepted here: recipe, towers"),
        ("train.steps", "--set takes key=value, got 'train.steps'"),
        ("train.steps=many", "'train.steps' is a int, got 'many'"),
        ("train.steps=1.5", "'train.steps' is a int"),
        ("train.use_gpu=1", "'train.use_gpu' is a bool"),
        ("train.learning_rate=NaN", "'train.learning_rate' is a finite number"),
        ("train.precision=fp64", "'train.precision' accepts fp32, bf16; got 'fp64'"),
        ("train.steps.more=1", "'train.steps' is a value, not a group"),
        ("train=1", "'train' is a group of settings"),
        ("towers.audio_tower.layers=[1,2]", "is a list of 4"),
        ("recipe=tiny", "choose it with --recipe"),
    ],
)
def test_a_wrong_assignment_is_told_what_is_accepted(assignment, words):
    with pytest.raises(InputError, match=words):
        load_settings(assignments=[assignment])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("s.toml", b"train = ", "does not parse"),
        ("s.json", b"[1]", "must contain a table"),
        ("s.toml", b"[train]\nstep = 1\n", "unknown setting 'train.step'"),
        (
            "s.toml",
            b'recipe = "huge"\n',
            "unknown recipe 'huge'; accepted: ttmrpp, mulan, ttmrpp-small, raymtr-small, ",
        ),
        ("s.json", b'{"recipe": ["tiny"]}', "unknown recipe"),
        ("s.toml", b"x = '\xff'", "does not parse"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words):
        load_settings(config=str(tmp_path / name))


def test_an_absent_file_and_an_unknown_recipe():
    with pytest.raises(InputError, match=r"absent.toml does not exist"):
        load_settings(config="absent.toml")
    with pytest.raises(InputError, match="unknown recipe 'x'"):
        load_settings("x")


def test_variables_of_others_are_left_alone_and_unknown_ones_of_ours_are_not():
    assert load_settings(environment={"RAYMTR_OTHER": "1", "PATH": "x"}) == laptop()
    with pytest.raises(InputError, match=r"unknown setting 'train.stepz'"):
        load_settings(environment={"RAYMTR_SET_TRAIN__STEPZ": "1"})


@pytest.mark.parametrize(
    "assignment",
    [
        "train.warmup_steps=1000",
        "train.min_learning_rate=1.0",
        'train.mixture={"a": -1}',
        'train.mixture={"a": 0}',
        "towers.temperature=0",
        "towers.temperature=-0.1",
        "towers.dim=0",
        "towers.audio_tower.heads=3",
        "towers.audio_tower.width=0",
        "towers.audio_tower.width=7",
        "towers.audio_tower.layers=[0,0,0,0]",
        "towers.text_tower.max_tokens=0",
        "towers.audio.window_s=0.1",
        "towers.audio.hop=100000000",
        "towers.audio.n_fft=1",
        "towers.audio.n_mels=8",
        "towers.audio.n_mels=800",
        "towers.audio.sample_rate=1000000000000",
        "towers.audio.window_s=100000",
        "towers.audio.min_tail_s=100",
        "towers.audio_tower.width=1000000000000",
        "towers.dim=1000000000000",
        "towers.text_tower.source=",
        "towers.text_tower.max_tokens=1000000000000",
        "train.learning_rate=0",
        "train.threads=1000000000000",
        "train.seed=100000000000000000000",
        "finetune.min_workers=2",
        "finetune.targets=,",
        "finetune.learning_rate=0",
        "finetune.rank=1000000000000",
        "finetune.toy.vocabulary=1000000000000",
        "finetune.toy.learning_rate=0",
        "caption.max_new_tokens=1000000000000",
        "caption.temperature=1000000",
        "finetune.validate_every=0",
        "finetune.checkpoint_every=0",
        "finetune.steps=0",
        "finetune.rank=0",
        "finetune.learning_rate=-1",
        "finetune.warmup=5",
        "finetune.warmup=-1",
        "finetune.dropout=1.5",
        "finetune.dropout=-0.1",
        "finetune.max_tokens=8",
        "finetune.faithful=2",
        "finetune.faithful=-1",
        "finetune.sentences=7",
        "finetune.seed=-1",
        'finetune.mixture={"x": -3}',
        "finetune.workers=5",
        "finetune.toy.steps=0",
        "finetune.toy.heads=3",
        "finetune.toy.vocabulary=10",
        "finetune.toy.width=0",
        "finetune.toy.max_tokens=4",
        "caption.temperature=-1",
        "caption.top_k=-5",
        "caption.max_new_tokens=0",
        "caption.draws=0",
        "caption.passes=0",
        "caption.batch=0",
        "caption.actors=0",
        "caption.threads=0",
        "caption.tag_bias=-100",
        "caption.presence_penalty=3",
    ],
)
def test_a_setting_that_makes_no_sense_is_rejected_by_name(assignment: str):
    """Before anything starts: no worker meets it, and nothing is trained on it."""
    group, name = assignment.partition("=")[0].rsplit(".", 1)
    with pytest.raises(InputError, match=rf"{group}\b.*\b{name}"):
        load_settings("tiny", assignments=[assignment])


def test_the_least_that_makes_sense_is_taken():
    assert load_settings("tiny", assignments=["caption.temperature=0", "caption.top_k=0"])
