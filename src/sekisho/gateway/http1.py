"""One strict reading of HTTP/1.1 (RFC 9110, RFC 9112): whatever could be read in two ways is refused.

Pure functions over bytes, shared by the listener (requests) and the upstream side (responses).
"""

from __future__ import annotations

import re
from typing import NamedTuple

# RFC 9110 §5.6.2 token; possessive, so that a hostile head can't make the matcher backtrack.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9112 §5: no space before the colon, no obs-fold, no bare CR or LF, no NUL or other control but HTAB.
_FIELDS = rb"((?:" + _TOKEN + rb":[ \t]*+[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+)"
_REQUEST = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.([01])\r\n" + _FIELDS)
_RESPONSE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n" + _FIELDS)
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


class Malformed(Exception):
    """A message that has no single reading. `what` is safe to show: it never quotes the message."""

    def __init__(self, what: str, *, status: int = 400, code: str = "http.malformed") -> None:
        super().__init__(what)
        self.what = what
        self.status = status
        self.code = code


class RequestHead(NamedTuple):
    """`length` -1: chunked. Header names in `headers` are lower-case; the listed ones occur at most once."""

    method: bytes
    target: bytes
    version: int  # 0 or 1: HTTP/1.x
    headers: dict[bytes, bytes]
    length: int
    keep_alive: bool


# A second one of these would leave open which of the two counts.
_SINGLE = frozenset(
    {
        b"host",
        b"authorization",
        b"content-length",
        b"transfer-encoding",
        b"content-type",
        b"content-encoding",
        b"x-sekisho-class",
        b"expect",
        b"connection",
        b"upgrade",
    }
)


def parse_request(head: bytes) -> RequestHead:
    """Read a request head: all bytes before the empty line, its last CRLF included. Raises Malformed."""
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise _why(head)
    method, target, minor, fields = match.groups()
    headers: dict[bytes, bytes] = {}
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in headers and name in _SINGLE:
            raise Malformed(f"the header {name.decode()} is given twice")
        headers[name] = value.strip(b" \t")
    version = minor == b"1"
    if version and b"host" not in headers:
        raise Malformed("an HTTP/1.1 request needs a Host header")
    length = 0
    if (coding := headers.get(b"transfer-encoding")) is not None:
        if b"content-length" in headers:
            raise Malformed("both Content-Length and Transfer-Encoding are given")
        if coding.lower() != b"chunked" or not version:
            raise Malformed("the only transfer coding that is understood is chunked, in HTTP/1.1", status=501)
        length = -1
    elif (text := headers.get(b"content-length")) is not None:
        if _LENGTH.fullmatch(text) is None:
            raise Malformed("Content-Length is not a plain decimal number")
        length = int(text)
    connection = headers.get(b"connection")
    if connection is None:
        keep_alive = version
    else:
        options = connection.lower()
        keep_alive = b"close" not in options and (version or b"keep-alive" in options)
    return RequestHead(method, target, version, headers, length, keep_alive)


def _why(head: bytes) -> Malformed:
    """The reason that a head does not match, for the answer (slow path)."""
    line, _, fields = head.partition(b"\r\n")
    if b"\0" in head:
        return Malformed("a NUL byte in the head")
    if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\r") != head.count(b"\r\n"):
        return Malformed("a bare CR or LF in the head; lines end in CRLF")
    if re.fullmatch(rb"[A-Z]+ \S+ HTTP/[0-9]\.[0-9]", line) and not re.search(rb"HTTP/1\.[01]$", line):
        return Malformed("only HTTP/1.1 and HTTP/1.0 are spoken here", status=505)
    if len(line) > 8192:
        return Malformed("the request target is too long", status=414)
    if not re.fullmatch(rb"[A-Z]{1,16} [!-~]{1,8192} HTTP/1\.[01]", line):
        return Malformed("the request line is not `METHOD target HTTP/1.1`")
    if fields.startswith((b" ", b"\t")) or b"\r\n " in head or b"\r\n\t" in head:
        return Malformed("a header line is folded (obs-fold)")
    return Malformed("a header line is not `Name: value`")


