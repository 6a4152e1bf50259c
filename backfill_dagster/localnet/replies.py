"""What a server has to say, as a value: handlers return replies, `sending.py` puts them on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

CAR_CONTENT_TYPE = "application/vnd.ipld.car"


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP answer.

    Attributes:
        status: the code.
        body: before any compression.
        content_type: of the body.
        headers: further headers.
        chunked: sent without Content-Length, as getRepo is.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False


def json_reply(data: object, status: int = 200) -> Reply:
    """A JSON answer."""
    return Reply(status, orjson.dumps(data))


def xrpc_error(name: str, message: str, status: int = 400) -> Reply:
    """An XRPC error: `{"error", "message"}`.

    Source: https://atproto.com/specs/xrpc#error-responses
    """
    return json_reply({"error": name, "message": message}, status)


HTML_429 = Reply(
    429,
    b"<html>\r\n<head><title>429 Too Many Requests</title></head>\r\n<body>Too Many Requests</body>\r\n</html>\r\n",
    "text/html",
)
"""The 429 of a host that says nothing about its limits."""
