"""How the store is, as metrics.

In: its statistics, at each scrape. Out: series, where there is a store. Must not: ask the store itself anything.
"""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from edge.store.ports import StoreStatistics


class StoreCollector(Collector):
    """See the module."""

    def __init__(self, store: Callable[[], StoreStatistics | None]) -> None:
        self._store = store

    def describe(self) -> Iterator[Metric]:
        """The series' names, for the registry to see that nobody else has them."""
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
