"""Queries in other languages: the arena's towers, asked in English and in five translations.

    python benchmarks/arena_languages.py --workspace arena-workspace [--model NAME-or-FOLDER]

The queries are the tags of the rendered test tunes, and for each tune a list of its tags, as far as
tests/data/translated_tags.json has them, so every language has the same queries and answers. A
model whose text tower reads several languages (the recipe `raymtr-multilingual`) is compared with
one that reads English. R@10 and nDCG@10 have 95 % bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from arena_data import decoded

import raymtr
from raymtr import metrics, storage
from raymtr.workspace import Workspace

ENGLISH = "en"
FEWEST_TAGS, MOST_SHARE = 3, 0.5  # of a tune's query; of the pool that may have a tag
COMMA = {"zh": "、", "ja": "、"}
Queries = list[tuple[list[str], list[bool]]]  # English tags, and which tracks are right
TRANSLATIONS = Path(__file__).parents[1] / "tests/data/translated_tags.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workspace", default="arena-workspace")
    parser.add_argument("--model", action="append", help="(the workspace's ours-0); repeatable")
    arguments = parser.parse_args()
    workspace = Workspace.open(arguments.workspace)
    catalog = storage.read_tables(workspace.tracks)
    assert catalog is not None, "benchmarks/arena.py makes the catalog"
    tunes = rendered_test(catalog)
    words = read_translations()
    kinds = {"tag": list(tag_queries(tunes, words)), "caption": list(tune_queries(tunes, words))}
    for name in arguments.model or [f"{workspace.run('ours-0')}/model"]:
        model = raymtr.load_model(name)
        sounds, rate = decoded(tunes, model.spec.audio), model.spec.audio.sample_rate
        audio = np.concatenate([model.encode_audio([(sound, rate)]) for sound in sounds.values()])
        print(f"{name}: {len(audio)} tracks")
        for kind, queries in kinds.items():
            for language in (ENGLISH, *words):
                texts = [asked(tags, language, words) for tags, _ in queries]
                print_line(kind, language, model.encode_text(texts) @ audio.T, queries)


def read_translations() -> dict[str, dict[str, str]]:
    """Language -> English tag -> its translation."""
    words: dict[str, dict[str, str]] = json.loads(TRANSLATIONS.read_text(encoding="utf-8"))
    return words


def rendered_test(catalog: pa.Table) -> pa.Table:
    """The rendered and synthetic tracks of split `test`."""
    test = catalog.filter(pc.equal(catalog["split"], "test"))
    return test.filter(pc.not_equal(test["dataset"], "real_music"))


def _known(tags: list[str] | None, words: Mapping[str, Mapping[str, str]]) -> list[str]:
    return [tag for tag in tags or () if all(tag in own for own in words.values())]


def tag_queries(
    tunes: pa.Table, words: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[list[str], list[bool]]]:
    """Each translated tag of two or more tracks, and fewer than half."""
    lists = [_known(tags, words) for tags in tunes["tags"].to_pylist()]
    for tag in sorted({tag for tags in lists for tag in tags}):
        right = [tag in tags for tags in lists]
        if 2 <= sum(right) < MOST_SHARE * len(lists):
            yield [tag], right


def tune_queries(
    tunes: pa.Table, words: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[list[str], list[bool]]]:
    """The translated tags of each track that has FEWEST_TAGS; right are all tracks that have them.

    Equal lists are one query.
    """
    lists = [frozenset(_known(tags, words)) for tags in tunes["tags"].to_pylist()]
    for tags in sorted(set(lists), key=sorted):
        if len(tags) >= FEWEST_TAGS:
            yield sorted(tags), [tags <= own for own in lists]


def asked(tags: list[str], language: str, words: Mapping[str, Mapping[str, str]]) -> str:
    """The tags in a language, as a list."""
    own = tags if language == ENGLISH else [words[language][tag] for tag in tags]
    return COMMA.get(language, ", ").join(own)


def print_line(kind: str, language: str, scores: np.ndarray, queries: Queries) -> None:
    """R@10 and nDCG@10 of one kind of query in one language."""
    right = np.array([mine for _, mine in queries])
    found = {
        "R@10": metrics.first_right_ranks(scores, right) <= 10,
        "nDCG@10": metrics.ndcgs_at(scores, right, k=10),
    }
    shown = []
    for name, values in found.items():
        low, high = metrics.bootstrap_interval(
            values.astype(np.float64), np.random.default_rng(0), bounds=(0.0, 1.0)
        )
        shown.append(f"{name} {values.mean():.3f} [{low:.3f}, {high:.3f}]")
    print(f"{kind:8} {language}  {len(queries):4} queries  {'  '.join(shown)}", flush=True)


if __name__ == "__main__":
    main()
