"""Reading requests off one connection: nothing of one gets into the next, and no answer quotes what is not HTTP.

In: what was received. Out: heads with their bodies to come, or ``Malformed``. Must not: keep a connection open after a
request whose framing could leave something behind, hold a head without a bound, or cost an ordinary request more than a
look at an attribute.
"""

import re
from collections.abc import Sequence
from typing import Any

from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser, RawRequestMessage
from aiohttp.http_exceptions import BadHttpMethod, BadStatusLine, HttpProcessingError, InvalidURLError, LineTooLong
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader

from edge.errors import BodyTooLarge, EdgeError, HeadersTooLarge, MalformedRequest

Messages = Sequence[tuple[RawRequestMessage, StreamReader]]
Parsed = tuple[Messages, bool, bytes]  # the last two are about protocol upgrades

_feed = HttpRequestParser.feed_data  # looked up once: with super() it is 0.1 us more for each read
_NOTHING: Parsed = ((), False, b"")
_MOST_HEADERS = 128
_HEAD_LINES = 8  # a head that comes in pieces may be as large as this many of the longest lines
_KEPT_HEAD_BYTES = 4096  # of such a head, for the path in it
_DUPLICATE = re.compile(r"Duplicate '([A-Za-z-]+)' header found\.")
_REASONS: tuple[tuple[type[HttpProcessingError], str, str], ...] = (  # aiohttp's exception, how its text begins, ours
    (BadHttpMethod, "", "the request line does not begin with an HTTP method"),
    (InvalidURLError, "", "the request line has no valid path"),
    (BadStatusLine, "", "the request line is not METHOD PATH HTTP/1.1"),
    (HttpProcessingError, "Missing 'Host'", "a request of HTTP/1.1 needs a Host header"),
    (HttpProcessingError, "", "the headers or the framing of the body are not valid HTTP/1.1"),
)


class Malformed(HttpProcessingError):
    """What came is not HTTP, or is over a bound.

    Attributes:
        error: The answer for the client.
        head: The beginning of the request, as far as it is known.
    """

    def __init__(self, error: EdgeError, head: bytes) -> None:
        super().__init__(code=error.status, message=error.message)
        self.error = error
        self.head = head


class RequestParser(HttpRequestParser):
    """aiohttp's parser, for one connection whose last request is the first that comes with a chunked body.

    Such a body may be followed by trailers, and the C parser keeps the last of them as the first header of the next
    request. A proxy shares its connections among its clients, so that the next request is another's: with a trailer
    ``Authorization`` it would run under the first client's key. Therefore no request is read after one whose body is
    chunked, and what the parser has already made of one, in the same read, is dropped.

    Attributes:
        broken: What came cannot be read on; some of it may still be with the kernel.
    """

    def __init__(self, protocol: BaseProtocol, max_header_bytes: int, **options: Any) -> None:
        options |= {"max_line_size": max_header_bytes, "max_field_size": max_header_bytes}
        super().__init__(protocol, max_headers=_MOST_HEADERS, **options)
        self.broken = False
        self._line_limit = max_header_bytes
        self._body: StreamReader = EMPTY_PAYLOAD  # of the request that was parsed last
        self._last = False  # and that is the connection's last request
        self._head = bytearray()  # of a request that has not come whole
        self._head_size = 0

    def feed_data(self, incoming_data: bytes) -> Parsed:  # type: ignore[override]  # the slower parser takes options
        """Take what was received; returns whole heads, whose bodies may still come.

        Raises:
            Malformed: it cannot be read, and no handler waits for a body that could answer it.
        """
        if self._last and (self.broken or self._body.is_eof()):
            return _NOTHING
        try:
            parsed: Parsed = _feed(self, incoming_data)
        except HttpProcessingError as fault:
            return self._break_off(fault, incoming_data)
        if self._last:
            return _NOTHING
        messages = parsed[0]
        if messages:
            self._head_size = 0
            message, self._body = messages[-1]
            if message.chunked or len(messages) > 1:
                return self._up_to_chunked(parsed)
        elif incoming_data and self._body.is_eof():
            self._take_head(incoming_data)
        return parsed

    def _up_to_chunked(self, parsed: Parsed) -> Parsed:
        """Leave out what comes after a chunked body; its answer closes the connection, whoever gives it."""
        messages = parsed[0]
        for index, (message, body) in enumerate(messages):
            if message.chunked:
                self._last, self._body = True, body
                return [*messages[:index], (message._replace(should_close=True), body)], False, b""
        return parsed

    def _take_head(self, data: bytes) -> None:
        if self._head_size == 0:
            self._head.clear()
        self._head_size += len(data)
        self._head += data[: _KEPT_HEAD_BYTES - len(self._head)]
        if self._head_size > _HEAD_LINES * self._line_limit:
            self._last = self.broken = True
            limit = f"{_HEAD_LINES} times {self._line_limit} bytes (server.max_header_bytes)"
            raise Malformed(HeadersTooLarge(f"the request's headers are together over {limit}"), bytes(self._head))

    def _break_off(self, fault: HttpProcessingError, data: bytes) -> Parsed:
        behind_the_last = self._last and self._body.is_eof()
        self._last = self.broken = True
        if behind_the_last:
            return _NOTHING
        if not self._body.is_eof():  # its handler answers
            self._body.set_exception(web.RequestPayloadError("the framing of the body is broken"))
            return _NOTHING
        head = bytes(self._head) + data if self._head_size else data
        raise Malformed(_explained(fault, self._line_limit), head) from None


def _explained(fault: HttpProcessingError, line_limit: int) -> EdgeError:
    """What is wrong, without a byte of the request: aiohttp's own words quote it."""
    said = fault.message
    if isinstance(fault, LineTooLong):  # of the path too, as Node.js and Go have it
        return HeadersTooLarge(f"a line of the request's head is over {line_limit} bytes (server.max_header_bytes)")
    if said == "Too many headers received":
        return HeadersTooLarge(f"the request has more than {_MOST_HEADERS} headers")
    if said.startswith("Content-Length overflow"):
        return BodyTooLarge("the declared size of the request body is beyond every limit (server.max_body_bytes)")
    if twice := _DUPLICATE.fullmatch(said):
        return MalformedRequest(f"the header {twice[1]} may come only once")
    reasons = (ours for kind, begins, ours in _REASONS if isinstance(fault, kind) and said.startswith(begins))
    return MalformedRequest(next(reasons))
