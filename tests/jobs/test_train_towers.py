"""The job on Ray Train: two workers, a kill, and what is refused. Audio: two seconds a track."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pytest
import soundfile

from jobs.train_towers import describe, train_towers
from raymtr import load_model, storage
from raymtr.errors import InputError, LostError, UnusableError
from raymtr.recipes import tiny
from raymtr.specs import Settings
from raymtr.tower_specs import AudioSpec
from raymtr.track import check_tracks
from raymtr.trained_on import known, track_names
from raymtr.validation import to_dict
from raymtr.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]
AUDIO = AudioSpec(sample_rate=8000, window_s=1.0, n_fft=256, hop=200, n_mels=32)
STEPS = 15
KILLED_STEPS = 60  # more than a busy machine trains between a checkpoint and its kill


def settings_of(**train: Any) -> Settings:
    settings = tiny()
    towers = dataclasses.replace(settings.towers, audio=AUDIO)
    spec = {"steps": STEPS, "checkpoint_every": 5, "validate_every": 15, "warmup_steps": 4}
    replaced = dataclasses.replace(settings.train, **{**spec, **train})
    return dataclasses.replace(settings, towers=towers, train=replaced)


def make_catalog(root: Path) -> Workspace:
    """14 tones, 10 to train and 4 to validate on, one broken file, one track without audio."""
    rng = np.random.default_rng(0)
    rows = []
    for n in range(16):
        seconds = np.arange(16_000 + 1000 * n) / 8000
        wave = 0.3 * np.sin(2 * np.pi * (110 + 60 * n) * seconds) + rng.normal(
            0, 0.01, len(seconds)
        )
        file = root / f"tone {n:02d} ü.wav"
        soundfile.write(file, wave, 8000)
        rows.append(
            {
                "track_id": f"t{n:02d}",
                "uri": str(file),
                "title": f"Tone {n}",
                "tags": ["low" if n < 8 else "high", f"number {n}"],
                "dataset": "tones" if n % 2 else "waves",
                "split": "valid" if n % 4 == 3 else "train",
            }
        )
    (root / "tone 12 ü.wav").write_bytes(b"no audio at all")
    rows[13]["uri"] = None
    workspace = Workspace.open(str(root / "w"), create=True)
    storage.write_table(f"{workspace.tracks}/0.parquet", check_tracks(pa.Table.from_pylist(rows)))
    return workspace


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_catalog(tmp_path_factory.mktemp("train"))


def weights_of(answer: dict[str, Any]) -> bytes:
    return (Path(answer["model"]) / "model.safetensors").read_bytes()


def rows_of(workspace: Workspace, run: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in open(f"{workspace.run(run)}/metrics.jsonl")]


def start_in_a_process(
    workspace: Workspace, settings: Settings, run: str
) -> subprocess.Popen[bytes]:
    config = Path(workspace.root) / f"{run}.json"
    config.write_text(json.dumps(to_dict(settings)))
    command = ["-m", "jobs", "train", "--workspace", workspace.root, "--run", run]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    return subprocess.Popen(
        [sys.executable, *command, "--config", str(config)], cwd=ROOT, env=environment
    )


def wait_for(path: str, process: subprocess.Popen[bytes], limit_s: float = 900.0) -> None:
    until = time.monotonic() + limit_s
    while not os.path.exists(path):
        assert process.poll() is None, f"ended with {process.returncode} before {path} was there"
        assert time.monotonic() < until, f"no {path} after {limit_s} s"
        time.sleep(0.02)


def kill_with_its_cluster(process: subprocess.Popen[bytes]) -> None:
    """The driver first, then what it started: its workers would train on for some seconds."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    psutil.wait_procs(family, timeout=600)


@pytest.mark.drill  # beside the eight kills of drill/test_train_kills
def test_killed_driver_resumes_to_the_same_bits(workspace: Workspace, ray_cluster: None) -> None:
    settings = settings_of(steps=KILLED_STEPS)
    process = start_in_a_process(workspace, settings, "killed")
    # Ray copies a checkpoint's file in place: only the next one's shows that the first is whole
    wait_for(f"{workspace.run('killed')}/checkpoint_000000010/state.pt", process)
    kill_with_its_cluster(process)
    assert not storage.exists(f"{workspace.run('killed')}/model")
    resumed = train_towers(workspace, settings, run="killed")
    whole = train_towers(workspace, settings, run="whole")
    assert 0 < resumed["resumed_from_step"] < KILLED_STEPS
    assert whole["resumed_from_step"] == 0
    assert weights_of(resumed) == weights_of(whole)
    logged, wanted = rows_of(workspace, "killed"), rows_of(workspace, "whole")
    assert [row["step"] for row in logged] == list(range(KILLED_STEPS))
    assert [row["loss"] for row in logged] == [row["loss"] for row in wanted]


