"""Sound from words by a tiny trained stack: what it learnt, windows, its folder, its files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

from jobs.__main__ import main
from raymtr import load_model, storage
from raymtr.errors import InputError, UnusableError
from raymtr.generation.marker import MARKER
from raymtr.generation.musiclm import MusicLM, Scene, check_story
from raymtr.generation.musiclm_folder import read_musiclm, save_musiclm
from raymtr.generation.parts import Parts, read_parts
from raymtr.generation.sound_file import is_generated, wav_bytes
from raymtr.generation.stages import Stages, stage_names
from raymtr.generation.write_clips import PROMPTS, WriteClips
from raymtr.generation_specs import MusicLMSpec
from raymtr.training.musiclm import Crops, MusicLMBatches, MusicLMStep
from raymtr.workspace import Workspace
from tests.generation.conftest import KINDS, MUSICLM, TOKENS, TRAIN, centroid_hz, vectors_of


@pytest.fixture(scope="module")
def musiclm(trained: tuple[Stages, list[dict]], parts: Parts, tiny_model: str) -> MusicLM:
    return MusicLM(trained[0], parts, load_model(tiny_model), fingerprint="f")


def joint_of(parts: Parts, *kinds: str) -> torch.Tensor:
    rng = np.random.default_rng(9)
    vectors = np.stack([vectors_of(kind, rng).mean(axis=0) for kind in kinds])
    return torch.from_numpy(parts.joint.of_audio(vectors))[:, None]


def sound_of(musiclm: MusicLM, scenes: list[torch.Tensor], *args: object) -> list[np.ndarray]:
    windows = list(musiclm.sound(scenes, *args))  # type: ignore[arg-type]
    return [np.concatenate([part[row] for part in windows]) for row in range(len(scenes[0]))]


@pytest.mark.slow
def test_training_beats_unigrams(trained: tuple[Stages, list[dict]], crops: Crops) -> None:
    """A stage's loss is below the entropy of its tokens, which their frequencies alone give."""
    stages, figures = trained
    name = stage_names(stages.spec)[0]
    levels = stages.of(name).output.levels
    tokens = np.concatenate(crops.tokens[name].to_numpy()).reshape(-1, levels)
    entropies = []
    for level in range(levels):
        shares = np.bincount(tokens[:, level]) / len(tokens)
        entropies.append(-(shares[shares > 0] * np.log(shares[shares > 0])).sum())
    last = np.mean([row[name] for row in figures[-10:]])
    assert last < 0.8 * np.mean(entropies)
    assert figures[-1]["loss"] < 0.7 * figures[0]["loss"]


@pytest.mark.slow
def test_the_condition_decides_what_is_heard(musiclm: MusicLM, parts: Parts) -> None:
    joint = joint_of(parts, *KINDS, *KINDS)
    low, high, low2, high2 = sound_of(musiclm, [joint], [0.0], 2.5, [1, 2, 3, 4])
    assert len(low) == len(high) == 40_000
    assert max(map(centroid_hz, (low, low2))) < 4_500 < 5_500 < min(map(centroid_hz, (high, high2)))


@pytest.mark.slow
def test_a_story_changes_what_follows_and_keeps_what_was(musiclm: MusicLM, parts: Parts) -> None:
    low, high = joint_of(parts, "low"), joint_of(parts, "high")
    [changed] = sound_of(musiclm, [low, high], [0.0, 3.0], 6.0, [1])
    [same] = sound_of(musiclm, [low], [0.0], 6.0, [1])
    assert len(changed) == len(same) == 96_000
    assert np.array_equal(changed[:32_000], same[:32_000])
    assert not np.array_equal(changed[-32_000:], same[-32_000:])


@pytest.mark.slow
def test_windows_join_to_what_is_asked(musiclm: MusicLM) -> None:
    story = [[Scene("slow piano")], [Scene("drums")]]
    windows = list(musiclm.stream(story, 3.3, [5, 6]))
    assert len(windows) > 2
    assert sum(len(part[0]) for part in windows) == round(3.3 * 16_000)
    assert len(windows[0][0]) < 0.5 * 3.3 * 16_000  # the first sound comes before half of all
    again = musiclm.generate(["slow piano", "drums"], 3.3, [5, 6])
    assert np.array_equal(again[1], np.concatenate([part[1] for part in windows]))
    assert not np.array_equal(again[1], musiclm.generate(["drums"], 3.3, [7])[0])


