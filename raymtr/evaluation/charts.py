"""Chart data for the report: positions in percent of a chart, and their labels.

Percent, because the page's charts are SVG without a view box: they stretch with the page while
lines and text keep their size. The template (report.html.j2) sets the style.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeGuard

from raymtr.evaluation.quality import Figures, QualityFigures, by_system

SYSTEMS = {"towers": "Towers alone", "search": "Search"}
KINDS = {
    "caption": ("Caption", "a sentence about one track"),
    "tag": ("Tag", "one word, right for every track that has it"),
    "title": ("Title", "the title, alone or with the artist"),
    "artist": ("Artist", "the artist's name"),
    "similar_artist": ("Similar artist", "“similar to” an artist the towers know"),
}
SHOWN_POINTS = 1000  # of a training curve
NARROWEST = 0.3  # percent; keeps an empty bar visible


def kind_words(kind: str) -> tuple[str, str]:
    """A kind's label and its meaning, which is empty for a user's own kind."""
    return KINDS.get(kind) or (kind.replace("_", " ").capitalize(), "")


def quality_charts(answer: QualityFigures | None) -> dict[str, object] | None:
    """Charts and table rows by kind of query; None where no system was measured."""
    systems = by_system(answer) if answer else {}
    if not answer or not systems:
        return None
    kinds = next(iter(systems.values()))
    return {
        "pool": answer["pool"],
        "held_out": answer.get("split") in ("valid", "test"),
        "systems": [(name, SYSTEMS[name]) for name in systems],
        "headline": _headline(answer, systems),
        "charts": [
            ("R@10", "a right answer among the first ten", _bars(answer, systems, "r_at_10")),
            ("nDCG@10", "the right answers, and how high", _bars(answer, systems, "ndcg_at_10")),
        ],
        "rows": [
            (
                *kind_words(kind),
                [(name, SYSTEMS[name], figures[kind]) for name, figures in systems.items()]
                + [("chance", "Chance", answer["chance"][kind])],
            )
            for kind in kinds
        ],
        "notes": answer.get("notes") or (),
    }


def _headline(answer: QualityFigures, systems: Mapping[str, Mapping[str, Figures]]) -> str | None:
    """`63 % with the towers alone, 74 % with search; at random 5 %`, for caption queries."""
    if any("caption" not in figures for figures in systems.values()):
        return None
    words = {"towers": "with the towers alone", "search": "with search"}
    found = [
        f"{100 * figures['caption']['r_at_10']:.0f} % {words[name]}"
        for name, figures in systems.items()
    ]
    return f"{', '.join(found)}; at random {100 * answer['chance']['caption']['r_at_10']:.0f} %"


def _bars(
    answer: QualityFigures, systems: Mapping[str, Mapping[str, Figures]], figure: str
) -> list[dict[str, object]]:
    """A group of bars for each kind; values from 0 to 1, with intervals and the chance level."""
    groups: list[dict[str, object]] = []
    for kind in next(iter(systems.values())):
        label, meaning = kind_words(kind)
        bars = []
        for name, figures in systems.items():
            low_high = (answer.get("intervals") or {}).get(name, {}).get(kind, {}).get(figure)
            bars.append({"name": name, "value": figures[kind][figure], "interval": low_high})
        luck = answer["chance"][kind]
        mark = luck.get(f"{figure}_p95", luck[figure])
        groups.append({"label": label, "meaning": meaning, "bars": bars, "chance": mark})
    return groups


def stage_bars(stages: Mapping[str, float]) -> dict[str, object] | None:
    """The bars of the stages; each begins where the one before it ends."""
    total = sum(stages.values())
    if total <= 0:
        return None
    rows, passed = [], 0.0
    for name, seconds in stages.items():
        left, width = 100 * passed / total, 100 * seconds / total
        rows.append(
            {"name": name, "seconds": seconds, "left": left, "width": max(width, NARROWEST)}
        )
        passed += seconds
    return {"total": total, "rows": rows}


def training_curves(
    training: Sequence[tuple[int, float | None, float | None]],
) -> list[dict[str, object]]:
    """Loss and validation R@10 by step, as points in percent of a chart's width and height."""
    loss = [(step, value) for step, value, _ in training if _is_number(value)]
    recall = [(step, value) for step, _, value in training if _is_number(value)]
    curves = []
    for title, series, bottom in (("Loss", loss, None), ("Validation R@10", recall, 0.0)):
        if len(series) > 1:
            curves.append(_curve(title, series, bottom))
    return curves


def _is_number(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def _curve(
    title: str, series: Sequence[tuple[int, float]], bottom: float | None
) -> dict[str, object]:
    stride = -(-len(series) // SHOWN_POINTS)
    kept = [*series[:-1:stride], series[-1]]
    values = [value for _, value in kept]
    low = min(values) if bottom is None else bottom
    high = max(values) if max(values) > low else low + 1.0
    first, last = kept[0][0], kept[-1][0]
    points = [
        (100 * (step - first) / max(last - first, 1), 100 * (high - value) / (high - low))
        for step, value in kept
    ]
    return {
        "title": title,
        "points": points,
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "first": first,
        "last": last,
        "end": f"{values[-1]:.3g}",
        "dots": len(points) <= 30,
    }