def test_two_workers_fit(workspace: Workspace, ray_cluster: None) -> None:
    mixture = {"tones": 1.0, "waves": 1.0}
    settings = settings_of(
        workers=2, steps=12, checkpoint_every=4, batch_norm="shared", mixture=mixture
    )
    answer = train_towers(workspace, settings, run="two")
    rows = rows_of(workspace, "two")
    losses = [row["loss"] for row in rows]
    assert len(losses) == 12 and np.mean(losses[6:]) < np.mean(losses[:6])
    assert answer["metrics"]["valid_pool"] == 4
    assert answer["metrics"]["valid_text_to_audio_r_at_10"] == 1.0, "a pool of 4 has no rank 11"
    assert (answer["failed"], answer["error_rate"]) == (1, 1 / 15)
    letter = storage.read_tables(f"{workspace.run('two')}/dead_letter").to_pylist()[0]
    assert letter["track_id"] == "t12" and letter["code"] == "not_audio"
    assert list(Path(workspace.run("two"), "tensorboard").glob("events.*"))
    assert len(list(Path(workspace.run("two")).glob("checkpoint_0*"))) == 2
    model = load_model(answer["model"])
    assert model.encode_text(["a low tone"]).shape == (1, settings.towers.dim)
    json.dumps(answer)
    assert "12 steps" in describe(answer)
    assert model.trained_on is not None, "a model knows what it was trained on, and only that"
    learnt = known(model.trained_on, [track_names(f"t{n:02d}", None) for n in range(16)])
    assert np.flatnonzero(~learnt).tolist() == [3, 7, 11, 12, 13, 15]

    assert train_towers(workspace, settings, run="two") == answer, "finished: answers at once"
    other = dataclasses.replace(settings.train, threads=2, learning_rate=0.5)
    with pytest.raises(InputError) as refused:
        train_towers(workspace, dataclasses.replace(settings, train=other), run="two")
    named = re.findall(r"train\.\w+", str(refused.value))
    assert named == ["train.learning_rate", "train.threads"]


def test_endless_nan_is_not_trained(workspace: Workspace, ray_cluster: None) -> None:
    settings = settings_of(learning_rate=1e30, warmup_steps=0, checkpoint_every=100)
    with pytest.raises(
        UnusableError, match=r"^the norm of the weights became inf at step 0, learning rate 1e\+30"
    ):
        train_towers(workspace, settings, run="wild")
    assert not storage.exists(f"{workspace.run('wild')}/model")


def test_a_run_continues_with_another_number_of_workers(
    workspace: Workspace, ray_cluster: None
) -> None:
    """Killed with two workers, that have three and two rows of a batch, and resumed with one."""
    settings = settings_of(workers=2, steps=KILLED_STEPS, global_batch=5, batch_norm="shared")
    process = start_in_a_process(workspace, settings, "elastic")
    wait_for(f"{workspace.run('elastic')}/checkpoint_000000010/state.pt", process)
    kill_with_its_cluster(process)
    one = dataclasses.replace(settings.train, workers=1)
    answer = train_towers(workspace, dataclasses.replace(settings, train=one), run="elastic")
    first = answer["resumed_from_step"]
    assert 0 < first < KILLED_STEPS
    assert answer["workers"] == [
        {"from_step": 0, "workers": 2},
        {"from_step": first, "workers": 1},
    ]
    assert f"2 from step 0, 1 from step {first}; not bit-identical" in describe(answer)
    rows = rows_of(workspace, "elastic")
    assert [row["step"] for row in rows] == list(range(KILLED_STEPS))
    assert np.mean([row["loss"] for row in rows[-5:]]) < np.mean([row["loss"] for row in rows[:5]])


def test_a_run_starts_with_the_workers_there_are(workspace: Workspace, ray_cluster: None) -> None:
    """Four are wanted; this cluster has two cores."""
    settings = settings_of(workers=4, min_workers=1, steps=4, checkpoint_every=2)
    answer = train_towers(workspace, settings, run="some")
    assert answer["workers"] == [{"from_step": 0, "workers": 2}]


