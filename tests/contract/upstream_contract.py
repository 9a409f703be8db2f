"""What every upstream promises (``edge.upstream.ports``), as one suite that each kind of upstream runs.

A kind's test module subclasses ``UpstreamContract``, gives it the ``opened`` fixture, and overrides the pieces of its
own wire where they are not those of chat completions. Everything goes over a real socket to the fake model server.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from fakes.model_server import (
    FakeModel,
    Request,
    Step,
    chat_events,
    chat_finish,
    chat_role,
    chat_token,
    chunk,
    end,
    fin,
    flood,
    garbage,
    gate,
    head,
    json_answer,
    rst,
    sse_error,
    stall,
)
from support.faults import hole
from support.hanging import hang_limit

from contract.recorder import Recorder, turns
from edge.errors import EdgeError, UpstreamUnreachable
from edge.policy.lifecycle import LifecycleEvent
from edge.protocol.dialects import DIALECTS
from edge.protocol.request import prepare
from edge.protocol.surface import Surface
from edge.upstream.ports import Call, Source, Upstream

MOST_ANSWER_BYTES = 10_000
# What loopback's kernel buffers take of an answer that is not read, with room; and what may still be pushed.
MOST_UNREAD_BYTES = 8_000_000
MOST_PUSHED_BYTES = 300_000
FLOOD_BYTES = 16_000_000

Opened = Callable[[str], Upstream]


class UpstreamContract:
    """See the module.

    Attributes:
        over_aiohttp: It reads through aiohttp's client, which keeps to itself that framing is broken, what had come
            before a connection broke, and whether the connection had been used before.
    """

    over_aiohttp = False

    # The wire: what the server sends.
    head = staticmethod(head)
    token = chat_token("tok")
    events = tuple(chat_events(["tok", "tok"]))
    finish = chat_role() + chat_token("tok") + chat_finish()
    error_event = sse_error()

    def call(self, *, streamed: bool = True) -> Call:
        """A request; not streamed: one that is answered with one JSON body."""
        raw = {"model": "m", "messages": [], **({} if streamed else {"prompt_logprobs": 1})}
        prepared = prepare(Surface.CHAT, orjson.dumps(raw))
        codec = DIALECTS[Surface.CHAT].codec(prepared, 100_000, frozenset()) if streamed else None
        return Call(Surface.CHAT, prepared.body, codec, {"x-request-id": "r"}, MOST_ANSWER_BYTES, takes_body=True)

    @pytest.fixture
    def opened(self) -> Opened:
        """Make an upstream at a URL; it is closed at the end."""
        raise NotImplementedError

    @pytest.fixture
    def sink(self) -> Recorder:
        return Recorder()

    async def test_pushes_come_in_order(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        fake.script(self.head(), *map(chunk, self.events), end())
        opened(fake.url).open(self.call(), sink)
        await sink.until_call("end")
        await turns()
        assert sink.calls[:2] == ["connected", "answered"]
        assert set(sink.calls[2:-1]) == {"feed"}
        assert (sink.calls[-1], sink.happened, sink.error) == ("end", LifecycleEvent.DONE, None)
        assert sink.token_count == 2
        assert fake.requests[0].headers["x-request-id"] == "r"

    async def test_open_returns_before_anything_is_pushed(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        source = opened(fake.url).open(self.call(), sink)
        assert sink.calls == []
        source.abort()

    async def test_one_json_body_is_pushed_whole(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        fake.script(*json_answer({"id": "x", "choices": [{}]}))
        opened(fake.url).open(self.call(streamed=False), sink)
        await sink.until_call("end")
        assert sink.calls == ["connected", "answered", "body", "end"]
        assert sink.whole == b'{"id":"x","choices":[{}]}'
        assert sink.happened is LifecycleEvent.DONE

    async def test_a_json_body_over_the_bound_is_an_error(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        fake.script(*json_answer({"id": "x" * 2 * MOST_ANSWER_BYTES}))
        opened(fake.url).open(self.call(streamed=False), sink)
        await sink.until_call("end")
        assert sink.happened is LifecycleEvent.ERROR
        assert sink.whole is None

    @pytest.mark.parametrize(
        ("steps", "happened"),
        [
            ([rst()], LifecycleEvent.CUT),
            ([fin()], LifecycleEvent.CUT),
            ([garbage(100), stall()], LifecycleEvent.ERROR),
            (json_answer({"error": {"message": "no"}}, 400), LifecycleEvent.ERROR),
            (json_answer({"error": {"message": "no"}}, 503), LifecycleEvent.ERROR),
        ],
        ids=["reset", "eof", "garbage", "400", "503"],
    )
    async def test_without_an_answer_it_ends_once(
        self, opened: Opened, fake: FakeModel, sink: Recorder, steps: list[Step], happened: LifecycleEvent
    ) -> None:
        fake.script(*steps)
        opened(fake.url).open(self.call(), sink)
        await self._ended(sink, happened)
        assert sink.calls == ["connected", "end"]

    @pytest.mark.parametrize("ending", ["reset", "eof", "clean eof", "error", "error, then reset", "bad framing"])
    async def test_in_the_middle_of_an_answer_it_ends_once(
        self, opened: Opened, fake: FakeModel, sink: Recorder, ending: str
    ) -> None:
        if self.over_aiohttp and ending == "bad framing":
            pytest.skip("aiohttp's client does not tell: the clock for tokens ends it")
        steps: dict[str, list[Step]] = {
            "reset": [rst()],
            "eof": [fin()],
            "clean eof": [end()],
            "error": [chunk(self.error_event), end()],
            "error, then reset": [chunk(self.error_event), rst()],
            "bad framing": [garbage(100), stall()],
        }
        fake.script(self.head(), chunk(self.token), *steps[ending])
        opened(fake.url).open(self.call(), sink)
        await self._ended(sink, LifecycleEvent.ERROR if ending.startswith("error") else LifecycleEvent.CUT)
        assert sink.token_count == 1
        assert sink.calls[:3] == ["connected", "answered", "feed"]

    async def test_what_is_finished_is_done_without_a_terminator(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        fake.script(self.head(), chunk(self.finish), end())
        opened(fake.url).open(self.call(), sink)
        await sink.until_call("end")
        assert sink.happened is LifecycleEvent.DONE

    async def test_who_cannot_be_reached_was_never_connected(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        await fake.refuse()
        opened(fake.url).open(self.call(), sink)
        await self._ended(sink, LifecycleEvent.CUT)
        assert sink.calls == ["end"]
        assert isinstance(sink.error, UpstreamUnreachable)

    @pytest.mark.parametrize("dies", ["fin", "rst"])
    async def test_it_is_connected_once_though_a_pooled_connection_was_dead(
        self, opened: Opened, fake: FakeModel, dies: Any
    ) -> None:
        if self.over_aiohttp:
            pytest.skip("aiohttp's client does not tell; it lets go of a connection long before a cloud does")
        upstream = opened(fake.url)
        fake.reuse = dies
        for _ in range(2):
            sink = Recorder()
            upstream.open(self.call(), sink)
            await sink.until_call("end")
            await turns()
            assert (sink.happened, sink.calls.count("connected"), sink.calls.count("end")) == (
                LifecycleEvent.DONE,
                1,
                1,
            )
        assert fake.hung_up == 1

    # Abort: nothing is pushed after it, and the server sees the end of the connection at once.

    async def test_abort_while_connecting(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        await fake.refuse()
        with hole(fake.port):
            source = opened(fake.url).open(self.call(), sink)
            await turns()
            assert sink.calls == []
            await self._aborted(source, sink)

    @pytest.mark.parametrize("stage", ["waiting", "answered", "streaming", "inside an event"])
    async def test_abort_at_any_stage(self, opened: Opened, fake: FakeModel, sink: Recorder, stage: str) -> None:
        steps: dict[str, list[Step]] = {
            "waiting": [],
            "answered": [self.head()],
            "streaming": [self.head(), chunk(self.token)],
            "inside an event": [self.head(), chunk(self.token), chunk(self.token[:-5])],
        }
        fake.script(*steps[stage], gate("held"), *map(chunk, self.events), end())
        source = opened(fake.url).open(self.call(), sink)
        await fake.reached("held")
        await turns()
        await self._aborted(source, sink)
        assert await fake.requests[0].left() in ("fin", "reset")

    async def test_abort_while_paused(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        fake.script(self.head(), chunk(self.token), flood(FLOOD_BYTES, self.token))
        source = opened(fake.url).open(self.call(), sink)
        sink.when["feed"] = source.pause
        await sink.until_call("feed")
        await turns()
        await self._aborted(source, sink)
        assert await fake.requests[0].left() in ("fin", "reset")

    async def test_resume_after_abort_pushes_nothing(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        fake.script(self.head(), chunk(self.token), gate("held"), chunk(self.token), stall())
        source = opened(fake.url).open(self.call(), sink)
        sink.when["feed"] = source.pause
        await sink.until_call("feed")
        fake.open("held")
        await turns()
        source.abort()
        source.resume()
        await self._aborted(source, sink)

    @pytest.mark.parametrize("push", ["connected", "answered", "feed"])
    @pytest.mark.parametrize("rest", ["finished", "cut", "silent"])
    async def test_abort_from_within_a_push(
        self, opened: Opened, fake: FakeModel, sink: Recorder, push: str, rest: str
    ) -> None:
        """All that could follow has come already, in the same segments."""
        steps: dict[str, list[Step]] = {
            "finished": [chunk(b"".join(self.events)), end()],
            "cut": [chunk(self.token), rst()],
            "silent": [chunk(self.token), stall()],
        }
        fake.script(self.head(), *steps[rest])
        source = opened(fake.url).open(self.call(), sink)
        sink.when[push] = source.abort
        await sink.until_call(push)
        await turns()
        assert sink.calls[-1] == push
        await self._aborted(source, sink)

    async def test_abort_after_the_end_is_harmless(self, opened: Opened, fake: FakeModel, sink: Recorder) -> None:
        source = opened(fake.url).open(self.call(), sink)
        await sink.until_call("end")
        await self._aborted(source, sink)

    async def test_aborts_do_not_hurt_other_calls(self, opened: Opened, fake: FakeModel) -> None:
        upstream = opened(fake.url)
        fake.script(self.head(), chunk(self.token), gate("held"), chunk(self.finish), end())
        kept, lost = Recorder(), Recorder()
        upstream.open(self.call(), kept)
        await fake.reached("held")
        fake.script(self.head(), chunk(self.token), stall())
        other = upstream.open(self.call(), lost)
        await lost.until_call("feed")
        other.abort()
        fake.open("held")
        await kept.until_call("end")
        assert kept.happened is LifecycleEvent.DONE

    # Flow control.

    async def test_paused_it_stops_reading_and_resumed_it_loses_nothing(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        fake.script(self.head(), flood(FLOOD_BYTES, self.token), *map(chunk, self.events), end())
        source = opened(fake.url).open(self.call(), sink)
        sink.when["feed"] = lambda: (source.pause(), source.pause(), None)[-1]
        request = await fake.request(0)
        written = await self._settled(request)
        assert 0 < written < MOST_UNREAD_BYTES
        assert sink.bytes < MOST_PUSHED_BYTES
        pushed = len(sink.calls)
        await turns()
        assert len(sink.calls) == pushed
        source.resume()
        source.resume()
        await sink.until_call("end")
        block = len(self.token) * (65536 // len(self.token))
        blocks = -(-FLOOD_BYTES // block)
        assert sink.token_count == blocks * (block // len(self.token)) + 2
        assert sink.happened is LifecycleEvent.DONE

    async def test_what_came_before_the_connection_broke_is_pushed_after_a_pause(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        if self.over_aiohttp:
            pytest.skip("aiohttp's client drops what it holds when a connection breaks")
        fake.script(self.head(), chunk(self.token), gate("paused"), chunk(self.token * 3), rst())
        source = opened(fake.url).open(self.call(), sink)
        sink.when["feed"] = source.pause
        await sink.until_call("feed")
        fake.open("paused")
        await fake.requests[0].left()
        await turns()
        assert sink.token_count == 1
        source.resume()
        await self._ended(sink, LifecycleEvent.CUT)
        assert sink.token_count == 4

    async def test_paused_before_the_answer_nothing_is_fed(
        self, opened: Opened, fake: FakeModel, sink: Recorder
    ) -> None:
        """At most what one read had brought already."""
        fake.script(self.head(), *map(chunk, self.events), end())
        source = opened(fake.url).open(self.call(), sink)
        source.pause()
        await sink.until_call("answered")
        await turns()
        assert sink.calls == ["connected", "answered"]
        source.resume()
        await sink.until_call("end")
        assert (sink.happened, sink.token_count) == (LifecycleEvent.DONE, 2)

    # Close.

    async def test_close_leaves_nothing(self, opened: Opened, fake: FakeModel) -> None:
        """Not a task, whatever was going on: waiting, streaming, paused, or a body without an end."""
        before = asyncio.all_tasks()
        upstream = opened(fake.url)
        fake.script(stall())
        fake.script(self.head(), chunk(self.token), stall())
        fake.script(self.head(), chunk(b"".join(self.events)), stall())
        sinks = [Recorder() for _ in range(3)]
        for number, sink in enumerate(sinks):
            source = upstream.open(self.call(), sink)
            await fake.request(number)
            if number == 1:
                source.pause()
        await sinks[2].until_call("end")
        await upstream.close()
        serving = {connection.task for connection in fake.connections}
        assert asyncio.all_tasks() - before - serving == set()
        calls = [list(sink.calls) for sink in sinks]
        await turns()
        assert [sink.calls for sink in sinks] == calls
        for request in fake.requests:
            assert await request.left() in ("fin", "reset")

    async def _ended(self, sink: Recorder, happened: LifecycleEvent) -> None:
        await sink.until_call("end")
        await turns()
        assert (sink.happened, sink.calls.count("end"), sink.calls[-1]) == (happened, 1, "end")
        assert isinstance(sink.error, EdgeError)

    async def _aborted(self, source: Source, sink: Recorder) -> None:
        source.abort()
        source.abort()
        calls = list(sink.calls)
        await turns()
        assert sink.calls == calls

    async def _settled(self, request: Request) -> int:
        async with hang_limit():
            return await request.settled(0.1)
