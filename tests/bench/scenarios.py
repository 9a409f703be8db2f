"""The scenarios: each puts one kind of load on a running proxy and says what that cost.

In: a running proxy, the model server's counts. Out: figures by name, and faults. Must not: compare proxies, or print.
"""

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import wire
from checks import Events, Exact, MessagesEvents, Tally, Whole
from load import Load
from model import Model
from processes import Process
from proxies import Proxy, ready

_HERE = Path(__file__).parent
_READY_S = 30.0
_SLACK_S = 8.0  # beyond its own pace, for the streams of a proxy that lags
_MB = 1e6
_FIRST_COUNTS_S = 1.0  # after the first request Edge opens the file of its counts, once; that is no cost of a request
_GROWING_S = 15.0
_TOO_MUCH = 3e9  # bytes of growth at which watching ends

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Site:
    """Where a scenario takes place.

    Attributes:
        core: Of load and model server.
        scale: Stretches or shrinks all times.
    """

    proxy: Proxy
    model: Model
    core: int
    folder: Path
    scale: float = 1.0

    def cpu_s(self) -> float:
        return self.proxy.tree.cpu_s() if self.proxy.tree else 0.0

    def rss(self) -> int:
        return self.proxy.tree.rss_bytes() if self.proxy.tree else 0


@dataclass(frozen=True)
class Metric:
    """How a figure is shown.

    Attributes:
        ratio: It is compared with that of nginx and of the plain relay.
        least: Below it something was amiss.
    """

    key: str
    title: str
    digits: int = 1
    ratio: bool = False
    least: float = float("-inf")


@dataclass(frozen=True)
class Scenario:
    """One scenario.

    Attributes:
        rounds: At most so many; bounds are not noisy.
        without_proxy: Means something for ``direct`` too.
        peers: Means something for these alone.
    """

    name: str
    title: str
    run: Callable[[Site], Awaitable[tuple[Figures, Counter]]]
    metrics: Sequence[Metric]
    rounds: int = 100
    without_proxy: bool = True
    peers: Sequence[str] = ()


@dataclass
class _Window:
    """What happened in the measured time."""

    cpu_s: float = 0.0
    seconds: float = 0.0
    tokens: float = 0.0
    requests: int = 0

    def cpu_us_per(self, count: float) -> float | None:
        return self.cpu_s / count * 1e6 if count and self.cpu_s else None


async def _window(site: Site, tally: Tally, seconds: float) -> _Window:
    tally.recording = True
    cpu_s, tokens, requests, began = site.cpu_s(), tally.tokens, tally.requests, time.monotonic()
    await asyncio.sleep(seconds * site.scale)
    tally.recording = False
    tokens, requests, lasted = tally.tokens - tokens, tally.requests - requests, time.monotonic() - began
    cpu_s = site.cpu_s() - cpu_s
    if not tokens:
        tally.faults["nothing arrived in the measured time"] += 1
    return _Window(cpu_s, lasted, tokens, requests)


def _ms(values: Sequence[float], percent: int) -> float | None:
    """A percentile, in milliseconds."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


async def _paced(site: Site, streams: int, rate: int, *, align: bool) -> tuple[Figures, Counter]:
    """Streams at a model's pace. They begin one after another; all run during the window, and then to their end."""
    ramp_s, settle_s, window_s = 1.0 * site.scale, 0.4 * site.scale, 2.5
    lasts_s = ramp_s + settle_s + window_s * site.scale + 0.2
    ask = wire.Ask(max(2, round(lasts_s * rate)), rate, align=align)
    kind = MessagesEvents if site.proxy.path.endswith("/messages") else Events
    async with Load(site.proxy.url, site.proxy.key, site.proxy.path) as load:
        await load.start(kind, ask, streams, over_s=ramp_s)
        await asyncio.sleep(settle_s)
        window = await _window(site, load.tally, window_s)
        await load.until_over(lasts_s + _SLACK_S)
        tally = load.tally
    return {
        "us_per_token": window.cpu_us_per(window.tokens),
        "ttft_p50_ms": _ms(tally.ttft, 50),
        "ttft_p99_ms": _ms(tally.ttft, 99),
        "itl_p99_ms": _ms(tally.gaps, 99),
        "delay_p50_ms": _ms(tally.delays, 50),
        "kept_up": 100 * window.tokens / (streams * rate * window.seconds),
    }, tally.faults


async def s1(site: Site) -> tuple[Figures, Counter]:
    return await _paced(site, 200, 50, align=False)


async def s1a(site: Site) -> tuple[Figures, Counter]:
    return await _paced(site, 200, 50, align=True)


