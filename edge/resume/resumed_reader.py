"""What all readers that come back share: the registry owns them, the ticker ticks them, and each is recorded once.

In: what it reads, from a subclass. Out: a response. Must not: generate anything, or end a stream for anybody else.
"""

from aiohttp import web
from typing_extensions import override

from edge.exchange.ports import ExchangeServices
from edge.exchange.registry import Owned
from edge.stream.subscriber import Subscriber
from edge.stream.ticker import Ticked
from edge.stream.writer import Writer


class ResumedReader(Owned, Ticked):
    """A reader that came back; see the module."""

    __slots__ = ("_reader", "_recorded", "services")

    def __init__(self, services: ExchangeServices) -> None:
        self.services = services
        self._reader: Subscriber | None = None
        self._recorded = False

    # --- what a subclass does ---------------------------------------------------------------------------------------

    def _make_reader(self, writer: Writer) -> Subscriber:
        """Make the reader; it has to call ``_changed``."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Begin to read: the reader is owned and ticked by now."""

    def _record(self, reader: Subscriber) -> None:
        """Record the reader, which has gone."""
        raise NotImplementedError

    async def _close(self) -> None:
        """Wait until no task of it runs any more."""
        raise NotImplementedError

    # --- what all do ------------------------------------------------------------------------------------------------

    async def run(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer the request.

        Raises:
            EdgeError: the stream failed before its first event, or the events asked for are not kept any more.
        """
        services = self.services
        reader = self._reader = self._make_reader(Writer(request))
        services.registry.add(self)
        services.ticker.add(self)
        try:
            self._begin()
            return await reader.run()
        finally:
            reader.leave()
            self._changed()
            await self._close()

    @override
    def shut_down(self) -> None:
        raise NotImplementedError

    @override
    def tick(self, now: float) -> None:
        if self._reader is not None:
            self._reader.tick(now)

    def _changed(self) -> None:
        reader = self._reader
        if reader is None or not reader.closed or self._recorded:
            return
        self._recorded = True
        self.services.registry.discard(self)
        self.services.ticker.discard(self)
        self._record(reader)
