"""The clouds behind Edge, end to end: a client, Edge, the official SDK, and a server that speaks the cloud's wire."""

import asyncio
from typing import Any

import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    end,
    gate,
    head,
    json_answer,
    messages_block_start,
    messages_block_stop,
    messages_error,
    messages_event,
    messages_start,
    messages_stop,
    messages_token,
    rst,
    send,
    stall,
)
from support.hanging import hang_limit
from support.raw import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, RawClient, ask, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken

KEY = "sk-the-cloud-key"
JSON = {"Content-Type": "application/json"}
CLAUDES = {
    "data": [
        {"type": "model", "id": "m", "display_name": "The M", "created_at": "2025-02-19T00:00:00Z"},
        {"type": "model", "id": "other", "display_name": "Another", "created_at": "not a date"},
    ],
    "has_more": False,
    "first_id": "m",
    "last_id": "other",
}
OPENAI = [spoken for spoken in SPOKEN if spoken.path in (CHAT, COMPLETIONS, RESPONSES)]
(ANTHROPIC,) = [spoken for spoken in SPOKEN if spoken.path == MESSAGES]
CLOUDS = [("openai", spoken) for spoken in OPENAI] + [("anthropic", ANTHROPIC)]
over_each = pytest.mark.parametrize(("kind", "spoken"), CLOUDS, ids=[f"{kind}-{spoken}" for kind, spoken in CLOUDS])
over_both = pytest.mark.parametrize(
    ("kind", "spoken"), [("openai", OPENAI[0]), ("anthropic", ANTHROPIC)], ids=["openai", "anthropic"]
)


async def in_front(serve: Serve, fake: FakeModel, kind: str, **sections: Any) -> Running:
    """An Edge whose only upstream is the fake as a cloud of that kind."""
    fake.get["/v1/models?limit=1000"] = (200, JSON, orjson.dumps(CLAUDES))
    return await serve(fake.url, upstream={"kind": kind, "api_key": KEY}, **sections)


@over_both
@pytest.mark.parametrize("status", [600, 999])
async def test_a_status_that_http_has_not_is_a_bad_gateway(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken, status: int
) -> None:
    edge = await in_front(serve, fake, kind)
    fake.script(*json_answer({"error": {"type": "odd", "message": "odd"}}, status))
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert answer.status == 502
    assert (await edge.record())["outcome"] == "upstream_error"


def refusal(kind: str, type_: str, message: str) -> dict[str, Any]:
    error = {"type": type_, "message": message}
    return {"error": error} if kind == "openai" else {"type": "error", "error": error}


@over_each
async def test_what_the_cloud_streams_is_what_the_client_gets(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken
) -> None:
    edge = await in_front(serve, fake, kind)
    events = [spoken.prelude, spoken.token, spoken.token, spoken.ending] if spoken.prelude else [spoken.token] * 2
    sent = b"".join(events) + (b"" if spoken.prelude else spoken.ending)
    fake.script(head(), chunk(sent, every=7), end())
    asked = spoken.asked(stream=True)
    if spoken.path in (CHAT, COMPLETIONS):
        asked["stream_options"] = {"include_usage": True}
    answer = await ask(edge.port, spoken.path, asked, {"Authorization": "Bearer the-clients-own"})
    assert (answer.status, answer.clean, answer.body) == (200, True, sent)
    assert answer.headers["x-edge-upstream"] == "up"
    (request,) = fake.requests
    assert (request.path, request.json) == (spoken.path, asked)
    assert "the-clients-own" not in str(request.headers)
    assert KEY in {request.headers.get("Authorization", "").removeprefix("Bearer "), request.headers.get("X-Api-Key")}
    assert request.headers["Content-Length"] == str(len(request.body))
    assert (await edge.record())["outcome"] == "complete"


async def test_openai_usage_is_recorded_with_cached_tokens(serve: Serve, fake: FakeModel) -> None:
    edge = await in_front(serve, fake, "openai")
    fake.script(head(), chunk(chat_role() + chat_token("a") + chat_finish() + chat_usage(9, 4, cached=5) + DONE), end())
    answer = await ask(edge.port, CHAT, chat_body())
    assert b'"usage":{' not in answer.body  # the client did not ask for it
    record = await edge.record()
    assert (record["tokens_in"], record["tokens_out"], record["tokens_cached"]) == (9, 4, 5)
    assert record["tokens_from"] == "reported"


