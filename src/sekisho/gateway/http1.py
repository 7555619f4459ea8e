"""One strict reading of HTTP/1.1 (RFC 9110, RFC 9112): whatever could be read in two ways is refused.

Pure functions over bytes, shared by the listener (requests) and the upstream side (responses).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# RFC 9110 §5.6.2 token; possessive, so that a hostile head can't make the matcher backtrack.
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9112 §5: no space before the colon, no obs-fold, no bare CR or LF, no NUL or other control but HTAB.
_FIELDS: Final = rb"(?:" + _TOKEN + rb":[ \t]*+[^\x00-\x08\x0a-\x1f\x7f]*+\r\n)*+"
_REQUEST: Final = re.compile(rb"([A-Z]{1,16}) ([!-~]{1,8192}) HTTP/1\.([01])\r\n" + _FIELDS)
_RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [^\x00-\x08\x0a-\x1f\x7f]*+)?\r\n" + _FIELDS)
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})\r\n")


class Malformed(Exception):
    """A message that has no single reading. `what` is safe to show: it never quotes the message."""

    def __init__(self, what: str, *, status: int = 400, code: str = "http.malformed") -> None:
        super().__init__(what)
        self.what = what
        self.status = status
        self.code = code


class RequestHead(NamedTuple):
    """`length` -1: chunked. `headers`: those that mean something here (`_WANTED`), names in lower case."""

    method: bytes
    target: bytes
    version: int  # 0 or 1: HTTP/1.x
    headers: dict[bytes, bytes]
    length: int
    keep_alive: bool


# The headers that mean something here. A second one would leave open which of the two counts.
_WANTED: Final = re.compile(
    rb"(?i)\n(host|authorization|content-length|transfer-encoding|content-type|content-encoding|x-sekisho-class|expect|"
    rb"connection|traceparent|tracestate):[ \t]*+([^\r]*+)"
)


_LENGTH_LINE: Final = re.compile(rb"(?i)\r\ncontent-length:[ \t]*+([0-9]{1,15})[ \t]*+\r\n")


# How nearly every client writes it; finding it costs a tenth of the search below.
_USUAL_LENGTH: Final = b"\r\nContent-Length: "


def _length_digits(head: bytes) -> tuple[int, int]:
    """Where the digits of the first Content-Length lie; (-1, -1) when there are none."""
    start = head.find(_USUAL_LENGTH) + len(_USUAL_LENGTH)
    end = head.find(b"\r", start)
    if start < len(_USUAL_LENGTH) or not 0 < end - start <= 15 or not head[start:end].isdigit():
        match = _LENGTH_LINE.search(head)
        if match is None:
            return -1, -1
        return match.start(1), match.end(1)
    return start, end


def without_length(head: bytes) -> tuple[bytes, int] | None:
    """The head without the digits of its first Content-Length, and that length; None when it has none.

    Clients send the same head again and again but for this number. Two heads that are equal without it are read in
    the same way, so what was once read and found in order can be looked up.
    """
    start, end = _length_digits(head)
    if start < 0:
        return None
    return head[:start] + head[end:], int(head[start:end])


class Form:
    """A head that was read before, but for the digits of its Content-Length: what begins like this again has the same
    reading. Comparing costs a fifth of finding the end of a head and looking it up."""

    __slots__ = ("_rest", "_start")

    def __init__(self, head: bytes) -> None:
        """`head`: with its empty line, and with a Content-Length (`without_length` has found one)."""
        start, end = _length_digits(head)
        self._start = head[:start]
        self._rest = head[end:]

    def match(self, data: bytes) -> tuple[int, int]:
        """(where the head ends in `data`, its Content-Length), or (-1, 0) when `data` begins in another way."""
        start, rest = self._start, self._rest
        at = len(start)
        if data[:at] != start:
            return -1, 0
        length = 0
        stop = at
        size = min(len(data), at + 15)
        while stop < size:
            digit = data[stop] - 48
            if not 0 <= digit <= 9:
                break
            length = length * 10 + digit
            stop += 1
        end = stop + len(rest)
        if stop == at or data[stop:end] != rest:  # which begins with the line's end, so no digit is left out
            return -1, 0
        return end, length


def parse_request(head: bytes) -> RequestHead:
    """Read a request head: all bytes before the empty line, its last CRLF included. Raises Malformed."""
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise _why(head)
    method, target, minor = match.groups()
    found = _WANTED.findall(head)
    headers = {name.lower(): value.rstrip(b" \t") for name, value in found}
    if len(headers) != len(found):
        raise Malformed("a header that counts is given twice")
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


class ResponseHead:
    """`length` -1: chunked, -2: until the connection closes. `headers`: those that are looked at or passed on.
    `plain`: an answer in JSON with nothing but that to pass on."""

    __slots__ = ("headers", "keep_alive", "length", "plain", "status")

    def __init__(
        self, status: int, headers: dict[bytes, bytes], length: int, keep_alive: bool, *, plain: bool
    ) -> None:
        self.status = status
        self.headers = headers
        self.length = length
        self.keep_alive = keep_alive
        self.plain = plain

    def with_length(self, length: int) -> ResponseHead:
        """The same head with another Content-Length; itself when that is the same."""
        if length == self.length:
            return self
        return ResponseHead(self.status, self.headers, length, self.keep_alive, plain=self.plain)


_WANTED_OF_ANSWER: Final = re.compile(
    rb"(?i)\n(content-length|transfer-encoding|connection|content-type|retry-after|x-request-id|openai-processing-ms):"
    rb"[ \t]*+([^\r]*+)"
)


def parse_response(head: bytes) -> ResponseHead:
    """Read the head of an answer to a POST: all bytes before the empty line, its last CRLF included."""
    match = _RESPONSE.fullmatch(head)
    if match is None:
        raise Malformed("the endpoint's answer has a malformed head")
    minor, status_text = match.groups()
    found = _WANTED_OF_ANSWER.findall(head)
    headers = {name.lower(): value.rstrip(b" \t") for name, value in found}
    if len(headers) != len(found):
        raise Malformed("the endpoint's answer gives a header that counts twice")
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
    connection = headers.get(b"connection")
    if connection is None:
        keep_alive = minor == b"1" and length != -2
    else:
        options = connection.lower()
        keep_alive = b"close" not in options and (minor == b"1" or b"keep-alive" in options) and length != -2
    plain = (
        status == 200
        and headers.get(b"content-type") == b"application/json"
        and headers.keys() <= {b"content-type", b"content-length", b"connection", b"transfer-encoding"}
    )
    return ResponseHead(status, headers, length, keep_alive, plain=plain)


def payload_of(data: bytes) -> int:
    """Where the payload begins when these bytes are exactly one chunk (RFC 9112 section 7.1) without an extension, a
    leading zero or more than three digits; 0 when they are anything else, which the dechunker looks at.

    Byte by byte: compiled, that makes no object, where looking for the line's end and its text makes three.
    """
    total = len(data)
    if total < 6 or data[0] == 48:
        return 0
    at = size = 0
    while at < 3:
        digit = data[at]
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= digit <= 102:
            digit -= 87
        elif 65 <= digit <= 70:
            digit -= 55
        else:
            break
        size = size * 16 + digit
        at += 1
    whole = total == at + size + 4 and data[at] == 13 and data[at + 1] == 10
    return at + 2 if at and whole and data[total - 2] == 13 and data[total - 1] == 10 else 0


class Dechunker:
    """Takes a chunked body apart (RFC 9112 §7.1), strictly: no extensions, no trailers.

    `feed` returns the payload parts in the new bytes; `done` is set after the last chunk, and `rest` then holds
    what follows. `aligned` says that the bytes fed so far end at a chunk's end (or are complete): only then can
    they be passed on with their framing as they came and other chunks be put between.
    """

    __slots__ = ("buffer", "done", "left", "rest")

    def __init__(self) -> None:
        self.buffer = b""
        self.left = 0  # payload and CRLF of the current chunk that are still to come
        self.done = False
        self.rest = b""

    @property
    def aligned(self) -> bool:
        return not self.left and not self.buffer

    def feed(self, data: bytes) -> list[bytes]:
        """Payload parts of `data`, in order. Raises Malformed."""
        if self.buffer:
            data = self.buffer + data
            self.buffer = b""
        parts: list[bytes] = []
        position = 0
        size = len(data)
        left = self.left
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
                    self.buffer = tail
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
                self.buffer = data[position:]
            else:
                raise Malformed("trailers after a chunked body are not accepted")
            break
        self.left = left
        return parts
