"""What a first search costs: CPU seconds of a new process, against those of its bare imports.

    python benchmarks/cold_search.py --workspace w [--text "calm piano"] [--times 3]

Compared with `import lancedb` for words, and with torch and transformers too where the workspace
has a model. Then `understand` and `Searcher.search` in one process, per query of the given texts.
Figures are CPU seconds of the children, the median of some runs, since wall time on a shared
machine is mostly waiting. Targets: 2.5 of the bare imports; `understand` 3 ms.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time

from raymtr.search.searcher import Searcher
from raymtr.search.understand import understand

IMPORTS = {"words": "import lancedb", "text tower": "import lancedb, torch, transformers"}
QUERIES = (
    "calm piano",
    "rock but not metal, from the 80s",
    "music for studying without vocals",
    "something dark and slow with strings under three minutes",
    "fröhliche Musik mit Akkordeon",
)
MOST_RATIO, MOST_MS = 2.5, 3.0


def cpu_of(command: list[str]) -> float:
    """CPU seconds of one run of a command, its children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def cold(workspace: str, text: str, times: int) -> None:
    """Prints the cost of `raymtr search` in a new process beside that of its imports."""
    reads = Searcher(workspace).build.rows["vectors"] > 0
    bare = [sys.executable, "-c", IMPORTS["text tower" if reads else "words"]]
    verb = [sys.executable, "-m", "jobs", "search", text, "--workspace", workspace]
    cpu_of(verb)  # the first one compiles, and checks the model
    imports = statistics.median(cpu_of(bare) for _ in range(times))
    search = statistics.median(cpu_of(verb) for _ in range(times))
    missed = "" if search <= MOST_RATIO * imports else "  MISS"
    print(f"bare imports {imports:6.2f} CPU-s   ({bare[-1]})")
    print(f"raymtr search {search:5.2f} CPU-s   {search / imports:.2f} of it{missed}")


def warm(workspace: str) -> None:
    """Prints the median CPU time of parsing and of searching, over the queries, the third time."""
    searcher = Searcher(workspace)
    parsed, searched = [], []
    for turn in range(3):
        for text in QUERIES:
            begun = time.process_time()
            understand(text, searcher.table, searcher.lexicon)
            middle = time.process_time()
            searcher.search(text)
            if turn == 2:
                parsed.append(1e3 * (middle - begun))
                searched.append(1e3 * (time.process_time() - middle))
    missed = "" if statistics.median(parsed) <= MOST_MS else "  MISS"
    print(f"understand    {statistics.median(parsed):5.2f} CPU-ms{missed}")
    print(f"search        {statistics.median(searched):5.2f} CPU-ms")


def main() -> None:
    """Prints both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", default="demo-workspace")
    parser.add_argument("--text", default=QUERIES[0])
    parser.add_argument("--times", type=int, default=3)
    arguments = parser.parse_args()
    cold(arguments.workspace, arguments.text, arguments.times)
    warm(arguments.workspace)


if __name__ == "__main__":
    main()
