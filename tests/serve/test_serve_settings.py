"""Settings of the endpoint, keys, and what stops a bad start."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from raymtr.errors import InputError
from serve.access import Key, read_keys
from serve.settings import ServeSettings, read_settings


def test_the_defaults_keep_their_inequalities() -> None:
    settings = ServeSettings(workspace="w")
    options = settings.deployment()
    assert options["max_ongoing_requests"] >= 2 * settings.max_batch_size
    assert options["max_queued_requests"] > 0
    assert options["graceful_shutdown_timeout_s"] > settings.request_timeout_s


def test_memory_is_reserved_for_replicas_that_read_tables() -> None:
    def memory(options: dict) -> float:
        return options["ray_actor_options"].get("memory", 0)

    one, sharded = (ServeSettings(workspace="w", memory_gb=2, shards=n) for n in (1, 4))
    assert memory(one.retriever_deployment()) == memory(sharded.shard_deployment()) == 2 << 30
    assert memory(sharded.retriever_deployment()) == memory(one.audio_deployment()) == 0
    assert memory(ServeSettings(workspace="w").retriever_deployment()) == 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_ongoing_requests": 5},
        {"max_queued_requests": 1},
        {"min_replicas": 9},
        {"audio_timeout_s": 60.0},
        {"audio_timeout_s": 20.0},  # after a wait of queue_timeout_s it would be too late
        {"audio_ongoing": 0},
        {"queue_timeout_s": 60.0},
        {"max_batch_sise": 4},
        {"body_max_mb": 0.0},
    ],
)
def test_settings_that_break_a_rule_are_rejected(wrong: dict) -> None:
    with pytest.raises(InputError):
        read_settings({"workspace": "w", **wrong})


@pytest.mark.parametrize(
    ("disagree", "said"),
    [
        ({"device": "cuda"}, "device=cuda num_gpus=1"),
        ({"num_gpus": 1.0}, "device=cpu num_gpus=0"),
        ({"device": "cuda", "num_gpus": 2.0}, "num_gpus <= 1"),
        ({"device": "cuda", "num_gpus": 1.0, "text_int8": True}, "text_int8"),
        ({"device": "cuda:1", "num_gpus": 1.0}, "cpu, cuda"),
    ],
)
def test_device_and_gpus_agree_or_the_cure_is_said(disagree: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_settings({"workspace": "w", **disagree})


def test_uploads_never_take_more_than_half_of_an_ingress() -> None:
    wide = ServeSettings(workspace="w", max_replicas=100)
    assert wide.uploads_at_once == wide.max_ongoing_requests // 2
    assert ServeSettings(workspace="w", max_replicas=1).uploads_at_once == 2 + 4


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


def test_keys_are_read_hashed_or_rejected(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"secret").hexdigest()
    (tmp_path / "keys").write_text(f"# who\nada {digest}\n")
    assert read_keys(str(tmp_path / "keys")) == {digest: Key("ada")}
    (tmp_path / "keys").write_text(f"prom {digest} metrics\n")
    assert read_keys(str(tmp_path / "keys")) == {digest: Key("prom", frozenset({"metrics"}))}
    for wrong in ("ada secret\n", f"ada {digest} everything\n"):
        (tmp_path / "keys").write_text(wrong)
        with pytest.raises(InputError, match="line 1"):
            read_keys(str(tmp_path / "keys"))
