"""Four ways to search a workspace from Python.

python examples/search_from_python.py demo-workspace "slow piano"
"""

from __future__ import annotations

import sys

import raymtr
from raymtr.search.contract import SearchAnswer


def show(title: str, answer: SearchAnswer) -> None:
    """Print the hits of one answer, and what was understood."""
    print(f"\n{title}  [{answer['query']['kind']}, {answer['took_ms']['total']:.0f} ms]")
    for place, hit in enumerate(answer["hits"], start=1):
        segment = hit["segment"]
        where = f"from {segment['start_s']:.0f} s" if segment else "words only"
        print(f"  {place}. {hit['title']} - {hit['artist']}  {hit['score']:.3f}  {where}")


def main(workspace: str, text: str) -> None:
    """Four ways to ask."""
    searcher = raymtr.Searcher(workspace)
    answer = searcher.search(text=text, k=3)
    show(text, answer)
    if answer["next_cursor"]:
        show("the next ones", searcher.search(text=text, k=3, cursor=answer["next_cursor"]))
    best = answer["hits"][0]
    show(f"the artist: {best['artist']}", searcher.search(text=best["artist"], k=3))
    show("one per artist", searcher.search(text=text, k=3, per_artist=1))
    show("with a filter", searcher.search(text=text, where="duration > 10", k=3))


if __name__ == "__main__":
    main(*sys.argv[1:])
