"""Starting copies of RayJobs: against an HTTPS server that answers as the Kubernetes API does."""

import datetime
import ipaddress
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from k8s import submit
from k8s.check import HERE
from k8s.kustomize import by_name, render

PATH = "/apis/ray.io/v1/namespaces/raymtr/rayjobs"


class Cluster(ThreadingHTTPServer):
    """RayJobs of one namespace; `ends` says how copies of a template come out, look by look."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs = by_name(render(HERE / "base"), "RayJob")
        self.ends: dict[str, list[dict]] = {}
        self.created: list[dict] = []
        self.token = "first"


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        name = self.path.removeprefix(f"{PATH}/")
        if name in self.server.jobs:
            self.answer(200, self.server.jobs[name])
            return
        looks = self.server.ends.get(name.rpartition("-")[0])
        if looks is None:
            self.answer(404, {"message": "not found"})
        elif looks[0] == {}:  # the API hiccups
            looks.pop(0)
            self.answer(503, {"message": "try again"})
        else:
            self.answer(200, {"status": looks.pop(0) if len(looks) > 1 else looks[0]})

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.created.append(job)
        name = f"{job['metadata']['generateName']}x7"
        self.answer(201, {**job, "metadata": {**job["metadata"], "name": name}})

    def answer(self, status: int, body: dict) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {self.server.token}"
        data = json.dumps(body if allowed else {"message": "unauthorized"}).encode()
        self.send_response(status if allowed else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "cluster")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
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


def test_a_copy_runs_and_the_template_does_not(cluster: Cluster, api: submit.Api) -> None:
    cluster.ends["embed"] = [
        {"jobDeploymentStatus": "Initializing"},
        {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED"},  # it goes on by itself
        {},
        {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"},
    ]
    assert submit.run(api, "embed", look_every_s=0.01)
    [made] = cluster.created
    template = cluster.jobs["embed"]
    assert made["spec"] == {**template["spec"], "suspend": False}
    assert made["metadata"]["labels"]["raymtr/template"] == "embed"
    assert template["spec"]["suspend"] is True


def test_a_failure_is_told(
    cluster: Cluster, api: submit.Api, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.ends["index"] = [
        {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "message": "exit status 3"}
    ]
    assert not submit.run(api, "index", look_every_s=0.01)
    assert "exit status 3" in capsys.readouterr().err


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


def test_by_hand_it_is_a_filter(cluster: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, submit.__file__, "-"],
        input=json.dumps({**cluster.jobs["scan"], "status": {"jobStatus": "FAILED"}}),
        capture_output=True,
        text=True,
        check=True,
    )
    made = json.loads(done.stdout)
    assert made["metadata"]["generateName"] == "scan-"
    assert made["spec"]["suspend"] is False
    assert "status" not in made
