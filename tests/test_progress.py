"""Progress: a line that is renewed, one summary at the end, and a form for other processes."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from raymtr import progress
from raymtr.progress import Progress, heard


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


def records_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    return [(record.getMessage(), getattr(record, "live", None)) for record in caplog.records]


def test_live_lines_are_spaced_and_one_summary_ends_the_stage(
    caplog: pytest.LogCaptureFixture, clock: list[float]
) -> None:
    work = Progress("embed", 6, unit="tracks", clock=lambda: clock[0])
    with caplog.at_level(logging.INFO, "raymtr"):
        for now in (0.1, 1.0, 1.1, 2.0, 3.0, 4.0, 5.0):
            clock[0] = now
            work.advance(1)
    assert records_of(caplog) == [
        ("embed 2/6 tracks, 2 tracks/s, 2 s left", "embed"),
        ("embed 4/6 tracks, 2 tracks/s, 1 s left", "embed"),
        ("embed 5/6 tracks, 1.67 tracks/s, 1 s left", "embed"),
        ("embed: 6 tracks in 4 s, 1.5 tracks/s", None),
    ]


@pytest.fixture
def spoken(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """stderr of a process that speaks to its driver."""
    root, ours = logging.getLogger(), progress.LOG
    before = root.level, ours.level, ours.propagate, list(ours.handlers)
    written = io.StringIO()
    monkeypatch.setattr(progress.sys, "stderr", written)
    progress.speak_to_driver()
    yield written
    root.setLevel(before[0])
    ours.setLevel(before[1])
    ours.propagate, ours.handlers[:] = before[2], before[3]


def test_what_a_worker_says_is_heard_and_other_lines_are_not(spoken: io.StringIO) -> None:
    logging.getLogger("raymtr").warning("two\nlines of %s", "a title")
    logging.getLogger("raymtr").info("train 3/9 steps", extra={"live": "train"})
    logging.getLogger("ray.train").info("not ours")
    said = [heard(line) for line in spoken.getvalue().splitlines()]
    assert [(r.levelname, r.live, r.getMessage()) for r in said if r] == [
        ("WARNING", None, "two lines of a title"),
        ("INFO", "train", "train 3/9 steps"),
    ]
    for line in (
        "",
        "Traceback (most recent call last):",
        "raymtr says hello",
        "[E] core_worker.cc",
    ):
        assert heard(line) is None
