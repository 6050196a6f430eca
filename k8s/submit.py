"""Runs suspended RayJobs of the namespace, one after the other, until each succeeds.

    python submit.py scan embed index      in the pod of a Job: each in turn, stop at a failure
    python submit.py                       the one that the Job is named after: `train-2` is `train`

A RayJob runs only once, so the RayJobs in the cluster are templates. A change to a template, by
hand or by an overlay, applies to manual and nightly runs alike. What runs is a copy, labelled with
the Job's name and owned by it, so that it is deleted with the Job.

KubeRay would retry every failure, even a wrong flag. Here only the loss of a cluster is retried. An
error that a verb reports about its input or itself (exit status 1, 2, 3) is final. All state is in
the cluster, so a pod that replaces an evicted one continues with the same copies and the same
count.

It uses only the standard library and three verbs of the Kubernetes API. A client library would be
larger than this whole program.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import ssl
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
LOOK_EVERY_S = 15.0
MOST_SILENCE_S = 600.0  # without an API answer; then this pod exits and the Job starts another
PAUSE_S = 60.0  # after the first failure, doubled after each further one
MOST_PAUSE_S = 1_800.0
ENDED = ("Complete", "Failed", "ValidationFailed")  # of jobDeploymentStatus; the others continue
FINAL_REASONS = ("DeadlineExceeded", "ValidationFailed")
FINAL_STATUSES = (1, 2, 3)  # of a verb: failed, wrong use, too many errors; see jobs/__main__.py
ENTRYPOINT_FAILED = re.compile(r"Job entrypoint command failed with exit code (-?\d+)")  # Ray's
TEMPLATE_LABEL = "raymtr/template"
STARTED_BY = "raymtr/started-by"
ATTEMPTS = "raymtr/attempts"
QUEUE = "raymtr/queue"
KUEUE_LABEL = "kueue.x-k8s.io/queue-name"
FAILED, WRONG_USE, TRY_AGAIN = 1, 2, 75  # used by the Job's podFailurePolicy


class ApiError(Exception):
    """The API refused the request."""


class Unreachable(ApiError):
    """The API does not answer or is busy; it may answer later."""


class Api:
    """The RayJobs of one namespace, with the access of a pod's service account."""

    def __init__(self, account: Path = ACCOUNT) -> None:
        self.account = account
        self.host = os.environ["KUBERNETES_SERVICE_HOST"]
        self.port = int(os.environ.get("KUBERNETES_SERVICE_PORT", "443"))
        namespace = (account / "namespace").read_text().strip()
        self.path = f"/apis/ray.io/v1/namespaces/{namespace}/rayjobs"
        self.trust = ssl.create_default_context(cafile=str(account / "ca.crt"))

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Sends one request and returns its JSON answer. Raises ApiError."""
        token = (self.account / "token").read_text().strip()  # it is renewed while we wait
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        sent = None if body is None else json.dumps(body)
        link = http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.trust)
        try:
            link.request(method, f"{self.path}{path}", body=sent, headers=headers)
            reply = link.getresponse()
            text = reply.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"{self.host} cannot be reached: {error}") from error
        finally:
            link.close()
        if reply.status >= 300:
            kind = Unreachable if reply.status == 429 or reply.status >= 500 else ApiError
            raise kind(f"{method} {self.path}{path}: {reply.status} {text[:300]!r}")
        answer: dict[str, Any] = json.loads(text)
        return answer


@dataclass(frozen=True)
class Owner:
    """The Job whose pod runs this program."""

    name: str
    uid: str


@dataclass
class Step:
    """One template, run for `owner` until it succeeds."""

    api: Api
    name: str
    owner: Owner
    told: str = ""

    def look(self, now: datetime) -> bool | None:
        """Whether it succeeded, None while it has not ended; starts a copy when one is due."""
        template = self.api.ask("GET", f"/{self.name}")
        copies = self.copies()
        if not copies:
            self.start(template)
            return None
        last, status = copies[-1]["metadata"]["name"], copies[-1].get("status", {})
        if status.get("jobDeploymentStatus") not in ENDED:
            self.tell(f"{last}: {status.get('jobDeploymentStatus', 'created')}")
            return None
        if status.get("jobStatus") == "SUCCEEDED":
            self.tell(f"{last}: succeeded")
            return True
        state = f"{last}: {status.get('reason', '')} {status.get('message', '')}".rstrip()
        attempts = int(template["metadata"]["annotations"][ATTEMPTS])
        if is_final(status) or len(copies) >= attempts:
            why = "not retried" if is_final(status) else f"{attempts} attempts"
            self.tell(f"{state}\n{self.name}: failed, {why}")
            return False
        pause = timedelta(seconds=min(MOST_PAUSE_S, PAUSE_S * 2 ** (len(copies) - 1)))
        if now < datetime.fromisoformat(status["endTime"]) + pause:
            self.tell(f"{state}\n{self.name}: retry in {pause}")
        else:
            self.start(template)
        return None

    def copies(self) -> list[dict[str, Any]]:
        """The copies created for this Job, oldest first."""
        wanted = quote(f"{STARTED_BY}={self.owner.name},{TEMPLATE_LABEL}={self.name}")
        found = self.api.ask("GET", f"?labelSelector={wanted}")["items"]
        return sorted(found, key=lambda job: str(job["metadata"]["creationTimestamp"]))

    def start(self, template: dict[str, Any]) -> None:
        """Starts a new copy."""
        copy = self.api.ask("POST", "", copy_of(template, self.owner))
        self.tell(f"{copy['metadata']['name']}: started")

    def tell(self, line: str) -> None:
        """Logs progress to the pod's log, without repeating a line."""
        if line != self.told:
            say(line)
        self.told = line