class ResponseHead(NamedTuple):
    """`length` -1: chunked, -2: until the connection closes."""

    status: int
    headers: dict[bytes, bytes]
    length: int
    keep_alive: bool


_RESPONSE_SINGLE = frozenset({b"content-length", b"transfer-encoding", b"content-type", b"content-encoding"})


def parse_response(head: bytes) -> ResponseHead:
    """Read the head of an answer to a POST: all bytes before the empty line, its last CRLF included."""
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise Malformed("the endpoint's answer has a malformed head")
    minor, status_text, fields = match.groups()
    headers: dict[bytes, bytes] = {}
    for line in fields.split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.lower()
        if name in headers and name in _RESPONSE_SINGLE:
            raise Malformed(f"the endpoint's answer gives {name.decode()} twice")
        headers[name] = value.strip(b" \t")
    status = int(status_text)
    length = -2
    if status < 200 or status in (204, 304):
        length = 0
    elif (coding := headers.get(b"transfer-encoding")) is not None:
        if b"content-length" in headers or coding.lower() != b"chunked":
            raise Malformed("the endpoint's answer has ambiguous framing")
        length = -1
    elif (text := headers.get(b"content-length")) is not None:
        if _LENGTH.fullmatch(text) is None:
            raise Malformed("the endpoint's Content-Length is not a plain decimal number")
        length = int(text)
    connection = headers.get(b"connection", b"").lower()
    keep_alive = b"close" not in connection and (minor == b"1" or b"keep-alive" in connection) and length != -2
    return ResponseHead(status, headers, length, keep_alive)


class Dechunker:
    """Takes a chunked body apart (RFC 9112 §7.1), strictly: no extensions, no trailers.

    `feed` returns the payload parts in the new bytes; `done` is set after the last chunk, and `rest` then holds
    what follows. `aligned` says that the bytes fed so far end at a chunk's end (or are complete): only then can
    they be passed on with their framing as they came and other chunks be put between.
    """

    __slots__ = ("_buffer", "_left", "done", "rest")

    def __init__(self) -> None:
        self._buffer = b""
        self._left = 0  # payload and CRLF of the current chunk that are still to come
        self.done = False
        self.rest = b""

    @property
    def aligned(self) -> bool:
        return not self._left and not self._buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Payload parts of `data`, in order. Raises Malformed."""
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        parts: list[bytes] = []
        position = 0
        size = len(data)
        left = self._left
        while position < size:
            if left:
                take = min(left, size - position)
                payload = min(take, left - 2)  # the last two are CRLF
                if payload > 0:
                    parts.append(data[position : position + payload])
                for index in range(max(payload, 0), take):
                    if data[position + index] != (13 if left - index == 2 else 10):
                        raise Malformed("a chunk does not end where it says")
                position += take
                left -= take
                continue
            match = _CHUNK.match(data, position)
            if match is None:
                tail = data[position : position + 10]
                if len(tail) < 10 and re.fullmatch(rb"[0-9A-Fa-f]{0,8}\r?", tail) and tail != b"\r":
                    self._buffer = tail
                    break
                raise Malformed("a chunk's size line is malformed, or has an extension")
            length = int(match[1], 16)
            if length:
                position = match.end()
                end = position + length
                if data[end : end + 2] == b"\r\n":  # the usual case: the whole chunk is here
                    parts.append(data[position:end])
                    position = end + 2
                else:
                    left = length + 2
                continue
            tail = data[match.end() : match.end() + 2]
            if tail == b"\r\n":
                self.done = True
                self.rest = data[match.end() + 2 :]
            elif tail in (b"", b"\r"):
                self._buffer = data[position:]
            else:
                raise Malformed("trailers after a chunked body are not accepted")
            break
        self._left = left
        return parts
