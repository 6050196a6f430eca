"""The console: drawn in place on a terminal, plain in a log; what Ray prints only on request."""

from __future__ import annotations

import io
import logging
import os

import pytest

from jobs import console
from jobs.console import CLEARED, Console, log_workers, without_level_line


def record(text: str, live: str | None = None) -> logging.LogRecord:
    made = logging.LogRecord("raymtr", logging.INFO, __file__, 0, text, None, None)
    made.live = live
    return made


def test_on_a_terminal_a_live_line_is_drawn_over_the_last_one() -> None:
    stream = io.StringIO()
    handler = Console(stream, terminal=True)
    for one in (record("a 1/2", "a"), record("a 2/2", "a"), record("a: 2 in 1 s"), record("next")):
        handler.emit(one)
    assert stream.getvalue() == f"{CLEARED}a 1/2{CLEARED}a 2/2{CLEARED}a: 2 in 1 s\nnext\n"


def test_in_a_log_live_lines_are_few_and_hold_no_control_characters() -> None:
    stream = io.StringIO()
    handler = Console(stream, terminal=False)
    for done in range(100):
        handler.emit(record(f"a {done}/100", "a"))
    handler.emit(record("b 1/2", "b"))
    handler.emit(record("a: 100 \x1b[31min 1 s"))
    assert stream.getvalue() == "a 0/100\nb 1/2\na: 100 in 1 s\n"


def test_of_rays_processes_only_raymtr_is_heard(caplog: pytest.LogCaptureFixture) -> None:
    from ray._private import ray_logging

    dispatcher = ray_logging.global_worker_stdstream_dispatcher
    before = list(dispatcher.handlers)
    printed: list[dict] = []
    dispatcher.handlers = [("ray_print_logs", printed.append)]
    lines = [
        "Traceback (most recent call last):",
        "[2026-11-29 13:51:39,662 E 32722 388] core_worker.cc:2465: Actor with class name: 'X'",
        "raymtr INFO train: train 3/9 steps, 2 steps/s, 3 s left",
        "raymtr WARNING: the rest is decoded anew",
        ":event_summary:Warning: no node has 1 GPU",
    ]
    try:
        log_workers()
        with caplog.at_level(logging.INFO, "raymtr"):
            dispatcher.emit({"lines": lines, "pid": 7, "is_err": True})
    finally:
        dispatcher.handlers = before
    assert [one.getMessage() for one in caplog.records] == [
        "train 3/9 steps, 2 steps/s, 3 s left",
        "the rest is decoded anew",
        "Ray: Warning: no node has 1 GPU",
    ]
    assert not printed


@pytest.mark.ray
def test_a_tasks_own_lines_reach_the_terminal_without_a_prefix(tmp_path) -> None:
    """A real Ray: its task prints, warns, and speaks as a training worker does."""
    import subprocess
    import sys

    script = """
import sys, time
from jobs.console import set_up_console
set_up_console(verbose="-v" in sys.argv)
from jobs.cluster import start_ray
start_ray()
import ray
@ray.remote
def work():
    import logging, sys
    from raymtr.progress import speak_to_driver
    speak_to_driver()
    print("a worker prints", file=sys.stderr, flush=True)
    logging.getLogger("raymtr").info("a worker works")
ray.get(work.remote())
time.sleep(3)
"""
    for flag, noise in ((), False), (("-v",), True):
        run = [sys.executable, "-c", script, *flag]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stderr
        assert "a worker works" in said
        assert ("a worker prints" in said) == noise, said
        assert ("pid=" in said) == noise, said


def test_verbose_is_a_level(monkeypatch: pytest.MonkeyPatch) -> None:
    level = console.LOG.level
    try:
        for verbose in (True, False):
            console.set_up_console(verbose=verbose)
            assert console.is_verbose() == verbose
    finally:
        console.LOG.setLevel(level)
        logging.getLogger().setLevel(logging.WARNING)


def test_rays_line_about_its_log_level_is_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    with without_level_line():
        os.write(2, b"[logging.cc:303] Set ray log level from environment variable to 3\nkept\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "kept\nafter\n"
