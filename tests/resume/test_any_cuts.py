"""However a stream is cut, on either side, and whoever reads it at whatever pace: each gets all of it, once, in order.

Over real sockets: the model server's bytes come in any pieces; readers connect, read a few events, are dropped in the
middle of one, and come back while it grows or after its end.
"""

import asyncio
import secrets
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from fakes import ollama
from fakes.model_server import DONE, FakeModel, chat_delta, chat_finish, chat_role, chat_token, messages_events
from fakes.steps import Step, Wire, framed
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.raw import Answer, RawClient, parse
from support.resumed import CHAT_CASE, MESSAGES_CASE, OLLAMA_CASE, RESUME, Case, bare, ended, pieces, resumed, sequences
from support.running import Running, Serve

from edge.store.ports import Ending, StreamMeta
from edge.stream.journal import Journal

WORDS = [" ", "é🎈", "\n\n", "data: [DONE]", "id: 7", "\r\n\r\n", "x" * 300, "", "漢字\u2028", "end"]
CHAT = [chat_role(), *map(chat_token, WORDS), chat_delta({"reasoning_content": "hm"}), chat_finish(), DONE]
CRLF = [event.replace(b"\n", b"\r\n") for event in CHAT]
STREAMS: dict[str, tuple[Case, list[bytes]]] = {
    "chat": (CHAT_CASE, CHAT),
    "chat in CRLF": (CHAT_CASE, CRLF),
    "chat in both": (CHAT_CASE, [pair[n % 2] for n, pair in enumerate(zip(CHAT, CRLF, strict=True))]),
    "messages": (MESSAGES_CASE, messages_events(WORDS)),
    "lines": (OLLAMA_CASE, [*map(ollama.token, WORDS), ollama.last()]),
}
READERS = 3

feeds = st.tuples(st.just("feed"), st.integers(1, 900), st.integers(1, 400))
moves = st.tuples(st.sampled_from(["read", "read", "drop", "peek"]), st.integers(0, READERS - 1), st.integers(1, 5))
plans = st.lists(st.one_of(feeds, moves), max_size=40)
unhurried = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)  # one Edge serves all examples; each has a stream of its own


@pytest.fixture
async def edge(serve: Serve, name: str) -> Running:
    """One for all examples of a test."""
    return await serve(upstream=STREAMS[name][0].upstream)


@pytest.fixture
async def narrow(serve: Serve) -> Running:
    """One that keeps little."""
    return await serve(stream={"journal_bytes": 4000, "buffer_bytes": 4000})