async def _full_speed(site: Site, per: int) -> tuple[Figures, Counter]:
    async with Load(site.proxy.url, site.proxy.key) as load:
        await load.start(Exact, wire.Ask(4000, per=per), 64, over_s=0.2 * site.scale, again=True)
        await asyncio.sleep(0.5 * site.scale)
        window = await _window(site, load.tally, 1.5)
        faults = load.tally.faults
    return {
        "us_per_token": window.cpu_us_per(window.tokens),
        "tokens_per_s": window.tokens / window.seconds,
        "cpu_percent": 100 * window.cpu_s / window.seconds,
    }, faults


async def s2(site: Site) -> tuple[Figures, Counter]:
    return await _full_speed(site, 1)


async def s2x16(site: Site) -> tuple[Figures, Counter]:
    return await _full_speed(site, 16)


async def s3(site: Site) -> tuple[Figures, Counter]:
    streams = 2000
    idle = site.rss()
    async with Load(site.proxy.url, site.proxy.key) as load:
        await load.start(Events, wire.Ask(3600, 1), streams, over_s=4.0 * site.scale)
        await load.until_begun(streams, 10.0)
        window = await _window(site, load.tally, 5.0)
        used = site.rss() - idle
        tally = load.tally
    return {
        "us_per_token": window.cpu_us_per(window.tokens),
        "kb_per_stream": used / streams / 1024 if used > 0 else None,
        "delay_p50_ms": _ms(tally.delays, 50),
        "kept_up": 100 * window.tokens / (streams * window.seconds),
        "rss_idle_mb": idle / _MB or None,
    }, tally.faults


async def s4(site: Site) -> tuple[Figures, Counter]:
    async with Load(site.proxy.url, site.proxy.key) as load:
        await load.start(Whole, wire.Ask(8, per=8), 32, again=True, stream=False)
        await asyncio.sleep(_FIRST_COUNTS_S + 0.5 * site.scale)
        window = await _window(site, load.tally, 1.5)
        faults = load.tally.faults
    return {
        "us_per_request": window.cpu_us_per(window.requests),
        "requests_per_s": window.requests / window.seconds,
    }, faults


async def s5(site: Site) -> tuple[Figures, Counter]:
    """Readers that stop after the first token: who fills up, and how far?"""
    readers, before, written = 20, site.rss(), (await site.model.stats())["bytes"]
    async with Load(site.proxy.url, site.proxy.key) as load:
        await load.start(_stopping(load), wire.Ask(300_000, per=16), readers)
        await load.until_begun(readers, 10.0)
        most = await _most(site, before)
        stats = await site.model.stats()
        faults = load.tally.faults
    return {
        "growth_mb": most / _MB if site.proxy.tree else None,
        "upstream_mb": (stats["bytes"] - written) / readers / _MB,
        "ran_to_end": float(readers - stats["alive"]),
    }, faults


async def _most(site: Site, before: int) -> int:
    """The growth, watched for a while, and longer for as long as it goes on."""
    most, began = 0, time.monotonic()
    ends = began + 3.0 * site.scale
    while time.monotonic() < min(ends, began + _GROWING_S) and most < _TOO_MUCH:
        await asyncio.sleep(0.1)
        growth = site.rss() - before
        if growth > most + _MB:
            ends = max(ends, time.monotonic() + 1.0)
        most = max(most, growth)
    return most


def _stopping(load: Load) -> type[Events]:
    """Answers that read no further than the piece with the first token."""

    class Stopping(Events):
        def check(self, data: bytes, now: float) -> None:
            super().check(data, now)
            for connection, answer in load.connections.items():
                if answer is self and self.number:
                    connection.transport.pause_reading()

    return Stopping


async def s6(site: Site) -> tuple[Figures, Counter]:
    """Clients that leave in mid-stream: when does the model hear of it?"""
    clients = 100
    async with Load(site.proxy.url, site.proxy.key) as load:
        await load.start(Events, wire.Ask(3600, 20), clients, over_s=0.3)
        await load.until_begun(clients, 10.0)
        faults = load.tally.faults
        load.leave()
        left = time.monotonic()
        alive: Figures = {}
        for after_s, key in ((0.1, "alive_100ms"), (1.0, "alive_1s"), (5.0, "alive_5s")):
            if alive.get("alive_100ms") != 0:
                await asyncio.sleep(max(0.0, left + after_s - time.monotonic()))
            alive[key] = float((await site.model.stats())["alive"])
    return alive, faults


async def s7(site: Site) -> tuple[Figures, Counter]:
    await asyncio.sleep(1.0 * site.scale)
    return {"start_s": site.proxy.start_s, "rss_idle_mb": site.rss() / _MB}, Counter()


