"""The part of the Kubernetes API that k8s/submit.py speaks to: RayJobs of one namespace, by HTTPS.

Copies are labelled, listed and dated as the API does it; how they end is the test's to say.
"""

import copy
import datetime
import ipaddress
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from k8s.check import HERE
from k8s.kustomize import by_name, render

PATH = "/apis/ray.io/v1/namespaces/raymtr/rayjobs"
BASE = render(HERE / "base")


class Cluster(ThreadingHTTPServer):
    """RayJobs of one namespace; `ends` says how each copy of a template comes out, look by look."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.jobs = copy.deepcopy(by_name(BASE, "RayJob"))
        self.ends: dict[str, list[list[dict]]] = {}
        self.created: list[dict] = []
        self.hiccups = 0  # answers that are 503 before the next good one
        self.token = "first"

    def create(self, job: dict) -> dict:
        number = len(self.created)
        name = f"{job['metadata']['generateName']}{number:05}"
        stamp = f"2026-01-01T00:{number:02}:00Z"
        job["metadata"] |= {"name": name, "creationTimestamp": stamp}
        self.created.append(job)
        return job

    def listed(self, labels: dict[str, str]) -> list[dict]:
        """Copies with these labels, the newest first, each one look further."""
        found = [c for c in self.created if labels.items() <= c["metadata"]["labels"].items()]
        for number, made in enumerate(found):
            looks = self.ends[made["metadata"]["labels"]["raymtr/template"]][number]
            made["status"] = looks.pop(0) if len(looks) > 1 else looks[0]
        return found[::-1]


class Handler(BaseHTTPRequestHandler):
    server: Cluster

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if self.server.hiccups:
            self.server.hiccups -= 1
            self.answer(503, {"message": "try again"})
        elif asked.path == PATH:
            [selector] = parse_qs(asked.query)["labelSelector"]
            labels = dict(pair.split("=") for pair in selector.split(","))
            self.answer(200, {"items": self.server.listed(labels)})
        elif (name := asked.path.removeprefix(f"{PATH}/")) in self.server.jobs:
            self.answer(200, self.server.jobs[name])
        else:
            self.answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        job = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(201, self.server.create(job))

    def answer(self, status: int, body: dict) -> None:
        allowed = self.headers["Authorization"] == f"Bearer {self.server.token}"
        data = json.dumps(body if allowed else {"message": "unauthorized"}).encode()
        self.send_response(status if allowed else 401)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet."""


def write_certificate(path: Path) -> None:
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
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
