"""An S3 server (moto's) that answers each request late and counts requests, as a process.

with DelayedS3(bucket="raymtr") as server:   # sets the environment of all S3 clients
    ...
    server.delay(0.05)
    ...
    server.requests()                        # {"GET": 12, ...}, of all requests since `delay`
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import boto3

STARTS_WITHIN_S = 60.0
CONTROL = "/_delayed"  # GET: the counts; PUT /_delayed/<seconds>: the delay from now on


class DelayedS3:
    """See the file's docstring."""

    def __init__(self, *, bucket: str, port: int = 5_599) -> None:
        self._bucket, self._port = bucket, port

    def __enter__(self) -> DelayedS3:
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._port)], stderr=subprocess.DEVNULL
        )
        self._address = f"http://127.0.0.1:{self._port}"
        os.environ |= {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self._address,
            "AWS_ENDPOINT": self._address,
            "AWS_ALLOW_HTTP": "true",
        }
        deadline = time.monotonic() + STARTS_WITHIN_S
        while True:
            try:
                self.delay(0)
                break
            except URLError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket=self._bucket)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def delay(self, seconds: float) -> None:
        """Delay each request from now on, and count from zero."""
        urlopen(Request(f"{self._address}{CONTROL}/{seconds}", method="PUT"), timeout=5).close()

    def requests(self) -> dict[str, int]:
        """Requests since the last `delay`, by method."""
        with urlopen(f"{self._address}{CONTROL}", timeout=5) as answer:
            counts: dict[str, int] = json.load(answer)
        return counts


def serve(port: int) -> None:
    """Serve until killed."""
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import run_simple

    s3 = DomainDispatcherApplication(create_backend_app)
    delay_s, counts = 0.0, Counter[str]()

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal delay_s
        path, method = environ["PATH_INFO"], environ["REQUEST_METHOD"]
        if path.startswith(CONTROL):
            if method == "PUT":
                delay_s = float(path.rsplit("/", 1)[1])
                counts.clear()
            start("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(counts).encode()]
        counts[method] += 1
        time.sleep(delay_s)
        answer: Iterable[bytes] = s3(environ, start)
        return answer

    run_simple("127.0.0.1", port, application, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
