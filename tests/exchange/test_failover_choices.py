"""Failover by itself: which upstream is asked, whether another follows a failure, and what becomes of slots."""

import msgspec
import orjson
import pytest
from support.scene import Clock, Owner

from edge.errors import EdgeError, UpstreamCut, UpstreamSaid, UpstreamUnreachable
from edge.exchange.failover import Failover
from edge.exchange.ports import ExchangeRegistry, ExchangeRequest, ExchangeServices
from edge.exchange.slot_wait import AdmissionTimer
from edge.policy.auth.principal import Principal
from edge.policy.lifecycle import LifecycleEvent, Outcome, State
from edge.policy.queue.lanes import Claim
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.settings import Settings
from edge.stream.generation import Generation
from edge.stream.ticker import Ticker
from edge.telemetry import log
from edge.upstream.discovery.servers import Found, Kind
from edge.upstream.fleet import Fleet
from edge.upstream.ports import Call, Sink

UNREACHABLE = UpstreamUnreachable("refused")
BUSY = UpstreamSaid("busy", status=503)
REFUSED = UpstreamSaid("no", status=400)


class Server:
    """An ``upstream.ports.Upstream`` that does what the test says."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls: list[Call] = []
        self.sink: Sink | None = None
        self.aborted = 0

    def open(self, call: Call, sink: Sink) -> "Server":
        self.calls.append(call)
        self.sink = sink
        return self

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def abort(self) -> None:
        self.aborted += 1

    async def close(self) -> None: ...

    def fails(self, error: EdgeError, *, connected: bool = True) -> None:
        assert self.sink is not None
        if connected:
            self.sink.connected()
        self.sink.end(LifecycleEvent.ERROR if isinstance(error, UpstreamSaid) else LifecycleEvent.CUT, error)


class Place:
    """Some servers that all have the model, and one request for it."""

    def __init__(self, *names: str, slots: int = 0, **request: object) -> None:
        upstream = [{"name": name, "url": f"http://{name}", "max_concurrency": slots} for name in names]
        self.settings = msgspec.convert({"upstream": upstream, "queue": {"drain_s": 0}}, Settings)
        self.servers = {name: Server(name) for name in names}
        self.clock, self.waits = Clock(), 0
        make = lambda _pool, settings, _member: self.servers[settings.name]  # noqa: E731
        self.fleet = Fleet(self.settings, make, log=log.get_logger(), clock=self.clock)
        for member in self.fleet.members:
            member.update(Found(Kind.GENERIC, up=True, cards=({"id": "m"},)))
        ticker = Ticker(1.0, self.clock)
        timer = AdmissionTimer(self.fleet.admission, ticker, self.clock)
        nothing: object = None  # of what failover does not use
        self.services = ExchangeServices(
            self.settings, self.fleet, ExchangeRegistry(), ticker, nothing, self.clock, nothing, nothing, timer, nothing  # type: ignore[arg-type]
        )  # fmt: skip
        self.failover = self.ask(**request)

    def ask(self, **request: object) -> Failover:
        body = {"model": "m", "stream": True, "messages": [], **request}
        dialect = DIALECTS[Surface.CHAT]
        asked = ExchangeRequest("req_1", "st_1", Principal("alice"), None, dialect, {}, lambda: None, 100.0)
        own = dialect.format("m", "req_1")
        self.generation = Generation("st_1", self.settings, self.clock, Owner(), surface_format=own)
        return Failover(
            self.services, asked, prepare(Surface.CHAT, orjson.dumps(body)),
            claim=Claim("alice"), generation=self.generation, changed=self._waits,
        )  # fmt: skip

    def _waits(self) -> None:
        self.waits += 1

    @property
    def asked(self) -> list[str]:
        return [name for name, server in self.servers.items() for _ in server.calls]


async def test_the_next_server_is_asked_where_one_cannot_be_reached() -> None:
    place = Place("a", "b")
    place.failover.begin()
    first = place.failover.upstream
    assert first is not None
    place.servers[first].fails(UNREACHABLE, connected=False)
    assert sorted(place.asked) == ["a", "b"]
    assert place.failover.upstream != first
    assert place.generation.state is State.ASKING
    assert not next(member for member in place.fleet.members if member.name == first).up


@pytest.mark.parametrize("error", [UNREACHABLE, UpstreamCut("cut"), BUSY])
async def test_each_server_is_asked_once_and_then_the_last_failure_is_the_end(error: EdgeError) -> None:
    place = Place("a", "b", "c")
    place.failover.begin()
    for _ in range(3):
        assert place.generation.outcome is None
        assert place.failover.upstream is not None
        place.servers[place.failover.upstream].fails(error)
    assert sorted(place.asked) == ["a", "b", "c"]
    assert place.generation.error is error
    assert place.failover.count == 3


async def test_what_another_server_would_refuse_too_is_the_end() -> None:
    place = Place("a", "b")
    place.failover.begin()
    assert place.failover.upstream is not None
    place.servers[place.failover.upstream].fails(REFUSED)
    assert (len(place.asked), place.generation.error) == (1, REFUSED)


async def test_after_the_first_token_no_other_is_asked() -> None:
    place = Place("a", "b")
    place.failover.begin()
    assert place.failover.upstream is not None
    server = place.servers[place.failover.upstream]
    assert server.sink is not None
    assert server.calls[0].codec is not None
    server.sink.connected()
    server.sink.feed(server.calls[0].codec.feed(b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'))
    server.sink.end(LifecycleEvent.CUT, UpstreamCut("cut"))
    assert (len(place.asked), place.generation.outcome) == (1, Outcome.UPSTREAM_CUT)


async def test_without_any_server_it_is_rejected() -> None:
    place = Place("a", "b", model="other")
    place.failover.begin()
    assert (place.asked, place.generation.outcome) == ([], Outcome.REJECTED)
    assert place.generation.error is not None
    assert place.generation.error.status == 404


async def test_it_waits_for_a_slot_and_is_asked_when_there_is_one() -> None:
    place = Place("a", slots=1)
    place.failover.begin()
    first = place.generation
    second = place.ask()
    second.begin()
    assert (second.waiting, place.waits, len(place.asked)) == (True, 1, 1)
    server = place.servers["a"]
    assert server.sink is not None
    server.sink.connected()
    server.sink.end(LifecycleEvent.CUT, UpstreamCut("cut"))
    assert first.outcome is Outcome.UPSTREAM_CUT
    place.failover.free()
    assert (second.waiting, len(place.asked)) == (False, 2)
    second.free()


async def test_a_server_counts_its_requests_until_they_are_over() -> None:
    place = Place("a")
    (member,) = place.fleet.members
    place.failover.begin()
    assert member.active == 1
    place.generation.stop(LifecycleEvent.STOP)
    place.failover.free()
    place.failover.free()
    assert (member.active, place.servers["a"].aborted) == (0, 1)


async def test_a_server_that_refuses_to_stream_is_asked_for_the_whole_in_the_slot_that_it_has() -> None:
    place = Place("a", slots=1, stream=False)
    place.failover.begin()
    refusal = UpstreamSaid("streaming is not supported", status=400)
    assert orjson.loads(place.servers["a"].calls[0].body)["stream"] is True
    place.servers["a"].fails(refusal)
    assert len(place.asked) == 2
    assert orjson.loads(place.servers["a"].calls[1].body).get("stream") in {False, None}
    assert place.generation.outcome is None
    place.servers["a"].fails(refusal)
    assert (len(place.asked), place.generation.error) == (2, refusal)


async def test_a_bug_is_the_end_and_no_other_is_asked() -> None:
    place = Place("a", "b")
    place.failover.begin()
    place.generation.fail(ZeroDivisionError())
    assert (len(place.asked), place.generation.outcome) == (1, Outcome.INTERNAL_ERROR)
