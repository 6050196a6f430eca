"""Melodies: near across instruments, tokens beside M_A, and sound that follows a recording."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from token_builders import settings_of, tokenised

from jobs.__main__ import main
from raymtr import load_model, storage
from raymtr.errors import InputError, UnusableError
from raymtr.generation.fit_sample import fit_sample
from raymtr.generation.melody import (
    NONE,
    MelodyTokens,
    TuneClip,
    crop_starts,
    crop_tokens,
    fit_melody,
    semi_hard_loss,
    track_starts,
)
from raymtr.generation.musiclm import MusicLM
from raymtr.generation.musiclm_folder import save_musiclm
from raymtr.generation.parts import Parts, read_parts
from raymtr.generation.requests import read_melody, read_prompts
from raymtr.generation.stages import Stages
from raymtr.generation.token_store import local_tokens, token_tracks
from raymtr.generation.write_clips import PROMPTS, WriteClips
from raymtr.generation_specs import MelodySpec
from raymtr.track import check_tracks
from raymtr.training.musiclm import Crops, MusicLMBatches, MusicLMObjective, MusicLMStep
from raymtr.workspace import Workspace
from tests.generation.conftest import (
    KINDS,
    MUSICLM,
    TOKENS,
    TRAIN,
    centroid_hz,
    sound,
    vectors_of,
)

pytestmark = pytest.mark.slow
SPEC = MelodySpec(
    steps=60,
    batch=8,
    learning_rate=2e-3,
    layers=1,
    heads=2,
    width=32,
    inner=64,
    dim=16,
    levels=2,
    codes=8,
    rounds=4,
)
NOTES_HZ = (262, 294, 330, 349, 392, 440, 494, 523, 587)
RATE, NOTE = 16_000, 8_000  # samples


def played(tune: int, *, reed: bool, seconds: float = 6.0) -> np.ndarray:
    """A tune of random notes on one of two instruments, mono float32 [S]."""
    rng, time = np.random.default_rng(tune), np.arange(NOTE) / RATE
    harmonics = {1: 1.0, 3: 0.33, 5: 0.2, 7: 0.14} if reed else {1: 1.0, 2: 0.1}
    fade = np.exp(-time * (2 if reed else 5))
    notes = [
        sum(a * np.sin(2 * np.pi * hz * k * time) for k, a in harmonics.items()) * fade
        for hz in rng.choice(NOTES_HZ, int(seconds * RATE) // NOTE)
    ]
    return (0.2 * np.concatenate(notes)).astype(np.float32)


@pytest.fixture(scope="module")
def melody() -> MelodyTokens:
    clips = [
        TuneClip(str(tune), first_s, played(tune, reed=reed)[round(first_s * RATE) :])
        for tune in range(24)
        for reed, first_s in ((False, 0.0), (True, 0.5))
    ]
    return fit_melody(clips, SPEC, seed=0)


def first_of(melody: MelodyTokens, tunes: range) -> float:
    """The share of tunes whose nearest on the other instrument is themselves."""
    one, other = (
        torch.cat([melody.vectors(played(tune, reed=reed), [1.0]) for tune in tunes])
        for reed in (False, True)
    )
    nearest = (one @ other.T).argmax(dim=1)
    return float((nearest == torch.arange(len(tunes))).float().mean())


def test_a_held_out_tune_is_found_on_another_instrument(melody: MelodyTokens) -> None:
    held_out = range(1_000, 1_020)
    torch.manual_seed(0)
    assert first_of(melody, held_out) >= 0.2  # chance 0.05
    assert first_of(melody, held_out) > first_of(MelodyTokens(SPEC).eval(), held_out)


def test_the_negative_is_semi_hard() -> None:
    """Of two negatives farther than the partner the nearer counts; without any, the farthest."""
    ours = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    theirs = torch.nn.functional.normalize(torch.tensor([[1.0, 0.2], [0.2, 1.0], [-1.0, 0.2]]))
    far = 2 - 2 * ours @ theirs.T
    rows = []
    for row in range(3):
        others = [float(far[row, n]) for n in range(3) if n != row]
        harder = [distance for distance in others if distance > far[row, row]]
        rows.append(max(0.0, float(far[row, row]) - (min(harder or [max(others)])) + 0.2))
    assert float(semi_hard_loss(ours, theirs)) == pytest.approx(np.mean(rows), abs=1e-5)
    same = torch.ones(3, 2) / 2**0.5  # no negative is farther: the margin is what is left
    assert float(semi_hard_loss(same, same)) == pytest.approx(0.2, abs=1e-5)


def test_windows_cover_a_crop_and_lie_in_the_track() -> None:
    assert [len(crop_starts(length)) for length in (1.0, 4.0, 5.0, 9.9, 10.0, 30.0)] == [
        *(1, 1, 2, 3, 3, 10)
    ]
    assert track_starts(2.0) == [0.0] and track_starts(6.5) == [0.0, 1.0, 2.0]
    stored = np.arange(3)[:, None]
    assert crop_tokens(stored, 1.0, 2.0).tolist() == [[1]]
    assert crop_tokens(stored, 0.0, 10.0).tolist() == [[0], [2], [2]]


def test_recordings_without_a_common_window_teach_nothing() -> None:
    clips = [TuneClip(str(n), 5.0 * n, played(0, reed=False)) for n in (0, 1)]
    clips += [TuneClip("one", 4.0 * n, played(0, reed=False)) for n in (0, 1)]
    with pytest.raises(UnusableError, match="0 tunes have two recordings with 4 s in common"):
        fit_melody(clips, SPEC, seed=0)


@pytest.fixture(scope="module")
def stack(parts: Parts, tiny_model: str) -> MusicLM:
    """A model of low and high sounds, whose M_A says nothing of which is which."""
    rng = np.random.default_rng(0)
    sounds = [(kind, np.tile(sound(kind, rng), 2)) for kind in KINDS * 6]
    clips = [TuneClip(kind, 0.0, wave) for kind, wave in sounds]
    spec = dataclasses.replace(SPEC, steps=20, batch=2, codes=2)
    tokens = dataclasses.replace(TOKENS, melody=spec)
    melody = fit_melody(clips, spec, seed=0)
    own = Parts(tokens, parts.codec, parts.semantic, parts.joint, melody, joint_model="none")
    rows = [
        {
            "track_id": str(n),
            "seconds": 6.0,
            "semantic": own.semantic.encode(wave),
            "acoustic": own.codec.encode(wave).reshape(-1),
            "melody": melody.encode(wave, track_starts(6.0)).reshape(-1),
            "starts_s": [0.0],
            "vectors": vectors_of(KINDS[n // 2 % 2], rng)[:1].reshape(-1),
        }
        for n, (_, wave) in enumerate(sounds)
    ]
    crops = Crops(pa.Table.from_pylist(rows), np.arange(len(rows)), own, MUSICLM)
    torch.manual_seed(0)
    step = MusicLMStep(Stages(tokens, MUSICLM, codec_codes=16), TRAIN, torch.device("cpu"))
    batches = MusicLMBatches(crops, TRAIN, rank=0, workers=1)
    for number in range(TRAIN.steps):
        step(batches.make(number), number)
    return MusicLM(step.towers.eval(), own, load_model(tiny_model), fingerprint="f")


def test_the_melody_decides_what_is_heard(stack: MusicLM) -> None:
    rng = np.random.default_rng(5)
    hums = [np.tile(sound(kind, rng), 2) for kind in (*KINDS, *KINDS)]
    seeds = [1, 2, 3, 4]
    made = stack.generate(["music"] * 4, 2.5, seeds, melodies=hums)
    low, high, low2, high2 = map(centroid_hz, made)
    assert max(low, low2) < 4_500 < 5_000 < min(high, high2)
    assert len(stack.generate(["music"], 2.5, [1])[0]) == 40_000  # it may be left out
    with pytest.raises(InputError, match="1 melodies for 2 clips"):
        stack.generate(["a", "b"], 2.0, [1, 2], melodies=hums[:1])


def test_a_row_without_a_melody_has_the_sign_for_nothing(stack: MusicLM) -> None:
    coarse, missing = stack.stages.coarse, torch.full((1, 2, SPEC.levels), NONE)
    assert stack.stages.no_melody(1, 5.0)[0].equal(missing)
    assert coarse.ids(1, missing).unique().tolist() == [coarse.null]


@pytest.fixture(scope="module")
def workspace(stack: MusicLM, tiny_model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the model `lm`, and recordings beside it."""
    root = tmp_path_factory.mktemp("melody")
    stack.parts.save(str(root / "tokens/parts"))
    shutil.copytree(tiny_model, root / "tokens/model")
    workspace = Workspace.open(str(root / "w"), create=True)
    model = f"{workspace.run('lm')}/model"
    save_musiclm(stack.stages, str(root / "tokens"), model, provenance={})
    tune = played(1, reed=False)
    for name, samples in (("hum", tune), ("short", tune[: 3 * RATE]), ("silent", 0 * tune)):
        soundfile.write(root / f"{name}.wav", samples, RATE)
    soundfile.write(root / "long.wav", np.full(601 * 8_000, 0.1, np.float32), 8_000)
    (root / "no.wav").write_text("no sound")
    return root


