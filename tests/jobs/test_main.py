"""The command line's promises: exit statuses, and messages that name the cure."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from ray import exceptions

from jobs import scan_catalog
from jobs.__main__ import VERBS, main
from raymtr.errors import InputError, LostError, UnusableError


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {verb} " in out for verb in VERBS)


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_helps_with_an_example(verb: str) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "jobs", verb, "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert f"example: raymtr {verb}" in run.stdout.replace("\n", " ")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["sing"], "unknown verb 'sing'"),
        (["scan", "x"], "--workspace is missing"),
        (["embed", "--workspace", "{tmp}/none"], "no workspace at"),
        (["scan", "x", "--workspace", "{tmp}", "--set", "train.stepz=3"], "train.stepz"),
        (["scan", "x", "--workspace", "{tmp}", "--recipe", "huge"], "unknown recipe 'huge'"),
        (["scan", "{tmp}/gone", "--workspace", "{tmp}/w"], "gone"),
    ],
)
def test_wrong_use_is_status_2(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.replace("{tmp}", str(tmp_path)) for a in argv]) == 2
    assert words in capsys.readouterr().err


def test_a_workspace_of_another_layout_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "workspace.json").write_text(json.dumps({"layout": 99}))
    assert main(["index", "--workspace", str(tmp_path)]) == 1
    assert "layout 99" in capsys.readouterr().err


def test_an_empty_folder_is_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "music").mkdir()
    assert main(["scan", str(tmp_path / "music"), "--workspace", str(tmp_path / "w")]) == 1
    assert "no audio" in capsys.readouterr().err


def raised_in_a_task(cause: Exception) -> exceptions.RayTaskError:
    return exceptions.RayTaskError("f", "Traceback", cause).as_instanceof_cause()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InputError("wrong"), 2),
        (UnusableError("not here"), 1),
        (OSError(28, "No space left on device"), 1),
        (LostError("workers were lost"), 75),
        (OSError("When reading: AWS Error SLOW_DOWN during GetObject operation"), 75),
        (OSError("When reading: AWS Error ACCESS_DENIED during GetObject"), "ACCESS_DENIED"),
        (ConnectionError("Could not connect to the GCS"), 75),
        (exceptions.ActorDiedError(), 75),
        (exceptions.NodeDiedError("a node"), 75),
        (exceptions.WorkerCrashedError(), 75),
        (exceptions.ObjectLostError("00", None, ""), 75),
        (raised_in_a_task(exceptions.ActorDiedError()), 75),
        (raised_in_a_task(KeyError("a bug")), "Traceback"),
        (exceptions.ActorDiedError(exceptions.RayTaskError("f", "t", KeyError("x"))), "t"),
        (exceptions.RuntimeEnvSetupError("no such package"), "no such package"),
        (exceptions.ObjectStoreFullError("full"), "full"),
        (KeyError("a bug"), "a bug"),
    ],
)
def test_only_a_loss_is_worth_trying_again(
    error: Exception,
    status: int | str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A bug keeps its traceback: Python's own exit status for that is 1."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(scan_catalog, "run", fail)
    argv = ["scan", "x", "--workspace", str(tmp_path / "w")]
    if isinstance(status, str):
        with pytest.raises(type(error), match=status):
            main(argv)
        return
    assert main(argv) == status
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert ("run the same command again to continue" in said) == (status == 75)


@pytest.mark.ray
def test_a_cluster_that_goes_away_under_a_job_is_status_75(tmp_path: Path) -> None:
    """A real one: the job's only worker process is killed each time it works."""
    script = """
import os, sys
import ray
from jobs import scan_catalog
from jobs.__main__ import main
from jobs.cluster import start_ray

@ray.remote(max_retries=0)
def die():
    os._exit(1)

def lose(*_):
    start_ray()
    ray.get(die.remote())

scan_catalog.run = lose
sys.exit(main(["scan", "x", "--workspace", sys.argv[1]]))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "w")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 75, run.stderr
    assert "raymtr scan: the cluster or a node was lost (" in run.stderr


def test_ctrl_c_is_status_130_and_says_how_far_it_came(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobs import scan_catalog
    from raymtr.progress import Progress

    def stopped(*_: object) -> None:
        Progress("scan", 60, unit="files").advance(12)
        raise KeyboardInterrupt

    monkeypatch.setattr(scan_catalog, "run", stopped)
    assert main(["scan", "x", "--workspace", str(tmp_path)]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "raymtr scan: stopped at 12 of 60 files; run the same command again to continue"


@pytest.mark.drill
def test_ctrl_c_ends_a_job_without_a_traceback(tmp_path: Path) -> None:
    """A real embedding, stopped when its first tracks are done, and taken up again."""
    import os
    import signal
    import time

    import numpy as np
    import soundfile

    from raymtr.model.model_folder import save_towers
    from raymtr.model.two_towers import build_towers
    from raymtr.recipes import tiny

    music = tmp_path / "music"
    music.mkdir()
    for number in range(400):
        wave = np.sin(np.arange(60 * 16_000) / (9 + number % 50))
        soundfile.write(music / f"{number:03}.wav", wave, 16_000)
    save_towers(build_towers(tiny().towers, seed=0), str(tmp_path / "model"))
    assert main(["scan", str(music), "--workspace", str(tmp_path / "w")]) == 0
    command = [sys.executable, "-m", "jobs", "embed", "--workspace", str(tmp_path / "w")]
    command += ["--model", str(tmp_path / "model"), "--set", "embed.windows_per_block=100"]
    log = tmp_path / "log"
    with log.open("w") as stderr:
        job = subprocess.Popen(command, stderr=stderr, start_new_session=True)
    while not list((tmp_path / "w").glob("embeddings/*/tracks/*.parquet")):
        assert job.poll() is None, log.read_text()[-2_000:]
    time.sleep(1.0)  # the commit ends, and is counted
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does
    assert job.wait(120) == 130, log.read_text()[-2_000:]
    said = log.read_text()
    assert "Traceback" not in said, said[-3_000:]
    assert " of 400 tracks; run the same command again to continue" in said.splitlines()[-1]
    assert subprocess.run(command).returncode == 0


@pytest.mark.slow
def test_a_missing_package_is_one_sentence() -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; from jobs.__main__ import main; "
        "sys.exit(main(['serve', '--help']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "Traceback" not in run.stderr and "starlette" in run.stderr
    assert "pip install 'raymtr[jobs,serve]'" in run.stderr
