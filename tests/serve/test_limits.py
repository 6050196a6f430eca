"""Who is refused, and how: keys, scopes, rates, sizes, time, garbage. The fused layout answers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator

import httpx
import libopensonic
import numpy as np
import pytest
import soundfile
from libopensonic.errors import SonicError

from raymtr.search.searcher import Searcher
from raymtr.workspace import Workspace

ADA, BOB, SCRAPER = ({"authorization": f"Bearer key-of-{name}"} for name in ("ada", "bob", "scr"))
PER_MINUTE = 60
PAGE = "https://example.org"


@pytest.fixture(scope="module")
def keyed(run_app: Callable, tmp_path_factory: pytest.TempPathFactory) -> httpx.Client:
    lines = [
        f"{name} {hashlib.sha256(f'key-of-{name}'.encode()).hexdigest()} {scopes}"
        for name, scopes in (("ada", ""), ("bob", "search"), ("scr", "metrics"), ("zoë", ""))
    ]
    file = tmp_path_factory.mktemp("keys") / "keys"
    file.write_text("\n".join(lines))
    limits = {"requests_per_minute": PER_MINUTE, "json_max_kb": 4.0, "body_max_mb": 1.0}
    client: httpx.Client = run_app("keyed", layout="fused", api_keys=str(file), **limits)
    return client


def problem(answer: httpx.Response) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return answer.status_code, answer.json()["code"]


def test_a_key_is_asked_for(keyed: httpx.Client) -> None:
    asked = {"text": "piano"}
    for wrong in ({}, {"authorization": "Bearer nonsense"}, {"authorization": "Basic key-of-ada"}):
        answer = keyed.post("/v1/search", json=asked, headers=wrong)
        assert problem(answer) == (401, "key_refused")
    assert keyed.post("/v1/search", json=asked, headers=ADA).status_code == 200
    for open_path in ("/", "/livez", "/readyz", "/docs", "/openapi.json"):
        assert keyed.get(open_path).status_code == 200
    for shut in ("/metrics", "/v1/map", "/v1/tracks/t00/audio", "/mcp", "/nowhere"):
        assert problem(keyed.get(shut)) == (401, "key_refused")


def test_a_key_may_have_letters_beyond_ascii(keyed: httpx.Client) -> None:
    """A header has no encoding of its own: most clients write UTF-8, some Latin-1."""
    for coding in ("utf-8", "latin-1"):
        sent = {"authorization": b"Bearer key-of-zo" + "ë".encode(coding)}
        assert keyed.get("/v1/tracks/t00", headers=sent).status_code == 200
    asked = {"f": "json", "apiKey": "key-of-zoë"}
    assert keyed.get("/rest/ping", params=asked).json()["subsonic-response"]["status"] == "ok"


def test_a_key_opens_what_its_scopes_say(keyed: httpx.Client) -> None:
    assert problem(keyed.get("/v1/map", headers=SCRAPER)) == (403, "key_out_of_scope")
    assert keyed.get("/metrics", headers=SCRAPER).status_code == 200
    assert problem(keyed.get("/metrics", headers=BOB)) == (403, "key_out_of_scope")


def test_players_send_the_key_in_their_way(keyed: httpx.Client) -> None:
    def ask(**sent: str) -> dict:
        asked = {"f": "json", "u": "me", **sent}
        return keyed.get("/rest/ping", params=asked).json()["subsonic-response"]

    assert ask(apiKey="key-of-ada")["status"] == "ok"
    assert ask(p="key-of-ada")["status"] == "ok"
    assert ask(p="enc:" + b"key-of-ada".hex())["status"] == "ok"
    for wrong in ({}, {"apiKey": "x"}, {"p": "enc:zz"}, {"apiKey": "key-of-scr"}):
        assert ask(**wrong)["error"]["code"] in (44, 50)
    listed = keyed.get("/rest/getOpenSubsonicExtensions", params={"f": "json"}).json()
    assert listed["subsonic-response"]["status"] == "ok"


def test_players_post_their_key_and_are_told_that_tokens_cannot_be(keyed: httpx.Client) -> None:
    base = keyed.base_url
    where = {"port": base.port, "server_path": base.path.strip("/")}
    host = f"{base.scheme}://{base.host}"
    connection = libopensonic.Connection(host, api_key="key-of-ada", **where)
    assert connection.ping() and connection.token_info().username == "ada"
    assert libopensonic.Connection(host, "me", "key-of-ada", legacy_auth=True, **where).ping()
    with pytest.raises(SonicError, match="send apiKey"):
        libopensonic.Connection(host, "me", "key-of-ada", **where).get_sonic_similar_tracks("t00")
    form = {"f": "json", "u": "me", "t": "0" * 32, "s": "salt"}
    told = keyed.post("/rest/ping.view", data=form).json()["subsonic-response"]
    assert (told["status"], told["error"]["code"]) == ("failed", 42)
    long = keyed.post("/rest/ping", data={"f": "json", "a": "a" * 5_000})
    assert (long.status_code, "failed" in long.text) == (200, True)


def test_pages_of_a_set_origin_may_ask_and_no_others(run_app: Callable) -> None:
    client = run_app("cors", layout="fused", open_to_anyone=True, cors_origins=f"{PAGE} http://b")
    asked = {"origin": PAGE, "access-control-request-method": "POST"}
    asked["access-control-request-headers"] = "authorization,content-type"
    leave = client.options("/v1/search", headers=asked)
    assert (leave.status_code, leave.headers["access-control-allow-origin"]) == (200, PAGE)
    answer = client.post("/v1/search", json={"text": "piano"}, headers={"origin": PAGE})
    assert answer.headers["access-control-allow-origin"] == PAGE
    for other in ("https://example.org.evil", "http://example.org"):
        answer = client.get("/livez", headers={"origin": other})
        assert "access-control-allow-origin" not in answer.headers


def test_a_key_has_a_rate_of_its_own(keyed: httpx.Client) -> None:
    answers = [keyed.get("/v1/tracks/t00", headers=BOB) for _ in range(PER_MINUTE + 5)]
    late = [answer for answer in answers if answer.status_code == 429]
    assert len(late) >= 4
    assert problem(late[0]) == (429, "rate_limited")
    assert 1 <= int(late[0].headers["retry-after"]) <= 60
    assert keyed.get("/v1/tracks/t00", headers=ADA).status_code == 200


def test_large_bodies_are_rejected_with_and_without_a_stated_length(keyed: httpx.Client) -> None:
    said = keyed.post("/v1/embeddings", json={"input": "a" * 5_000}, headers=ADA)
    assert problem(said) == (413, "body_too_large")
    upload = {"file": ("a.wav", bytes(1_100_000))}
    assert problem(keyed.post("/v1/search/audio", files=upload, headers=ADA))[0] == 413

    def chunks() -> Iterator[bytes]:
        yield b'{"input": "'
        for _ in range(100):
            yield b"a" * 1_000

    kind = ADA | {"content-type": "application/json"}
    endless = keyed.post("/v1/embeddings", content=chunks(), headers=kind)
    assert problem(endless) == (413, "body_too_large")


@pytest.mark.parametrize(
    "garbage",
    [b"", b"no music at all", b"RIFF\xff\xff\xff\xffWAVEfmt ", b"ID3" + bytes(500), b"fLaC\x00"],
)
def test_garbage_is_no_recording(keyed: httpx.Client, garbage: bytes) -> None:
    answer = keyed.post("/v1/search/audio", files={"file": ("a.mp3", garbage)}, headers=ADA)
    status, code = problem(answer)
    assert status == 422
    assert code.startswith("audio_") or code == "no_file"


def test_the_fused_layout_gives_the_same_answers(keyed: httpx.Client, workspace: Workspace) -> None:
    searcher = Searcher(workspace)
    file = io.BytesIO()
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 32_000)
    soundfile.write(file, noise, 16_000, format="WAV")
    for asked in (
        {"text": "slow piano ballad", "k": 7},
        {"text": "similar to Cy Wren", "k": 5, "per_artist": 1},
        {"like": [{"track_id": "t03"}], "unlike": ["t04"], "k": 5, "diversity": 0.5},
    ):
        answer = keyed.post("/v1/search", json=asked, headers=ADA).json()
        assert answer["hits"] == searcher.search(**asked)["hits"]
    upload = {"file": ("a", file.getvalue())}
    sent = keyed.post("/v1/search/audio?k=5", files=upload, headers=ADA)
    assert sent.json()["hits"] == searcher.search(audio=file.getvalue(), k=5)["hits"]


def test_what_takes_too_long_is_told_so(run_app: Callable) -> None:
    hasty = {"request_timeout_s": 0.003, "audio_timeout_s": 0.001, "queue_timeout_s": 0.001}
    client = run_app("hasty", layout="fused", open_to_anyone=True, **hasty)
    assert problem(client.post("/v1/search", json={"text": "piano"})) == (504, "timeout")
