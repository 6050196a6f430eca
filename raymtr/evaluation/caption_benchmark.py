"""Comparison of captioning systems on the same tags against the same references.

A system is a name and, for each pair of tags and reference, the captions it wrote for those tags.
They are read from a file or a workspace, or written here: `realiser`; `template`; `tags`, the tags
joined by commas in random order, because the order in which people list tags is often that of their
caption. Captions are matched to pairs by clip, else by tags, else by line. Where a system has
several captions for a pair, their mean counts. A missing caption counts as an empty one and is
reported in a note, so a system cannot gain by leaving captions out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypedDict

import numpy as np
import pyarrow.compute as pc

from raymtr import storage
from raymtr.captions.judging.faithfulness import MusicTerms
from raymtr.captions.judging.likelihood import Likelihood
from raymtr.captions.judging.score import (
    NGRAMS,
    Estimate,
    Floats,
    TokenEncoder,
    distinct,
    likelihoods,
    paired_differences,
    score_captions,
    with_intervals,
)
from raymtr.captions.learning.pairs import CLIP_KEYS, Pair, clip_of, hold_out, read_pairs
from raymtr.captions.prompt import tags_of
from raymtr.captions.writing.realiser import realise
from raymtr.captions.writing.templates import template_caption
from raymtr.catalog.tabular import read_rows
from raymtr.errors import InputError
from raymtr.text import tags_sentence
from raymtr.workspace import Workspace

TEMPLATE, TAGS, REALISER = "template", "tags", "realiser"
MADE_HERE = (REALISER, TEMPLATE, TAGS)
SHOWN = (
    *("bert_f1", "rouge_l", "coverage", "invention", "acceptable", "taken", "non_words"),
    *("repetition", "words", "order_gain", "nats"),
)
HELD_OUT = "held_out.jsonl"  # file in a captioner's folder
MARK = "*"  # marks a system whose captioner was trained on some of the pairs
PAIRS_AT_ONCE = 256  # pairs whose references' token states are in memory together

SystemCaptions = list[list[str]]  # a system's captions of each pair


SystemFigures = Mapping[str, Estimate | float]  # estimates, and counts over all captions together


class Comparison(TypedDict):
    """Figures of each system, and pair by pair its differences to the baseline."""

    pairs: int
    bert_score: dict[str, str | int]  # of EncoderFacts
    vocabulary: int  # musical terms
    systems: dict[str, SystemFigures]
    baseline: str
    differences: dict[str, dict[str, Estimate]]
    notes: list[str]


def asked_pairs(
    workspace: Workspace, uri: str | None, *, held_out: bool
) -> tuple[list[Pair], MusicTerms]:
    """The pairs at `uri`, and the terms: built-in ones, all their tags and the catalog's.

    Without `uri` they are the pairs that the workspace's captioner was not trained on. `held_out`
    keeps only the pairs of `uri` that `finetune` would hold out. Raises InputError without any.
    """
    if uri is None:
        uri = f"{workspace.captioner}/{HELD_OUT}"
        if not storage.exists(uri):
            raise InputError(f"no {uri}, which `raymtr finetune` writes; or give --pairs")
    found = read_pairs(uri)
    tags = [tag for pair in found for tag in pair.tags]
    catalog = storage.read_tables(workspace.tracks, columns=["tags"])
    if catalog is not None:
        tags += pc.unique(pc.list_flatten(catalog["tags"])).drop_null().to_pylist()
    return hold_out(found).held_out if held_out else found, MusicTerms.of_tags(tags)


def made_here(pairs: Sequence[Pair], rng: np.random.Generator) -> dict[str, SystemCaptions]:
    """Captions without a model: the realiser's, a template's, and the tags themselves."""
    realised = [realise(pair.tags, int(rng.integers(1 << 31))) for pair in pairs]
    return {
        REALISER: [[caption.text if caption else ""] for caption in realised],
        TEMPLATE: [[template_caption(pair.tags, rng) or ""] for pair in pairs],
        TAGS: [[tags_sentence(list(rng.permutation(pair.tags)))] for pair in pairs],
    }


def read_captions(uri: str, pairs: Sequence[Pair]) -> SystemCaptions:
    """The captions for each of `pairs` in the file (or folder of Parquet files) `uri`.

    Its rows have `caption` and a clip (`track_id`, `ytid`, `clip_id`), or `tags`; rows with neither
    must be as many as the pairs. Raises InputError where no row matches a pair.
    """
    table = read_rows(uri).table
    if "caption" not in table.column_names:
        seen = ", ".join(table.column_names)
        raise InputError(f"{uri} has no column caption; columns seen: {seen}")
    rows = table.to_pylist()
    for key_of_row, key_of_pair in ((clip_of, lambda pair: pair.clip), (_tags, _tags_of_pair)):
        found: dict[object, list[str]] = {}
        for row in rows:
            if row["caption"] is not None:
                found.setdefault(key_of_row(row), []).append(str(row["caption"]))
        written = [found.get(key_of_pair(pair), []) for pair in pairs]
        if any(written):
            return written
    if any(clip_of(row) or _tags(row) for row in rows):
        raise InputError(
            f"{uri} has captions of none of the {len(pairs)} pairs: expected their clips "
            f"({', '.join(CLIP_KEYS)}) or their tags; the first row is {str(rows[0])[:200]}"
        )
    if len(rows) != len(pairs):
        raise InputError(
            f"{uri} has neither clips nor tags, and {len(rows)} rows for {len(pairs)} pairs; "
            "without them, row i belongs to pair i"
        )
    return [[str(row["caption"] or "")] for row in rows]


def _tags(row: Mapping[str, Any]) -> frozenset[str] | None:
    """The tags that a row was written from: its own, or its provenance's."""
    tags = row.get("tags")
    if tags is None and str(row.get("provenance")).startswith("{"):
        tags = json.loads(row["provenance"]).get("tags")
    return _same_tags(tags) if isinstance(tags, list) else None