class Source:
    """A model server that says exactly what it is fed."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()  # as much as the test puts in

    def feed(self, data: bytes) -> None:
        self._queue.put_nowait(data)

    def step(self) -> Step:
        async def run(wire: Wire) -> None:
            while data := await self._queue.get():
                await wire.write(framed(data))
                await asyncio.sleep(0)
            await wire.write(b"0\r\n\r\n")

        return run


@dataclass
class Reader:
    """One that reads, is dropped and comes back for what it lacks."""

    edge: Running
    case: Case
    stream: str
    got: list[bytes] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    client: RawClient | None = None
    before: int = 0  # what it had when it connected

    async def connect(self) -> None:
        if self.client is not None:
            return
        self.before = len(self.got)
        self.client = await RawClient(self.edge.port).__aenter__()
        path = f"/v1/streams/{self.stream}"
        if self.before % 2:
            await self.client.get(path, {"Last-Event-ID": f"{self.stream}:{self.before}"})
        else:
            await self.client.get(f"{path}?starting_after={self.before}")

    async def read(self, goal: int) -> None:
        """Until it has so many events; what comes along beyond them is taken too."""
        await self.connect()
        assert self.client is not None
        while len(self.got) < goal:
            assert await self.client.receive(), self.client.buffer
            self.take()

    def take(self) -> None:
        assert self.client is not None
        answer = parse(self.client.buffer)
        if answer is not None:
            assert answer.status == 200 or (answer.status == 204 and self.before), answer.body
            whole = answer.body.replace(b"\r\n", b"\n")
            whole = whole[: whole.rfind(b"\n" if self.case.lines else b"\n\n") + (1 if self.case.lines else 2)]
            self.got[self.before :] = pieces(self.case, bare(whole))
            self.numbers[self.before :] = sequences(whole)

    def drop(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    async def finish(self, count: int) -> None:
        await self.read(count)
        await self.connect()
        assert self.client is not None
        assert (await self.client.answer()).clean
        self.take()
        self.drop()


@dataclass
class Grown:
    """A stream that grows as it is fed, and how much of it a reader may expect."""

    events: list[bytes]
    feed: Callable[[bytes], None]
    fed: int = 0

    def grow(self, size: int, every: int) -> None:
        data = b"".join(self.events)[self.fed : self.fed + size]
        for at in range(0, len(data), every):
            self.feed(data[at : at + every])
        self.fed += len(data)

    @property
    def told(self) -> int:
        """Events that have been fed whole; a prelude is told only with what follows it."""
        count = size = 0
        for count, event in enumerate(self.events):  # noqa: B007 - it is what is looked for
            size += len(event)
            if size > self.fed:
                break
        else:
            count += 1
        return 0 if count < 3 else count


async def play(plan: list[tuple[Any, ...]], grown: Grown, readers: list[Reader]) -> None:
    for what, *how in plan:
        if what == "feed":
            grown.grow(*how)
            continue
        reader, many = readers[how[0]], how[1]
        if what == "drop":
            reader.drop()
        elif what == "peek":
            await reader.connect()  # and be dropped or read at any time
        else:
            await reader.read(min(len(reader.got) + many, grown.told))
    grown.grow(10**6, 10**6)


def assert_each_has_all(case: Case, events: list[bytes], readers: list[Reader]) -> None:
    whole = [event.replace(b"\r\n", b"\n") for event in events]
    for reader in readers:
        assert reader.got == whole
        assert case.lines or reader.numbers == list(range(1, len(whole) + 1))


@pytest.mark.parametrize("name", STREAMS)
@unhurried
@given(plan=plans)
async def test_a_stream_that_runs(edge: Running, fake: FakeModel, name: str, plan: list[tuple[Any, ...]]) -> None:
    case, events = STREAMS[name]
    source = Source()
    grown = Grown(events, source.feed)
    fake.script(case.head(), source.step())
    async with RawClient(edge.port) as first:
        await first.post(case.path, case.body, RESUME)
        await edge.wait(lambda: len(edge.edge.registry.streams) == 1)
        (stream,) = edge.edge.registry.streams
        readers = [Reader(edge, case, stream) for _ in range(READERS)]
        await play(plan, grown, readers)
        source.feed(b"")
        for reader in readers:
            await reader.finish(len(events))
        answer = await first.answer()
    assert_each_has_all(case, events, readers)
    assert pieces(case, bare(answer.body.replace(b"\r\n", b"\n"))) == readers[0].got
    await ended(edge, stream)


@pytest.mark.parametrize("store_url", ["memory:"])
@pytest.mark.parametrize("name", STREAMS)
@unhurried
@given(plan=plans, batches=st.lists(st.integers(1, 4), min_size=1, max_size=5))
async def test_a_stream_that_another_process_runs(
    edge: Running, name: str, plan: list[tuple[Any, ...]], batches: list[int]
) -> None:
    """Out of a store, where it lies in batches of any size."""
    case, events = STREAMS[name]
    memory = edge.edge.archive.memory
    stream = f"st_{secrets.token_hex(16)}"
    meta = StreamMeta(stream, "anonymous", case.surface, "m", None, "req_1", time.time(), 2**20)
    log = memory.begin(meta)
    left = list(events)
    sizes = deque(batches)
    unfinished = bytearray()

    def feed(data: bytes) -> None:
        unfinished.extend(data)
        while left and len(unfinished) >= len(batch := b"".join(one := left[: sizes[0]])):
            log.append(batch, len(one))
            del unfinished[: len(batch)], left[: len(one)]
            sizes.rotate()

    grown = Grown(events, feed)
    readers = [Reader(edge, case, stream) for _ in range(READERS)]
    for what, *how in plan:
        if what == "feed":
            grown.grow(*how)
        elif what == "drop":
            readers[how[0]].drop()
        else:
            have = len(events) - len(left)
            await readers[how[0]].read(min(len(readers[how[0]].got) + how[1], have))
    if left:
        log.append(b"".join(left), len(left))
    log.end(Ending("complete", clean=True, at=time.time()), "up", 0, lambda _: None)
    for reader in readers:
        await reader.finish(len(events))
    assert_each_has_all(case, events, readers)


@unhurried
@given(plan=plans)
async def test_of_a_stream_that_outgrows_what_is_kept_nobody_misses_anything_unawares(
    narrow: Running, fake: FakeModel, plan: list[tuple[Any, ...]]
) -> None:
    """Each gets what follows where it was, or is told that it is gone."""
    case, events = CHAT_CASE, [chat_role(), *[chat_token(f"{n:03}") for n in range(60)], chat_finish(), DONE]
    source = Source()
    grown = Grown(events, source.feed)
    fake.script(case.head(), source.step())
    async with RawClient(narrow.port) as first:
        await first.post(case.path, case.body, RESUME)
        await narrow.wait(lambda: len(narrow.edge.registry.streams) == 1)
        (stream,) = narrow.edge.registry.streams
        journal = narrow.edge.registry.streams[stream].generation.journal
        answering = asyncio.create_task(first.answer())
        for what, *how in plan:
            if what == "feed":
                grown.grow(how[0] * 10, how[1])
                continue
            after = how[1] * 10
            answer = await within(narrow, stream, after, journal)
            if answer.status == 410:
                # Once the stream has ended, the store serves it, and keeps a little less than the journal did.
                stored = await narrow.edge.archive.find("anonymous", stream)
                ended_here = stored is not None and stored.state.ending is not None
                assert after < (stored.state.first - 1 if ended_here else journal.before)
        grown.grow(10**6, 10**6)
        source.feed(b"")
        assert (await answering).clean
    await ended(narrow, stream)
    for after in range(0, len(events), 7):
        rest = await resumed(narrow, stream, after)
        assert rest.status == 410 or bare(rest.body) == b"".join(events[after:])
    assert (await resumed(narrow, stream, len(events) - 1)).status == 200


async def within(edge: Running, stream: str, after: int, journal: Journal) -> Answer:
    """What is told of what follows ``after``; of a stream that goes on, its beginning."""
    async with RawClient(edge.port) as client:
        await client.get(f"/v1/streams/{stream}?starting_after={after}")
        while (answer := parse(client.buffer)) is None or (answer.status == 200 and not answer.events):
            if answer is None and after >= journal.last:
                return Answer(0, {}, b"", clean=False, ending="")  # it waits for what follows
            await client.receive()
    if answer.status == 200:
        numbers = sequences(answer.body)
        assert numbers == list(range(after + 1, after + 1 + len(numbers)))
    return answer
