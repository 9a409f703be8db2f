"""One client connection: aiohttp's protocol, with answers of Edge's own and an end that lets the last one be read.

In: what a client sends. Out: requests for the application; answers to what never reaches it. Must not: quote a request,
or close a connection with bytes unread, which would reset it.

What needs the inside of aiohttp's server is here, in ``request_parser.py`` and in ``stream/writer.py``.
"""

import asyncio
from typing import Any, Protocol

from aiohttp import web
from aiohttp.http import HttpVersion11
from aiohttp.web_protocol import RequestHandler
from typing_extensions import override

from edge.api.request_parser import Malformed, RequestParser
from edge.errors import EdgeError, ExpectationFailed, InternalError

_LINGER_S = 2.0  # for a client that still sends to read its answer; a reset could take that away from it


class Refuse(Protocol):
    """Makes the answers to requests that never reach the application."""

    def refuse(self, request: web.BaseRequest, error: EdgeError, head: bytes = b"") -> web.Response:
        """The answer, in the shape of the surface that was called as far as that is known; it ends the connection.

        Args:
            request: The request, or aiohttp's stand-in for one that could not be read.
            error: What is wrong.
            head: The beginning of a request that could not be read.
        """


class ClientConnection(RequestHandler):
    """See the module.

    Args:
        server: aiohttp's.
        refuse: See ``Refuse``.
        max_header_bytes: The longest line of a request's head.
        options: aiohttp's.
    """

    __slots__ = ("_linger", "_reading", "_refuse")

    def __init__(self, server: web.Server, refuse: Refuse, *, max_header_bytes: int, **options: Any) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(server, loop=loop, **options)
        self._refuse = refuse
        self._linger: asyncio.TimerHandle | None = None
        self._parser = self._reading = RequestParser(
            self,
            max_header_bytes,
            loop=loop,
            limit=self._read_bufsize,
            payload_exception=web.RequestPayloadError,
            auto_decompress=False,
            max_msg_queue_size=self._max_msg_queue_size,
        )

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        if self._linger is not None:
            self._linger.cancel()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's words, which may quote the request
    ) -> web.StreamResponse:
        """Answer what is no request, and what failed outside of the application's own handling of errors."""
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer has begun, so there is no place for another")
        if isinstance(exc, Malformed):
            request._version = HttpVersion11  # noqa: SLF001 - aiohttp's stand-in for what cannot be read says 1.0
            return self._refuse.refuse(request, exc.error, exc.head)
        error = InternalError("Edge failed while handling the request")
        error.status = status
        error.__cause__ = exc
        return self._refuse.refuse(request, error)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send what is left of an answer; one that ends the connection while the client may still send ends it now."""
        if isinstance(resp, web.HTTPExpectationFailed):  # raised before any middleware
            error = ExpectationFailed("Edge knows no other Expect than 100-continue")
            resp = self._refuse.refuse(request, error)
        resp, gone = await super().finish_response(request, resp, start_time)
        if not (gone or resp.keep_alive) and (self._reading.broken or not request.content.is_eof()):
            self._hang_up()
        return resp, gone

    def _hang_up(self) -> None:
        """Send the end, then drop for a moment what still comes.

        To close with bytes unread would reset the connection, and many clients then never see the answer.
        """
        self._force_close = True  # nothing more is parsed, and aiohttp leaves the transport alone
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        self._resume_transport_reading()
        self._linger = self._loop.call_later(_LINGER_S, transport.abort)
