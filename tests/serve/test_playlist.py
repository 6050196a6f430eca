"""Playlist files hold what was put in, whatever a title is made of."""

from __future__ import annotations

import json

from serve.playlist import write_playlist

TRACK = {"track_id": "a", "artist": "Ada", "album": None, "duration": 61.4, "uri": None}
HOSTILE = "one\nhttp://evil.example/x.mp3\r#EXTINF:1,two\u2028three"


def test_a_title_cannot_add_lines_to_an_m3u() -> None:
    tracks = [TRACK | {"title": HOSTILE}, TRACK | {"title": None, "artist": None, "duration": None}]
    text = write_playlist("m3u", tracks, title="mine\nhttp://evil.example", locate=lambda _: "/x")
    lines = text.splitlines()
    assert len(lines) == 2 + 2 * len(tracks)
    assert lines[2].startswith("#EXTINF:61,Ada - one http://evil.example")
    assert lines[4] == "#EXTINF:-1,a"


def test_jspf_is_json_with_milliseconds() -> None:
    text = write_playlist("jspf", [TRACK | {"title": HOSTILE}], title="t", locate=lambda _: "/x")
    [entry] = json.loads(text)["playlist"]["track"]
    assert entry == {"location": ["/x"], "title": HOSTILE, "creator": "Ada", "duration": 61_400}


def place_of(path: str) -> list[str]:
    """The lines of a playlist behind what is said of its one track, which lies at `path`."""
    text = write_playlist("m3u", [TRACK | {"title": "T"}], title="t", locate=lambda _: path)
    return text.removesuffix("\n").split("\n")[3:]


def test_the_path_of_a_file_is_as_it_is_on_disk() -> None:
    for path in ("/m/two  spaces.mp3", "/m/no\u00a0break.mp3", "/m/ends with blank .mp3 "):
        assert place_of(path) == [path]
    assert place_of("/a\nb") == ["file:///a%0Ab"]
