"""Players and agents: playlists as files, OpenSubsonic in both its forms, MCP by its own client."""

from __future__ import annotations

import asyncio
import json
from xml.etree import ElementTree

import httpx
import pytest
from mcp import Client

SUBSONIC = "{http://subsonic.org/restapi}"


def test_a_playlist_leads_from_one_track_to_the_other(client: httpx.Client) -> None:
    asked = {"from": "t00", "to": "t02", "n": 8}
    tracks = client.get("/v1/playlist", params=asked).json()["tracks"]
    ids = [track["track_id"] for track in tracks]
    assert (ids[0], ids[-1], len(set(ids))) == ("t00", "t02", 8)
    assert tracks[0]["similarity"] == pytest.approx(1, abs=1e-3)
    # The sounds are the numbers modulo 3: it begins among the first and ends among the last.
    kinds = [int(track_id[1:]) % 3 for track_id in ids]
    assert kinds[:3] == [0, 0, 0]
    assert kinds[-3:] == [2, 2, 2]
    odd = client.get("/v1/playlist", params=asked | {"where": "tags has 'odd'"}).json()["tracks"]
    assert all("odd" in track["tags"] for track in odd[1:-1])


def test_a_playlist_is_a_file_that_plays(client: httpx.Client) -> None:
    asked = {"from": "t00", "to": "t02", "n": 4}
    m3u = client.get("/v1/playlist", params=asked | {"format": "m3u"})
    assert 'filename="playlist.m3u8"' in m3u.headers["content-disposition"]
    lines = m3u.text.splitlines()
    assert lines[0] == "#EXTM3U"
    assert "#EXTINF:20,Ada Lark - Tune 0" in lines
    places = [line for line in lines if not line.startswith("#")]
    assert len(places) == 4
    assert httpx.get(places[0]).status_code == 200
    jspf = client.get("/v1/playlist", params=asked | {"format": "jspf", "links": "file"}).json()
    first = jspf["playlist"]["track"][0]
    assert (first["title"], first["creator"], first["duration"]) == ("Tune 0", "Ada Lark", 20_000)
    assert first["location"][0].endswith("song.wav")


@pytest.mark.parametrize(
    "wrong",
    [
        {"from": "t00"},
        {"from": "t00", "to": "nobody"},
        {"from": "t00", "to": "t00"},
        {"from": "t00", "to": "t02", "n": 1},
        {"from": "t00", "to": "t02", "n": 101},
        {"from": "t00", "to": "t02", "format": "xspf"},
        {"from": "t00", "to": "t02", "where": "year >"},
    ],
)
def test_wrong_playlists_are_problems(client: httpx.Client, wrong: dict) -> None:
    answer = client.get("/v1/playlist", params=wrong)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")


def test_subsonic_players_find_similar_tracks(client: httpx.Client) -> None:
    asked = {"id": "t00", "count": 4, "u": "me", "c": "player", "v": "1.16.1"}
    answer = client.get("/rest/getSonicSimilarTracks.view", params=asked | {"f": "json"}).json()
    body = answer["subsonic-response"]
    assert (body["status"], body["openSubsonic"]) == ("ok", True)
    found = [match["entry"]["id"] for match in body["sonicMatch"]]
    assert len(found) == 4
    assert all(int(track_id[1:]) % 3 == 0 for track_id in found)
    scores = [match["similarity"] for match in body["sonicMatch"]]
    assert scores == sorted(scores, reverse=True)
    assert 0.5 < scores[0] <= 1
    root = ElementTree.fromstring(client.get("/rest/getSonicSimilarTracks", params=asked).content)
    assert root.tag == f"{SUBSONIC}subsonic-response"
    matches = root.findall(f"{SUBSONIC}sonicMatch")
    assert [match[0].get("id") for match in matches] == found
    assert matches[0][0].get("isDir") == "false"


def test_subsonic_players_find_a_path_and_are_told_what_is_wrong(client: httpx.Client) -> None:
    def ask(verb: str, **asked: str) -> dict:
        answer = client.get(f"/rest/{verb}", params={"f": "json", **asked})
        assert answer.status_code == 200
        body: dict = answer.json()["subsonic-response"]
        return body

    path = ask("findSonicPath", startSongId="t00", endSongId="t02", count="6")["sonicMatch"]
    assert [path[0]["entry"]["id"], path[-1]["entry"]["id"], len(path)] == ["t00", "t02", 6]
    assert path[0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert ask("ping")["status"] == "ok"
    names = [entry["name"] for entry in ask("getOpenSubsonicExtensions")["openSubsonicExtensions"]]
    assert "sonicSimilarity" in names
    assert ask("getSonicSimilarTracks")["error"]["code"] == 10
    assert ask("getSonicSimilarTracks", id="nobody")["error"]["code"] == 70


def test_agents_search_by_mcp(client: httpx.Client) -> None:
    async def talk() -> list:
        async with Client(f"{client.base_url}/mcp") as agent:
            tools = {tool.name: tool for tool in (await agent.list_tools()).tools}
            assert set(tools) == {"search", "similar", "track", "artist"}
            assert all(tool.annotations.read_only_hint for tool in tools.values())
            return [
                await agent.call_tool("search", {"text": "slow piano ballad", "k": 3}),
                await agent.call_tool("similar", {"like": ["t00"], "k": 3}),
                await agent.call_tool("track", {"track_id": "t05"}),
                await agent.call_tool("artist", {"name": "Bo Finch"}),
                await agent.call_tool("track", {"track_id": "nobody"}),
                await agent.call_tool("search", {"text": "a", "where": "year >"}),
            ]

    found, similar, track, artist, *wrong = asyncio.run(talk())
    said = client.post("/v1/search", json={"text": "slow piano ballad", "k": 3}).json()
    assert found.structured_content["hits"] == said["hits"]
    assert all(int(hit["track_id"][1:]) % 3 == 0 for hit in similar.structured_content["hits"])
    assert track.structured_content["title"] == "Tune 5"
    assert json.loads(artist.content[0].text)["artists"]
    assert [answer.is_error for answer in wrong] == [True, True]
    assert "unknown_track" in wrong[0].content[0].text
    assert "invalid_request" in wrong[1].content[0].text
