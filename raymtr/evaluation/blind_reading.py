"""Blind reading of captions: a page of shuffled outputs, a separate key, and scores by system.

A reader rates each text for fluency and faithfulness, 1 to 5, without knowing who wrote it. The
page needs no server: it stores the ratings, and saves them as CSV of `item,fluency,faithfulness`.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from typing import TypedDict

import numpy as np

from raymtr.captions.learning.pairs import Pair
from raymtr.errors import InputError

COLUMNS = ("item", "fluency", "faithfulness")
PEOPLE = "people"
GOOD = 4  # of 5: both ratings of a publishable caption are at least this

PAGE = """<!doctype html><meta charset="utf-8"><title>Captions, read blind</title>
<style>body{{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto}}small{{color:#666}}
p{{margin:.3em 0}}fieldset{{margin:1em 0}}select{{margin-right:1em}}</style>
<h1>Captions, read blind</h1><p>Fluency: would a careful writer have written it? Faithfulness: does
it say its tags and nothing else? 1 is the worst, 5 the best.</p>
<form id="f">{items}<button>Save scores.csv</button></form><script>
const KEY=location.pathname,f=document.getElementById("f"),
old=JSON.parse(localStorage[KEY]||"{{}}");
for(const s of f.querySelectorAll("select")){{s.value=old[s.name]||"";
s.onchange=()=>{{old[s.name]=s.value;localStorage[KEY]=JSON.stringify(old)}}}}
f.onsubmit=e=>{{e.preventDefault();let t="item,fluency,faithfulness\\n";
for(const d of f.querySelectorAll("fieldset")){{const v=[...d.querySelectorAll("select")]
.map(s=>s.value);if(v[0]&&v[1])t+=[d.id,...v].join(",")+"\\n"}}
const a=document.createElement("a");a.href=URL.createObjectURL(new Blob([t]));
a.download="scores.csv";a.click()}}</script>
"""
ITEM = '<fieldset id="{item}"><small>{tags}</small><p>{text}</p>{choices}</fieldset>'
CHOICE = '<label>{name} <select name="{item}-{name}"><option></option>{numbers}</select></label>'


class Marks(TypedDict):
    """A reader's marks of one system's captions."""

    read: int  # captions
    fluency: float  # mean, 1 to 5
    faithfulness: float
    both_good: float  # share with both at least GOOD


def blind_page(
    pairs: Sequence[Pair],
    systems: Mapping[str, Sequence[Sequence[str]]],
    count: int,
    rng: np.random.Generator,
) -> tuple[str, list[dict[str, str]]]:
    """The page of `count` pairs' captions by all systems, and the key from items to systems.

    Raises InputError where there are fewer pairs.
    """
    if not 1 <= count <= len(pairs):
        raise InputError(f"--blind takes 1 to {len(pairs)}, the number of pairs; got {count}")
    chosen = rng.choice(len(pairs), size=count, replace=False)
    texts = [
        (name, int(i), written[i][0])
        for i in chosen
        for name, written in systems.items()
        if written[i]
    ]
    order = rng.permutation(len(texts))
    items, key = [], []
    for number, at in enumerate(order, 1):
        name, i, text = texts[at]
        items.append(_item(f"t{number}", ", ".join(pairs[i].tags), text))
        key.append({"item": f"t{number}", "system": name, "clip": pairs[i].clip, "text": text})
    return PAGE.format(items="\n".join(items)), key


def _item(item: str, tags: str, text: str) -> str:
    numbers = "".join(f"<option>{n}</option>" for n in range(1, 6))
    choices = "".join(CHOICE.format(item=item, name=name, numbers=numbers) for name in COLUMNS[1:])
    return ITEM.format(item=item, tags=html.escape(tags), text=html.escape(text), choices=choices)


def read_scores(text: str, key: Sequence[Mapping[str, str]]) -> dict[str, Marks]:
    """Figures of each system from a reader's CSV: means, and the share with both at least 4.

    Raises InputError on a line that is not a score, or on an item that is not in the key.
    """
    owner = {row["item"]: row["system"] for row in key}
    found: dict[str, list[tuple[int, int]]] = {}
    reader = csv.DictReader(io.StringIO(text))
    for number, row in enumerate(reader, start=2):
        marks = [str(row.get(name)) for name in COLUMNS[1:]]
        if row.get("item") not in owner or not all(mark in "12345" for mark in marks):
            raise InputError(
                f"line {number} of the scores: expected {','.join(COLUMNS)} with an item of the "
                f"key and marks of 1 to 5; got {dict(row)}"
            )
        found.setdefault(owner[row["item"]], []).append((int(marks[0]), int(marks[1])))
    return {
        name: {
            "read": len(marks),
            "fluency": float(np.mean([fluent for fluent, _ in marks])),
            "faithfulness": float(np.mean([faithful for _, faithful in marks])),
            "both_good": float(np.mean([min(both) >= GOOD for both in marks])),
        }
        for name, marks in found.items()
    }
