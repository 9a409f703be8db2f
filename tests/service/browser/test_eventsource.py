"""A real browser with a plain ``EventSource``, on connections that are cut: the page has the answer, and asked once."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random
from urllib.parse import urlencode

import pytest
from fakes.model_server import FakeModel, chat_answer, chat_events
from fakes.steps import chunk, end, gate, head
from support.chromium import Pages, Unavailable, chromium, opened, pages
from support.cutting import CuttingProxy
from support.merged import path_of
from support.raw import ask
from support.running import Running, Serve

WORDS = [f" {n} wörds, {'and so on ' * (n % 7)}🎈\n" for n in range(80)]
STREAM = "/v1/chat/stream"
RETRY_S = 1.0  # as Edge tells it
# The first cut comes after the first id: a request whose answer was lost before that comes again as another one.
FIRST_BYTES = 1200


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """One for all; where it can be asked for pages."""
    try:
        with chromium(tmp_path_factory.mktemp("chromium")) as port:
            yield port
    except Unavailable as error:
        pytest.skip(f"BROWSER TESTS DID NOT RUN: {error}")


@asynccontextmanager
async def served(serve: Serve, cuts: list[int]) -> AsyncIterator[tuple[Pages, Running, CuttingProxy]]:
    async with pages() as site:
        edge = await serve(server={"cors_origins": [site.url]})
        async with CuttingProxy(edge.port, cuts) as proxy:
            yield site, edge, proxy


def cut_points(seed: int, first: int, count: int) -> list[int]:
    """Anywhere in head or body."""
    random = Random(seed)
    return [random.randrange(first, 2 * first), *(random.randrange(1, 3000) for _ in range(count - 1))]


async def stays_away(proxy: CuttingProxy) -> None:
    """It does not come back, though it has had the time to."""
    count = len(proxy.heads)
    await asyncio.sleep(2 * RETRY_S)  # only time can show that nothing happens
    assert len(proxy.heads) == count


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_page_whose_connection_is_cut_has_the_whole_answer(
    serve: Serve, fake: FakeModel, browser: int, seed: int
) -> None:
    fake.script(*chat_answer(WORDS))
    async with served(serve, cut_points(seed, FIRST_BYTES, 5)) as (site, edge, proxy):
        url = f"http://127.0.0.1:{proxy.port}{STREAM}?{urlencode({'prompt': 'hi', 'metadata': 'false'})}"
        async with opened(browser, f"{site.url}/session.html?{urlencode({'url': url})}"):
            told = await site.report()
            await stays_away(proxy)
        assert told["text"] == "".join(WORDS)
        assert len(set(told["ids"])) == len(told["ids"])
        assert proxy.cuts_left == 0
        assert len(proxy.heads) >= 7  # five cuts, the rest of the answer, and the end of it: 204
        assert sum(b"Last-Event-ID: st_" in head for head in proxy.heads) == len(proxy.heads) - 1
        assert len(fake.requests) == 1
        assert len(edge.lines.of("start")) == 1


async def test_three_answers_come_over_one_connection_that_is_cut(serve: Serve, fake: FakeModel, browser: int) -> None:
    answers = [WORDS, WORDS[:30], list(reversed(WORDS))]
    async with served(serve, cut_points(3, FIRST_BYTES, 4)) as (site, edge, proxy):
        streams = {}
        for number, words in enumerate(answers):
            fake.script(*chat_answer(words))
            answer = await ask(edge.port, STREAM, {"message": "hi", "session_id": f"s{number}"})
            streams[answer.headers["x-stream-id"]] = "".join(words)
        url = f"http://127.0.0.1:{proxy.port}{path_of(list(streams))}"
        async with opened(browser, f"{site.url}/merged.html?{urlencode({'url': url})}"):
            told = await site.report()
            await stays_away(proxy)
        assert told["texts"] == streams
        for numbers in told["numbers"].values():
            assert numbers == list(range(1, len(numbers) + 1))
        assert told["ends"] == {stream: ["complete"] for stream in streams}
        assert told["done"] == 1
        assert proxy.cuts_left == 0
        assert len(fake.requests) == len(answers)


async def test_a_page_that_is_reloaded_goes_on_where_it_was(serve: Serve, fake: FakeModel, browser: int) -> None:
    events = chat_events(WORDS)
    fake.script(head(), chunk(b"".join(events[:21])), gate("reloaded"), *map(chunk, events[21:]), end())
    async with served(serve, []) as (site, edge, proxy):
        asked = {"edge": f"http://127.0.0.1:{proxy.port}", "path": f"{STREAM}?prompt=hi", "until": WORDS[19]}
        async with opened(browser, f"{site.url}/reloaded.html?{urlencode(asked)}"):
            assert (await site.report())["reloaded"] == "".join(WORDS[:20])
            fake.open("reloaded")
            told = await site.report()
            await stays_away(proxy)
        assert told["text"] == "".join(WORDS)
        assert len(fake.requests) == 1
        record = await edge.record()
        assert (record["outcome"], record["reconnections"]) == ("complete", 1)
