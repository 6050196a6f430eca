"""What a person types is understood, obeyed or named as ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from builders import publish_catalog

from jobs.search import _reason
from raymtr import storage
from raymtr.errors import InputError
from raymtr.search.lexicon import load_lexicon
from raymtr.search.searcher import Searcher
from raymtr.search.slots import Understood
from raymtr.search.understand import understand
from raymtr.workspace import Workspace

ROWS: list[dict[str, Any]] = [
    {
        "track_id": f"t{n:02}",
        "title": f"Tune {n}",
        "artist": ["Ada Quill", "Bo Finch", "Dax Orrin"][n % 3],
        "album": "Kettle Hymns" if n % 2 else "Salt",
        "year": 1980 + n,
        "duration": 60.0 + 10 * n,
        "tags": [
            ["rock", "metal", "drums"],
            ["rock", "calm", "piano"],
            ["jazz", "saxophone", "slow", "hip-hop"],
            ["ambient", "dark ambient", "strings", "voice"],
            ["punk rock", "energetic", "fast", "drum machine"],
        ][n % 5],
        "similar_artists": [],
        "bpm": 70.0 + 4 * n,
        "key": ["A minor", "C", "F# minor", "Bb major"][n % 4],
        "vocal": ["instrumental", "vocals", None][n % 3],
        "language": [None, "Spanish", None][n % 3],
    }
    for n in range(30)
]


def opened(make_workspace: Callable, rows: list[dict[str, Any]]) -> Searcher:
    workspace: Workspace = make_workspace(rows)
    publish_catalog(workspace)
    return Searcher(workspace)


@pytest.fixture(scope="module")
def searcher(make_workspace: Callable) -> Searcher:
    return opened(make_workspace, ROWS)


def tags_of(understood: Understood) -> tuple[set[str], set[str]]:
    include = {tag.value for slot in understood.include for tag in slot.tags}
    return include, {tag.value for slot in understood.excluded for tag in slot.tags}


@pytest.mark.parametrize(
    ("text", "include", "exclude"),
    [
        ("rock but not metal", {"rock"}, {"metal"}),
        ("rock, no drums", {"rock"}, {"drums", "drum machine"}),
        ("rock without any metal in it", {"rock"}, {"metal"}),
        ("rock minus the drums", {"rock"}, {"drums", "drum machine"}),
        ("rock that isn't metal", {"rock"}, {"metal"}),
        ("i don't want metal, just jazz", {"jazz"}, {"metal"}),
        ("ambient, nothing dark", {"ambient"}, {"dark ambient"}),
        ("anything but jazz", set(), {"jazz"}),
        ("nothing but jazz", {"jazz"}, set()),
        ("jazz with nothing but piano", {"jazz", "piano"}, set()),
        ("no drums, nothing except piano", {"piano"}, {"drums", "drum machine"}),
        ("not only jazz but also metal", {"jazz", "metal"}, set()),
        ("nichts als Klavier", {"piano"}, set()),
        ("nada más que piano", {"piano"}, set()),
        ("rock -metal", {"rock"}, {"metal"}),
        ("no metal, jazz or piano", set(), {"metal", "jazz", "piano"}),
        ("no drums and slow", {"slow"}, {"drums", "drum machine"}),
        ("jazz without singing", {"jazz"}, {"voice"}),
        ("ruhiger Rock ohne Schlagzeug", {"rock", "calm"}, {"drums", "drum machine"}),
        ("rock sans batterie", {"rock"}, {"drums", "drum machine"}),
        ("ドラムなしのジャズ", {"jazz"}, {"drums", "drum machine"}),
        ("没有鼓的爵士", {"jazz"}, {"drums", "drum machine"}),
        ("punkrock", {"punk rock"}, set()),
        ("hiphop", {"hip-hop"}, set()),
        ("sax", {"saxophone"}, set()),
        ("saxaphone", {"saxophone"}, set()),
        ("relaxed evening of jaz", {"jazz", "calm", "slow", "ambient"}, set()),
        ("metal or jazz", {"metal", "jazz"}, set()),
        ("jazz but don't give me piano", {"jazz"}, {"piano"}),
        ("i don't know any jazz", {"jazz"}, set()),
        ("jazz, less the saxophone", {"jazz"}, {"saxophone"}),
        ("jazz but leave the saxophone out", {"jazz"}, {"saxophone"}),
        ("rock !metal", {"rock"}, {"metal"}),
        ("jazz, piano is fine, saxophone is not", {"jazz", "piano"}, {"saxophone"}),
        ("punk rok", {"punk rock"}, set()),
    ],
)
def test_tags_are_wanted_or_not(
    searcher: Searcher, text: str, include: set[str], exclude: set[str]
) -> None:
    found, without = tags_of(understand(text, searcher.table))
    assert without == exclude
    assert include <= found or found <= include != set()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("songs from 1999", "year = 1999"),
        ("rock before 1990", "year <= 1989"),
        ("since 2000", "year >= 2000"),
        ("after 2000", "year >= 2001"),
        ("between 1990 and 1995", "year >= 1990 and year <= 1995"),
        ("early eighties", "year >= 1980 and year <= 1983"),
        ("80s rock", "year >= 1980 and year <= 1989"),
        ("110 bpm", "bpm >= 105.6 and bpm <= 114.4"),
        ("faster than 120 bpm", "bpm >= 120"),
        ("in A minor", "key in ('A minor')"),
        ("F sharp minor", "key in ('F# minor')"),
        ("jazz in C", "key in ('C')"),
        ("under two minutes", "duration <= 120"),
        ("longer than 3 min", "duration >= 180"),
        ("in Spanish", "language in ('Spanish')"),
        ("instrumental", "(vocal is null or not (vocal in ('vocals')))"),
        ("not from 1999", "(year is null or not (year = 1999))"),
        ("not older than 1999", "year >= 1999"),
        ("jazz between 110 and 120 bpm", "bpm >= 110 and bpm <= 120"),
        ("bpm 110-120", "bpm >= 110 and bpm <= 120"),
        ("3+ minutes of jazz", "duration >= 180"),
        ("two minutes or less", "duration <= 120"),
        ("without drums from 1999", "year = 1999"),
        ("the summer of '99", "year = 1999"),
        ("Am", "key in ('A minor')"),
        ("over a quarter hour", "duration >= 900"),
        ("< 90s jazz", "duration <= 90"),
        ("Jazz unter fünf Minuten", "duration <= 300"),
        ("jazz that lasts between one and two minutes", "duration >= 60 and duration <= 120"),
    ],
)
def test_a_facet_is_a_filter_on_a_column(searcher: Searcher, text: str, where: str) -> None:
    answer = searcher.search(text)
    assert where in [slot["where"] for slot in answer["query"]["filters"]]
    assert answer["hits"] or answer["query"]["suggestions"]


def test_a_column_that_is_not_there_is_named_as_ignored(make_workspace: Callable) -> None:
    rows = [{"track_id": "a", "title": "A", "artist": "B", "tags": ["rock"]}]
    answer = opened(make_workspace, rows).search("rock from 1999 in D minor at 120 bpm")
    said = {slot["why"] for slot in answer["query"]["ignored"]}
    assert said == {f"no {name} in this catalog" for name in ("year", "key", "tempo")}
    assert [hit["track_id"] for hit in answer["hits"]] == ["a"]


def test_a_minor_key_is_any_minor_key(searcher: Searcher) -> None:
    (slot,) = understand("rock in a minor key", searcher.table).filters
    assert slot.where == "key in ('A minor', 'F# minor')"


@pytest.mark.parametrize("text", ["instrumental only", "no vocals", "without singing"])
def test_unknown_vocals_are_no_violation_but_come_last_and_say_so(
    searcher: Searcher, text: str
) -> None:
    answer = searcher.search(text, k=30)
    held = searcher.table.rows([hit["track_id"] for hit in answer["hits"]], ["vocal"])
    vocal = [row["vocal"] for row in held.values()]
    known = vocal.count("instrumental")
    assert known and vocal == ["instrumental"] * known + [None] * (len(vocal) - known)
    assert None in vocal
    for hit, value in zip(answer["hits"], vocal, strict=True):
        unknown = [reason["columns"] for reason in hit["why"] if reason["by"] == "unknown"]
        assert unknown == ([] if value else [{"vocal": None}])


@pytest.mark.slow
def test_unknown_vocals_are_found_where_nothing_is_known(make_workspace: Callable) -> None:
    rows = [
        {"track_id": "a", "title": "A", "tags": ["rock"], "vocal": None},
        {"track_id": "b", "title": "B", "tags": ["rock"], "vocal": "vocals"},
    ]
    answer = opened(make_workspace, rows).search("rock without vocals")
    assert [hit["track_id"] for hit in answer["hits"]] == ["a"]
    assert answer["hits"][0]["why"][-1]["by"] == "unknown"
    assert _reason(answer["hits"][0]["why"][-1]) == "vocal unknown"


@pytest.mark.parametrize("text", ["rock but not metal", "no drums", "music without calm piano"])
def test_no_hit_has_what_is_not_wanted(searcher: Searcher, text: str) -> None:
    answer = searcher.search(text, k=30)
    unwanted = {tag for slot in answer["query"]["exclude"] for tag in slot["tags"]}
    assert answer["hits"] and unwanted
    assert not any(unwanted & set(hit["tags"]) for hit in answer["hits"])
    assert not unwanted & set((answer["query"]["rest"] or "").split())


def test_a_name_with_a_tag_keeps_both(searcher: Searcher) -> None:
    answer = searcher.search("metal by Ada Quill")
    assert answer["query"]["kind"] == "artist"
    assert {hit["artist"] for hit in answer["hits"]} == {"Ada Quill"}
    assert all("metal" in hit["tags"] for hit in answer["hits"])
    assert searcher.search("songs from kettle hymns")["query"]["album"] == "Kettle Hymns"


@pytest.mark.slow
def test_an_artist_without_such_a_tag_is_said_to_have_none(make_workspace: Callable) -> None:
    rows = [
        {"track_id": "a", "title": "A", "artist": "Ada Quill", "tags": ["metal"]},
        {"track_id": "b", "title": "B", "artist": "Bo Finch", "tags": ["jazz"]},
    ]
    searcher = opened(make_workspace, rows)
    answer = searcher.search("jazz by Ada Quill")
    assert [hit["track_id"] for hit in answer["hits"]] == ["a"]
    assert answer["query"]["ignored"] == [
        {"words": "jazz", "why": "no track by Ada Quill has such a tag"}
    ]
    assert searcher.search("metal by Ada Quill")["query"]["ignored"] == []


def test_unknown_words_do_not_empty_what_a_year_finds(searcher: Searcher) -> None:
    answer = searcher.search("blorpish songs from 1999")
    assert answer["hits"]
    assert answer["query"]["ignored"][0]["words"] == "blorpish"


def test_a_word_without_an_instrument_excludes_it(searcher: Searcher) -> None:
    assert understand("drumless jazz", searcher.table).exclude == ("drum",)


def test_like_a_known_name_always_finds_something(searcher: Searcher) -> None:
    for text in ("like Ada Quill", "Ada Quill meets Bo Finch", "like Ada Quil but faster"):
        answer = searcher.search(text)
        assert answer["query"]["kind"] == "similar"
        assert answer["hits"]
        assert "Ada Quill" not in {hit["artist"] for hit in answer["hits"]}


def test_a_direction_is_relative_to_the_anchor(searcher: Searcher) -> None:
    own = [row["bpm"] for row in ROWS if row["artist"] == "Ada Quill"]
    mean = sum(own) / len(own)
    for text, faster in (("like Ada Quill but faster", True), ("Ada Quill, but slower", False)):
        answer = searcher.search(text, k=5)
        held = searcher.table.rows([hit["track_id"] for hit in answer["hits"]], ["bpm"])
        assert all((row["bpm"] > mean) == faster for row in held.values())
        assert any(reason["by"] == "direction" for reason in answer["hits"][0]["why"])


def test_nonsense_says_so_and_scores_low(searcher: Searcher) -> None:
    answer = searcher.search("qwertz asdfgh")
    assert answer["hits"] == []
    assert answer["query"]["ignored"][0]["words"] == "qwertz asdfgh"
    unknown = searcher.search("like Zorblax Vandemar")
    assert "no track or artist" in unknown["query"]["ignored"][0]["why"]


def test_without_hits_it_says_which_constraint_to_relax(searcher: Searcher) -> None:
    advice = searcher.search("songs from 1999 in A minor over 300 bpm")["query"]["suggestions"]
    assert {"relax": "over 300 bpm", "hits": 0} not in advice
    assert any(one.get("hits", 0) > 0 for one in advice) or advice == []


def test_a_common_word_is_no_misspelt_name(make_workspace: Callable) -> None:
    rows = [{"track_id": "a", "title": "Good Thing", "artist": "Smooth", "tags": ["calm"]}]
    searcher = opened(make_workspace, rows)
    assert understand("soothing", searcher.table).kind == "description"
    assert understand("good thng", searcher.table).title == "Good Thing"


@pytest.mark.slow
def test_a_workspace_has_words_of_its_own(make_workspace: Callable) -> None:
    searcher = opened(make_workspace, ROWS)
    folder = searcher.workspace.path("lexicon")
    storage.write_bytes(f"{folder}/own.tsv", b"tags\tweaker\ten\njazz\t\tblorple, sofa\n")
    answer = Searcher(searcher.workspace).search("blorple")
    assert answer["query"]["include"][0]["tags"] == ["jazz"]
    storage.write_bytes(f"{folder}/own.tsv", b"word\ttag\n")
    load_lexicon.cache_clear()
    with pytest.raises(InputError, match="expected a header"):
        Searcher(searcher.workspace).search("jazz")
