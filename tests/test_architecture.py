"""The rules of the architecture: who may import whom, and where Ray may stand.

A line of LAYERS may import only lines below it. Names on one line are strangers, except on the
last one, whose names may know each other.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import VERBS

ROOT = Path(__file__).resolve().parents[1]

LAYERS = (
    ("jobs", "serve"),
    ("search", "training", "evaluation", "synthetic"),
    ("duplicates",),
    ("index", "captions", "catalog", "tagging", "mulap", "generation"),
    ("embeddings",),
    ("model",),
    ("audio", "audio_cache", "text"),
    (
        "columns",
        "errors",
        "names",
        "ownership",
        "specs",
        "caption_specs",
        "generation_specs",
        "tower_specs",
        "validation",
        "recipes",
        "tower_recipes",
        "settings",
        "shards",
        "plain_text",
        "storage",
        "track",
        "workspace",
        "metrics",
        "ports",
        "progress",
        "capacity",
        "partitions",
        "trained_on",
        "vectors",
    ),
)
NEIGHBOURS = {("audio_cache", "audio")}
MAY_IMPORT_RAY = {
    "jobs",
    "serve",
    "raymtr/captions/writing/engine.py",
    "raymtr/captions/learning/loop.py",
    "raymtr/captions/writing/vllm_engine.py",
    "raymtr/training/loop.py",
}
LEVEL = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}


def room_of(module: str) -> str | None:
    """`raymtr.model.resnet` -> `model`; `jobs.demo` -> `jobs`; others -> None."""
    parts = module.split(".")
    if parts[0] in ("jobs", "serve"):
        return parts[0]
    return parts[1] if parts[0] == "raymtr" and len(parts) > 1 else None  # the package itself


def is_module(name: str) -> bool:
    """Whether a dotted name is a module or package of this repository."""
    path = ROOT / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports_of(source: str) -> list[tuple[int, str]]:
    """(line, module) of every import; a name taken from a package counts as a module of it."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if is_module(name) else node.module) for name in inner]
    return found


def offences(module: str, source: str) -> list[str]:
    """Each import of `source` that the layers forbid, as `module:line imports other`."""
    here = room_of(module)
    bad = []
    for line, other in imports_of(source):
        there = room_of(other)
        if here is None or there not in LEVEL or here == there or (here, there) in NEIGHBOURS:
            continue
        below = LEVEL[there] > LEVEL[here]
        both_last = LEVEL[there] == LEVEL[here] == len(LAYERS) - 1
        if not below and not both_last:
            bad.append(f"{module}:{line} imports {other}")
    return bad


def modules() -> list[tuple[str, Path]]:
    files = [p for top in ("raymtr", "jobs", "serve") for p in sorted((ROOT / top).rglob("*.py"))]
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in files]
    return [(name.removesuffix(".__init__"), p) for name, p in zip(names, files, strict=True)]


def test_every_room_has_a_layer() -> None:
    rooms = {room for name, _ in modules() if (room := room_of(name))}
    assert not rooms - set(LEVEL), f"rooms without a layer: {sorted(rooms - set(LEVEL))}"


@pytest.mark.slow
def test_nobody_imports_upwards() -> None:
    bad = [line for name, path in modules() for line in offences(name, path.read_text())]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("raymtr.model.resnet", "from raymtr.search import searcher"),
        ("raymtr.search.searcher", "import raymtr.training.loop"),
        ("raymtr.audio", "def f():\n    from raymtr.model.log_mel import log_mel"),
        ("raymtr.track", "from raymtr import audio"),
        ("serve.app", "import jobs.demo"),
        ("serve.app", "from jobs import demo"),
    ],
)
def test_the_rule_catches_an_offender(module: str, source: str) -> None:
    assert offences(module, source)


@pytest.mark.slow
def test_ray_stays_at_the_edge() -> None:
    bad = []
    for _, path in modules():
        where = path.relative_to(ROOT).as_posix()
        allowed = where.split("/")[0] in MAY_IMPORT_RAY or where in MAY_IMPORT_RAY
        if not allowed and any(m.split(".")[0] == "ray" for _, m in imports_of(path.read_text())):
            bad.append(where)
    assert not bad, f"these import ray: {bad}"


def test_jobs_do_not_import_each_other() -> None:
    """Files of jobs/ that are no verb are shared by those that are; the demo runs them in order."""
    verbs = {f"jobs.{module}" for module, _ in VERBS.values()}
    bad = [
        f"{name}:{line} imports {other}"
        for name, path in modules()
        if name.startswith("jobs.") and name not in ("jobs.demo", "jobs.__main__")
        for line, other in imports_of(path.read_text())
        if other in verbs
    ]
    assert not bad, "\n".join(bad)


@pytest.mark.slow
def test_jobs_that_start_ray_load_no_lancedb_before() -> None:
    """Starting Ray forks, best without LanceDB's threads: see `jobs.cluster.allow_lancedb`."""
    files = (ROOT / "jobs").glob("*.py")
    starting = [p.stem for p in files if "start_ray()" in p.read_text() and p.stem != "doctor"]
    assert {"embed_catalog", "serve", "demo"} <= set(starting)
    code = f"import sys, {', '.join(f'jobs.{name}' for name in starting)}\n"
    code += "assert 'lancedb' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_raymtr_is_light() -> None:
    code = "import sys, raymtr; print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
