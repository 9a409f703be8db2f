"""Reading a request body: bounded in size, in time, and over all requests together; big ones are parsed elsewhere.

In: a request. Out: ``Prepared``. Must not: hold a body that does not fit, or stop the loop for a big one.

What is held counts, as it comes: what a head declares reserves nothing. The bound on memory is this: the bodies that
have come, and what Edge made of them for the upstreams, are never more than ``server.bodies_budget_bytes`` together.
While one large body is parsed there are two more copies of its result here, and a few in the parsing process, which
does one at a time and ends when it is idle.
"""

import ctypes
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache

from aiohttp import web

from edge.api.arrivals import Arrivals
from edge.api.context import CONTEXT
from edge.api.parsing import Parser
from edge.errors import PLAIN_ONLY, BadRequest, BodyTooLarge, Busy, UnsupportedMedia
from edge.policy.auth.client_address import holder_of
from edge.policy.limits.byte_budget import ByteBudget, Share
from edge.protocol.canonical import Target
from edge.protocol.messages.token_estimate import estimate
from edge.protocol.request import Prepared, prepare
from edge.protocol.surface import EMBEDS, Surface
from edge.protocol.transcode import prepare_crossed
from edge.settings import Server as ServerSettings
from edge.settings import Settings
from edge.upstream.ports import Apart

_INLINE_BYTES = 2**20  # parsed here, in 2 ms at the most
_EACH = 4  # of the budget, nobody holds more than one part in so many

_CURLS = "application/x-www-form-urlencoded"  # what it says of anything that it posts
_RETRY = {"Retry-After": "1"}
_M_MMAP_THRESHOLD = -3  # of glibc's mallopt
_LARGE_BYTES = 256 * 1024
_BROWSERS = ("Origin", "Sec-Fetch-Site")  # what a browser adds to what a page makes it post


@dataclass(frozen=True, slots=True)
class Reading:
    """What must be known to prepare a body.

    Attributes:
        targets: Whom to translate a large body for; not asked for a small one.
        most, name_of: See ``protocol.request.prepare``; can be passed to another process.
    """

    targets: Callable[[], tuple[Target, ...]] = tuple
    most: Callable[[str | None], int | None] | None = None
    name_of: Callable[[str], str] = str


