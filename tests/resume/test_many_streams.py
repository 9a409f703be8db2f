"""Many streams at once: a thousand that are come back to together, and ten thousand finished ones in bounded memory."""

import asyncio
import gc
import resource
import secrets
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest
from fakes.model_server import FakeModel, chat_finish, chat_role, chat_token, chunk, end, gate, head
from support.hanging import steps_of
from support.raw import CHAT, RawClient, chat_body
from support.resumed import RESUME, finished, resumed, sequences, stream_id
from support.running import Running, Serve

from edge.exchange.exchange import Exchange
from edge.settings import Store
from edge.store.memory.streams import MemoryStreams
from edge.store.ports import Ending, StreamLog, StreamMeta
from edge.stream.generation import Generation
from edge.stream.subscriber import Subscriber

THOUSAND = 1000
TOGETHER = 100  # that connect in one go: a listener's queue is finite
FILES = 6 * THOUSAND  # both ends of every connection are in this process

FINISHED = 4000
NOW = 1_800_000_000.0


@pytest.fixture
def many_files() -> Iterator[None]:
    """As many descriptors as the test takes, if the machine lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"A THOUSAND STREAMS WERE NOT RESUMED: this user may open {hard} files, the test takes {FILES}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def begun(edge: Running, number: int) -> str:
    """One of them, up to its first token; then its reader leaves."""
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(user=str(number)), RESUME)
        await client.until(b"first of")
        return await stream_id(client)


async def test_a_thousand_streams_are_resumed_at_once(serve: Serve, fake: FakeModel, many_files: None) -> None:
    """Each reader gets what its own stream has said, then what it says."""
    for number in range(THOUSAND):
        before = chat_role() + chat_token(f"first of {number};")
        after = chat_token(f"second of {number};") + chat_finish() + b"data: [DONE]\n\n"
        fake.script(head(), chunk(before), gate("more"), chunk(after), end())
    edge = await serve(server={"max_connections": 2 * THOUSAND}, stream={"connect_s": 30})
    streams: list[str] = []
    for start in range(0, THOUSAND, TOGETHER):
        streams += await asyncio.gather(*(begun(edge, number) for number in range(start, start + TOGETHER)))
    generations = [exchange.generation for exchange in edge.edge.registry.streams.values()]
    await edge.wait(lambda: all(generation.detached for generation in generations))
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(RawClient(edge.port)) for _ in streams]
        began = time.monotonic()
        for client, stream in zip(clients, streams, strict=True):
            await client.get(f"/v1/streams/{stream}?starting_after=1")
        await asyncio.gather(*(client.until(b"first of") for client in clients))
        replayed = time.monotonic()
        fake.open("more")
        answers = await asyncio.gather(*(client.answer() for client in clients))
        print(f"\n{THOUSAND} resumed in {replayed - began:.2f} s, ended {time.monotonic() - replayed:.2f} s later")  # noqa: T201 - shown by pytest -s
    for answer in answers:
        assert answer.clean
        assert sequences(answer.body) == [2, 3, 4, 5]
        words = [word for word in answer.body.split(b'"') if b" of " in word]
        assert len({word.partition(b" of ")[2] for word in words}) == 1, "of one stream alone"
        assert len(words) == 2
    numbers = {answer.body.partition(b"first of ")[2].partition(b";")[0] for answer in answers}
    assert len(numbers) == THOUSAND
    await edge.lines.wait("exchange", THOUSAND)
    assert {(record["outcome"], record["reconnections"]) for record in edge.records} == {("complete", 1)}
    assert len(fake.requests) == THOUSAND


async def test_finished_streams_leave_only_their_events(serve: Serve, fake: FakeModel) -> None:
    """No exchange, no generation and no reader outlives its stream, nor those of who came back."""
    edge = await serve()
    for _ in range(100):
        stream = await finished(edge, fake)
        assert (await resumed(edge, stream)).clean
    await edge.wait(lambda: not edge.edge.listener._runner.server.connections)
    gc.collect()
    left = [one for one in gc.get_objects() if isinstance(one, (Exchange, Generation, Subscriber))]
    assert left == []


# --- memory -----------------------------------------------------------------------------------------------------------


def a_log(store: MemoryStreams, principal: str = "p") -> StreamLog:
    meta = StreamMeta(
        f"st_{secrets.token_hex(16)}", principal, "chat", "m", None, f"req_{secrets.token_hex(16)}", NOW, 2**20
    )
    return store.begin(meta)


def fill(store: MemoryStreams, streams: int, principals: int = 1, tokens: int = 5) -> None:
    """Each of so many batches, of about 1 KB."""
    for number in range(streams):
        log = a_log(store, f"p{number % principals}")
        for _ in range(tokens):
            log.append(secrets.token_bytes(1000), 1)
        log.end(Ending("complete", clean=True, at=NOW + number), "up", 0, lambda _: None)


@pytest.mark.parametrize("principals", [1, 100])
async def test_thousands_of_finished_streams_stay_within_their_bound(principals: int) -> None:
    """By the store's own account, and by what Python really holds."""
    bound = 4 * 2**20
    store = MemoryStreams(Store(memory_bytes=bound, principal_bytes=bound), lambda: NOW)
    gc.collect()
    tracemalloc.start()
    try:
        fill(store, FINISHED, principals)
        gc.collect()
        real, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    sizes = await store.sizes()
    print(f"\naccounted {sizes.bytes}, real {real}, peak {peak}, {sizes.streams} streams")  # noqa: T201 - shown by pytest -s
    assert bound * 0.9 < sizes.bytes <= bound
    assert sizes.bytes * 0.6 < real < sizes.bytes * 1.2, "the account is of what is really held"
    assert peak < bound * 1.3
    assert 500 < sizes.streams < FINISHED


async def test_one_principal_cannot_take_the_room_of_the_others() -> None:
    store = MemoryStreams(Store(memory_bytes=8 * 2**20, principal_bytes=2**20), lambda: NOW)
    fill(store, 20, 1)
    mine = {state.meta.id for state in await store.streams("p0", 100)}
    log = a_log(store, "other")
    fill_other = 2000
    for number in range(fill_other):
        log.append(b"x" * 1000, 1)
        log.end(Ending("complete", clean=True, at=NOW + number), "up", 0, lambda _: None)
        log = a_log(store, "other")
    assert {state.meta.id for state in await store.streams("p0", 100)} == mine
    assert store._of["other"] <= 2**20 + 2**12  # the one that is live is not dropped


async def test_the_account_is_even_when_all_has_gone() -> None:
    clock = [NOW]
    store = MemoryStreams(Store(memory_bytes=2**20, principal_bytes=2**19, keep_s=60), lambda: clock[0])
    fill(store, 2000, 7)
    clock[0] += 10**6
    sizes = await store.sizes()
    assert (sizes.streams, sizes.stream_bytes, dict(store._of)) == (0, 0, {})
    assert sizes.bytes == 1000 * len(store._gone) <= 2**16


async def test_a_token_of_one_over_its_share_costs_no_look_at_all_others() -> None:
    """Which are many: it would be 20,000 times as much work."""
    store = MemoryStreams(Store(memory_bytes=2**30, principal_bytes=10_000), lambda: NOW)
    fill(store, 20_000, principals=20_000, tokens=1)
    log = a_log(store, "long")
    log.append(b"x" * 20_000, 1)  # it is over its share from here on
    assert steps_of(lambda: [log.append(b"x" * 100, 1) for _ in range(100)]) < 100 * 2000