async def test_anthropic_usage_is_recorded_with_cached_tokens(serve: Serve, fake: FakeModel) -> None:
    edge = await in_front(serve, fake, "anthropic")
    start = orjson.loads(messages_start().split(b"data: ")[1])["message"]
    start["usage"] = {"input_tokens": 9, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0}
    start["usage"]["output_tokens"] = 1
    delta = messages_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 4})
    events = [messages_event("message_start", message=start), messages_block_start(), messages_token("a")]
    fake.script(head(), chunk(b"".join([*events, messages_block_stop(), delta, messages_stop()])), end())
    await ask(edge.port, MESSAGES, ANTHROPIC.asked(stream=True))
    record = await edge.record()
    assert (record["tokens_out"], record["tokens_cached"], record["tokens_from"]) == (4, 5, "reported")


@over_both
async def test_a_client_that_wants_no_stream_gets_one_body(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken
) -> None:
    edge = await in_front(serve, fake, kind)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=False))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json["id"]


async def test_a_model_that_may_not_be_streamed_is_asked_for_one_body(serve: Serve, fake: FakeModel) -> None:
    """As OpenAI does for some models, until an organization is verified."""
    edge = await in_front(serve, fake, "openai")
    message = "Your organization must be verified to stream this model."
    fake.script(*json_answer(refusal("openai", "invalid_request_error", message), 400))
    answer = await ask(edge.port, CHAT, chat_body(stream=False))
    assert (answer.status, answer.json["object"]) == (200, "chat.completion")
    assert [request.json["stream"] for request in fake.requests] == [True, False]


@pytest.mark.parametrize(
    ("kind", "path", "asked", "given"),
    [
        ("openai", EMBEDDINGS, {"input": "hi"}, {"object": "list", "data": [], "model": "m"}),
        ("anthropic", f"{MESSAGES}/count_tokens", {"messages": []}, {"input_tokens": 14}),
    ],
)
async def test_what_is_not_generated_is_passed_through(
    serve: Serve, fake: FakeModel, kind: str, path: str, asked: dict[str, Any], given: dict[str, Any]
) -> None:
    edge = await in_front(serve, fake, kind)
    fake.script(*json_answer(given))
    answer = await ask(edge.port, path, {"model": "m", **asked})
    assert (answer.status, answer.json, fake.requests[0].path) == (200, given, path)


async def test_the_clients_anthropic_headers_go_along(serve: Serve, fake: FakeModel) -> None:
    edge = await in_front(serve, fake, "anthropic")
    beta = {"anthropic-version": "2023-01-01", "anthropic-beta": "a-2025-01-01,b-2025-02-02"}
    await ask(edge.port, MESSAGES, ANTHROPIC.asked(stream=True), beta)
    await ask(edge.port, MESSAGES, ANTHROPIC.asked(stream=True))
    first, second = fake.requests
    assert first.headers.getall("anthropic-version") == ["2023-01-01"]
    assert first.headers.getall("anthropic-beta") == ["a-2025-01-01,b-2025-02-02"]
    assert second.headers.getall("anthropic-version") == ["2023-06-01"]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("kind", "path", "status", "type_"),
    [
        ("openai", CHAT, 401, "invalid_request_error"),
        ("openai", CHAT, 429, "insufficient_quota"),
        ("openai", CHAT, 503, "server_error"),
        ("anthropic", MESSAGES, 401, "authentication_error"),
        ("anthropic", MESSAGES, 429, "rate_limit_error"),
        ("anthropic", MESSAGES, 529, "overloaded_error"),
    ],
)
async def test_a_refusal_reaches_the_client_as_it_is(
    serve: Serve, fake: FakeModel, kind: str, path: str, status: int, type_: str, stream: bool
) -> None:
    edge = await in_front(serve, fake, kind)
    told = {"retry-after": "17", "x-ratelimit-remaining-requests": "0", "x-secret": "no"}
    fake.script(*json_answer(refusal(kind, type_, "the reason"), status, told))
    spoken = OPENAI[0] if kind == "openai" else ANTHROPIC
    answer = await ask(edge.port, path, spoken.asked(stream=stream))
    assert (answer.status, answer.json["error"]["type"]) == (status, type_)
    assert answer.json["error"]["message"] == "the reason"
    assert answer.headers["retry-after"] == "17"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert "x-secret" not in answer.headers
    assert len(fake.requests) == 1  # the SDK did not try again


async def test_a_cloud_that_is_overloaded_in_mid_stream_ends_the_stream_with_its_error(
    serve: Serve, fake: FakeModel
) -> None:
    edge = await in_front(serve, fake, "anthropic")
    begun = messages_start() + messages_block_start() + messages_token("tok")
    broken = messages_error("Overloaded", "overloaded_error")
    fake.script(head(), chunk(begun), chunk(broken), end())
    answer = await ask(edge.port, MESSAGES, ANTHROPIC.asked(stream=True))
    assert answer.status == 200
    assert answer.body == begun + broken
    assert not answer.clean
    assert (await edge.record())["outcome"] == "upstream_error"


