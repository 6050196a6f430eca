"""`raymtr evaluate <protocol>`: the published protocols on the live towers, one command each.

    caption-retrieval   captions of the datasets to tracks, and back
    tags                tag queries, synonyms merged
    zero-shot           every tag is a label; tracks are also queries for their labels
    artist-similarity   similar artists, by name and by sound
    triplets            --triplets: track ids `anchor, nearer, farther` (Dim-Sim)
    compare             --runs A B --qrels Q: two TREC runs, paired

The pool is the tracks of `--split` that have a vector; its size is printed. Figures go to
`evaluation/<protocol>/`, with a TREC run and qrels in each direction.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypedDict, final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raymtr import storage
from raymtr.catalog.tabular import read_rows
from raymtr.embeddings.store import EmbeddingStore, matrix_of
from raymtr.errors import InputError
from raymtr.evaluation import comparison, trec
from raymtr.evaluation import retrieval_protocols as protocols
from raymtr.evaluation.retrieval_protocols import Encode, Outcome
from raymtr.workspace import Workspace

SEED = 0
PROTOCOLS = ("caption-retrieval", "tags", "zero-shot", "artist-similarity", "triplets")
ARGUMENTS_OF = {"triplets": ("triplets",), "compare": ("runs", "qrels")}
OWN = ("triplets", "runs", "qrels")  # arguments of the protocols alone
TRIPLET_COLUMNS = ("anchor", "nearer", "farther")


@final
class ProtocolAnswer(TypedDict):
    """A protocol's figures with their intervals, the sizes of what was ranked, and the files."""

    protocol: str
    split: str
    pools: dict[str, int]  # by direction
    queries: dict[str, int]
    figures: dict[str, float]
    intervals: dict[str, list[float]]
    notes: list[str]
    files: dict[str, str]


@final
class CompareAnswer(comparison.RunComparison):
    """Two runs compared, and where that was written."""

    protocol: str
    files: dict[str, str]


@dataclass(frozen=True)
class LoadedTowers:
    """The live tracks of a split with their unit vectors [N, D], and the text encoder."""

    rows: list[dict[str, Any]]
    vectors: np.ndarray
    encode: Encode


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Adds the arguments of the protocols."""
    parser.add_argument(
        "--triplets", metavar="FILE", help="a table with columns anchor, nearer, farther"
    )
    parser.add_argument("--runs", nargs=2, metavar="FILE", help="compare: two TREC runs")
    parser.add_argument("--qrels", metavar="FILE", help="compare: what is relevant")


def run(arguments: argparse.Namespace, workspace: Workspace) -> ProtocolAnswer | CompareAnswer:
    """The command-line entry point."""
    for protocol, names in ARGUMENTS_OF.items():
        others = [name for name in names if getattr(arguments, name) is not None]
        if others and protocol != arguments.what:
            raise InputError(f"--{min(others)} belongs to `raymtr evaluate {protocol}`")
    folder = arguments.out or workspace.path(f"evaluation/{arguments.what}")
    metrics = f"{folder}/metrics.json"
    if arguments.what == "compare":
        if not arguments.runs or not arguments.qrels:
            raise InputError("`raymtr evaluate compare` needs --runs A B and --qrels Q")
        one, other = arguments.runs
        compared = comparison.compare_runs(one, other, arguments.qrels, seed=SEED)
        both: CompareAnswer = {"protocol": "compare", **compared, "files": {"metrics": metrics}}
        storage.write_json(metrics, both)
        return both
    towers = _towers(workspace, arguments.split)
    outcome = measured(arguments.what, towers, arguments.triplets)
    files: dict[str, str] = {}
    for direction, ranked in outcome.runs.items():
        files |= {
            f"run_{direction}": f"{folder}/run.{direction}.txt",
            f"qrels_{direction}": f"{folder}/qrels.{direction}.txt",
        }
        lines = trec.run_lines(ranked, tag=f"raymtr-{direction}")
        storage.write_bytes(files[f"run_{direction}"], _text(lines))
        qrels = trec.qrels_lines(outcome.right[direction])
        storage.write_bytes(files[f"qrels_{direction}"], _text(qrels))
    answer: ProtocolAnswer = {
        "protocol": arguments.what,
        "split": arguments.split,
        "pools": outcome.pools,
        "queries": outcome.queries,
        "figures": outcome.figures,
        "intervals": outcome.intervals,
        "notes": outcome.notes,
        "files": {**files, "metrics": metrics},
    }
    storage.write_json(metrics, answer)
    return answer


def measured(name: str, towers: LoadedTowers, file: str | None) -> Outcome:
    """The outcome of one of PROTOCOLS. Raises InputError if its texts are missing."""
    place = (towers.rows, towers.vectors, towers.encode, SEED)
    if name == "caption-retrieval":
        return protocols.captions(*place)
    if name == "artist-similarity":
        return protocols.artists(*place)
    if name == "triplets":
        if file is None:
            raise InputError("`raymtr evaluate triplets` needs --triplets: anchor, nearer, farther")
        return protocols.triplets(*place, read_triplets(file))
    if name == "tags":
        return protocols.tags(*place, synonyms=minilm())
    return protocols.tags(*place, synonyms=None)


def read_triplets(file: str) -> list[tuple[str, str, str]]:
    """The triplets of a table with TRIPLET_COLUMNS. Raises InputError where one is missing."""
    table = read_rows(file).table
    if missing := [name for name in TRIPLET_COLUMNS if name not in table.column_names]:
        raise InputError(f"{file} has no column {missing[0]!r}; expected {TRIPLET_COLUMNS}")
    columns = (table[name].to_pylist() for name in TRIPLET_COLUMNS)
    return [(str(a), str(b), str(c)) for a, b, c in zip(*columns, strict=True)]


def minilm() -> Encode:
    """MiniLM's unit vectors of tags, by which TTMR++ finds synonyms."""
    import torch

    from raymtr.model.text_tower import load_text_tower
    from raymtr.tower_recipes import MINILM
    from raymtr.tower_specs import TextTowerSpec

    tower = load_text_tower(TextTowerSpec(source=MINILM, pooling="mean", trainable=False)).eval()

    @torch.inference_mode()
    def encode(sentences: list[str]) -> np.ndarray:
        states = torch.nn.functional.normalize(tower(**tower.tokenize(sentences)), dim=-1)
        return np.asarray(states.numpy())

    return encode


