"""A request body that is passed on as it comes: a form with a file in it.

In: a request. Out: ``Prepared`` with all but the body, then the body piece by piece. Must not: hold more of it than
its first piece, or look into it but for the model.
"""

import asyncio

from aiohttp import web
from typing_extensions import override

from edge.api.arrivals import Arrivals
from edge.errors import PLAIN_ONLY, BadRequest, BodyTooLarge, Busy, Forbidden, RequestTimeout, UnsupportedMedia
from edge.policy.auth.hosts import Origins
from edge.policy.limits.byte_budget import Share
from edge.protocol.multipart import Finder, Once, boundary_of, content_type_of
from edge.protocol.request import Prepared
from edge.protocol.surface import Surface
from edge.settings import Server as ServerSettings
from edge.upstream.ports import Upload

_PIECE_BYTES = 64 * 1024  # at a time, and twice that may be in the upstream's transport
_HELD_BYTES = 512 * 1024  # what one upload costs at the most: about 380 KiB of it are in aiohttp's buffer


class FormUpload(Upload):
    """See ``upstream.ports.Upload``."""

    def __init__(self, request: web.BaseRequest, settings: ServerSettings, arrivals: Arrivals) -> None:
        self._request = request
        self._settings = settings
        self._arrivals = arrivals
        self._first = b""  # what had to be read before it was known whom to ask
        self._size = 0
        self.length = request.content_length
        self.content_type = ""
        self.touched = False
        self._once: Once | None = None
        self._share: Share | None = None
        self._held = 0  # bytes of the share

    async def begin(self, surface: Surface, share: Share, *, model_once: bool = False) -> Prepared:
        """Check what can be checked beforehand, and read on until the model is known or has not been found early.

        Args:
            surface: Whose route it is.
            share: Of the budget.
            model_once: Another model further on is refused when it comes: servers differ in which of them they take.

        Raises:
            EdgeError: too large, too slow, no room, no form, or from a page that may not call.
        """
        self._check_origin()
        boundary = self._boundary()
        self._once = Once(boundary, "model") if model_once else None
        self.content_type = content_type_of(boundary)
        if (self.length or 0) > self._settings.max_upload_bytes:
            raise self._too_large()
        self._share = share
        finder = Finder(boundary, "model")
        parts = []
        while not finder.settled:
            # No exchange owns it yet, so that a drain would not end it.
            async with self._arrivals.within(self._settings.body_s, too_slow(self._settings.body_s)):
                data = await self._next()
            if not data:
                break
            parts.append(data)
            finder.feed(data)
        self._first = b"".join(parts)
        return Prepared(surface, finder.value, False, True, b"", False, 1, self.length or 0)

    @override
    async def read(self) -> bytes:
        self.touched = True
        first, self._first = self._first, b""
        return first or await self._next()

    def _check_origin(self) -> None:
        # A browser lets any page post a form without asking first; and no page is Edge's own.
        origin = self._request.headers.get("Origin")
        if origin is not None and not Origins(self._settings.cors_origins).allows(origin):
            raise Forbidden("this origin may not call; see server.cors_origins")

    def _boundary(self) -> str:
        headers = self._request.headers
        if headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UnsupportedMedia("send the request body without Content-Encoding", headers=PLAIN_ONLY)
        return boundary_of(headers.get("Content-Type", ""))

    async def _next(self) -> bytes:
        data = await read_piece(self._request, self._settings.body_s)
        self._size += len(data)
        if self._size > self._settings.max_upload_bytes:
            raise self._too_large()
        self._hold(len(data))
        if self._once is not None:
            self._once.feed(data)
        return data

    def _hold(self, size: int) -> None:
        """Count what has come, up to what is ever held of an upload at once."""
        more = min(size, _HELD_BYTES - self._held)
        if more <= 0 or self._share is None:
            return
        if not self._share.reserve(more):
            raise Busy("too many large requests at once (server.bodies_budget_bytes)", headers={"Retry-After": "1"})
        self._held += more

    def _too_large(self) -> BodyTooLarge:
        limit = self._settings.max_upload_bytes
        return BodyTooLarge(f"the request body is over {limit} bytes (server.max_upload_bytes)")


async def read_piece(request: web.BaseRequest, limit_s: float) -> bytes:
    """More of a body that is passed on as it comes; empty at its end.

    Raises:
        EdgeError: nothing came for ``limit_s``, or the body is broken.
    """
    try:
        async with asyncio.timeout(limit_s):
            return await request.content.read(_PIECE_BYTES)
    except TimeoutError:
        raise RequestTimeout(too_slow(limit_s)) from None
    except web.RequestPayloadError:
        raise BadRequest("the request body is broken: its framing or its length is wrong") from None


def too_slow(limit_s: float) -> str:
    """The error for a client that brings no more of its body."""
    return f"no more of the request body came for {limit_s:g} s (server.body_s)"