def _tags_of_pair(pair: Pair) -> frozenset[str]:
    return _same_tags(pair.tags)


def _same_tags(tags: Sequence[str]) -> frozenset[str]:
    return frozenset(tag.casefold() for tag in tags_of(tags))


def compare(
    pairs: Sequence[Pair],
    systems: Mapping[str, SystemCaptions],
    *,
    encoder: TokenEncoder,
    vocabulary: MusicTerms,
    baseline: str,
    rng: np.random.Generator,
    base: Likelihood | None = None,
) -> Comparison:
    """Figures of each system with 95 % intervals, and its paired differences to `baseline`.

    `base` adds its figures for the first captions. Raises InputError where no system is named
    `baseline`.
    """
    if baseline not in systems:
        raise InputError(f"the baseline is one of {', '.join(systems)}; got {baseline!r}")
    values = _score(pairs, systems, encoder, vocabulary, base)
    answer: Comparison = {
        "pairs": len(pairs),
        "bert_score": asdict(encoder.facts),
        "vocabulary": len(vocabulary),
        "systems": {},
        "baseline": baseline,
        "differences": {},
        "notes": [],
    }
    for name, written in systems.items():
        texts = [text for captions in written for text in captions]
        answer["systems"][name] = {
            "captions": len(texts),
            **with_intervals(values[name], rng),
            **{f"distinct_{n}": distinct(texts, n) for n in NGRAMS},
        }
        if name != baseline:
            differences = paired_differences(values[name], values[baseline], rng)
            answer["differences"][name] = differences
        missing = sum(not captions for captions in written)
        if missing:
            answer["notes"].append(
                f"{name} has no caption for {missing} of {len(pairs)} pairs: they count as empty"
            )
    return answer


