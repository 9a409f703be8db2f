"""Prometheus metrics, all of them made from the StreamRecords.

In: records, and callables for what is true only at the moment of a scrape. Out: the exposition text.
Must not: use the global registry, or take a label value from outside a closed set: a model name that nobody serves
must not make a new series.

Names are those of OpenTelemetry's semantic conventions for generative AI where there are any, as Prometheus spells
them, with the conventions' bucket boundaries and a few more where token streams go beyond them.
"""

from collections.abc import Callable, Container
from typing import Any, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from edge import __version__
from edge.policy.lifecycle import Outcome
from edge.protocol.surface import Surface
from edge.store.ports import StoreStatistics
from edge.telemetry.collectors import QueueCollector, QueueStatistics, StoreCollector
from edge.telemetry.record import ReturnRecord, StreamRecord, TransferRecord

# The format that every scraper reads; newer ones differ only in names that are not used here.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

OTHER = "other"  # the label value for what is outside the closed set
NONE = "none"  # no upstream was tried

_OPERATIONS: dict[str, str] = {surface: surface.facts.operation for surface in Surface}
_OUTCOMES = frozenset(Outcome)

_DURATIONS_S = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68]
_FIRST_S = [
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    30.0,
    60.0,
    300.0,
]
_PER_TOKEN_S = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5]
_TOKENS = [4**power for power in range(14)]
_BUFFER_BYTES = [4**power for power in range(5, 12)]  # 1 KiB to 4 MiB

M = TypeVar("M", Counter, Histogram)

