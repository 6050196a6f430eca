"""Who may ask, how often and how much: one ASGI layer around everything the endpoint answers.

Keys lie hashed in a mounted file and are compared in constant time. Rates are counted in each
ingress replica, so with several a key gets as many times its rate; a shared counter would cost a
hop for every request. The page's own files need no key: it asks for one.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
import uuid
from pathlib import Path
from typing import Any

from prometheus_client import Counter, Histogram

from raymtr.errors import InputError
from serve.messages import Refusal
from serve.settings import ServeSettings

OPEN_PATHS = re.compile(r"/|/page/.*|/livez|/readyz")
LOOPBACK_HOSTS = re.compile(r"(localhost|127(\.\d+){3}|\[::1\])(:\d+)?")
REQUEST_ID = re.compile(r"[\w.:-]{1,100}", re.ASCII)
SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
}
POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    b"connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    b"frame-ancestors 'none'"
)


def read_keys(path: str) -> dict[str, str]:
    """Names by SHA-256 of their key, from lines of `name hex`. Raises InputError."""
    keys = {}
    if not Path(path).is_file():
        raise InputError(f"api_keys file {path} does not exist")
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) != 2 or not re.fullmatch(r"[0-9a-f]{64}", words[1]):
            raise InputError(f"{path} line {number}: expected `name sha256-hex-of-the-key`")
        keys[words[1]] = words[0]
    if not keys:
        raise InputError(f"{path} holds no key; a line is `name sha256-hex-of-the-key`")
    return keys


class Meters:
    """What one ingress replica counts; made in the replica, since a counter cannot travel."""

    def __init__(self) -> None:
        self.requests = Counter("raymtr_requests", "answers", ["path", "status"])
        self.seconds = Histogram("raymtr_request_seconds", "time of an answer", ["path"])
        self.stage = Histogram("raymtr_stage_seconds", "time of a search's stage", ["stage"])


def meters(http: Any) -> Meters:
    """The counters of this replica's FastAPI application."""
    if not hasattr(http.state, "meters"):
        http.state.meters = Meters()
    found: Meters = http.state.meters
    return found


class Gate:
    """ASGI middleware: request id, key, rate, size, security headers, counts."""

    def __init__(self, app: Any, settings: ServeSettings) -> None:
        self.app, self.settings = app, settings
        self.keys = read_keys(settings.api_keys) if settings.api_keys else {}
        self.spent: dict[str, tuple[float, float]] = {}  # caller -> tokens left, at what time

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Refuse, or hand on with a bounded body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex

        async def send_marked(message: Any) -> None:
            if message["type"] == "http.response.start":
                path = getattr(scope.get("route"), "path", "none")  # a route's form: few labels
                meters(scope["app"]).requests.labels(path, str(message["status"])).inc()
                extra = SECURITY | {b"x-request-id": request_id.encode()}
                if scope["path"] != "/docs":  # FastAPI's page loads its script from elsewhere
                    extra[b"content-security-policy"] = POLICY
                message["headers"] = [*message.get("headers", []), *extra.items()]
            await send(message)

        refusal = self._refuse(scope, headers)
        if refusal is not None:
            await refusal.response()(scope, receive, send_marked)
            return
        most = self._most_bytes(scope["path"])
        await self.app(scope, _Bounded(receive, most), send_marked)

    def _refuse(self, scope: Any, headers: dict[str, str]) -> Refusal | None:
        if not self.keys and not LOOPBACK_HOSTS.fullmatch(headers.get("host", "")):
            return Refusal(403, "host_refused", "without keys only a loopback host is answered")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._most_bytes(scope["path"]):
            return Refusal(413, "body_too_large", "the body is larger than this endpoint takes")
        if OPEN_PATHS.fullmatch(scope["path"]):
            return None
        caller = self._caller(headers.get("authorization", "")) if self.keys else "anyone"
        if caller is None:
            return Refusal(401, "key_refused", "send `Authorization: Bearer <key>`")
        return self._spend(caller)

    def _caller(self, authorization: str) -> str | None:
        kind, _, key = authorization.partition(" ")
        digest = hashlib.sha256(key.strip().encode()).hexdigest()
        caller = None
        for known, name in self.keys.items():  # all of them: the time tells nothing
            if hmac.compare_digest(known, digest) and kind.lower() == "bearer":
                caller = name
        return caller

    def _spend(self, caller: str) -> Refusal | None:
        """A token bucket that holds a minute's worth."""
        rate = self.settings.requests_per_minute
        now = time.monotonic()
        left, then = self.spent.get(caller, (float(rate), now))
        left = min(float(rate), left + (now - then) * rate / 60)
        self.spent[caller] = (left - 1 if left >= 1 else left), now
        if left >= 1:
            return None
        wait = max(1, round((1 - left) * 60 / rate))
        return Refusal(429, "rate_limited", f"more than {rate} requests a minute", wait)

    def _most_bytes(self, path: str) -> int:
        carries_audio = path in ("/v1/search", "/v1/search/audio")
        if carries_audio:
            return int(self.settings.body_max_mb * (1 << 20))
        return int(self.settings.json_max_kb * 1024)


class BodyTooLargeError(Exception):
    """A body without a stated length that went on and on."""


class _Bounded:
    """`receive` that stops a body at `most` bytes."""

    def __init__(self, receive: Any, most: int) -> None:
        self.receive, self.left = receive, most

    async def __call__(self) -> Any:
        message = await self.receive()
        self.left -= len(message.get("body", b""))
        if self.left < 0:
            raise BodyTooLargeError
        return message