def test_an_error_that_would_recur_ends_the_run_at_once(
    tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file goes after it was settled. One worker says so; the other waits for it in a step."""
    workspace = make_catalog(tmp_path)
    settings = settings_of(workers=2, cache_gib=0.0)
    with monkeypatch.context() as patch:
        patch.setattr("jobs.train_towers.fit", lambda *_: sys.exit("killed"))
        with pytest.raises(SystemExit):
            train_towers(workspace, settings, run="gone")
    os.unlink(tmp_path / "tone 00 ü.wav")
    with pytest.raises(UnusableError, match=r"^\S+tone 00 ü.wav was decoded when this run began"):
        train_towers(workspace, settings, run="gone")


def test_a_run_whose_workers_keep_dying_can_be_tried_again(
    workspace: Workspace, ray_cluster: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of two is killed; the other fails as well, in a message to it, and is no bug."""
    monkeypatch.setattr("jobs.trainer.MOST_FAILURES", 0)
    settings = settings_of(workers=2, steps=5_000, checkpoint_every=5)

    def kill_one() -> None:
        first = Path(workspace.run("dying"), "checkpoint_000000005", "state.pt")
        while not first.exists():
            time.sleep(0.1)
        workers = [p for p in psutil.process_iter() if "RayTrainWorker" in " ".join(p.cmdline())]
        here = {p.pid for p in psutil.Process().children(recursive=True)}
        next(p for p in workers if p.pid in here).kill()

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    with pytest.raises(LostError, match="workers were lost"):
        train_towers(workspace, settings, run="dying")
    killer.join()


def test_a_text_tower_that_is_nowhere_stops_before_anything_is_decoded(
    workspace: Workspace,
) -> None:
    settings = settings_of()
    text = dataclasses.replace(settings.towers.text_tower, source="roberta-base")
    towers = dataclasses.replace(settings.towers, text_tower=text)
    with pytest.raises(UnusableError, match=r"'roberta-base' needs the hub .*raymtr fetch roberta"):
        train_towers(workspace, dataclasses.replace(settings, towers=towers), run="nowhere")
    assert not storage.exists(workspace.run("nowhere"))


@pytest.mark.slow
def test_more_tokens_than_the_tower_reads_stop_before_anything_is_decoded(
    workspace: Workspace,
) -> None:
    settings = settings_of()
    text = dataclasses.replace(settings.towers.text_tower, max_tokens=100_000)
    towers = dataclasses.replace(settings.towers, text_tower=text)
    with pytest.raises(InputError, match=r"text_tower\.max_tokens must be 3 to 512"):
        train_towers(workspace, dataclasses.replace(settings, towers=towers), run="cannot")
    assert not storage.exists(workspace.run("cannot"))


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"mixture": {"jazz": 1.0}}, "jazz.*datasets: tones, waves"),
    ],
)
def test_settings_that_cannot_be(workspace: Workspace, train: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        train_towers(workspace, settings_of(**train), run="no")


def test_a_gpu_setting_without_a_gpu(workspace: Workspace, ray_cluster: None) -> None:
    with pytest.raises(UnusableError, match="1 GPU requested, 0 in this"):
        train_towers(workspace, settings_of(use_gpu=True), run="no")
    assert not storage.exists(workspace.run("no"))


def test_too_little_to_train_on(tmp_path: Path) -> None:
    workspace = Workspace.open(str(tmp_path / "w"), create=True)
    with pytest.raises(InputError, match="run `raymtr scan` first"):
        train_towers(workspace, settings_of())
    rows = [
        {"track_id": "a", "uri": "a.wav", "title": None, "split": "train"},
        {"track_id": "b", "title": "B", "split": "train"},
        {"track_id": "c", "uri": "c.wav", "title": "C", "split": "train"},
        {"track_id": "d", "uri": "d.wav", "title": "D", "split": "test"},
    ]
    storage.write_table(f"{workspace.tracks}/0.parquet", check_tracks(pa.Table.from_pylist(rows)))
    with pytest.raises(
        UnusableError, match=r"catalog's 4 tracks 3 are.* 2 of them with audio, 2 w"
    ):
        train_towers(workspace, settings_of())