def generate(root: Path, melody: str, out: str, *more: str) -> int:
    asked = ["generate", "a tone", "--workspace", str(root / "w"), "--seconds", "2", *more]
    return main([*asked, "--melody", str(root / melody), "--out", str(root / out)])


def test_file_and_manifest_name_the_melody(workspace: Path) -> None:
    assert generate(workspace, "hum.wav", "a.wav") == 0
    assert generate(workspace, "hum.wav", "b.wav") == 0
    one, other = ((workspace / f"{name}.wav").read_bytes() for name in "ab")
    name = read_melody(str(workspace / "hum.wav")).name
    assert one == other and json.dumps(name).encode() in one and name.startswith("hum.wav ")
    rows = storage.read_tables(f"{workspace}/w/generated/manifest")
    assert rows is not None and rows["melody"].to_pylist() == [name, name]


@pytest.mark.parametrize(
    ("melody", "words"),
    [
        ("silent.wav", "silent.wav cannot be used as a melody: its 6.0 s are silent"),
        ("short.wav", "melody: it has 3.0 s, at least 4 are needed"),
        ("no.wav", "no.wav .*: it is not in a known audio format"),
        ("none.wav", "none.wav .*: there is no file"),
        ("long.wav", "long.wav .*: .*at most 600"),
    ],
)
def test_a_melody_that_cannot_be_heard_is_refused(
    workspace: Path, melody: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match=words):
        read_melody(str(workspace / melody))
    assert generate(workspace, melody, "none_made.wav") == 2
    said = capsys.readouterr().err
    assert "cannot be used as a melody" in said and "Traceback" not in said
    assert not (workspace / "none_made.wav").exists()


