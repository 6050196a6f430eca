"""Bringing RayJobs to success: against an HTTPS server that answers as the Kubernetes API does."""

import ast
import datetime
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes_api import BASE, Cluster, write_certificate

from jobs import __main__ as verbs
from k8s import submit
from k8s.kustomize import by_name
from k8s.submit import Owner, Step

OWNER = Owner("nightly-1", "2f6b")
SUCCEEDED = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
LONG_AGO = "2026-01-01T00:00:00Z"


def failed(message: str = "", *, reason: str = "AppFailed", end: str = LONG_AGO) -> dict:
    """The status of a copy that KubeRay gave up."""
    said = {"reason": reason, "message": message, "endTime": end}
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", **said}


def exited(status: int) -> dict:
    """The same, of one whose entrypoint ended with `status`."""
    return failed(f"Job entrypoint command failed with exit code {status}. No logs available.")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    write_certificate(path)
    return path


@pytest.fixture
def cluster(certificate: Path) -> Iterator[Cluster]:
    server = Cluster()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def api(
    cluster: Cluster, certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> submit.Api:
    (tmp_path / "namespace").write_text("raymtr\n")
    (tmp_path / "token").write_text("first")
    (tmp_path / "ca.crt").write_bytes(certificate.read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.server_port))
    return submit.Api(tmp_path)


def brought(api: submit.Api, name: str, *, owner: Owner = OWNER) -> bool:
    return submit.run(Step(api, name, owner), look_every_s=0.01)


def test_a_copy_runs_and_the_template_does_not(cluster: Cluster, api: submit.Api) -> None:
    cluster.ends["embed"] = [[{}, {"jobDeploymentStatus": "Initializing"}, SUCCEEDED]]
    assert brought(api, "embed")
    [made] = cluster.created
    template = cluster.jobs["embed"]
    assert made["spec"] == {**template["spec"], "suspend": False}
    assert made["metadata"]["labels"]["raymtr/template"] == "embed"
    assert template["spec"]["suspend"] is True


def test_a_copy_goes_when_its_job_does(cluster: Cluster, api: submit.Api) -> None:
    cluster.ends["scan"] = [[SUCCEEDED]]
    assert brought(api, "scan")
    [owned] = cluster.created[0]["metadata"]["ownerReferences"]
    assert owned == {"apiVersion": "batch/v1", "kind": "Job", "name": "nightly-1", "uid": "2f6b"}


@pytest.mark.parametrize(
    "lost",
    [
        exited(75),  # a verb that lost its cluster
        exited(137),
        exited(-9),
        failed("Job supervisor actor died: the node is gone"),
        failed("failed with exit code 2, says a line of the log"),
        failed(reason="PreRunningDeadlineExceeded"),
        failed(reason="SubmissionFailed"),
        failed(reason="JobStatusCheckTimeoutExceeded"),
    ],
    ids=lambda status: f"{status['reason']} {status['message'][:40]}",
)
def test_a_lost_cluster_is_tried_again(cluster: Cluster, api: submit.Api, lost: dict) -> None:
    cluster.ends["train"] = [[lost], [lost], [SUCCEEDED]]
    assert brought(api, "train")
    assert len(cluster.created) == 3


