"""The wheel holds all three packages and runs away from the checkout."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_wheel_runs_outside_the_checkout(tmp_path: Path) -> None:
    source = tmp_path / "source"
    for name in ("raymtr", "jobs", "serve"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path)]
    done = subprocess.run([*build, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    for top in ("raymtr", "jobs", "serve"):
        there = {p.relative_to(ROOT).as_posix() for p in (ROOT / top).rglob("*") if p.is_file()}
        there = {p for p in there if "__pycache__" not in p and not p.endswith(".png")}
        missing = there - packed
        assert not missing, f"the wheel lacks {sorted(missing)}"

    # A bare environment whose only way to raymtr is the wheel; the libraries come from this one.
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    home = next(bare.glob("lib/python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(home)]
    subprocess.run([*install, str(wheel)], check=True)
    libraries = Path(sysconfig.get_paths()["purelib"])
    (home / "zz_libraries.pth").write_text(f"{libraries}\n")
    command = [str(bare / "bin" / "python"), "-m", "jobs", "search", "x", "--workspace", "none"]
    plain = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=plain)
    assert run.returncode == 2, run.stderr
    assert "no workspace at" in run.stderr
    where = [command[0], "-c", "import raymtr; print(raymtr.__file__)"]
    out = subprocess.run(where, cwd=tmp_path, capture_output=True, text=True, env=plain)
    assert out.stdout.startswith(str(bare)), out.stdout