def _towers(workspace: Workspace, split: str) -> LoadedTowers:
    """The catalog's tracks of `split` that have a live vector. Raises InputError without any."""
    catalog = storage.read_tables(workspace.tracks)
    if catalog is None:
        raise InputError(f"no catalog in {workspace.root}; run `raymtr scan` first")
    from raymtr.search.searcher import Searcher  # LanceDB

    searcher = Searcher(workspace)
    fingerprint = searcher.build.fingerprint
    if fingerprint is None:
        raise InputError("this catalog was indexed by its words alone; run `raymtr embed`")
    catalog = catalog.filter(pc.equal(catalog["split"], split))
    vectors = EmbeddingStore.open(workspace.embeddings(fingerprint)).read_tracks()
    place = pc.index_in(catalog["track_id"], value_set=pa.array(vectors["track_id"].to_pylist()))
    catalog, place = catalog.filter(place.is_valid()), place.drop_null()
    if not len(catalog):
        raise InputError(f"no track of split {split!r} has a vector; give another --split")
    matrix = matrix_of(vectors["vector"].take(place))
    encode: Callable[[list[str]], np.ndarray] = searcher.model("text").encode_text
    return LoadedTowers(catalog.to_pylist(), matrix, encode)


def _text(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def describe(answer: ProtocolAnswer | CompareAnswer) -> str:
    """A line per figure, after the sizes of what was ranked."""
    lines = [answer["protocol"]]
    if "pools" in answer:
        for direction, size in answer["pools"].items():
            count = answer["queries"][direction]
            lines.append(f"  {direction}: {count} queries over a pool of {size}")
        for name, value in answer["figures"].items():
            interval = answer["intervals"].get(name)
            shown = f"  [{interval[0]:.3f}, {interval[1]:.3f}]" if interval else ""
            lines.append(f"  {name:36} {value:.4f}{shown}")
        lines += [f"note: {note}" for note in answer["notes"]]
    else:
        lines.append(f"  {answer['queries']} queries; other - one, with its 95 % interval")
        for name, values in answer["figures"].items():
            told = "  ".join(f"{key} {number:.4g}" for key, number in values.items())
            lines.append(f"  {name:36} {told}")
    return "\n".join([*lines, f"written to {answer['files']['metrics']}"])