@pytest.mark.parametrize(
    "wrong",
    [
        exited(verbs.FAILED),
        exited(verbs.WRONG_USE),
        exited(verbs.TOO_MANY_ERRORS),
        failed(reason="DeadlineExceeded"),
        {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"},
        {"jobDeploymentStatus": "ValidationFailed"},
    ],
    ids=lambda status: str(status.get("message") or status.get("reason") or status),
)
def test_what_a_verb_rejects_is_not_tried_again(
    cluster: Cluster, api: submit.Api, capsys: pytest.CaptureFixture[str], wrong: dict
) -> None:
    cluster.ends["train"] = [[wrong], [SUCCEEDED]]
    assert not brought(api, "train")
    assert len(cluster.created) == 1
    said = capsys.readouterr().err
    assert "not retried" in said and wrong.get("message", "") in said


def test_rays_words_for_a_failed_entrypoint_are_known() -> None:
    """The sentences of the installed Ray itself, as its job supervisor makes them."""
    from ray.dashboard.modules.job import job_supervisor

    source = ast.parse(Path(job_supervisor.__file__).read_text(encoding="utf-8"))
    sentences = [
        eval(compile(ast.Expression(part), "ray", "eval"), {"return_code": 3, "log_tail": ""})
        for part in ast.walk(source)
        if isinstance(part, ast.JoinedStr) and "failed with exit code" in ast.unparse(part)
    ]
    assert len(sentences) == 2
    assert [submit.exit_status(sentence) for sentence in sentences] == [3, 3]


def test_attempts_are_counted_in_the_template(cluster: Cluster, api: submit.Api) -> None:
    cluster.jobs["index"]["metadata"]["annotations"]["raymtr/attempts"] = "2"
    cluster.ends["index"] = [[exited(137)], [exited(137)], [SUCCEEDED]]
    assert not brought(api, "index")
    assert len(cluster.created) == 2


def test_it_pauses_longer_after_each_failure(cluster: Cluster, api: submit.Api) -> None:
    step = Step(api, "train", OWNER)
    end = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    cluster.ends["train"] = [[exited(137)]] * 4
    step.look(end)
    for pause in (60, 120, 240):
        before = len(cluster.created)
        step.look(end + datetime.timedelta(seconds=pause - 1))
        assert len(cluster.created) == before
        step.look(end + datetime.timedelta(seconds=pause))
        assert len(cluster.created) == before + 1


def test_a_new_pod_takes_up_the_copy_under_way(cluster: Cluster, api: submit.Api) -> None:
    """The first pod is evicted after a failure and a start: nothing is started twice."""
    running = {"jobDeploymentStatus": "Running"}
    cluster.ends["embed"] = [[exited(137)], [running, running, SUCCEEDED]]
    first = Step(api, "embed", OWNER)
    now = datetime.datetime.now(datetime.UTC)
    for _ in range(3):
        assert first.look(now) is None
    assert brought(api, "embed")
    assert len(cluster.created) == 2


def test_another_job_has_copies_of_its_own(cluster: Cluster, api: submit.Api) -> None:
    cluster.ends["embed"] = [[SUCCEEDED]]
    assert brought(api, "embed") and brought(api, "embed", owner=Owner("embed-1", "77"))
    assert [c["metadata"]["labels"]["raymtr/started-by"] for c in cluster.created] == [
        "nightly-1",
        "embed-1",
    ]


def test_a_copy_waits_in_the_queue_and_the_template_does_not(
    cluster: Cluster, api: submit.Api
) -> None:
    cluster.jobs["train"]["metadata"]["annotations"]["raymtr/queue"] = "music"
    cluster.ends["train"] = [[SUCCEEDED]]
    assert brought(api, "train")
    assert cluster.created[0]["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "music"


def test_an_api_that_hiccups_is_called_again(cluster: Cluster, api: submit.Api) -> None:
    cluster.ends["index"] = [[SUCCEEDED]]
    cluster.hiccups = 3
    assert brought(api, "index")


def test_an_api_that_stays_silent_is_left_to_another_pod(
    cluster: Cluster, api: submit.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.hiccups = 10**6
    monkeypatch.setattr(submit, "MOST_SILENCE_S", 0.05)
    monkeypatch.setattr(submit, "Api", lambda: api)
    as_pod(monkeypatch, "nightly-1")
    assert submit.main(["index"]) == submit.TRY_AGAIN


def as_pod(monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    monkeypatch.setenv("JOB_NAME", job)
    monkeypatch.setenv("JOB_UID", "2f6b")
    monkeypatch.setattr(submit, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(submit.run, "__kwdefaults__", {"look_every_s": 0.01})


def test_steps_run_in_turn_and_stop_at_a_failure(
    cluster: Cluster, api: submit.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.ends = {"scan": [[SUCCEEDED]], "caption": [[exited(2)]], "embed": [[SUCCEEDED]]}
    monkeypatch.setattr(submit, "Api", lambda: api)
    as_pod(monkeypatch, "nightly-1")
    assert submit.main(["scan", "caption", "embed"]) == submit.FAILED
    assert [c["metadata"]["generateName"] for c in cluster.created] == ["scan-", "caption-"]


def test_a_job_of_peoples_is_named_after_what_it_starts(
    cluster: Cluster, api: submit.Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.ends["train"] = [[SUCCEEDED]]
    monkeypatch.setattr(submit, "Api", lambda: api)
    as_pod(monkeypatch, "train-2")
    assert submit.main([]) == 0
    assert cluster.created[0]["metadata"]["generateName"] == "train-"


def test_outside_a_job_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("JOB_NAME", raising=False)
    assert submit.main(["scan"]) == submit.WRONG_USE
    assert "in the pod of a Job" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["nightly", "start"])
def test_the_job_knows_what_the_submitter_says(name: str) -> None:
    """Final failures end the Job, an eviction counts for nothing, all else is tried again."""
    job = by_name(BASE, "CronJob")[name]["spec"]["jobTemplate"]["spec"]
    disrupted, final = job["podFailurePolicy"]["rules"]
    assert disrupted["action"] == "Ignore"
    assert disrupted["onPodConditions"][0]["type"] == "DisruptionTarget"
    assert final["action"] == "FailJob"
    assert set(final["onExitCodes"]["values"]) == {submit.FAILED, submit.WRONG_USE}
    assert job["backoffLimit"] > 0
    env = {e["name"]: e["valueFrom"] for e in job["template"]["spec"]["containers"][0]["env"]}
    assert "job-name" in env["JOB_NAME"]["fieldRef"]["fieldPath"]
    assert "controller-uid" in env["JOB_UID"]["fieldRef"]["fieldPath"]


def test_the_token_is_read_again_when_it_is_renewed(cluster: Cluster, api: submit.Api) -> None:
    api.ask("GET", "/embed")
    cluster.token = "second"
    with pytest.raises(submit.ApiError, match="401"):
        api.ask("GET", "/embed")
    (api.account / "token").write_text("second")
    assert api.ask("GET", "/embed")["metadata"]["name"] == "embed"


def test_a_server_that_is_not_the_clusters_is_not_spoken_to(
    api: submit.Api, certificate: Path
) -> None:
    api.trust = ssl.create_default_context()
    with pytest.raises(submit.ApiError, match="CERTIFICATE_VERIFY_FAILED"):
        api.ask("GET", "/embed")