@over_both
@pytest.mark.parametrize(
    ("steps", "status", "code"),
    [
        ([rst()], 502, "upstream_cut"),
        ([head(302, {"Location": "/elsewhere", "Content-Length": "0"})], 502, "upstream_error"),
        ([head(500, {"Content-Length": "9"}), send(b"half"), rst()], 500, "upstream_error"),
        ([head(500, {"Content-Length": "9000000"}), send(b"x" * 5_000_000), stall()], 500, "upstream_error"),
        ([send(b"SSH-2.0-OpenSSH_9.6\r\n"), stall()], 502, "upstream_error"),
    ],
    ids=["cut", "redirect", "half a reason", "an endless reason", "no http"],
)
async def test_a_cloud_that_breaks_before_it_answers_is_told_as_such(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken, steps: list[Step], status: int, code: str
) -> None:
    edge = await in_front(serve, fake, kind)
    fake.script(*steps)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert answer.status == status
    assert (await edge.record())["outcome"] == code
    assert len(fake.requests) == 1


@over_both
async def test_who_cannot_be_reached_is_told_and_not_used_until_it_answers_again(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken
) -> None:
    edge = await in_front(serve, fake, kind)
    await fake.refuse()
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert answer.status == 502
    assert "connection refused" in answer.json["error"]["message"]
    assert (await ask(edge.port, spoken.path, spoken.asked(stream=True))).status == 503
    await fake.listen()
    await edge.edge.fleet.look()
    assert (await ask(edge.port, spoken.path, spoken.asked(stream=True))).status == 200


@over_both
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("stage", ["waiting", "streaming"])
async def test_a_client_that_leaves_stops_the_model(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken, stream: bool, stage: str
) -> None:
    edge = await in_front(serve, fake, kind)
    fake.script(*([head(), chunk(spoken.prelude + spoken.token)] if stage == "streaming" else []), gate("held"))
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=stream))
        await fake.reached("held")
        if stream and stage == "streaming":
            await client.until(b"tok")
        client.reset()
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@over_both
async def test_stopping_edge_in_mid_stream_leaves_no_connection(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken
) -> None:
    edge = await in_front(serve, fake, kind, server={"drain_s": 0.1})
    fake.script(head(), chunk(spoken.prelude + spoken.token), gate("held"))
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True))
        await client.until(b"tok")
        await edge.stop()
    async with hang_limit():
        while fake.live:
            await asyncio.sleep(0)


@over_both
async def test_a_connection_is_used_again(serve: Serve, fake: FakeModel, kind: str, spoken: Spoken) -> None:
    edge = await in_front(serve, fake, kind)
    for index in range(3):
        await ask(edge.port, spoken.path, spoken.asked(stream=True))
        await edge.record(index)
    assert len({request.connection for request in fake.requests}) == 1


@over_both
async def test_no_proxy_of_the_environment_comes_between(
    serve: Serve, fake: FakeModel, kind: str, spoken: Spoken, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    edge = await in_front(serve, fake, kind)
    assert (await ask(edge.port, spoken.path, spoken.asked(stream=True))).status == 200


@pytest.mark.parametrize(("kind", "listed"), [("openai", ["m"]), ("anthropic", ["m", "other"])])
async def test_the_clouds_models_are_listed_and_it_is_not_asked_again_and_again(
    serve: Serve, fake: FakeModel, kind: str, listed: list[str]
) -> None:
    edge = await in_front(serve, fake, kind)
    for _ in range(3):
        await edge.edge.fleet.look()
    async with RawClient(edge.port) as client:
        await client.get("/v1/models")
        cards = (await client.answer()).json["data"]
    assert [card["id"] for card in cards] == listed
    if kind == "anthropic":
        assert (cards[0]["created"], cards[0]["display_name"], cards[0]["owned_by"]) == (
            1739923200,
            "The M",
            "Anthropic",
        )
    (looked,) = fake.gets
    if kind == "openai":
        assert looked.headers["Authorization"] == f"Bearer {KEY}"
    else:
        assert (looked.headers["x-api-key"], looked.headers["anthropic-version"]) == (KEY, "2023-06-01")


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_wrong_key_is_told_at_the_start(serve: Serve, fake: FakeModel, kind: str) -> None:
    for path in ("/v1/models", "/v1/models?limit=1000"):
        fake.get[path] = (401, JSON, b"{}")
    edge = await serve(fake.url, upstream={"kind": kind, "api_key": KEY})
    (line,) = await edge.lines.wait("upstream not usable")
    assert line["why"] == "does not take the API key (it answers 401 to /v1/models)"
    await edge.edge.fleet.look()
    assert len(fake.gets) == 1
