"""How the queues in front of upstreams are, as metrics.

In: their statistics, at each scrape. Out: series by upstream, those of its queues together. Must not: take a label from
a client.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from edge.policy.queue.lanes import Lane
from edge.policy.queue.queue import Statistics, Totals

QueueStatistics = Callable[[], tuple[Iterable[Statistics], Mapping[str, Totals]]]


class QueueCollector(Collector):
    """See the module.

    Args:
        queues: Those that there are now, and what all of an upstream's have ever done.
    """

    def __init__(self, queues: QueueStatistics) -> None:
        self._queues = queues

    def describe(self) -> Iterator[Metric]:
        """The series' names, for the registry to see that nobody else has them."""
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