def _score(
    pairs: Sequence[Pair],
    systems: Mapping[str, SystemCaptions],
    encoder: TokenEncoder,
    vocabulary: MusicTerms,
    base: Likelihood | None,
) -> dict[str, dict[str, Floats]]:
    """Each system's figures by pair, [pairs]; each reference is encoded once."""
    parts: dict[str, list[dict[str, Floats]]] = {name: [] for name in systems}
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        chunk = pairs[start : start + PAIRS_AT_ONCE]
        known = encoder.states([pair.caption for pair in chunk])
        for name, written in systems.items():
            captions = [texts or [""] for texts in written[start : start + PAIRS_AT_ONCE]]
            owner = np.repeat(np.arange(len(chunk)), [len(texts) for texts in captions])
            texts = [text for texts in captions for text in texts]
            tags = [chunk[i].tags for i in owner]
            likely = likelihoods(base, texts, tags) if base and not start else None
            scored = score_captions(
                texts,
                [chunk[i].caption for i in owner],
                tags,
                encoder=encoder,
                vocabulary=vocabulary,
                known=[known[i] for i in owner],
                likely=likely,
            )
            counts = np.bincount(owner)
            parts[name].append(
                {figure: np.bincount(owner, column) / counts for figure, column in scored.items()}
            )
    return {
        name: {
            figure: np.concatenate(
                [part.get(figure, np.full(len(part["words"]), np.nan)) for part in done]
            )
            for figure in done[0]
        }
        for name, done in parts.items()
    }


def side_by_side(pairs: Sequence[Pair], systems: Mapping[str, SystemCaptions]) -> Iterable[str]:
    """One line of JSON per pair, with all captions for its tags."""
    for i, pair in enumerate(pairs):
        captions = {name: written[i] for name, written in systems.items()}
        row = {"clip": pair.clip, "tags": pair.tags, "reference": pair.caption}
        yield json.dumps(row | {"captions": captions}, ensure_ascii=False)


def table_lines(
    answer: Comparison, trained_on: Mapping[str, int | None] | None = None
) -> list[str]:
    """The figures as a text table, with half the width of the 95 % interval under each.

    Then the differences to the baseline; a star marks those whose interval excludes 0. `trained_on`
    counts the pairs that a system's captioner was trained on.
    """
    facts = answer["bert_score"]
    shown = list(_estimates(next(iter(answer["systems"].values()))))
    lines = [
        f"{answer['pairs']} pairs; bert_f1: {facts['encoder']}, layer {facts['layer']}, "
        f"{facts['max_tokens']} tokens, transformers {facts['transformers']}, no idf, not rescaled",
        f"musical terms: {answer['vocabulary']}",
        "",
        " " * 18 + "".join(f"{name:>11}" for name in (*shown, *(f"distinct_{n}" for n in NGRAMS))),
    ]
    for name, figures in answer["systems"].items():
        estimates = _estimates(figures)
        means = "".join(f"{one['mean']:11.3f}" for one in estimates.values())
        alone = "".join(f"{figures[f'distinct_{n}']:11.3f}" for n in NGRAMS)
        mark = f" {MARK}" if (trained_on or {}).get(name) else ""
        lines += [f"{name + mark:18}{means}{alone}", _half_widths(estimates)]
    if answer["differences"]:
        lines += ["", f"paired difference to {answer['baseline']}"]
    for name, differences in answer["differences"].items():
        selected = {figure: differences[figure] for figure in shown}
        stars = ["" if one["low"] <= 0 <= one["high"] else "*" for one in selected.values()]
        means = " " + "".join(
            f"{one['mean']:+10.3f}{star:1}"
            for one, star in zip(selected.values(), stars, strict=True)
        )
        lines += [f"{name:18}{means}", _half_widths(selected)]
    return lines


def _half_widths(figures: Mapping[str, Estimate]) -> str:
    halves = [(one["high"] - one["low"]) / 2 for one in figures.values()]
    return " " * 18 + "".join(f"{f'±{half:.3f}':>11}" for half in halves)


def _estimates(figures: SystemFigures) -> dict[str, Estimate]:
    """The columns of the table that were measured, in order."""
    found = {name: figures[name] for name in SHOWN if name in figures}
    return {name: one for name, one in found.items() if not isinstance(one, (int, float))}
