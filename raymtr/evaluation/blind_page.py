"""A page for blind rating of captions and of clip pairs, and the parser of its CSV.

The page needs no server: it stores the ratings in the browser and saves them as CSV. The columns
are `item` and one per rating; only items with all ratings are saved.
"""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Collection, Iterator, Mapping, Sequence

from raymtr.errors import InputError

ITEM = "item"

PAGE = """<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:16px/1.5 sans-serif;max-width:50em;margin:2em auto}}small{{color:#666}}
p{{margin:.3em 0}}fieldset{{margin:1em 0}}select{{margin-right:1em}}</style>
<h1>{title}</h1><p>{question}</p>
<form id="f">{items}<button>Save scores.csv</button></form><script>
const KEY=location.pathname,f=document.getElementById("f"),
old=JSON.parse(localStorage[KEY]||"{{}}");
for(const s of f.querySelectorAll("select")){{s.value=old[s.name]||"";
s.onchange=()=>{{old[s.name]=s.value;localStorage[KEY]=JSON.stringify(old)}}}}
f.onsubmit=e=>{{e.preventDefault();let t="{columns}\\n";
for(const d of f.querySelectorAll("fieldset")){{const v=[...d.querySelectorAll("select")]
.map(s=>s.value);if(v.every(Boolean))t+=[d.id,...v].join(",")+"\\n"}}
const a=document.createElement("a");a.href=URL.createObjectURL(new Blob([t]));
a.download="scores.csv";a.click()}}</script>
"""
FIELDSET = '<fieldset id="{item}"><small>{note}</small>{body}{choices}</fieldset>'
CHOICE = '<label>{name} <select name="{item}-{name}"><option></option>{options}</select></label>'


def blind_page(title: str, question: str, items: Sequence[str], marks: Sequence[str]) -> str:
    """The HTML page of `items` from `blind_item`; `marks` are the names of their ratings."""
    columns = ",".join((ITEM, *marks))
    return PAGE.format(title=title, question=question, items="\n".join(items), columns=columns)


def blind_item(item: str, note: str, body: str, marks: Mapping[str, Collection[str]]) -> str:
    """The HTML of one item: a note (text), a body (HTML), and the accepted values per rating."""
    choices = "".join(
        CHOICE.format(
            item=item, name=name, options="".join(f"<option>{v}</option>" for v in values)
        )
        for name, values in marks.items()
    )
    return FIELDSET.format(item=item, note=html.escape(note), body=body, choices=choices)


def read_marks(
    text: str, items: Collection[str], marks: Mapping[str, Collection[str]]
) -> Iterator[tuple[str, list[str]]]:
    """Items and their ratings from a rater's CSV.

    Raises InputError on an invalid line, or on an item that is not in `items`.
    """
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        found = [str(row.get(name)) for name in marks]
        valid = [mark in values for mark, values in zip(found, marks.values(), strict=True)]
        if row.get(ITEM) not in items or not all(valid):
            accepted = "; ".join(f"{name} is {', '.join(values)}" for name, values in marks.items())
            raise InputError(
                f"line {number} of the scores: expected {','.join((ITEM, *marks))} with an item of "
                f"the key, where {accepted}; got {dict(row)}"
            )
        yield row[ITEM], found
