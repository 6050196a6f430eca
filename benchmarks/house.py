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
    """Prints one line per figure."""
    trees = modules()
    every = list(functions(trees))
    lengths = [(one.end_lineno or one.lineno) - one.lineno + 1 for one in every]
    long = sum(length > LONG for length in lengths)
    print(f"modules                      {len(trees)}")
    print(f"functions                    {len(every)}")
    print(f"functions over {LONG} lines      {long} ({long / len(every):.2%})")
    try:
        tuple(TopologicalSorter(top_level_imports(trees)).static_order())
        print("import cycles                none")
    except CycleError as error:
        print(f"import cycles                {' -> '.join(error.args[1])}")
    notes = [note for _, note in annotations(trees)]
    typed = [note for note in notes if note is not None]
    holds_any = sum("Any" in note for note in typed)
    print(f"annotated                    {len(typed)} of {len(notes)}")
    print(f"annotations that hold Any    {holds_any} ({holds_any / len(typed):.1%})")
    public = [one for tree in trees.values() for one in tree.body if isinstance(one, Function)]
    public = [one for one in public if not one.name.startswith("_")]
    silent = [one.name for one in public if not has_docstring(one)]
    print(f"public functions             {len(public)}, without docstring: {silent or 'none'}")
    print(f"classes defined twice        {repeated_classes(trees) or 'none'}")


if __name__ == "__main__":
    main()
