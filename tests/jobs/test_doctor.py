"""The doctor tells what is broken from what is only busy."""

from __future__ import annotations

import pytest

from jobs import doctor
from jobs.doctor import Check, check_load, describe, run_check
from raymtr.errors import LostError, TooBusyError


def test_a_slow_machine_is_no_broken_installation() -> None:
    def check_ray() -> Check:
        raise TooBusyError("Ray did not start in time in 10 attempts")

    def check_late() -> Check:
        from ray.exceptions import GetTimeoutError

        raise GetTimeoutError("Get timed out: some object(s) not ready.")

    for check in (check_ray, check_late):
        found = run_check(check)
        assert found.ok is None and "make setup" not in found.cure
        assert "did not answer in time" in found.detail and "idle" in found.cure


def test_a_missing_package_is_one() -> None:
    def check_torch() -> Check:
        raise ModuleNotFoundError("No module named 'torch'")

    found = run_check(check_torch)
    assert found == Check(
        "torch", False, "ModuleNotFoundError: No module named 'torch'", "`make setup` repairs it"
    )


def test_a_cluster_that_does_not_answer_is_not_cured_by_setup() -> None:
    def check_ray() -> Check:
        raise LostError("no Ray cluster answers at RAY_ADDRESS=127.0.0.1:1")

    found = run_check(check_ray)
    assert found.ok is False and "setup" not in found.cure


@pytest.mark.parametrize(("load", "mark"), [(0.1, "ok "), (99.0, "-  ")])
def test_load_is_said(load: float, mark: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.os, "getloadavg", lambda: (load, load, load))
    monkeypatch.setattr(doctor.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(doctor, "FREE_MEMORY_GIB", 0.0)
    said = describe({"checks": [check_load().__dict__]})
    assert said.startswith(mark) and f"load {load:.1f} on 2 cores" in said
