"""What happens in a process, as log lines and metrics.

In: events of exchanges, of refused requests and of the store. Out: log lines, and what metrics count; a stop of the
exchange that another process was asked to stop. Must not: be called per token.
"""

from collections.abc import Callable

from aiohttp import web
from typing_extensions import override

from edge.api.context import Context
from edge.api.face import Refused
from edge.errors import EdgeError
from edge.exchange.ports import ExchangeObserver, ExchangeRegistry, RunningExchange
from edge.exchange.record import tokens_per_s
from edge.policy.lifecycle import LifecycleEvent
from edge.store.ports import StoreListener
from edge.telemetry import log
from edge.telemetry.metrics import Metrics
from edge.telemetry.record import ReturnRecord, StreamRecord, TransferRecord

_SHOWN_CHARS = 200


class StoreEvents(StoreListener):
    """What the store reports: outages go to the log, and a stream that another process was asked to stop is stopped.

    Args:
        registry: The exchanges of this process.
        closed: Why no caller at all can be let in now, if so.
    """

    def __init__(self, registry: ExchangeRegistry, closed: Callable[[], str | None]) -> None:
        self._registry = registry
        self._closed = closed
        self._log = log.get_logger()

    @override
    def stop_asked(self, stream_id: str) -> None:
        exchange = self._registry.streams.get(stream_id)
        if exchange is not None:
            exchange.generation.stop(LifecycleEvent.STOP)

    @override
    def store_failed(self, why: str) -> None:
        effect = "streams and counts go on, kept in memory until it is back"
        if self._closed() is not None:
            effect = "nobody is let in until it is back, as it has the keys that were made"
        self._log.error("store down", why=why, effect=effect)

    @override
    def store_recovered(self, after_s: float) -> None:
        self._log.info("store back", after_s=round(after_s, 3))

    @override
    def store_reopened(self, what: str) -> None:
        self._log.error("store file changed", what=what)


class LoggingObserver(ExchangeObserver, Refused):
    """What requests and exchanges do, as log lines and metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._log = log.get_logger()

    @override
    def started(self, exchange: RunningExchange) -> None:
        asked, prepared = exchange.asked, exchange.prepared
        log.start(
            request_id=asked.request_id,
            stream_id=exchange.stream_id,
            surface=str(prepared.surface),
            model=prepared.model,
            upstream=exchange.upstream,
            principal=asked.principal.name,
            client=asked.client,
        )

    @override
    def progressed(self, exchange: RunningExchange) -> None:
        generation = exchange.generation
        log.progress(
            request_id=exchange.asked.request_id,
            stream_id=exchange.stream_id,
            surface=str(exchange.prepared.surface),
            model=exchange.prepared.model,
            upstream=exchange.upstream,
            elapsed_s=exchange.elapsed_s,
            tokens=generation.token_count,
            tokens_per_s=tokens_per_s(generation),
            buffer_bytes=generation.journal.statistics().held,
        )

    @override
    def failed(self, request_id: str, stream_id: str | None, bug: BaseException) -> None:
        self._log.error("bug", request_id=request_id, stream_id=stream_id, exc_info=bug)

    @override
    def ended(self, record: StreamRecord) -> None:
        log.emit(record)
        if record.truncated:
            self._log.warning(
                "prompt truncated",
                request_id=record.request_id,
                model=record.model,
                upstream=record.upstream,
                tokens_in=record.tokens_in,
                fix="raise num_ctx (options.num_ctx, or num_ctx of the upstream), or send less",
            )
        self._metrics.observe(record)

    @override
    def returned(self, record: ReturnRecord) -> None:
        log.emit_return(record)
        self._metrics.observe_return(record)

    @override
    def transferred(self, record: TransferRecord) -> None:
        log.emit_transfer(record)
        self._metrics.observe_transfer(record)

    @override
    def refused(self, request: web.BaseRequest, context: Context, error: EdgeError) -> None:
        shown = log.refused(
            client=context.client,
            error=error.code,
            status=error.status,
            request_id=context.request_id,
            method=request.method,
            path=request.path[:_SHOWN_CHARS],
            principal=None if context.principal is None else context.principal.name,
        )
        if shown and error.__cause__ is not None:
            self._log.error("bug", request_id=context.request_id, exc_info=error.__cause__)