class Bodies:
    """Reads and prepares request bodies within their bounds."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._parser = Parser()
        self.budget = ByteBudget(settings.bodies_budget_bytes, _each(settings))
        self.arrivals = Arrivals()

    @property
    def apart(self) -> Apart:
        """Does work in the process for large bodies."""
        return self._parser.run

    def apply_settings(self, settings: Settings) -> None:
        """Other settings are in force."""
        self._settings = settings.server
        self.budget.limit = settings.server.bodies_budget_bytes
        self.budget.each = _each(settings.server)

    def share(self, request: web.BaseRequest) -> Share:
        """An empty share of the budget, for whoever sends this request."""
        context = request[CONTEXT]
        principal = context.principal
        return self.budget.share(
            holder_of(None if principal is None or principal.anonymous else principal.name, context.client)
        )

    async def read(
        self,
        request: web.BaseRequest,
        surface: Surface,
        share: Share,
        reading: "Reading",
    ) -> Prepared:
        """Read, check and rewrite a body.

        Args:
            request: Whose body it is.
            surface: What it asks.
            share: Filled with its size.
            reading: What else there is to know.

        Raises:
            EdgeError: too large, too slow, no room, not JSON, or not what the surface asks for.
        """
        raw = await self._received(request, share)
        if isinstance(raw, bytes):
            return prepare(surface, raw, reading.most, reading.name_of)
        try:
            # How the answers of embeddings are made cannot be passed between processes.
            wanted = () if surface in EMBEDS else reading.targets()
            settled = replace(reading, targets=tuple)  # the fleet cannot be passed to another process
            prepared = await self._parser.run(_prepare_crossed, raw, surface, wanted, settled)
        finally:
            raw.clear()  # whoever else still refers to it
        made = len(prepared.body) + sum(len(translated.body) for _, translated in prepared.crossed) - prepared.size
        if made > 0:
            self._take(share, made, made_here=True)
        return prepared

    async def read_raw(self, request: web.BaseRequest, share: Share) -> bytes:
        """Read a body that is declared to be JSON.

        Raises:
            EdgeError: too large, too slow, no room, declared as something else, or Edge leaves before it is there.
        """
        return bytes(await self._received(request, share))

    async def _received(self, request: web.BaseRequest, share: Share) -> bytes | bytearray:
        """A body; a large one as a bytearray, to be cleared."""
        self._check_type(request)
        try:
            if request.content.is_eof():  # it came with the head: nothing to wait for
                return await self._read(request, share)
            limit = self._settings.body_s
            late = f"the request body did not arrive within {limit:g} s (server.body_s)"
            async with self.arrivals.within(limit, late):
                return await self._read(request, share)
        except web.RequestPayloadError:
            raise BadRequest("the request body is broken: its framing or its length is wrong") from None

    async def close(self) -> None:
        """End the parsing process, if there is one."""
        await self._parser.close()

    def _check_type(self, request: web.BaseRequest) -> None:
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise UnsupportedMedia("send the request body without Content-Encoding", headers=PLAIN_ONLY)
        kind = request.content_type.lower()
        # Ollama's own examples are ``curl -d`` without a type, which is as good as declaring nothing.
        by_curl = kind == _CURLS and request.path.startswith("/api/")
        declared = "Content-Type" in request.headers and not by_curl
        # A browser lets any page post without asking first, unless the type is JSON; so JSON it must be, and a client
        # that declares nothing is let through only if it is no browser.
        wrong = kind != "application/json" if declared else any(name in request.headers for name in _BROWSERS)
        if wrong:
            raise UnsupportedMedia("send the request body as Content-Type: application/json")

    async def _read(self, request: web.BaseRequest, share: Share) -> bytes | bytearray:
        limit = self._settings.max_body_bytes
        if (request.content_length or 0) > limit:
            raise _too_large(limit)
        parts: list[bytes] = []
        large = bytearray()  # grows without a copy, and without one at the end
        size = 0
        while data := await request.content.readany():
            size += len(data)
            if size > limit:
                raise _too_large(limit)
            self._take(share, len(data))
            if size <= _INLINE_BYTES:
                parts.append(data)
                continue
            if parts:
                _give_back_large()
                large += b"".join(parts)
                parts.clear()
            large += data
        return large or b"".join(parts)

    def _take(self, share: Share, size: int, *, made_here: bool = False) -> None:
        if not share.reserve(size, made_here=made_here):
            raise Busy("too many large requests at once (server.bodies_budget_bytes)", headers=_RETRY)

    async def estimate(self, prepared: Prepared) -> int:
        """About how many tokens the body of a request to count them has.

        Raises:
            EdgeError: it is malformed, or the process that should have read it died.
        """
        body = prepared.body
        return estimate(body) if len(body) <= _INLINE_BYTES else await self._parser.run(estimate, body)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is over {limit} bytes (server.max_body_bytes)")


def _each(settings: ServerSettings) -> int:
    """How many bytes one caller may hold: a part of the budget, but always one whole body."""
    return max(settings.bodies_budget_bytes // _EACH, settings.max_body_bytes)


def _prepare_crossed(
    raw: bytes,
    surface: Surface,
    targets: tuple[Target, ...],
    reading: "Reading",
) -> Prepared:
    """In the parsing process."""
    return prepare_crossed(surface, raw, targets, reading.most, reading.name_of)


@cache
def _give_back_large() -> None:
    """Have each large allocation be a mapping of its own, which ends with it.

    glibc raises its threshold, up to 32 MiB, each time that a mapping is freed: what comes later is then cut from the
    heap, which shrinks only at its end. After 10 bodies of 24 MB, 244 MB stayed.
    """
    with suppress(AttributeError, OSError):  # musl and macOS give it back by themselves
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
