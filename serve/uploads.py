"""Extracts a recording from a request's body: raw, multipart/form-data (RFC 7578) or base64.

Multipart bodies are searched for their boundary. The standard library parses them line by line,
which takes a second for 30 MB and holds the interpreter lock, so all searches of the process would
wait. The audio format is not checked here; the decoder detects it from the bytes.
"""

from __future__ import annotations

import base64
import binascii
import re
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import HTTP

from serve.messages import Problem, ProblemError

TEXT_TYPES = ("application/json", "text/")  # media types that are never a recording
MOST_HEAD_BYTES = 16 << 10  # of a part's headers
_BLANK = re.compile(rb"\r?\n\r?\n")


def file_of(content_type: str, body: bytes) -> bytes:
    """The first file of a multipart body, or else the body itself. Raises ProblemError."""
    head = Message()
    head["content-type"] = content_type
    kind = head.get_content_type() if content_type else "application/octet-stream"
    found: bytes | None = body or None
    if kind.startswith("multipart/"):
        boundary = head.get_boundary()
        form = kind == "multipart/form-data" and boundary
        found = _first_file(body, f"--{boundary}".encode("latin-1", "replace")) if form else None
    if found is None or kind.startswith(TEXT_TYPES):
        problem = Problem(
            422, "no_file", "expected multipart/form-data with one file, or the file's bytes alone"
        )
        raise ProblemError(problem)
    return found


def recording_in(text: str) -> bytes:
    """The bytes of a base64 text, which may contain line breaks. Raises ProblemError."""
    try:
        lines = text.replace("\r", "").replace("\n", "")
        return base64.b64decode(lines, validate=True)
    except (binascii.Error, ValueError) as error:
        problem = Problem(422, "invalid_request", f"audio.data is not base64: {error}")
        raise ProblemError(problem) from error


def _first_file(body: bytes, mark: bytes) -> bytes | None:
    """The content of the first part with a file name. Lines may end with LF alone."""
    begin = 0 if body.startswith(mark) else body.find(b"\n" + mark) + 1
    while body.startswith(mark, begin) and not body.startswith(mark + b"--", begin):
        blank = _BLANK.search(body, begin, begin + MOST_HEAD_BYTES)
        if blank is None:
            return None
        end = body.find(b"\n" + mark, blank.end() - 1)
        carriage = blank.group().startswith(b"\r") and body.startswith(b"\r", end - 1)
        stop = len(body) if end < 0 else end - carriage
        head = BytesHeaderParser(policy=HTTP).parsebytes(
            body[begin : blank.end()].partition(b"\n")[2]
        )
        if head.get_filename() is not None:
            content = body[blank.end() : stop]
            coded = str(head.get("content-transfer-encoding", "")).lower() == "base64"
            return recording_in(content.decode("latin-1")) if coded else content
        begin = end + 1
    return None
