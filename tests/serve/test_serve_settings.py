"""Settings of the endpoint, keys, and what stops a bad start."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from raymtr.errors import InputError
from serve.access import Key, read_keys
from serve.search_routes import file_of
from serve.settings import ServeSettings, read_settings


def test_the_defaults_keep_their_inequalities() -> None:
    settings = ServeSettings(workspace="w")
    options = settings.deployment()
    assert options["max_ongoing_requests"] >= 2 * settings.max_batch_size
    assert options["max_queued_requests"] > 0
    assert options["graceful_shutdown_timeout_s"] > settings.request_timeout_s


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_ongoing_requests": 5},
        {"max_queued_requests": 1},
        {"min_replicas": 9},
        {"audio_timeout_s": 60.0},
        {"queue_timeout_s": 60.0},
        {"max_batch_sise": 4},
        {"body_max_mb": 0.0},
    ],
)
def test_settings_that_break_a_rule_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError):
        read_settings({"workspace": "w", **wrong})


def test_texts_of_serve_run_are_read() -> None:
    read = read_settings({"workspace": "7", "max_batch_size": "8", "open_to_anyone": "true"})
    assert (read.workspace, read.max_batch_size, read.open_to_anyone) == ("7", 8, True)


def test_the_environment_may_say_where_the_workspace_is(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"workspace": "$MY_WORKSPACE"}
    monkeypatch.setenv("MY_WORKSPACE", "s3://bucket/workspace")
    assert read_settings(told).workspace == "s3://bucket/workspace"
    monkeypatch.delenv("MY_WORKSPACE")
    with pytest.raises(InputError, match="has no MY_WORKSPACE"):
        read_settings(told)


def test_keys_are_read_hashed_or_refused(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "keys").write_text(f"# who\nada {digest}\n")
    assert read_keys(str(tmp_path / "keys")) == {digest: Key("ada")}
    (tmp_path / "keys").write_text(f"prom {digest} metrics\n")
    assert read_keys(str(tmp_path / "keys")) == {digest: Key("prom", frozenset({"metrics"}))}
    for wrong in ("ada secret\n", f"ada {digest} everything\n"):
        (tmp_path / "keys").write_text(wrong)
        with pytest.raises(InputError, match="line 1"):
            read_keys(str(tmp_path / "keys"))


def test_a_multipart_file_comes_out_byte_for_byte() -> None:
    data = bytes(range(256)) * 9 + b"\r\n--x\n\r"
    head = b'--BB\r\nContent-Disposition: form-data; name="f"; filename="a.mp3"\r\n\r\n'
    body = head + data + b"\r\n--BB--\r\n"
    assert file_of("multipart/form-data; boundary=BB", body) == data
