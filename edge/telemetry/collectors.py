"""Metrics that are read at each scrape: the queues in front of upstreams, and the store.

In: statistics, by callbacks. Out: series. Must not: take a label from a client, or query the store itself.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from edge.policy.queue.lanes import Lane
from edge.policy.queue.queue import Statistics, Totals
from edge.store.ports import StoreStatistics

QueueStatistics = Callable[[], tuple[Iterable[Statistics], Mapping[str, Totals]]]


class QueueCollector(Collector):
    """The queues in front of upstreams: one series per upstream, for all its queues together.

    Args:
        queues: The queues that exist now, and the totals of each upstream since the start.
    """

    def __init__(self, queues: QueueStatistics) -> None:
        self._queues = queues

    def describe(self) -> Iterator[Metric]:
        """The names of the series, which the registry checks for duplicates."""
        return iter((*_now(()), *_ever({})))

    @override
    def collect(self) -> Iterator[Metric]:
        known, totals = self._queues()
        return iter((*_now(known), *_ever(totals)))


def _now(known: Iterable[Statistics]) -> Iterator[Metric]:
    slots = GaugeMetricFamily(
        "edge_slots", "Slots of upstreams; free only where there is a limit.", labels=["upstream", "state"]
    )
    length = GaugeMetricFamily("edge_queue_length", "Requests that wait for a slot.", labels=["upstream", "lane"])
    oldest = GaugeMetricFamily(
        "edge_queue_oldest_seconds", "How long the oldest of those has waited.", labels=["upstream"]
    )
    together: dict[str, list[Statistics]] = {}
    for one in known:
        together.setdefault(one.upstream, []).append(one)
    for upstream, queues in together.items():
        slots.add_metric([upstream, "busy"], sum(one.busy for one in queues))
        slots.add_metric([upstream, "draining"], sum(one.draining for one in queues))
        limited = [(one.capacity, one.busy + one.draining) for one in queues if one.capacity is not None]
        if limited:
            slots.add_metric([upstream, "free"], sum(max(0, capacity - taken) for capacity, taken in limited))
        for lane in Lane:
            length.add_metric([upstream, lane], sum(one.queued[lane] for one in queues))
        oldest.add_metric([upstream], max(one.oldest_s for one in queues))
    yield from (slots, length, oldest)


def _ever(totals: Mapping[str, Totals]) -> Iterator[Metric]:
    grants = CounterMetricFamily("edge_slot_grants", "Slots given to requests.", labels=["upstream"])
    refusals = CounterMetricFamily(
        "edge_queue_refusals", "Requests that the queue did not let in, or no longer.", labels=["upstream"]
    )
    zombie = CounterMetricFamily(
        "edge_zombie_seconds",
        "Time that slots were held only since the server might be at work on what nobody wanted.",
        labels=["upstream"],
    )
    for upstream, total in totals.items():
        grants.add_metric([upstream], total.grants)
        refusals.add_metric([upstream], total.refusals)
        zombie.add_metric([upstream], total.zombie_s)
    yield from (grants, refusals, zombie)


class StoreCollector(Collector):
    """The store, if there is one."""

    def __init__(self, store: Callable[[], StoreStatistics | None]) -> None:
        self._store = store

    def describe(self) -> Iterator[Metric]:
        """See ``QueueCollector.describe``."""
        return self._figures(StoreStatistics(up=False, backlog_bytes=0, lag_s=0.0, failures=0))

    @override
    def collect(self) -> Iterator[Metric]:
        known = self._store()
        return iter(()) if known is None else self._figures(known)

    def _figures(self, known: StoreStatistics) -> Iterator[Metric]:
        yield GaugeMetricFamily("edge_store_up", "Whether the store can be written.", value=known.up)
        yield GaugeMetricFamily(
            "edge_store_backlog_bytes", "What is not written to the store yet.", value=known.backlog_bytes
        )
        yield GaugeMetricFamily("edge_store_lag_seconds", "How long the oldest of that has waited.", value=known.lag_s)
        yield CounterMetricFamily("edge_store_failures", "Times the store could not be used.", value=known.failures)
