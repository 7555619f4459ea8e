"""Heads of answers to clients."""

from __future__ import annotations

from typing import Final

REASONS: Final = {
    200: b"OK", 201: b"Created", 202: b"Accepted", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden",
    404: b"Not Found", 405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict",
    413: b"Content Too Large", 414: b"URI Too Long", 415: b"Unsupported Media Type", 417: b"Expectation Failed",
    422: b"Unprocessable Content", 429: b"Too Many Requests", 431: b"Request Header Fields Too Large",
    500: b"Internal Server Error", 501: b"Not Implemented", 502: b"Bad Gateway", 503: b"Service Unavailable",
    504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
}  # fmt: skip
# What every usual answer of an endpoint begins with.
JSON_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
STREAM_OK: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


def own_head(
    status: int,
    length: int,
    *,
    date: bytes,
    extra: bytes,
    decision: str,
    keep_alive: bool,
    kind: bytes = b"application/json",
) -> bytes:
    """The head of an answer that the checkpoint gives itself: no site has served it, and it says so."""
    return (
        b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\n"
        b"%b%bx-sekisho-site: none\r\nx-sekisho-operator: none\r\nx-sekisho-country: none\r\n"
        b"x-sekisho-decision: %b\r\n%b\r\n"
    ) % (
        status,
        REASONS.get(status, b"Error"),
        kind,
        length,
        date,
        extra,
        decision.encode(),
        b"" if keep_alive else b"connection: close\r\n",
    )