def test_a_model_without_a_melody_part_says_so(
    workspace: Path, parts: Parts, tiny_model: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    parts.save(str(tmp_path / "tokens/parts"))
    shutil.copytree(tiny_model, tmp_path / "tokens/model")
    stages, bare = Stages(TOKENS, MUSICLM, codec_codes=TOKENS.codes), str(tmp_path / "bare")
    save_musiclm(stages, str(tmp_path / "tokens"), bare, provenance={})
    assert generate(workspace, "hum.wav", "none_made.wav", "--model", bare) == 2
    assert "has no melody part: run `raymtr tokenize`" in capsys.readouterr().err
    assert not (workspace / "none_made.wav").exists()


def test_clips_of_prompts_follow_a_melody(workspace: Path, tmp_path: Path) -> None:
    melody, file = read_melody(str(workspace / "hum.wav")), tmp_path / "p.jsonl"
    file.write_text('{"text": "a tone"}')
    [prompt], [bare] = (read_prompts(str(file), 2.0, 0, heard) for heard in (melody, None))
    assert prompt.clip_id != bare.clip_id
    model = f"{workspace}/w/towers/lm/model"
    write = WriteClips(model, str(tmp_path), 2.0, melody, device="cpu", threads=1)
    [row] = write(pa.Table.from_pylist([vars(prompt)], PROMPTS)).to_pylist()
    assert row["melody"] == melody.name and row["code"] is None
    assert melody.name.encode() in Path(row["uri"]).read_bytes()


def catalog(root: Path, *, tunes: int, copies: bool = False) -> Workspace:
    """Tunes on two instruments; with `copies` the two have the same audio."""
    rows = []
    for n in range(2 * tunes):
        file = root / f"{n}.wav"
        soundfile.write(file, played(n // 2, reed=bool(n % 2)), RATE)
        digest = f"d{n // 2 if copies else n}"
        facts = {"track_id": f"t{n}", "uri": str(file), "tune": n // 2, "audio_digest": digest}
        rows.append(facts | {"split": "train", "tags": ["tone"]})
    workspace = Workspace.open(str(root / "w"), create=True)
    table = check_tracks(pa.Table.from_pylist(rows))
    storage.write_table(f"{workspace.tracks}/part-0.parquet", table)
    return workspace


def test_a_catalog_of_tunes_teaches_a_melody_part(tmp_path: Path, tiny_model: str) -> None:
    workspace, settings = catalog(tmp_path, tunes=4), settings_of(steps=2)
    spec = dataclasses.replace(SPEC, steps=2, batch=2)
    tokens = dataclasses.replace(settings.tokens, fit_tracks=3, fit_s=5.0, melody=spec)
    settings = dataclasses.replace(settings, tokens=tokens)
    assert len(fit_sample(workspace, tokens)) > 3
    store = tokenised(workspace, settings, tiny_model)
    melody = read_parts(store.parts_folder).melody
    assert melody is not None
    [row] = [row for row in local_tokens(store.folder).to_pylist() if row["track_id"] == "t3"]
    own = melody.encode(played(1, reed=True), [0.0, 1.0, 2.0])
    assert np.array_equal(np.reshape(row["melody"], (3, SPEC.levels)), own)
    objective = MusicLMObjective(settings, store.folder, torch.device("cpu"))
    tracks = token_tracks(workspace, store)
    batches = objective.batches(tracks, None, rank=0, workers=1)  # type: ignore[arg-type]
    batch = batches.make(0)
    assert batch.stages["semantic"].conditions[1].shape == (4, 1, SPEC.levels)
    assert len(batch.stages["coarse"].conditions) == 3 and len(batch.stages["fine"].conditions) == 1
    assert objective.step(batch, 0)["loss"] > 0


@pytest.mark.parametrize(("tunes", "copies", "seen"), [(1, False, 1), (3, True, 0)])
def test_a_catalog_without_pairs_trains_no_melody_part_and_says_so(
    tmp_path: Path, tunes: int, copies: bool, seen: int
) -> None:
    workspace = catalog(tmp_path, tunes=tunes, copies=copies)
    with pytest.raises(InputError, match=f"{seen} tunes have two such tracks, at least 2"):
        fit_sample(workspace, dataclasses.replace(TOKENS, melody=SPEC))
    assert len(fit_sample(workspace, TOKENS)) == 2 * tunes
