"""A file as a response: whole, by ranges (RFC 9110, 14), or 304 if unchanged (RFC 9110, 13).

Starlette's response implements ranges. This class adds the conditions that it lacks. It also
ignores, as the RFC says, two kinds of range that Starlette refuses: another unit, or an end before
the start.
"""

from __future__ import annotations

import re
from email.utils import parsedate_to_datetime

from starlette.datastructures import Headers
from starlette.responses import FileResponse, MalformedRangeHeader, RangeNotSatisfiable, Response
from starlette.types import Receive, Scope, Send

from serve.messages import Problem, ProblemError

HEADERS_OF_304 = ("etag", "last-modified", "cache-control", "accept-ranges")


class ConditionalFileResponse(FileResponse):
    """A FileResponse with conditional requests. `stat_result` is required: it gives the ETag."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """304 if the client's copy is current, else the file or the requested ranges."""
        if scope.get("head"):
            scope = {**scope, "method": "HEAD"}
        if _is_current(Headers(scope=scope), self.headers["etag"], self.headers["last-modified"]):
            headers = {name: self.headers[name] for name in HEADERS_OF_304 if name in self.headers}
            await Response(status_code=304, headers=headers)(scope, receive, send)
            return
        await super().__call__(scope, receive, send)

    @classmethod
    def _parse_range_header(cls, http_range: str, file_size: int) -> list[tuple[int, int]]:
        try:
            return super()._parse_range_header(http_range, file_size)
        except MalformedRangeHeader:
            return []  # the whole file
        except RangeNotSatisfiable as error:
            detail = f"the file has {file_size} bytes; {http_range!r:.100} is outside of them"
            size = (("Content-Range", f"bytes */{file_size}"),)
            problem = Problem(416, "range_not_satisfiable", detail, headers=size)
            raise ProblemError(problem) from error


def _is_current(headers: Headers, etag: str, modified: str) -> bool:
    """Whether the client's copy is current, by If-None-Match or else If-Modified-Since."""
    etags = headers.get("if-none-match")
    if etags is not None:  # then the date is ignored
        return etags.strip() == "*" or etag in re.findall(r'"[^"]*"', etags)
    since = headers.get("if-modified-since")
    try:
        return bool(since) and parsedate_to_datetime(modified) <= parsedate_to_datetime(since or "")
    except (ValueError, TypeError):  # not a date, or one without a zone: ignored
        return False
