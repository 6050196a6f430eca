"""Ray on a machine so busy that a start takes longer than Ray waits: slow, not broken."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.drill

# Python runs this file first in every process; the first agent of Ray then sleeps past its time.
SLOW = """
import os, time
first = {first!r}
if b"dashboard/agent.py" in open("/proc/self/cmdline", "rb").read() and not os.path.exists(first):
    open(first, "w").close()
    time.sleep(60)
"""
START = """
import logging, psutil, ray
logging.basicConfig(level=logging.WARNING, format="%(message)s")
from jobs.cluster import start_local
start_local(num_cpus=1, object_store_memory=100 << 20, log_to_driver=False)
print(ray.get(ray.remote(lambda: 42).remote()))
servers = [c for c in psutil.Process().children() if c.name() == "gcs_server"]
print(sum(server.is_running() and server.status() != psutil.STATUS_ZOMBIE for server in servers))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="finds Ray's agent by /proc")
def test_a_start_that_comes_too_late_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW.format(first=str(tmp_path / "first")))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])])
    done = subprocess.run(
        [sys.executable, "-c", START],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["42", "1"], "the cluster works, and the first is gone"
    assert "Ray did not start in time, attempt 1 of" in done.stderr
