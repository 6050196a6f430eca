"""Code metrics: long functions, import cycles, types, docstrings, names.

    python benchmarks/house.py

Counted with `ast` over raymtr/, jobs/ and serve/; nothing is imported.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from figures import Figures

ROOT = Path(__file__).resolve().parents[1]
TOPS = ("raymtr", "jobs", "serve")
LONG = 50  # lines of a function
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, ast.Module]:
    """Every module by its dotted name."""
    paths = [path for top in TOPS for path in sorted((ROOT / top).rglob("*.py"))]
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in paths]
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in paths]
    return {name.removesuffix(".__init__"): tree for name, tree in zip(names, trees, strict=True)}


def functions(trees: dict[str, ast.Module]) -> Iterator[Function]:
    """Every function and method."""
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, Function):
                yield node


def annotations(trees: dict[str, ast.Module]) -> Iterator[tuple[ast.arg | Function, str | None]]:
    """Every argument and result with its annotation as text; `self` and `cls` have none."""
    for function in functions(trees):
        given = function.args
        for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs):
            if argument.arg not in ("self", "cls"):
                note = argument.annotation
                yield argument, ast.unparse(note) if note else None
        yield function, ast.unparse(function.returns) if function.returns else None


def top_level_imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """The modules that each module imports at import time."""
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found: set[str] = set()
        for node in tree.body:
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.add(inner if inner in trees else node.module)
        graph[name] = {other for other in found if other in trees} - {name}
    return graph


def import_cycle(trees: dict[str, ast.Module]) -> str:
    """A cycle of imports at import time, or "none"."""
    try:
        tuple(TopologicalSorter(top_level_imports(trees)).static_order())
    except CycleError as error:
        return " -> ".join(error.args[1])
    return "none"


def repeated_classes(trees: dict[str, ast.Module]) -> list[str]:
    """Names of public classes that are defined in more than one module."""
    names = Counter(
        node.name
        for tree in trees.values()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    return sorted(name for name, count in names.items() if count > 1)


def has_docstring(function: Function) -> bool:
    """Whether a public function has a docstring; an override is described in its base class."""
    overrides = any(ast.unparse(one) == "override" for one in function.decorator_list)
    return overrides or ast.get_docstring(function) is not None


def main() -> None:
    """Prints one line per figure, and keeps them."""
    figures = Figures()
    trees = modules()
    every = list(functions(trees))
    lengths = [(one.end_lineno or one.lineno) - one.lineno + 1 for one in every]
    long = sum(length > LONG for length in lengths)
    figures.add("modules", len(trees))
    figures.add("functions", len(every))
    share = 100 * long / len(every)
    figures.add(f"functions over {LONG} lines", share, unit="%", asked="under 1", met=share < 1)
    figures.add("import cycles", cycle := import_cycle(trees), asked="none", met=cycle == "none")
    notes = [note for _, note in annotations(trees)]
    typed = [note for note in notes if note is not None]
    holds_any = sum("Any" in note for note in typed)
    share = 100 * len(typed) / len(notes)
    figures.add("annotated", share, unit="%", asked="100", met=len(typed) == len(notes))
    share = 100 * holds_any / len(typed)
    figures.add("annotations that hold Any", share, unit="%", asked="under 4", met=share < 4)
    public = [one for tree in trees.values() for one in tree.body if isinstance(one, Function)]
    public = [one for one in public if not one.name.startswith("_")]
    silent = [one.name for one in public if not has_docstring(one)]
    figures.add("public functions", len(public))
    names = ", ".join(silent) or "none"
    figures.add("without docstring", names, asked="none", met=not silent)
    names = ", ".join(repeated_classes(trees)) or "none"
    figures.add("classes defined twice", names, asked="none", met=names == "none")
    figures.save()


if __name__ == "__main__":
    main()