def copy_of(template: dict[str, Any], owner: Owner) -> dict[str, Any]:
    """A copy of the RayJob `template`, with its own name, that starts at once.

    If the template names a queue of Kueue, the copy waits there. The template itself must not have
    that label, because Kueue would treat it as a waiting job and start it.
    """
    about = template["metadata"]
    labels = {**about.get("labels", {}), TEMPLATE_LABEL: about["name"], STARTED_BY: owner.name}
    if queue := about.get("annotations", {}).get(QUEUE):
        labels[KUEUE_LABEL] = queue
    owned = {"apiVersion": "batch/v1", "kind": "Job", "name": owner.name, "uid": owner.uid}
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": {
            "generateName": f"{about['name']}-",
            "labels": labels,
            "ownerReferences": [owned],
        },
        "spec": {**template["spec"], "suspend": False},
    }


def is_final(status: dict[str, Any]) -> bool:
    """Whether a copy that failed would fail again."""
    stopped = status.get("jobStatus") == "STOPPED"  # by a person
    refused = status.get("jobDeploymentStatus") == "ValidationFailed"
    late = status.get("reason") in FINAL_REASONS
    return stopped or refused or late or exit_status(status.get("message", "")) in FINAL_STATUSES


def exit_status(message: str) -> int | None:
    """The entrypoint's exit status, from Ray's message; None if it did not exit by itself."""
    match = ENTRYPOINT_FAILED.match(message)
    return int(match[1]) if match else None


def run(step: Step, *, look_every_s: float = LOOK_EVERY_S) -> bool:
    """Polls until it has ended; whether it succeeded. Raises Unreachable after long silence."""
    heard = time.monotonic()
    while True:
        try:
            ended = step.look(datetime.now(UTC))
            heard = time.monotonic()
        except Unreachable as error:
            if time.monotonic() - heard > MOST_SILENCE_S:
                raise
            ended = None
            step.tell(f"{step.name}: {error}; retrying")
        if ended is not None:
            return ended
        time.sleep(look_every_s)


def say(line: str) -> None:
    """Prints a line to the pod's log."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def main(names: Sequence[str]) -> int:
    """Exit status: 0 if every step succeeded, else as the Job's podFailurePolicy reads it."""
    try:
        owner = Owner(os.environ["JOB_NAME"], os.environ["JOB_UID"])
        api = Api()
    except (KeyError, OSError) as error:
        say(f"submit: this runs in the pod of a Job (k8s/base/nightly.yaml): {error!r}")
        return WRONG_USE
    try:
        for name in names or [owner.name.rpartition("-")[0]]:
            if not run(Step(api, name, owner)):
                return FAILED
    except Unreachable as error:
        say(f"submit: {error}")
        return TRY_AGAIN
    except (ApiError, KeyError, ValueError) as error:
        say(f"submit: {error!r}")
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
