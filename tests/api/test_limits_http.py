"""Limits as a client meets them: refused before anything upstream, in its own shape, and free again at every end."""

from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import FakeModel, chat_token, chunk, gate, head, stall
from msgspec.structs import replace
from support.raw import CHAT, MESSAGES, Answer, RawClient, ask, chat_body
from support.running import Running, Serve
from support.shapes import BODIES, EVERY_SURFACE, assert_told, get, valid_body

from edge.policy.limits.counters import Used


def limit(**fields: Any) -> list[dict[str, Any]]:
    return [{"name": "all", **fields}]


async def used(edge: Running) -> list[Used]:
    return list((await edge.edge.limits.store.usage("2020-01-01")).values())


def ratelimit(answer: Answer) -> dict[str, str]:
    return {name.lower(): text for name, text in answer.headers.items() if name.lower().startswith("x-ratelimit-")}


@pytest.mark.parametrize("path", BODIES)
async def test_the_request_over_the_limit_is_told_in_its_shape_and_reaches_no_model(
    serve: Serve, fake: FakeModel, path: str
) -> None:
    edge = await serve(limit=limit(requests_per_min=1), upstream=EVERY_SURFACE)
    await ask(edge.port, path, valid_body(path))
    before = len(fake.requests)
    answer = await ask(edge.port, path, valid_body(path))
    assert_told(answer, 429, path, "rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert 1 <= int(answer.headers["retry-after-ms"]) <= 61_000
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert len(fake.requests) == before
    assert (await edge.record(1))["outcome"] == "rejected"


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_says_what_is_left(serve: Serve, stream: bool) -> None:
    edge = await serve(limit=limit(requests_per_min=60, tokens_per_min=1000))
    answer = await ask(edge.port, CHAT, chat_body(stream=stream))
    told = ratelimit(answer)
    assert (told["x-ratelimit-limit-requests"], told["x-ratelimit-remaining-requests"]) == ("60", "59")
    assert told["x-ratelimit-limit-tokens"] == "1000"
    assert told["x-ratelimit-reset-requests"] == "1m1s"
    await edge.record()
    assert await used(edge) == [Used(1, 7, 3)], "as the server reported"


async def test_a_spent_budget_is_not_worth_a_retry(serve: Serve) -> None:
    edge = await serve(limit=limit(tokens_per_day=50))
    for number in range(4):
        await ask(edge.port, CHAT, chat_body())
        await edge.record(number)
    answer = await ask(edge.port, CHAT, chat_body())
    assert_told(answer, 429, CHAT, "insufficient_quota", "insufficient_quota")
    assert answer.headers["x-should-retry"] == "false"
    assert await used(edge) == [Used(4, 28, 12)]


async def test_without_keys_and_limits_nothing_is_said_or_counted(serve: Serve) -> None:
    edge = await serve()
    answer = await ask(edge.port, CHAT, chat_body())
    assert (answer.status, ratelimit(answer)) == (200, {})
    await edge.record()
    assert await used(edge) == []


@pytest.mark.parametrize("way", ["close", "reset"])
@pytest.mark.parametrize("when", ["before", "tokens"])
async def test_whoever_leaves_frees_the_place_and_pays_for_what_was_streamed(
    serve: Serve, fake: FakeModel, way: str, when: str
) -> None:
    before = [] if when == "before" else [head(), chunk(chat_token("a") + chat_token("b"))]
    fake.script(*before, gate("held"), stall())
    edge = await serve(limit=limit(concurrent=1))
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await fake.reached("held")
        busy = await ask(edge.port, CHAT, chat_body())
        assert_told(busy, 429, CHAT, "rate_limit_exceeded", "rate_limit_error")
        if when == "tokens":
            await client.until(b'"b"')
        getattr(client, way)()
        await edge.record(1)
    estimate = (len(str(chat_body())) + 3) // 4
    (spent,) = await used(edge)
    assert (spent.requests, spent.completion) == (1, 0 if when == "before" else 2)
    assert 0 < spent.prompt <= estimate + 5
    assert (await ask(edge.port, CHAT, chat_body())).status == 200


async def test_what_no_upstream_was_asked_for_costs_nothing(serve: Serve) -> None:
    edge = await serve("http://127.0.0.1:9", limit=limit(requests_per_min=1))
    for _ in range(3):
        assert (await ask(edge.port, CHAT, chat_body())).status == 503
    assert await used(edge) == []


async def test_an_answer_may_have_as_many_tokens_as_are_allowed(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(limit=limit(max_tokens=50))
    assert (await ask(edge.port, CHAT, chat_body())).status == 200
    assert fake.requests[-1].json["max_tokens"] == 50
    over = await ask(edge.port, CHAT, chat_body(max_tokens=51))
    assert_told(over, 400, CHAT)
    assert over.json["error"]["param"] == "max_tokens"
    over = await ask(edge.port, MESSAGES, {**valid_body(MESSAGES), "max_tokens": 5000})
    assert_told(over, 400, MESSAGES)


async def test_counts_survive_a_restart(serve: Serve, fake: FakeModel, tmp_path: Path) -> None:
    """In the file, by key; what no key was needed for and no limit is about is not written."""
    store = {"url": f"sqlite:{tmp_path}/edge.db"}
    key = {"Authorization": "Bearer a-key-that-is-long"}
    auth = {"keys": ["a-key-that-is-long"]}
    edge = await serve(limit=limit(tokens_per_day=25), store=store, auth=auth)
    for number in range(2):
        assert (await ask(edge.port, CHAT, chat_body(), key)).status in (200, 429)
        await edge.record(number)
    spent = await used(edge)
    await edge.stop()
    again = await serve(limit=limit(tokens_per_day=25), store=store, auth=auth)
    assert await used(again) == spent
    assert (await ask(again.port, CHAT, chat_body(), key)).status == 429


async def test_a_reload_puts_other_limits_in_force_and_keeps_the_counts(serve: Serve) -> None:
    edge = await serve(limit=limit(requests_per_min=1))
    assert (await ask(edge.port, CHAT, chat_body())).status == 200
    assert (await ask(edge.port, CHAT, chat_body())).status == 429
    settings = edge.edge.settings
    await edge.edge.reload(replace(settings, limit=[replace(settings.limit[0], requests_per_min=2)]))
    assert (await ask(edge.port, CHAT, chat_body())).headers["x-ratelimit-remaining-requests"] == "0"


# --- reads ------------------------------------------------------------------------------------------------------------

UNKNOWN = "st_" + "0" * 32


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/streams"),
        ("GET", f"/v1/streams?ids={UNKNOWN}"),
        ("GET", f"/v1/streams?ids={UNKNOWN}&follow=1"),
        ("GET", f"/v1/streams/{UNKNOWN}"),
        ("DELETE", f"/v1/streams/{UNKNOWN}"),
        ("GET", "/v1/sessions/s"),
        ("DELETE", "/v1/sessions/s"),
    ],
)
async def test_reads_are_limited_too(serve: Serve, method: str, path: str) -> None:
    edge = await serve(limit=limit(requests_per_min=2))
    for _ in range(2):
        assert (await get(edge.port, path, method=method)).status in {200, 404}
    answer = await get(edge.port, path, method=method)
    assert_told(answer, 429, CHAT, "rate_limit_exceeded", "rate_limit_error")
    assert 1 <= int(answer.headers["retry-after"]) <= 61
    assert await used(edge) == [], "it is no use of a model"


async def test_a_reader_may_come_back_for_what_its_last_request_has_generated(serve: Serve) -> None:
    """Reads have a count of their own."""
    edge = await serve(limit=limit(requests_per_min=1))
    first = await ask(edge.port, CHAT, chat_body(), {"x-edge-resume": "1"})
    assert (await ask(edge.port, CHAT, chat_body())).status == 429
    last = {"Last-Event-ID": f"{first.headers['x-stream-id']}:1"}
    again = await ask(edge.port, CHAT, chat_body(), last)
    assert (again.status, again.clean) == (200, True)
    assert (await ask(edge.port, CHAT, chat_body(), last)).status == 429


async def test_a_limit_may_be_for_reads_alone(serve: Serve) -> None:
    edge = await serve(limit=limit(requests_per_min=1, surfaces=["reads"]))
    for _ in range(2):
        assert (await ask(edge.port, CHAT, chat_body())).status == 200
    assert [(await get(edge.port, "/v1/streams")).status for _ in range(2)] == [200, 429]
