"""Start copies of the RayJobs that stand suspended in the namespace, one after the other.

    python submit.py scan embed index                 in a pod: start each, wait, stop at a failure
    kubectl get rayjob embed -o json | python submit.py - | kubectl create -f -       by hand

A RayJob runs once and never again, so what stands in the cluster is a template: changed there, or
by an overlay, it is changed for people and for the nightly run alike. Nothing but the standard
library and two verbs of the Kubernetes API: a client library would be larger than all of this.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import time
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOK_EVERY_S = 15.0
MOST_SILENCE_S = 600.0  # of the API, before waiting is given up; the job itself runs on
ENDED = ("Complete", "Failed", "ValidationFailed")  # of jobDeploymentStatus; the others go on
TEMPLATE_LABEL = "raymtr/template"


class ApiError(Exception):
    """The API refused, or could not be reached."""


class Api:
    """RayJobs of one namespace, as a pod's service account may see them."""

    def __init__(self, account: Path = ACCOUNT) -> None:
        self.account = account
        self.host = os.environ["KUBERNETES_SERVICE_HOST"]
        self.port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        namespace = (account / "namespace").read_text().strip()
        self.path = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self.trust = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """One request; its JSON answer. Raises ApiError."""
        token = (self.account / "token").read_text().strip()  # it is renewed while we wait
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        link = http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.trust)
        try:
            link.request(method, f"{self.path}{path}", body=sent, headers=headers)
            reply = link.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise ApiError(f"{self.host} cannot be reached: {error}") from error
        finally:
            link.close()
        if reply.status >= 300:
            raise ApiError(f"{method} {self.path}{path}: {reply.status} {text[:300]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer


def copy_of(template: dict[str, Any]) -> dict[str, Any]:
    """A RayJob like `template`, under a name of its own, that starts at once."""
    name = template["metadata"]["name"]
    labels = {**template["metadata"].get("labels", {}), TEMPLATE_LABEL: name}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {"generateName": f"{name}-", "labels": labels},
        "spec": {**template["spec"], "suspend": False},
    }


def run(api: Api, name: str, *, look_every_s: float = LOOK_EVERY_S) -> bool:
    """Start a copy of the template `name` and wait for its end; whether it succeeded."""
    started = api.ask("POST", "", copy_of(api.ask("GET", f"/{name}")))["metadata"]["name"]
    say(f"{started}: started")
    heard, before = time.monotonic(), ""
    while True:
        time.sleep(look_every_s)
        try:
            status = api.ask("GET", f"/{started}").get("status", {})
        except ApiError as error:
            if time.monotonic() - heard > MOST_SILENCE_S:
                raise
            say(f"{started}: {error}; asking again")
            continue
        heard = time.monotonic()
        state = status.get("jobDeploymentStatus", "")
        if state != before:
            say(f"{started}: {state}")
            before = state
        if state in ENDED:
            succeeded: bool = status.get("jobStatus") == "SUCCEEDED"
            if not succeeded:
                say(f"{started}: {status.get('reason', '')} {status.get('message', '')}")
            return succeeded


def say(line: str) -> None:
    """Progress, for the pod's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(names: list[str]) -> int:
    """Exit status: 0 when every job succeeded, 1 when one did not, 2 on wrong use."""
    if not names:
        say("usage: submit.py RAYJOB [RAYJOB ...], or - for a RayJob on stdin")
        return 2
    if names == ["-"]:
        json.dump(copy_of(json.load(sys.stdin)), sys.stdout, indent=2)
        return 0
    try:
        api = Api()
        return 0 if all(run(api, name) for name in names) else 1
    except (ApiError, OSError, KeyError) as error:
        say(f"submit: {error!r}")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
