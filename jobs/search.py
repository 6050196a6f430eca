"""`raymtr search`: one query to the library's Searcher from the command line."""

from __future__ import annotations

import argparse
import time

from raymtr.errors import InputError
from raymtr.search.answer_parts import AnchorPart, QueryEcho
from raymtr.search.contract import DEPTH, MOST_DEPTH, Hit, Reason, SearchAnswer, SearchRequest
from raymtr.specs import Settings
from raymtr.workspace import Workspace

EXAMPLE = 'raymtr search "rainy piano, no vocals" --where "year > 1990" --workspace w'


class FoundHits(SearchAnswer):
    """The answer of the verb: what a search gives, and how long loading took."""

    loaded_s: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments of `search`: the keys of a request, each with its own description."""
    about = {name: field.description for name, field in SearchRequest.model_fields.items()}
    parser.add_argument("text", nargs="?", help=about["text"])
    for name, metavar in (("like", "ID"), ("unlike", "ID"), ("exclude", "TERM")):
        parser.add_argument(f"--{name}", action="append", metavar=metavar, help=about[name])
    for name, metavar in (("where", "FILTER"), ("audio", "FILE"), ("mode", "MODE")):
        parser.add_argument(f"--{name}", metavar=metavar, help=about[name])
    parser.add_argument("-k", type=int, help=about["k"])
    parser.add_argument("--per-artist", type=int, metavar="N", help=about["per_artist"])
    parser.add_argument("--diversity", type=float, metavar="SHARE", help=about["diversity"])
    parser.add_argument("--fold-duplicates", action="store_true", help=about["fold_duplicates"])
    parser.add_argument("--rerank", metavar="RUN", help=about["rerank"])
    parser.add_argument(
        "--depth", type=int, metavar="N", help=f"hits that --rerank looks at, 1 to {MOST_DEPTH}"
    )
    parser.add_argument("--cursor", help=about["cursor"])


def run(arguments: argparse.Namespace, workspace: Workspace, settings: Settings) -> FoundHits:
    """The command-line entry point."""
    given = {name: getattr(arguments, name, None) for name in SearchRequest.model_fields}
    if arguments.rerank is not None:
        depth = DEPTH if arguments.depth is None else arguments.depth
        given["rerank"] = {"run": arguments.rerank, "depth": depth}
    elif arguments.depth is not None:
        raise InputError("--depth belongs to --rerank")
    request = SearchRequest.read({k: v for k, v in given.items() if v is not None})
    began = time.perf_counter()
    from raymtr.search.searcher import Searcher  # half of the loading time

    answer = Searcher(workspace).find(request)
    loaded_s = time.perf_counter() - began - answer["took_ms"]["total"] / 1e3
    return {**answer, "loaded_s": round(loaded_s, 3)}


def describe(answer: FoundHits) -> str:
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


def _understood(query: QueryEcho) -> str:
    """How the query was understood, slot by slot, with ignored words and suggestions."""
    slots = [
        *(f"{'like' if one['positive'] else 'not like'} {_name(one)}" for one in _likes(query)),
        *(" or ".join(one["tags"]) or one["term"] for one in query["include"]),
        *(f"without {one['term']}" for one in query["exclude"]),
        *(one["where"] for one in query["filters"]),
        *(one["words"] for one in query["directions"]),
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


def _likes(query: QueryEcho) -> list[AnchorPart]:
    return query["anchors"] if query["kind"] == "similar" else []


def _name(part: AnchorPart | QueryEcho) -> str:
    return " by ".join(one for one in (part["title"], part["artist"]) if one)


def _kind(query: QueryEcho) -> str:
    kind = query["kind"]
    names = query["album"] or _name(query)
    rest = query["description"] if query["description"] and not names else ""
    return (
        kind
        + (f": {names}" if names and kind != "similar" else "")
        + (f"; {rest}" if rest else "")
        + (f"; where {query['where']}" if query["where"] else "")
    )


def _reason(reason: Reason) -> str:
    if "matched" in reason:
        return f"{reason['by']}: {', '.join(reason['matched'])}"
    if "toward" in reason:
        parts = [f"{n} {v:g}" for n, v in reason["columns"].items() if v is not None]
        parts += reason["tags"]
        parts = parts or [reason["concept"]] if "concept" in reason else parts
        return f"{reason['toward']} ({', '.join(parts)})" if parts else str(reason["toward"])
    if reason["by"] == "unknown":
        return f"{', '.join(reason['columns'])} unknown"
    return f"{reason['by']} #{reason['rank']}"


def _duplicates(hit: Hit) -> str:
    same = hit.get("duplicates")
    return f"; the same song: {', '.join(same)}" if same else ""


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{seconds % 60:04.1f}"


if __name__ == "__main__":
    from jobs.__main__ import run_as_module

    run_as_module(__file__)
