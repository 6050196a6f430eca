"""The page as a browser reads it: tags, links and text, with facts that try to break it."""

import math
import os
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urlsplit

import pytest

from raymtr.errors import InputError
from raymtr.evaluation.charts import training_curves
from raymtr.evaluation.report import duration_words, media_href, write_report

NASTY = "<script>alert('x')</script> \"&\" {{ 7 * 7 }}"


class Page(HTMLParser):
    """Tags with their attributes, section ids, and the text shown."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.words = [], []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.lasttag != "style":
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def attributes(self, tag, name):
        return [attrs[name] for seen, attrs in self.tags if seen == tag and name in attrs]


def figures(value):
    names = ("r_at_1", "r_at_5", "r_at_10", "ndcg_at_10")
    return {"queries": 7, "median_rank": 3.5, **dict.fromkeys(names, value)}


QUALITY = {
    "pool": 1234,
    "split": "test",
    "chance": {"caption": {**figures(0.05), "ndcg_at_10_p95": 0.09}, NASTY: figures(0.2)},
    "towers": {"caption": figures(0.63), NASTY: figures(0.5)},
    "search": {"caption": figures(0.74), NASTY: figures(1.0)},
    "intervals": {"towers": {"caption": {"r_at_10": [0.56, 0.70]}}},
    "notes": [NASTY],
}


def hit(uri, **more):
    return {
        "track_id": "t1",
        "title": NASTY,
        "artist": "Канон & 夜",
        "uri": uri,
        "score": 0.5,
        **more,
    }


def whole(folder):
    example = {
        "query": NASTY,
        "kind": "similar_artist",
        "understood": {
            "kind": "similar",
            "artist": NASTY,
            "exclude": [],
            "text": NASTY,
            "year": None,
        },
        "took_ms": 12.4,
        "hits": [
            hit(
                str(folder / "audio" / "a #1 100%?.flac"),
                segment={"start_s": 20.0, "end_s": 30.0},
                duration=40.0,
                why=[NASTY, {"by": "sound", "rank": 3, "score": 0.1}],
                right=True,
            ),
            hit("s3://bucket/x.flac", segment=None, right=False),
            hit(None, title=None),
        ],
    }
    return {
        "name": NASTY,
        "lead": NASTY,
        "made_at": "today",
        "tracks": 12345,
        "hours": 3.4,
        "artists": 60,
        "built": {NASTY: NASTY},
        "quality": QUALITY,
        "examples": [example, {"query": "nothing", "hits": []}],
        "stages": {"train": 120.0, "embed": 60.0, NASTY: 0.0},
        "peak_memory_gib": 3.14,
        "errors": [{"code": "empty", "reason": NASTY, "uri": "/music/" + NASTY, "track_id": "x"}],
        "training": [(1, 4.0, None), (2, math.nan, None), (3, 2.0, 0.1), (4, 1.5, 0.4)],
        "notes": [NASTY],
        "versions": {"torch": NASTY},
    }


@pytest.fixture
def page(tmp_path):
    write_report(str(tmp_path / "report.html"), whole(tmp_path))
    return Page(tmp_path / "report.html")


@pytest.mark.slow
def test_whatever_a_name_contains_is_text(page):
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(NASTY) >= 14
    assert "49" not in page.text  # no name is run as a template


def test_nothing_is_fetched_from_elsewhere(page):
    assert not {"link", "script", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    for marker in ("http:", "https:", "url(", "@import", "//"):
        assert marker not in page.source.replace("/music/", "").replace("</", "")


def test_every_section_is_there_with_its_figures(page):
    assert page.attributes("section", "id") == [
        "quality",
        "examples",
        "training",
        "stages",
        "built",
        "errors",
    ]
    assert "12,345 tracks" in page.text and "3 min 00 s" in page.text and "3.1 GiB" in page.text
    assert "63 % with the towers alone, 74 % with search; at random 5 %" in page.text
    assert "1,234 tracks that no tower was trained on" in page.text
    assert "sound #3" in page.text and "understood as similar" in page.text
    assert "0:20 to 0:30" in page.text
    assert page.attributes("span", "class").count("yes") == 1 and "Nothing found." in page.text


@pytest.mark.slow
def test_bars_are_where_the_figures_are(page):
    widths = [a["width"] for tag, a in page.tags if tag == "rect" and a.get("class") == "towers"]
    assert widths[0] == "63.00%"
    whiskers = [a for tag, a in page.tags if tag == "line" and a.get("class") == "whisker"]
    assert (whiskers[0]["x1"], whiskers[0]["x2"]) == ("56.00%", "70.00%") and len(whiskers) == 1
    marks = [a["x1"] for tag, a in page.tags if tag == "line" and a.get("class") == "chance"]
    assert "5.00%" in marks and "9.00%" in marks  # nDCG: the 95th percentile of random rankings


def test_players_start_at_the_segment_of_a_file_beside_the_page(page, tmp_path):
    (source,) = page.attributes("audio", "src")
    link = urlsplit(source)
    assert (link.scheme, link.fragment, link.query) == ("", "t=20", "")
    assert os.fsdecode(unquote_to_bytes(link.path)) == "audio/a #1 100%?.flac"
    assert page.attributes("audio", "preload") == ["none"]
    part = next(a for tag, a in page.tags if tag == "rect" and a.get("class") == "part")
    assert (part["x"], part["width"]) == ("50.00%", "25.00%")


def test_only_a_name_is_needed_and_absent_facts_leave_no_section(tmp_path):
    write_report(str(tmp_path / "r.html"), {"name": "Mine", "errors": []})
    page = Page(tmp_path / "r.html")
    assert page.attributes("section", "id") == ["errors"]
    assert "every file was read" in page.text
    write_report(
        str(tmp_path / "r.html"), {"name": "Mine", "examples": [{"query": "x", "hits": []}]}
    )
    assert Page(tmp_path / "r.html").attributes("section", "id") == ["examples"]


def test_one_system_alone_is_a_report_too(tmp_path):
    quality = {key: value for key, value in QUALITY.items() if key not in ("search", "intervals")}
    write_report(str(tmp_path / "r.html"), {"name": "Mine", "quality": quality})
    page = Page(tmp_path / "r.html")
    assert "63 % with the towers alone; at random 5 %" in page.text
    assert "search" not in {attrs.get("class") for _, attrs in page.tags}


def test_facts_nobody_knows_are_rejected(tmp_path):
    with pytest.raises(InputError, match="unknown: qualty"):
        write_report(str(tmp_path / "r.html"), {"name": "x", "qualty": {}})
    with pytest.raises(InputError, match="a report has a name"):
        write_report(str(tmp_path / "r.html"), {"tracks": 3})


def test_many_errors_are_counted_and_cut(tmp_path):
    errors = [{"code": "empty", "reason": "0 bytes", "uri": f"f{n}"} for n in range(250)]
    write_report(str(tmp_path / "r.html"), {"name": "x", "errors": errors})
    page = Page(tmp_path / "r.html")
    assert "250 files left out" in page.text and "150 more stand" in page.text
    assert len([tag for tag, _ in page.tags if tag == "tr"]) == 101


@pytest.mark.parametrize(
    "name", ["a:b.flac", "夜 100%25.ogg", "x\ny.mp3", "caf\udce9.wav", "q?#.m4a"]
)
def test_any_file_name_becomes_a_link_to_that_file(name, tmp_path):
    folder = tmp_path / "report"
    link = urlsplit(media_href(str(tmp_path / "music" / name), str(folder), start_s=0))
    assert not link.scheme and not link.query and not link.fragment
    seen = os.path.normpath(os.path.join(os.fsencode(folder), unquote_to_bytes(link.path)))
    assert seen == os.fsencode(tmp_path / "music" / name)


def test_a_file_uri_is_a_local_file_and_a_script_is_none():
    assert media_href("file:///m/a%20b.flac", "/m", start_s=1.5) == "a%20b.flac#t=1.5"
    assert media_href("javascript:alert(1)", os.getcwd(), start_s=0) == "javascript%3Aalert%281%29"
    assert media_href("gs://b/a.flac", "/m", start_s=0) is None
    assert media_href("/m/a.flac", None, start_s=0) is None


def test_a_title_that_is_no_unicode_is_still_a_page(tmp_path):
    write_report(str(tmp_path / "r.html"), {"name": "caf\udce9"})
    assert "caf?" in Page(tmp_path / "r.html").text


def test_curves_fall_as_values_fall_and_skip_what_is_no_number():
    loss, recall = training_curves([(0, 4.0, None), (5, math.inf, 0.0), (10, 2.0, 0.5)])
    assert loss["points"] == [(0.0, 0.0), (100.0, 100.0)]
    assert recall["points"] == [(0.0, 100.0), (100.0, 0.0)] and recall["low"] == "0"
    assert training_curves([(1, 4.0, None)]) == []


def test_a_long_curve_is_thinned_and_keeps_its_end():
    (loss,) = training_curves([(step, 1 / step, None) for step in range(1, 32_769)])
    assert len(loss["points"]) <= 1001 and loss["points"][-1] == (100.0, 100.0)
    assert loss["last"] == 32_768


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(8.44, "8.4 s"), (59.4, "59 s"), (125, "2 min 05 s"), (12_000, "3 h 20 min")],
)
def test_durations_in_words(seconds, words):
    assert duration_words(seconds) == words