async def s8(site: Site) -> tuple[Figures, Counter]:
    """A new stream while 64 run at full speed; those are another process's, so that only the proxy is shared."""
    probes, faults = 10, Counter()
    argv = [sys.executable, str(_HERE / "flood.py"), site.proxy.url]
    env = {"EDGE_BENCH_KEY": site.proxy.key}
    with Process(argv, site.core, site.folder / "flood.log", env, piped=True) as flood:
        await asyncio.sleep(1.2)
        async with Load(site.proxy.url, site.proxy.key) as load:
            for _ in range(probes):
                begun = load.tally.begun
                await load.start(Events, wire.Ask(2, 1000), 1)
                await load.until_begun(begun + 1, 5.0)
                await asyncio.sleep(0.1 * site.scale)
            tally = load.tally
        said, _ = flood.popen.communicate(timeout=10)  # its stdin ends: it stops, and tells
        try:
            told = json.loads(said)
        except ValueError:
            faults[f"the flood failed: {flood.ended()}"] += 1
            told = {"tokens_per_s": None, "faults": {}}
    faults.update(tally.faults)
    faults.update(told["faults"])
    return {
        "ttft_p50_ms": _ms(tally.ttft, 50),
        "ttft_max_ms": _ms(tally.ttft, 100),
        "tokens_per_s": told["tokens_per_s"],
    }, faults


_US = Metric("us_per_token", "CPU µs/token", 2, ratio=True)
_KEPT = Metric("kept_up", "delivered %", 0, least=97)
_PACED = (
    _US,
    Metric("ttft_p50_ms", "added TTFT p50 ms", 2),
    Metric("ttft_p99_ms", "p99 ms", 2),
    Metric("itl_p99_ms", "added ITL p99 ms", 2),
    Metric("delay_p50_ms", "delay p50 ms", 2),
    _KEPT,
)
_SMALL = (Metric("us_per_request", "CPU µs/request", 1, ratio=True), Metric("requests_per_s", "requests/s", 0))
_FULL = (_US, Metric("tokens_per_s", "tokens/s", 0), Metric("cpu_percent", "CPU %", 0))

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("S1", "200 streams at 50 tokens/s", s1, _PACED),
        Scenario("S1a", "the same, all streams tick together", s1a, _PACED),
        Scenario(
            "S1x",
            "S1 translated: chat on Ollama, Messages on chat",
            s1,
            _PACED,
            peers=("edge", "edge-ollama", "edge-messages"),
        ),
        Scenario(
            "S1k",
            "S1 with streams that can be resumed, kept in memory, in a file, in Redis",
            s1,
            _PACED,
            peers=("edge", "edge-memory", "edge-sqlite", "edge-redis"),
        ),
        Scenario("S2", "64 streams at full speed, one write per token", s2, _FULL),
        Scenario("S2x16", "64 streams at full speed, 16 tokens per write", s2x16, _FULL),
        Scenario(
            "S3",
            "2,000 streams at 1 token/s",
            s3,
            (
                _US,
                Metric("kb_per_stream", "KB/stream", 1, ratio=True),
                Metric("delay_p50_ms", "delay p50 ms", 2),
                _KEPT,
                Metric("rss_idle_mb", "idle RSS MB", 1),
            ),
        ),
        Scenario("S4", "small requests without a stream, 32 at once", s4, _SMALL),
        Scenario("S4k", "S4 with keys, limits and a queue", s4, _SMALL, peers=("edge", "edge-limits")),
        Scenario(
            "S5",
            "20 readers that stop",
            s5,
            (
                Metric("growth_mb", "growth MB", 1),
                Metric("upstream_mb", "upstream wrote MB/stream", 1),
                Metric("ran_to_end", "generated to the end, of 20", 0),
            ),
            rounds=1,
        ),
        Scenario(
            "S6",
            "100 clients that leave: upstream streams alive",
            s6,
            (
                Metric("alive_100ms", "after 0.1 s", 0),
                Metric("alive_1s", "after 1 s", 0),
                Metric("alive_5s", "after 5 s", 0),
            ),
            rounds=1,
        ),
        Scenario(
            "S7",
            "start to the first 200 of the health path",
            s7,
            (Metric("start_s", "start s", 2), Metric("rss_idle_mb", "idle RSS MB", 1)),
            without_proxy=False,
        ),
        Scenario(
            "S8",
            "a new stream while 64 run at full speed, 16 tokens per write",
            s8,
            (
                Metric("ttft_p50_ms", "TTFT p50 ms", 1),
                Metric("ttft_max_ms", "largest ms", 1),
                Metric("tokens_per_s", "tokens/s of the 64", 0),
            ),
        ),
    )
}
QUICK = ("S1", "S2x16", "S4", "S5", "S6")


async def take_place(scenario: Scenario, site: Site) -> tuple[Figures, Counter]:
    """Run a scenario, once the proxy relays; S7 is about one that has not been asked anything yet.

    Raises:
        Missing: The proxy does not relay.
    """
    if scenario.name != "S7":
        await ready(site.proxy, _READY_S)
    return await scenario.run(site)
