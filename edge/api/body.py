"""Reading a request body: bounded in size, in time, and over all requests together; big ones are parsed elsewhere.

In: a request. Out: ``Prepared``. Must not: hold a body that does not fit, or stop the loop for a big one.
"""

import asyncio
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from typing import TypeVar

from aiohttp import web

from edge.errors import BadRequest, BodyTooLarge, Busy, EdgeError, RequestTimeout, UnsupportedMedia
from edge.policy.budget import Budget, Share
from edge.protocol.canonical import Target
from edge.protocol.request import Prepared, prepare
from edge.protocol.surface import EMBEDS, Surface
from edge.protocol.token_estimate import estimate
from edge.protocol.transcode import prepare_crossed
from edge.settings import Server as ServerSettings
from edge.settings import Settings
from edge.telemetry.stray_output import divert

# Parsing and writing JSON holds the interpreter's lock, so that a thread would stop the loop as well: 25 MiB took
# 55 ms. Another process costs about 0.2 s once and then two copies through a pipe.
_INLINE_BYTES = 2**20

T = TypeVar("T")
_CURLS = "application/x-www-form-urlencoded"  # what it says of anything that it posts
_BROWSERS = ("Origin", "Sec-Fetch-Site")  # what a browser adds to what a page makes it post


def _live_with_parent() -> None:
    """In the parsing process: only the parent decides when to end, but it is never outlived.

    Ctrl-C reaches the whole group, and systemd's SIGTERM all of a service. A parent that was killed takes nobody along:
    its side of the pool's pipes is open in this process too, which would wait on them for ever.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    divert()  # a log that nobody reads must not stop this process either
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), daemon=True).start()


def _die_with(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


class Bodies:
    """Reads and prepares request bodies within their bounds."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings
        self._pool: ProcessPoolExecutor | None = None
        self.budget = Budget(settings.bodies_budget_bytes)

    def follow(self, settings: Settings) -> None:
        """Other settings are in force."""
        self._settings = settings.server
        self.budget.limit = settings.server.bodies_budget_bytes

    async def read(
        self,
        request: web.BaseRequest,
        surface: Surface,
        share: Share,
        targets: Callable[[], tuple[Target, ...]],
        most: Callable[[str | None], int | None] | None = None,
    ) -> Prepared:
        """Read, check and rewrite a body.

        Args:
            request: Whose body it is.
            surface: What it asks.
            share: Filled with its size.
            targets: Asked for a large body only: whom to translate it for.
            most: See ``protocol.request.prepare``; can be passed to another process.

        Raises:
            EdgeError: too large, too slow, no room, not JSON, or not what the surface asks for.
        """
        return await self._prepare(surface, await self.read_raw(request, share), targets, most)

    async def read_raw(self, request: web.BaseRequest, share: Share) -> bytes:
        """Read a body that is declared to be JSON.

        Raises:
            EdgeError: too large, too slow, no room, or declared as something else.
        """
        self._check_type(request)
        try:
            if request.content.is_eof():  # it came with the head: nothing to wait for
                return await self._read(request, share)
            async with asyncio.timeout(self._settings.body_s):
                return await self._read(request, share)
        except TimeoutError:
            limit = self._settings.body_s
            raise RequestTimeout(f"the request body did not arrive within {limit:g} s (server.body_s)") from None
        except web.RequestPayloadError:
            raise BadRequest("the request body is broken: its framing or its length is wrong") from None

    async def close(self) -> None:
        """End the parsing process, if there ever was one."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await asyncio.to_thread(pool.shutdown)

    def _check_type(self, request: web.BaseRequest) -> None:
        encoding = request.headers.get("Content-Encoding", "identity").lower()
        if encoding != "identity":
            raise UnsupportedMedia("send the request body without Content-Encoding")
        kind = request.content_type.lower()
        # Ollama's own examples are ``curl -d`` without a type, which is as good as declaring nothing.
        by_curl = kind == _CURLS and request.path.startswith("/api/")
        declared = "Content-Type" in request.headers and not by_curl
        # A browser lets any page post without asking first, unless the type is JSON; so JSON it must be, and a client
        # that declares nothing is let through only if it is no browser.
        wrong = kind != "application/json" if declared else any(name in request.headers for name in _BROWSERS)
        if wrong:
            raise UnsupportedMedia("send the request body as Content-Type: application/json")

    async def _read(self, request: web.BaseRequest, share: Share) -> bytes:
        limit = self._settings.max_body_bytes
        too_large = BodyTooLarge(f"the request body is over {limit} bytes (server.max_body_bytes)")
        declared = request.content_length or 0
        if declared > limit:
            raise too_large
        self._take(share, declared)
        parts: list[bytes] = []
        size = 0
        while data := await request.content.readany():
            size += len(data)
            if size > limit:
                raise too_large
            if size > declared:
                self._take(share, min(len(data), size - declared))
            parts.append(data)
        return b"".join(parts)

    def _take(self, share: Share, size: int) -> None:
        if not share.take(size):
            raise Busy("too many large requests at once (server.bodies_budget_bytes)", headers={"Retry-After": "1"})

    async def _prepare(
        self,
        surface: Surface,
        raw: bytes,
        targets: Callable[[], tuple[Target, ...]],
        most: Callable[[str | None], int | None] | None,
    ) -> Prepared:
        if len(raw) <= _INLINE_BYTES:
            return prepare(surface, raw, most)
        # How the answers of embeddings are made cannot be passed between processes.
        crossed = functools.partial(prepare_crossed, surface, raw, () if surface in EMBEDS else targets(), most)
        return await self._elsewhere(crossed)

    async def estimate(self, prepared: Prepared) -> int:
        """About how many tokens the body of a request to count them has.

        Raises:
            EdgeError: it is malformed, or the process that should have read it died.
        """
        body = prepared.body
        return (
            estimate(body) if len(body) <= _INLINE_BYTES else await self._elsewhere(functools.partial(estimate, body))
        )

    async def _elsewhere(self, work: Callable[[], T]) -> T:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, context, initializer=_live_with_parent)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except EdgeError as told:
            raise told from None  # the other process's traceback came as its cause, as if it were a bug
        except BrokenProcessPool:
            self._pool = None
            raise Busy("the process that reads large requests died; try again", headers={"Retry-After": "1"}) from None