@pytest.mark.parametrize(
    ("story", "seconds", "words"),
    [
        ([Scene("  ")], 5, "the text is empty"),
        ([Scene("a" * 1_001)], 5, "at most 1000 characters, this one 1001"),
        ([], 5, "there is no text"),
        ([Scene("a")], 0, "1 to 600 seconds, got 0"),
        ([Scene("a")], 10_800, "1 to 600 seconds, got 10800"),
        ([Scene("a"), Scene("b", 9.0), Scene("c", 4.0)], 20, "each after the one before"),
        ([Scene("a", 1.0)], 20, "start at 0 s"),
        ([Scene("a"), Scene("b", 30.0)], 20, "after the end"),
    ],
)
def test_bad_requests(story: list[Scene], seconds: float, words: str) -> None:
    with pytest.raises(InputError, match=words):
        check_story(story, seconds)


@pytest.fixture(scope="module")
def folder(
    trained: tuple[Stages, list[dict]],
    parts: Parts,
    tiny_model: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A saved model, made as the training's end does."""
    place = tmp_path_factory.mktemp("musiclm")
    parts.save(str(place / "tokens/parts"))
    shutil.copytree(tiny_model, place / "tokens/model")
    save_musiclm(trained[0], str(place / "tokens"), str(place / "model"), provenance={})
    return place / "model"


@pytest.mark.slow
def test_a_saved_model_sounds_the_same(folder: Path, musiclm: MusicLM) -> None:
    read = read_musiclm(str(folder))
    assert read.parts.fingerprint == musiclm.parts.fingerprint
    made = [model.generate(["slow piano"], 2.0, [3])[0] for model in (read, musiclm)]
    assert np.array_equal(*made)
    data = wav_bytes(made[0], read.sample_rate, prompt="slow", seed=3, made_by=read.made_by)
    assert is_generated(data) and read.fingerprint.encode() in data
    assert data == wav_bytes(made[1], 16_000, prompt="slow", seed=3, made_by=read.made_by)


@pytest.mark.slow
def test_the_verb_writes_a_file_or_one_sentence(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    shutil.copytree(folder, f"{workspace.run('lm')}/model")
    common = ["--workspace", workspace.root]
    asked = ["generate", "a low tone", *common, "--seconds", "2", "--seed", "7"]
    for name in ("a", "b"):
        assert main([*asked, "--out", str(tmp_path / f"{name}.wav")]) == 0
    files = [(tmp_path / f"{name}.wav").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1] and is_generated(files[0])
    assert len(soundfile.read(tmp_path / "a.wav")[0]) == 32_000
    rows = storage.read_tables(f"{workspace.generated}/manifest")
    assert rows is not None and rows["prompt"].to_pylist() == ["a low tone"] * 2
    capsys.readouterr()
    out = tmp_path / "none.wav"
    for arguments, words in (
        ([" "], "the text is empty"),
        (["x", "--seconds", "0"], "1 to 600 seconds, got 0"),
        (["x", "--seed", "-1"], "a seed is from 0"),
        (["x", "--story", "s.jsonl"], "one of a text"),
        (["x", "--model", str(tmp_path)], "is no MusicLM model"),
    ):
        assert main(["generate", *arguments, *common, "--out", str(out)]) == 2
        assert words in capsys.readouterr().err and not out.exists()


def test_a_model_that_cannot_make_sound_leaves_no_file(
    folder: Path,
    spec: MusicLMSpec,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    workspace, out = Workspace.open(str(tmp_path / "w"), create=True), tmp_path / "none.wav"

    def asked(model: Path) -> int:
        words = ["generate", "a low tone", "--workspace", workspace.root, "--seconds", "2"]
        return main([*words, "--model", str(model), "--out", str(out)])

    def copy(name: str) -> Path:
        return Path(shutil.copytree(folder, tmp_path / name))

    broken, without, other = copy("broken"), copy("without"), copy("other")
    first, *_, last = [*stage_names(spec), *stage_names(spec)]
    weights = load_file(broken / f"{first}.safetensors")
    save_file({**weights, "head": weights["head"] * torch.nan}, broken / f"{first}.safetensors")
    assert asked(broken) == 3
    assert "none.wav is not written: the model gives numbers that are not finite" in caplog.text
    rows = storage.read_tables(f"{workspace.generated}/manifest")
    assert rows is not None and rows["code"].to_pylist() == ["bad_model"]
    (without / f"{last}.safetensors").unlink()
    assert asked(without) == 2 and f"lacks its stage {last}" in capsys.readouterr().err
    said = json.loads((other / "parts/parts.json").read_text())
    (other / "parts/parts.json").write_text(json.dumps(said | {"fingerprint": "else"}))
    assert asked(other) == 2 and "was trained on tokens of the parts" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.slow
def test_the_ablation_makes_sound_without_semantic_tokens(
    crops: Crops, parts: Parts, tiny_model: str, tmp_path: Path
) -> None:
    spec = dataclasses.replace(MUSICLM, hears_semantic=False)
    batch = Crops(crops.tokens, crops.rows, parts, spec).batch(
        np.arange(2), [np.random.default_rng(n) for n in range(2)]
    )
    stages = Stages(TOKENS, spec, codec_codes=TOKENS.codes)
    assert set(MusicLMStep(stages, TRAIN, torch.device("cpu")).losses(batch)) == {"coarse", "fine"}
    parts.save(str(tmp_path / "tokens/parts"))
    shutil.copytree(tiny_model, tmp_path / "tokens/model")
    save_musiclm(stages, str(tmp_path / "tokens"), str(tmp_path / "model"), provenance={})
    [sound] = read_musiclm(str(tmp_path / "model")).generate(["a low tone"], 2.0, [1])
    assert len(sound) == 32_000


@pytest.mark.slow
def test_a_job_writes_clips_and_rows(folder: Path, tmp_path: Path) -> None:
    write = WriteClips(str(folder), str(tmp_path), 2.0, device="cpu", threads=1)
    asked = [{"clip_id": name, "text": "noise", "seed": n} for n, name in enumerate(("p", "q"))]
    rows = write(pa.Table.from_pylist(asked, PROMPTS)).to_pylist()
    assert [row["clip_id"] for row in rows] == ["p", "q"] and rows[0]["code"] is None
    assert all(is_generated(Path(row["uri"]).read_bytes()) for row in rows)
    with torch.no_grad():
        stages = write._model.stages
        stages.of(stage_names(stages.spec)[-1]).head.fill_(torch.nan)
    assert write(pa.Table.from_pylist(asked, PROMPTS))["code"].to_pylist() == ["bad_model"] * 2


def test_damaged_models_are_told_in_one_sentence(
    folder: Path, spec: MusicLMSpec, tmp_path: Path
) -> None:
    first, *_, last = [*stage_names(spec), *stage_names(spec)]

    def copy() -> Path:
        place = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(folder, place)
        return place

    without = copy()
    (without / f"{last}.safetensors").unlink()
    with pytest.raises(InputError, match=f"lacks its stage {last}"):
        read_musiclm(str(without))
    other = copy()
    said = json.loads((other / "parts/parts.json").read_text())
    (other / "parts/parts.json").write_text(json.dumps(said | {"fingerprint": "else"}))
    with pytest.raises(InputError, match=r"trained on tokens of the parts .* has else"):
        read_musiclm(str(other))
    torn = copy()
    (torn / f"{first}.safetensors").write_bytes(b"torn")
    with pytest.raises(UnusableError, match="is damaged"):
        read_musiclm(str(torn))
    with pytest.raises(InputError, match="is no MusicLM model"):
        read_musiclm(str(tmp_path))
    old = copy()
    config = json.loads((old / MARKER).read_text())
    (old / MARKER).write_text(json.dumps(config | {"format": 1}))
    with pytest.raises(UnusableError, match="was written by an older raymtr"):
        read_musiclm(str(old))
    (other / "parts/parts.safetensors").write_bytes(b"torn")
    with pytest.raises(UnusableError, match=r"parts .* are damaged"):
        read_parts(str(other / "parts"))


def test_resumed_training_ends_at_the_same_weights(
    crops: Crops, new_step: Callable[[], MusicLMStep]
) -> None:
    batches = MusicLMBatches(crops, TRAIN, rank=0, workers=1)
    whole, first, second = new_step(), new_step(), new_step()
    for number in range(4):
        whole(batches.make(number), number)
    for number in range(2):
        first(batches.make(number), number)
    second.restore(first.state())
    for number in range(2, 4):
        second(batches.make(number), number)
    for ours, theirs in zip(whole.towers.parameters(), second.towers.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_workers_share_a_batch(crops: Crops) -> None:
    whole = MusicLMBatches(crops, TRAIN, rank=0, workers=1).make(3)
    halves = [MusicLMBatches(crops, TRAIN, rank=rank, workers=2).make(3) for rank in range(2)]
    for name, rows in whole.stages.items():
        both = torch.cat([half.stages[name].target for half in halves])
        assert torch.equal(both, rows.target)
