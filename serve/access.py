"""Access control: keys, rate limits and size limits, in one ASGI layer around the endpoint.

Keys are stored hashed in a mounted file and compared in constant time. Rates are counted per
ingress replica, so with several replicas a key gets a multiple of its rate. A shared counter would
cost a network hop per request. The page's own files need no key; the page prompts for one.
Request ids come from Ray Serve: it reads or creates `X-Request-ID`, passes it to every deployment's
log and returns it.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raymtr.errors import InputError
from serve import subsonic
from serve.messages import UPLOAD_RETRY_S, Problem
from serve.metrics import Metrics
from serve.settings import ServeSettings

OPEN_PATHS = re.compile(
    r"/|/page/.*|/livez|/readyz|/docs|/openapi\.json|/rest/getOpenSubsonicExtensions(\.view)?"
)
UPLOADS = ("/v1/search/audio", "/v1/tag")
AUDIO_PATHS = ("/v1/search", *UPLOADS)
LOOPBACK_HOSTS = re.compile(r"(localhost\.?|127(\.\d+){3}|\[::1\])(:\d+)?", re.IGNORECASE)
SCOPES = frozenset({"search", "metrics"})
SECURITY = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"x-frame-options": b"DENY",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"permissions-policy": b"camera=(), microphone=(), geolocation=()",
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        b"connect-src 'self'; media-src 'self' blob:; base-uri 'none'; form-action 'none'; "
        b"frame-ancestors 'none'"
    ),
}


@dataclass(frozen=True)
class Key:
    """The owner of a key and its scopes."""

    name: str
    scopes: frozenset[str] = SCOPES


def read_keys(path: str) -> dict[str, Key]:
    """Keys by their SHA-256, from lines of `name hex [scope ...]`. Raises InputError."""
    keys = {}
    if not Path(path).is_file():
        raise InputError(f"api_keys file {path} does not exist")
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        words = line.split("#")[0].split()
        if not words:
            continue
        if len(words) < 2 or not re.fullmatch(r"[0-9a-f]{64}", words[1]):
            raise InputError(f"{path} line {number}: expected `name sha256-hex-of-the-key`")
        unknown = sorted(set(words[2:]) - SCOPES)
        if unknown:
            known = ", ".join(sorted(SCOPES))
            raise InputError(f"{path} line {number}: unknown scope {unknown[0]!r}, known: {known}")
        keys[words[1]] = Key(words[0], frozenset(words[2:]) or SCOPES)
    if not keys:
        raise InputError(f"{path} contains no key; a line is `name sha256-hex-of-the-key`")
    return keys


class AccessMiddleware:
    """ASGI middleware: keys, scopes, rates, sizes, security headers and request counts."""

    def __init__(self, app: ASGIApp, settings: ServeSettings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics
        self.keys = read_keys(settings.api_keys) if settings.api_keys else {}
        self.buckets: dict[str, tuple[float, float]] = {}  # caller -> (tokens left, time in s)
        self.uploads = 0  # uploads in progress: being read, or searched by

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuses a request, or forwards it with a limit on its body."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        path = scope["path"].removeprefix(scope.get("root_path", "").rstrip("/")) or "/"
        head_only = scope["method"] == "HEAD" and path != "/mcp"  # /mcp has no GET
        scope = {**scope, **({"method": "GET", "head": True} if head_only else {})}  # a copy

        async def send_secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", "none")  # a pattern: few metric labels
                self.metrics.answered(route, message["status"], time.perf_counter() - began)
                message["headers"] = [*message.get("headers", []), *SECURITY.items()]
            elif head_only:
                message = {**message, "body": b""}
            await send(message)

        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        limited = _LimitedBody(receive, self._max_bytes(path), self.settings.body_timeout_s)
        is_subsonic = path.startswith("/rest/")
        try:
            if is_subsonic and scope["method"] == "POST":
                scope |= await _as_query(limited, scope, headers)
            problem = self._refuse(path, headers, scope)
        except HTTPException as error:  # raised while the body is read
            problem = Problem(error.status_code, "body_refused", str(error.detail))
        if problem is not None:
            answer: Response = problem.response()
            if is_subsonic:
                answer = subsonic.problem_response(problem, params=Request(scope).query_params)
            await answer(scope, receive, send_secured)
            return
        is_upload = self._may_have_audio(path, headers)
        self.uploads += is_upload
        try:
            await self.app(scope, limited, send_secured)
        finally:
            self.uploads -= is_upload

    def _refuse(self, path: str, headers: dict[str, str], scope: Scope) -> Problem | None:
        if not self.keys and not LOOPBACK_HOSTS.fullmatch(headers.get("host", "")):
            return Problem(403, "host_refused", "without API keys, only loopback hosts are allowed")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self._max_bytes(path):
            return Problem(413, "body_too_large", "the body is larger than this route accepts")
        if OPEN_PATHS.fullmatch(path):
            return None
        return self._refuse_caller(path, headers, scope) or self._refuse_upload(path, headers)

    def _refuse_caller(self, path: str, headers: dict[str, str], scope: Scope) -> Problem | None:
        if not self.keys:
            return self._take_token("anyone")
        query = scope.get("query_string", b"")
        sent = _key_of(path, headers.get("authorization", ""), query)
        if not sent and path.startswith("/rest/") and "t" in parse_qs(query.decode("latin-1")):
            detail = "salted tokens are not supported, because keys are stored hashed; send apiKey"
            return Problem(401, "token_login", detail)
        key = self._find_key(sent)
        if key is None:
            return Problem(401, "key_refused", "send `Authorization: Bearer <key>`")
        required = "metrics" if path == "/metrics" else "search"
        if required not in key.scopes:
            return Problem(403, "key_out_of_scope", f"this key lacks the scope {required}")
        scope["caller"] = key.name
        return self._take_token(key.name)

    def _refuse_upload(self, path: str, headers: dict[str, str]) -> Problem | None:
        """Refuses an upload before its body is read: bodies waiting for an encoder use memory."""
        most = self.settings.uploads_at_once
        if not self._may_have_audio(path, headers) or self.uploads < most:
            return None
        return Problem(503, "busy", f"{most} uploads are in progress already", UPLOAD_RETRY_S)

    def _may_have_audio(self, path: str, headers: dict[str, str]) -> bool:
        """Whether the body may contain a recording, by the path and the Content-Length."""
        if path not in AUDIO_PATHS or path in UPLOADS:
            return path in UPLOADS
        length = headers.get("content-length")
        return length is None or int(length) > self.settings.json_max_kb * 1024

    def _find_key(self, sent: str) -> Key | None:
        # Header bytes were decoded as Latin-1. Decode them as UTF-8 if possible.
        forms = (sent.encode(), sent.encode("latin-1", "replace"))
        digests = [hashlib.sha256(form).hexdigest() for form in forms]
        found = None
        for known, key in self.keys.items():  # always compares all keys: constant time
            if any([hmac.compare_digest(known, digest) for digest in digests]):
                found = key
        return found

    def _take_token(self, caller: str) -> Problem | None:
        """Takes one token of the caller's token bucket, which has one minute's requests."""
        rate = self.settings.requests_per_minute
        now = time.monotonic()
        left, then = self.buckets.get(caller, (float(rate), now))
        left = min(float(rate), left + (now - then) * rate / 60)
        self.buckets[caller] = (left - 1 if left >= 1 else left), now
        if left >= 1:
            return None
        wait = max(1, round((1 - left) * 60 / rate))
        return Problem(429, "rate_limited", f"more than {rate} requests a minute", wait)

    def _max_bytes(self, path: str) -> int:
        if path in AUDIO_PATHS:
            return int(self.settings.body_max_mb * (1 << 20))
        return int(self.settings.json_max_kb * 1024)


def _key_of(path: str, authorization: str, query: bytes) -> str:
    """The bearer key. OpenSubsonic players send it as `apiKey`, old ones as `p`."""
    kind, _, key = authorization.partition(" ")
    if kind.lower() == "bearer":
        return key.strip()
    if not path.startswith("/rest/"):
        return ""
    params = parse_qs(query.decode("latin-1"))
    sent = (params.get("apiKey") or params.get("p") or [""])[0]
    if sent.startswith("enc:"):
        try:
            return bytes.fromhex(sent.removeprefix("enc:")).decode("utf-8", "replace")
        except ValueError:
            return ""
    return sent


async def _as_query(receive: Receive, scope: Scope, headers: dict[str, str]) -> Scope:
    """Converts a player's form POST to a GET: its form is appended to the query string."""
    form, more = b"", True
    while more:
        message = await receive()
        form, more = form + message.get("body", b""), message.get("more_body", False)
    kind = headers.get("content-type", "").lower()
    queries = [scope.get("query_string", b"")]
    queries += [form] if "json" not in kind and "multipart" not in kind else []
    return {"method": "GET", "query_string": b"&".join(filter(None, queries))}


class _LimitedBody:
    """Wraps `receive`: refuses a body over `max_bytes`, or one that takes over `timeout_s`."""

    def __init__(self, receive: Receive, max_bytes: int, timeout_s: float) -> None:
        self.receive, self.bytes_left = receive, max_bytes
        self.deadline: float | None = time.monotonic() + timeout_s  # None: body complete

    async def __call__(self) -> Message:
        if self.deadline is None:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), self.deadline - time.monotonic())
        except TimeoutError:
            raise HTTPException(408, "the body did not arrive in time") from None
        if not message.get("more_body", False):
            self.deadline = None
        self.bytes_left -= len(message.get("body", b""))
        if self.bytes_left < 0:
            # FastAPI turns any other exception raised while it reads a body into a 400.
            raise HTTPException(413, "the body is larger than this route accepts")
        return message