_ASKED = ["gen_ai_operation_name", "gen_ai_request_model", "upstream"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter and histogram, which nobody reads


class Metrics:
    """All metrics of one process.

    Args:
        active: How many exchanges are running.
        known_models: The models that the upstreams serve; any other is counted as ``other``.
        store: How the store is; None where there is none.
        queues: How the queues in front of upstreams are.
    """

    def __init__(
        self,
        active: Callable[[], int],
        known_models: Callable[[], Container[str]],
        store: Callable[[], StoreStatistics | None] = lambda: None,
        queues: QueueStatistics = lambda: ((), {}),
    ) -> None:
        self._known_models = known_models
        self._registry = registry = CollectorRegistry()
        self._bound: dict[tuple[object, tuple[str, ...]], Any] = {}  # as many as there are series
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        Info("edge_build", "This build of Edge.", registry=registry).info({"version": __version__})
        Gauge("edge_streams_active", "Exchanges running now.", registry=registry).set_function(active)
        self._observe_model(registry)
        self._observe_edge(registry)
        registry.register(StoreCollector(store))
        registry.register(QueueCollector(queues))

    def _observe_model(self, registry: CollectorRegistry) -> None:
        self._duration = Histogram(
            "gen_ai_server_request_duration_seconds",
            "From accepted to ended.",
            [*_ASKED, "error_type"],
            buckets=_DURATIONS_S,
            registry=registry,
        )
        self._first = Histogram(
            "gen_ai_server_time_to_first_token_seconds",
            "From accepted to the first generated token.",
            _ASKED,
            buckets=_FIRST_S,
            registry=registry,
        )
        self._per_token = Histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Per token after the first, of complete answers whose upstream reported usage.",
            _ASKED,
            buckets=_PER_TOKEN_S,
            registry=registry,
        )
        self._tokens = Histogram(
            "gen_ai_client_token_usage",
            "Tokens of an exchange.",
            [*_ASKED, "gen_ai_token_type"],
            buckets=_TOKENS,
            registry=registry,
        )

    def _observe_edge(self, registry: CollectorRegistry) -> None:
        self._exchanges = Counter(
            "edge_exchanges", "Exchanges ended.", ["surface", "outcome", "upstream"], registry=registry
        )
        self._queued = Histogram(
            "edge_queue_wait_seconds",
            "Time that exchanges waited for a slot, or for their session.",
            ["upstream"],
            buckets=_DURATIONS_S,
            registry=registry,
        )
        self._blocked = Counter(
            "edge_client_blocked_seconds", "Time in which bytes waited for a reader.", registry=registry
        )
        self._buffer = Histogram(
            "edge_buffer_peak_bytes", "Most bytes an exchange held.", buckets=_BUFFER_BYTES, registry=registry
        )
        self._heartbeats = Counter("edge_heartbeats", "Heartbeats sent.", registry=registry)
        self._stalls = Counter("edge_stalls", "Silences over the limit, on either side.", registry=registry)
        self._pauses = Counter(
            "edge_pauses", "Times an upstream was not read for its readers' sake.", registry=registry
        )
        self._truncated = Counter(
            "edge_truncated_prompts",
            "Prompts an upstream has cut to its context.",
            ["upstream"],
            registry=registry,
        )
        self._http10 = Counter("edge_http10", "Exchanges with an HTTP/1.0 reader.", registry=registry)
        self._returned = Counter(
            "edge_reconnections",
            "Readers that came back to a stream, and from where they were served.",
            ["surface", "source"],
            registry=registry,
        )

        self._transferred = Counter(
            "edge_management_requests",
            "Requests that change an upstream's models (pull, push, blobs and the like), ended.",
            ["operation", "outcome", "upstream"],
            registry=registry,
        )

    def observe(self, record: StreamRecord) -> None:
        """Count an exchange that has ended."""
        upstream = record.upstream or NONE
        outcome = record.outcome if record.outcome in _OUTCOMES else OTHER
        surface = record.surface if record.surface in _OPERATIONS else OTHER
        model = record.model if record.model and record.model in self._known_models() else OTHER
        asked = (_OPERATIONS.get(surface, OTHER), model, upstream)
        self._series(self._exchanges, surface, outcome, upstream).inc()
        error_type = "" if outcome == Outcome.COMPLETE else outcome
        self._series(self._duration, *asked, error_type).observe(record.total_s)
        self._series(self._queued, upstream).observe(record.queued_s)
        self._count_tokens(record, asked)
        if record.truncated:
            self._series(self._truncated, upstream).inc()
        self._buffer.observe(record.peak_buffer_bytes)
        for counter, amount in (
            (self._blocked, record.client_blocked_s),
            (self._heartbeats, record.heartbeats),
            (self._stalls, record.stalls),
            (self._pauses, record.pauses),
            (self._http10, record.http10),
        ):
            if amount:
                counter.inc(amount)

    def observe_return(self, record: ReturnRecord) -> None:
        """Count a reader that came back."""
        self._series(self._returned, record.surface, record.source).inc()
        if record.heartbeats:
            self._heartbeats.inc(record.heartbeats)

    def observe_transfer(self, record: TransferRecord) -> None:
        """Count a request that changed an upstream's models, or was to."""
        self._series(self._transferred, record.operation, record.outcome, record.upstream).inc()

    def _series(self, metric: M, *labels: str) -> M:
        """``metric.labels(*labels)``, which checks and locks anew each time: 1.5 µs, against 0.3."""
        series: M | None = self._bound.get((metric, labels))
        if series is None:
            series = self._bound[metric, labels] = metric.labels(*labels)
        return series

    def render(self) -> tuple[bytes, str]:
        """The exposition text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE

    def _count_tokens(self, record: StreamRecord, asked: tuple[str, str, str]) -> None:
        if record.tokens_in is not None:
            self._series(self._tokens, *asked, "input").observe(record.tokens_in)
        if record.tokens_out:
            self._series(self._tokens, *asked, "output").observe(record.tokens_out)
        if record.ttft_s is None:
            return
        self._series(self._first, *asked).observe(record.ttft_s)
        reported = record.outcome == Outcome.COMPLETE and record.tokens_from == "reported"
        if reported and record.tokens_out > 1:
            per_token = (record.total_s - record.ttft_s) / (record.tokens_out - 1)
            self._series(self._per_token, *asked).observe(per_token)
