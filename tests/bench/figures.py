"""From single measurements to medians, spreads and ratios.

In: measurements, one per scenario, peer and round. Out: what is told of them. Must not: measure, or print.

A ratio is made within each round, of two measurements that followed each other closely, and then the median of the
rounds is taken: what slows the whole machine down for a while slows both.
"""

from collections import Counter
from dataclasses import dataclass, field
from statistics import median

REFERENCES = ("nginx", "plain")


@dataclass(frozen=True)
class Spread:
    """The median of some rounds, with the least and the most."""

    median: float
    least: float
    most: float


@dataclass
class Measured:
    """All rounds of one peer in one scenario.

    Attributes:
        rounds: Figures by round number; a round that failed has none.
        faults: What was wrong, in all rounds together.
    """

    rounds: dict[int, dict[str, float | None]] = field(default_factory=dict)
    faults: Counter = field(default_factory=Counter)

    def spread(self, key: str) -> Spread | None:
        """Of one figure; None if it was never measured."""
        values = [value for figures in self.rounds.values() if (value := figures.get(key)) is not None]
        return Spread(median(values), min(values), max(values)) if values else None

    def ratio(self, reference: "Measured | None", key: str) -> float | None:
        """Of one figure to that of another peer, by rounds."""
        if reference is None:
            return None
        ratios = []
        for number, figures in self.rounds.items():
            mine, other = figures.get(key), reference.rounds.get(number, {}).get(key)
            if mine is not None and other:
                ratios.append(mine / other)
        return median(ratios) if ratios else None


@dataclass(frozen=True)
class Goal:
    """What Edge shall keep to: a figure at most ``limit``, or at most ``limit`` times another peer's.

    Attributes:
        peer: Whose figure; where it is not ``edge`` and no ``than`` is given, by how much it is above that of ``edge``.
    """

    scenario: str
    key: str
    limit: float
    than: str | None = None
    peer: str = "edge"


GOALS = (
    Goal("S5", "growth_mb", 15),
    Goal("S6", "alive_100ms", 0),
    Goal("S8", "ttft_max_ms", 50),
    Goal("S7", "start_s", 0.6),
    Goal("S7", "rss_idle_mb", 52),
    Goal("S1", "us_per_token", 1.6, "nginx"),
    Goal("S1", "us_per_token", 0.75, "plain"),
    Goal("S1", "ttft_p50_ms", 0.3),
    Goal("S1a", "us_per_token", 1.0, "vllm-router"),
    Goal("S1x", "us_per_token", 12, peer="edge-ollama"),
    Goal("S1x", "us_per_token", 12, peer="edge-messages"),
    Goal("S1k", "us_per_token", 1.15, "edge-memory", peer="edge-sqlite"),
    Goal("S1k", "us_per_token", 1.3, "edge-memory", peer="edge-redis"),
    Goal("S2x16", "us_per_token", 0.5, "vllm-router"),
    Goal("S3", "us_per_token", 2.7, "nginx"),
    Goal("S3", "kb_per_stream", 20),
    Goal("S4", "us_per_request", 1.1, "plain"),
    Goal("S4k", "us_per_request", 1.15, "edge", peer="edge-limits"),
)

Results = dict[str, dict[str, Measured]]  # by scenario and peer


def reached(goal: Goal, results: Results) -> float | None:
    """What Edge came to, in the terms of the goal; None if it or the other was not measured."""
    peers = results.get(goal.scenario, {})
    edge = peers.get("edge")
    if edge is None:
        return None
    if goal.peer != "edge" and goal.than is not None:
        return peers.get(goal.peer, Measured()).ratio(peers.get(goal.than), goal.key)
    if goal.peer != "edge":
        other, mine = peers.get(goal.peer, Measured()).spread(goal.key), edge.spread(goal.key)
        return other.median - mine.median if other and mine else None
    if goal.than is not None:
        return edge.ratio(peers.get(goal.than), goal.key)
    spread = edge.spread(goal.key)
    return spread.median if spread else None
