"""What clients really send: OpenAI's package, a player's library, the MCP SDK, browsers, curl."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import libopensonic
import numpy as np
import openai
import pytest
from libopensonic import errors
from mcp import Client

from raymtr.model.pretrained import load_model

JSON = {"content-type": "application/json"}
PATHS = [
    "/",
    "/docs",
    "/livez",
    "/readyz",
    "/v1/tracks/t00",
    "/v1/map",
    "/openapi.json",
    "/nowhere",
]


@pytest.mark.parametrize("path", PATHS)
def test_head_is_get_without_a_body(client: httpx.Client, path: str) -> None:
    got, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    assert head.headers["content-type"] == got.headers["content-type"]


def test_a_file_that_the_client_has_is_not_sent_again(client: httpx.Client) -> None:
    path = "/v1/tracks/t00/audio"
    whole = client.get(path)
    etag, modified = whole.headers["etag"], whole.headers["last-modified"]

    def ask(**conditions: str) -> httpx.Response:
        return client.get(path, headers={k.replace("_", "-"): v for k, v in conditions.items()})

    for same in (etag, f'"other", W/{etag}', "*"):
        kept = ask(if_none_match=same)
        assert (kept.status_code, kept.content, kept.headers["etag"]) == (304, b"", etag)
    assert ask(if_modified_since=modified).status_code == 304
    assert ask(if_none_match='"other"', if_modified_since=modified).status_code == 200
    assert ask(if_modified_since="Sat, 01 Jan 2000 00:00:00 GMT").status_code == 200
    assert ask(if_modified_since="no date").status_code == 200
    assert ask(range="bytes=0-9", if_range=etag).status_code == 206
    assert ask(range="bytes=0-9", if_range='"other"').content == whole.content
    assert (client.head(path).headers["content-length"]) == str(len(whole.content))
    head = client.head(path, headers={"range": "bytes=0-9"})
    assert (head.status_code, head.headers["content-length"]) == (206, "10")


def test_ranges_that_make_no_sense_are_ignored_and_those_beyond_are_problems(
    client: httpx.Client,
) -> None:
    path = "/v1/tracks/t00/audio"
    size = len(client.get(path).content)
    for ignored in ("items=0-5", "bytes=5-2", "bytes=", "bytes=a-b"):
        assert client.get(path, headers={"range": ignored}).status_code == 200
    beyond = client.get(path, headers={"range": f"bytes={size}-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-type"] == "application/problem+json"
    assert beyond.headers["content-range"] == f"bytes */{size}"


def test_host_names_know_no_case(client: httpx.Client) -> None:
    for host in ("LOCALHOST", "localhost.", "LocalHost:8000", "127.0.0.1", "[::1]:8000"):
        assert client.get("/livez", headers={"host": host}).status_code == 200
    for host in ("localhost.evil.example", "evil.example", "localhost:8000, evil"):
        assert client.get("/livez", headers={"host": host}).status_code == 403


def test_a_body_without_its_header_is_told_which(client: httpx.Client) -> None:
    body = json.dumps({"text": "piano"})
    form = {"content-type": "application/x-www-form-urlencoded"}  # what `curl -d` says
    for headers in (form, {}, {"content-type": "text/plain"}):
        answer = client.post("/v1/search", content=body, headers=headers)
        if answer.status_code != 200:
            assert "Content-Type: application/json" in answer.json()["detail"]
    assert client.post("/v1/search", content=body, headers=form).status_code == 422
    assert client.post("/v1/search", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize(
    "asked",
    ["tracks/t00/similar?limit=3", "artists/Bo Finch/similar?per_artist=1", "map?zoom=3"],
)
def test_unknown_parameters_are_rejected_by_name(client: httpx.Client, asked: str) -> None:
    answer = client.get(f"/v1/{asked}")
    assert answer.status_code == 422
    assert asked.partition("?")[2].partition("=")[0] in answer.json()["detail"]


def test_an_artist_in_the_path_is_no_sentence(client: httpx.Client) -> None:
    answer = client.get("/v1/artists/Bo Finch/similar").json()
    assert (answer["query"]["kind"], answer["query"]["artist"]) == ("similar", "Bo Finch")
    assert answer["query"]["similar_artist"] == "Bo Finch"
    assert answer["query"]["text"] is None
    assert client.get("/v1/artists/songs by Bo Finch/similar").json()["code"] == "unknown_artist"


def test_no_page_elsewhere_may_ask_unless_it_is_set(client: httpx.Client) -> None:
    asked = {"origin": "https://example.org", "access-control-request-method": "POST"}
    assert client.options("/v1/search", headers=asked).status_code == 405
    answer = client.get("/livez", headers={"origin": "https://example.org"})
    assert "access-control-allow-origin" not in answer.headers


# ---- OpenAI's package ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors(client: httpx.Client) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{client.base_url}/v1", api_key="none", max_retries=0)


def test_openais_client_gets_the_models_vectors(vectors: openai.OpenAI, tiny_model: str) -> None:
    expected = load_model(tiny_model).encode_text(["rain", "sun"])
    model = vectors.models.list().data[0].id
    assert model == "raymtr" == vectors.models.retrieve("raymtr").id
    for asked in ({}, {"encoding_format": "float"}, {"dimensions": expected.shape[1]}):
        made = vectors.embeddings.create(model=model, input=["rain", "sun"], **asked)
        np.testing.assert_allclose([one.embedding for one in made.data], expected, atol=1e-5)
    fingerprint = vectors.models.list().data[1].id
    assert vectors.embeddings.create(model=fingerprint, input="rain").model == fingerprint


def test_what_openai_clients_leave_out_is_null(client: httpx.Client) -> None:
    body = {"input": "rain", "model": None, "encoding_format": None, "dimensions": None}
    answer = client.post("/v1/embeddings", json=body)
    assert answer.status_code == 200
    packed = client.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    raw = base64.b64decode(packed["data"][0]["embedding"])
    np.testing.assert_allclose(
        np.frombuffer(raw, "<f4"), answer.json()["data"][0]["embedding"], atol=1e-6
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"input": [1, 2, 3]}, "check_embedding_ctx_length=False"),
        ({"input": [[1, 2, 3]]}, "check_embedding_ctx_length=False"),
        ({"input": "rain", "dimensions": 7}, "this model has"),
        ({"input": "rain", "encoding_format": "int8"}, "float or base64"),
        ({"input": ["rain", ""]}, "non-empty"),
    ],
)
def test_openais_client_is_told_what_cannot_be(
    vectors: openai.OpenAI, wrong: dict, said: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=said):
        vectors.embeddings.create(model="raymtr", **wrong)
    with pytest.raises(openai.NotFoundError, match="served: raymtr"):
        vectors.embeddings.create(model="ada", input="rain")


# ---- an OpenSubsonic library --------------------------------------------------------------------


def player(client: httpx.Client, **how: Any) -> libopensonic.Connection:
    base = client.base_url
    return libopensonic.Connection(
        f"{base.scheme}://{base.host}", port=base.port, server_path=base.path.strip("/"), **how
    )


@pytest.mark.parametrize("how", [{}, {"use_get": True}, {"use_views": False}])
def test_a_players_library_finds_what_is_similar(client: httpx.Client, how: dict) -> None:
    """It posts, or gets; with `.view` and without."""
    connection = player(client, api_key="any", **how)
    assert connection.ping()
    found = connection.get_sonic_similar_tracks("t00", 4)
    assert len(found) == 4
    assert all(int(match.entry.id[1:]) % 3 == 0 for match in found)
    path = connection.find_sonic_path("t00", "t02", 5)
    assert [path[0].entry.id, path[-1].entry.id, len(path)] == ["t00", "t02", 5]
    assert connection.token_info().username == "anyone"
    with pytest.raises(errors.DataNotFoundError):
        connection.get_sonic_similar_tracks("nobody")


def test_a_method_that_is_not_here_is_told_in_the_envelope(client: httpx.Client) -> None:
    with pytest.raises(errors.SonicError, match="getMusicFolders"):
        player(client, api_key="any").get_music_folders()
    for verb in ("POST", "GET", "HEAD"):
        answer = client.request(verb, "/rest/getSong.view", params={"f": "json", "id": "t00"})
        assert answer.status_code == 200
    assert client.get("/rest/").text.startswith("<?xml")


def test_subsonic_forms(client: httpx.Client) -> None:
    asked = {"f": "jsonp", "callback": "app.heard"}
    scripted = client.get("/rest/ping", params=asked)
    assert scripted.headers["content-type"].startswith("application/javascript")
    assert scripted.text.startswith("app.heard({") and scripted.text.endswith("});")
    for wrong in ({"f": "jsonp"}, {"f": "jsonp", "callback": "a;b"}, {"f": "yaml"}):
        assert "failed" in client.get("/rest/ping", params=wrong).text
    assert client.get("/rest/ping", params={"f": "JSON"}).json()["subsonic-response"]


# ---- MCP ----------------------------------------------------------------------------------------


def test_agents_are_told_what_to_mend(client: httpx.Client) -> None:
    calls: list[tuple[str, dict, str]] = [
        ("search", {"text": "a", "limit": 3}, "unknown argument 'limit'; accepted: text, where"),
        ("search", {"text": "a", "k": "many"}, "invalid_request: k:"),
        ("search", {}, "invalid_request: text:"),
        ("search", {"text": "a", "where": "nope = 1"}, "nope"),
        ("artist", {"name": "similar to Bo Finch"}, "unknown_artist"),
        ("sing", {}, "sing"),
    ]

    async def talk() -> list[Any]:
        async with Client(f"{client.base_url}/mcp") as agent:
            wrong = [await agent.call_tool(name, asked) for name, asked, _ in calls]
            one = await agent.call_tool("similar", {"like": "t00", "exclude": None, "k": 2})
            single = await agent.call_tool("similar", {"like": "t00", "unlike": "t01", "k": 2})
            return [*wrong, one, single]

    *wrong, unknown, single = asyncio.run(talk())
    for answer, (_, _, said) in zip(wrong, calls, strict=True):
        assert answer.is_error
        assert said in answer.content[0].text
    assert "exclude" in unknown.content[0].text
    assert len(single.structured_content["hits"]) == 2
