"""`raymtr search`: one query to the library's Searcher from the command line."""

from __future__ import annotations

import argparse
import time
from typing import Any

from raymtr.specs import Settings
from raymtr.workspace import Workspace

EXAMPLE = 'raymtr search "rainy piano, no vocals" --where "year > 1990" --workspace w'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `search`."""
    parser.add_argument("text", nargs="?", help="a title, an artist, a description, similar to ...")
    parser.add_argument("--like", action="append", metavar="ID", help="a track to be near to")
    parser.add_argument("--unlike", action="append", metavar="ID", help="a track to be far from")
    parser.add_argument(
        "--exclude", action="append", metavar="TERM", help="what hits must not have"
    )
    parser.add_argument(
        "--where", metavar="FILTER", help="such as: year > 1990 and tags has 'jazz'"
    )
    parser.add_argument("--audio", metavar="FILE", help="a recording to search by")
    parser.add_argument("--mode", default="auto", help="auto, semantic, keyword or hybrid")
    parser.add_argument("-k", type=int, default=10, help="hits wanted, 1 to 100")
    parser.add_argument("--per-artist", type=int, metavar="N", help="most hits of one artist")
    parser.add_argument(
        "--diversity", type=float, metavar="SHARE", help="0 to 1: how much hits should differ"
    )
    parser.add_argument(
        "--fold-duplicates",
        action="store_true",
        help="of tracks that are one song (`raymtr duplicates`) show only the best",
    )
    parser.add_argument("--cursor", help="an answer's next_cursor, to read on")


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """The command-line entry point."""
    filters = ("like", "unlike", "exclude", "where", "audio")
    names = (*filters, "mode", "k", "per_artist", "diversity", "fold_duplicates", "cursor")
    asked = {name: getattr(arguments, name) for name in names}
    began = time.perf_counter()
    from raymtr.search.searcher import Searcher  # half of the loading time

    answer = Searcher(workspace).search(arguments.text, **asked)
    loaded_s = time.perf_counter() - began - answer["took_ms"]["total"] / 1e3
    return answer | {"loaded_s": round(loaded_s, 3)}


def describe(answer: dict[str, Any]) -> str:
    """The hits as a table."""
    query = answer["query"]
    lines = [_understood(query)]
    for place, hit in enumerate(answer["hits"], start=1):
        segment = hit["segment"]
        where = f"{_clock(segment['start_s'])}-{_clock(segment['end_s'])}" if segment else "-"
        name = " - ".join(part for part in (hit["artist"], hit["title"]) if part)
        why = ", ".join(_reason(reason) for reason in hit["why"])
        lines.append(
            f"{place:3}  {hit['score']:.3f}  {where:>11}  {name or '(untitled)'}  "
            f"[{hit['track_id']}]  {why}{_duplicates(hit)}"
        )
    if not answer["hits"]:
        lines.append("no track matches; loosen --where or --exclude")
    lines += [f"note: {note}" for note in answer["notes"]]
    lines.append(
        f"loaded in {answer['loaded_s']:.1f} s, searched in {answer['took_ms']['total']:.0f} ms, "
        f"build {answer['table_version']}"
    )
    return "\n".join(lines)


def _understood(query: dict[str, Any]) -> str:
    """How the query was understood, slot by slot, with ignored words and suggestions."""
    slots = [
        *(f"{'like' if one['positive'] else 'not like'} {_name(one)}" for one in _likes(query)),
        *(" or ".join(one["tags"]) or one["term"] for one in query.get("include", ())),
        *(f"without {one['term']}" for one in query["exclude"]),
        *(one["where"] for one in query.get("filters", ())),
        *(one["words"] for one in query.get("directions", ())),
    ]
    lines = [f"understood: {_kind(query)}" + "".join(f"; {slot}" for slot in slots)]
    lines += [f"read {one['words']!r} as {one['taken_for']!r}" for one in query["corrected"]]
    lines += [f"ignored {one['words']!r}: {one['why']}" for one in query["ignored"]]
    for one in query["suggestions"]:
        if "did_you_mean" in one:
            lines.append(f"did you mean {one['did_you_mean']!r}?")
        else:
            lines.append(f"without {one['relax']!r}: {one['hits']} hits")
    return "\n".join(lines)


def _likes(query: dict[str, Any]) -> list[dict[str, Any]]:
    return query["anchors"] if query["kind"] == "similar" else []


def _name(part: dict[str, Any]) -> str:
    return " by ".join(one for one in (part["title"], part["artist"]) if one)


def _kind(query: dict[str, Any]) -> str:
    kind: str = query["kind"]
    names = query["album"] or _name(query)
    rest = query["description"] if query["description"] and not names else ""
    return (
        kind
        + (f": {names}" if names and kind != "similar" else "")
        + (f"; {rest}" if rest else "")
        + (f"; where {query['where']}" if query["where"] else "")
    )


def _reason(reason: dict[str, Any]) -> str:
    if "matched" in reason:
        return f"{reason['by']}: {', '.join(reason['matched'])}"
    if "toward" in reason:
        held = [f"{n} {v:g}" for n, v in reason["columns"].items() if v is not None]
        held += reason["tags"]
        held = held or [reason["concept"]] if "concept" in reason else held
        return f"{reason['toward']} ({', '.join(held)})" if held else str(reason["toward"])
    return f"{reason['by']} #{reason['rank']}"


def _duplicates(hit: dict[str, Any]) -> str:
    same = hit.get("duplicates")
    return f"; the same song: {', '.join(same)}" if same else ""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
