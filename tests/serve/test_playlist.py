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
