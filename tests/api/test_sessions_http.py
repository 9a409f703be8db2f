"""The session API through the socket: what a client sees, what the model is asked, and what is remembered."""

from urllib.parse import urlencode

import orjson
import pytest
from fakes.model_server import (
    FakeModel,
    chat_answer,
    chat_delta,
    chat_events,
    chat_role,
    chunk,
    end,
    gate,
    head,
    json_answer,
    rst,
    sse_error,
    stall,
)
from support.eventsource import parsed
from support.faults import beats
from support.raw import RawClient, ask
from support.running import Serve
from support.sessions import BEGUN, STREAM, asked, kept, said, settled, text_of
from support.shapes import assert_told, get

PATHS = [STREAM, "/stream"]


# --- the stream -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_message_is_answered_with_events(serve: Serve, fake: FakeModel, path: str, method: str) -> None:
    fake.script(*chat_answer(["Hel", "lo"]))
    edge = await serve()
    if method == "GET":
        answer = await get(edge.port, f"{path}?{urlencode({'prompt': 'a + b?', 'session_id': 's'})}")
    else:
        answer = await ask(edge.port, path, {"message": "a + b?", "session_id": "s"})
    assert (answer.status, answer.clean) == (200, True)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    read = parsed(answer.body)
    usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert [(event.type, event.json) for event in read.events] == [
        ("message", {"delta": "", "done": False, "chunk_index": 1}),
        ("message", {"delta": "Hel", "done": False, "chunk_index": 2}),
        ("message", {"delta": "lo", "done": False, "chunk_index": 3}),
        ("message", {"delta": "", "done": True, "total_chunks": 3, "usage": usage, "session_id": "s"}),
    ]
    stream_id = answer.headers["x-stream-id"]
    assert [event.id for event in read.events] == [f"{stream_id}:{n}" for n in (1, 2, 3, 4)]
    assert read.retry_ms
    assert asked(fake) == [("user", "a + b?")]
    assert await kept(edge, "s") == [
        {"role": "user", "content": "a + b?"},
        {"role": "assistant", "content": "Hello"},
    ]
    record = await edge.record()
    assert (record["surface"], record["outcome"], record["tokens_out"]) == ("session", "complete", 2)


async def test_the_first_event_with_its_id_comes_while_the_model_still_thinks(serve: Serve, fake: FakeModel) -> None:
    fake.script(gate("thought"), *chat_answer(["x"]))
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi"})
        before = await client.until(b"\n\n\r\n")
        fake.open("thought")
        answer = await client.answer()
    assert b"\nid: st_" in before
    assert before.count(b"\ndata: ") == 1
    assert text_of(answer) == "x"


async def test_metadata_comes_first_and_last_if_it_is_asked_for(serve: Serve) -> None:
    edge = await serve()
    answer = await get(edge.port, f"{STREAM}?prompt=hi&metadata=true")
    events = parsed(answer.body).events
    told = {"session_id": "default", "model": "m", "stream_id": answer.headers["x-stream-id"]}
    assert (events[0].type, events[0].json) == ("metadata", told)
    assert [event.type for event in events] == ["metadata", "message", "message", "message", "metadata", "message"]
    after = events[-2].json
    record = await edge.record()
    assert after["finish_reason"] == "stop"
    assert after["usage"]["completion_tokens"] == 3
    assert after["ttft_ms"] == pytest.approx(record["ttft_s"] * 1e3, abs=50)


async def test_a_silence_is_filled_with_what_no_client_takes_for_an_event(serve: Serve, fake: FakeModel) -> None:
    """A blank line after it would be an event without data to a client that never resets the last id."""
    fake.script(*BEGUN, gate("more"), chunk(b"".join(chat_events(["en"])[1:])), end())
    edge = await serve(stream={"heartbeat_s": 0.05})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi"})
        await fake.reached("more")
        await beats(edge, 2)
        fake.open("more")
        answer = await client.answer()
    blocks = answer.body.split(b"\n\n")[:-1]
    assert answer.body.count(b": ping\n") >= 2
    assert all(b"data: " in block for block in blocks)
    assert text_of(answer) == "token"


async def test_what_the_model_thinks_is_no_part_of_what_it_says(serve: Serve, fake: FakeModel) -> None:
    thinking = chunk(chat_delta({"reasoning_content": "hm"}))
    fake.script(head(), chunk(chat_role()), thinking, *map(chunk, chat_events(["yes"])[1:]), end())
    edge = await serve()
    assert text_of(await said(edge)) == "yes"
    assert [turn["content"] for turn in await kept(edge)] == ["hi", "yes"]


async def test_an_ollama_answers_too(serve: Serve, fake: FakeModel) -> None:
    lines = [
        {"model": "m", "message": {"role": "assistant", "content": "Hi"}, "done": False},
        {"model": "m", "message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop",
         "prompt_eval_count": 5, "eval_count": 1},
    ]  # fmt: skip
    for _ in range(2):
        fake.script(
            head(200, {"Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}),
            *(chunk(orjson.dumps(line) + b"\n") for line in lines),
            end(),
            path="/api/chat",
        )
    edge = await serve(upstream={"surfaces": ["ollama_chat"]})
    assert text_of(await said(edge)) == "Hi"
    last = parsed((await said(edge, "again", system="be kind")).body).events[-1].json
    assert last["usage"] == {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    told = [("system", "be kind"), ("user", "hi"), ("assistant", "Hi"), ("user", "again")]
    assert asked(fake) == told


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "name"),
    [({}, "message"), ({"message": ["x"]}, "message"), ({"message": "x", "session_id": "a b"}, "session_id"),
     ({"message": "x", "model": 1}, "model"), ({"message": "x", "stream": False}, "stream"),
     ({"message": "x" * 600}, "message")],
)  # fmt: skip
async def test_a_wrong_field_is_named_by_status(serve: Serve, fake: FakeModel, body: dict, name: str) -> None:
    edge = await serve(sessions={"max_bytes": 1024})
    answer = await ask(edge.port, STREAM, body)
    assert_told(answer, 400, STREAM, "invalid_request", "invalid_request_error")
    assert answer.json["error"]["param"] == name
    assert fake.requests == []


@pytest.mark.parametrize(
    ("query", "name"), [("", "prompt"), ("prompt=", "prompt"), ("prompt=x&metadata=yes", "metadata")]
)
async def test_a_wrong_query_is_named_too(serve: Serve, query: str, name: str) -> None:
    edge = await serve()
    answer = await get(edge.port, f"{STREAM}?{query}")
    assert_told(answer, 400, STREAM)
    assert answer.json["error"]["param"] == name


async def test_with_several_models_one_must_be_named_or_configured(serve: Serve, fake: FakeModel) -> None:
    fake.models = ["large", "small"]
    edge = await serve()
    answer = await ask(edge.port, STREAM, {"message": "hi"})
    assert_told(answer, 400, STREAM)
    assert answer.json["error"]["param"] == "model"
    assert "large, small" in answer.json["error"]["message"]
    await said(edge, model="small")
    edge = await serve(sessions={"model": "large"})
    await said(edge)
    assert [request.json["model"] for request in fake.requests] == ["small", "large"]


async def test_what_is_known_at_once_is_told_by_the_status(serve: Serve, fake: FakeModel) -> None:
    fake.models = ["large", "small"]
    edge = await serve(fake.url, fake.url)
    assert_told(await ask(edge.port, STREAM, {"message": "hi", "model": "none"}), 404, STREAM, "model_not_found")
    for member in edge.edge.fleet.members:
        member.fail("is away")
    assert_told(await ask(edge.port, STREAM, {"message": "hi", "model": "large"}), 503, STREAM, "no_upstream")
    await settled(edge)
    assert await kept(edge) == []


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"},
     {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}],
)  # fmt: skip
async def test_a_foreign_page_cannot_make_a_browser_ask(serve: Serve, fake: FakeModel, headers: dict) -> None:
    edge = await serve()
    answer = await get(edge.port, f"{STREAM}?prompt=hi", headers)
    assert_told(answer, 403, STREAM, "forbidden")
    assert fake.requests == []
    edge = await serve(server={"cors_origins": ["http://localhost:3000"]})
    allowed = {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3000"}
    assert (await get(edge.port, f"{STREAM}?prompt=hi", allowed)).status == 200


async def test_a_page_of_ones_own_may_ask_and_a_head_asks_nothing(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    assert (await get(edge.port, f"{STREAM}?prompt=hi", {"Sec-Fetch-Site": "same-origin"})).status == 200
    async with RawClient(edge.port) as client:
        await client.get(f"{STREAM}?prompt=hi", method="HEAD")
        assert b"405" in await client.until(b"\r\n")
    assert len(fake.requests) == 1


# --- what is remembered -----------------------------------------------------------------------------------------------


async def test_the_conversation_goes_on(serve: Serve, fake: FakeModel) -> None:
    fake.script(*chat_answer(["one"]))
    fake.script(*chat_answer(["two"]))
    edge = await serve()
    await said(edge, "first", session_id="s", system="be brief")
    await said(edge, "second", session_id="s")
    assert asked(fake, 0) == [("system", "be brief"), ("user", "first")]
    assert asked(fake, 1) == [("user", "first"), ("assistant", "one"), ("user", "second")]
    await said(edge, "another", session_id="t")
    assert asked(fake) == [("user", "another")]


async def test_a_session_can_be_read_and_forgotten(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    await said(edge, session_id="s")
    answer = await get(edge.port, "/v1/sessions/s")
    assert answer.headers["content-type"].startswith("application/json")
    shown = answer.json
    assert shown.keys() == {"id", "turns", "created", "updated"}
    assert shown["id"] == "s"
    assert [turn["role"] for turn in shown["turns"]] == ["user", "assistant"]
    assert shown["created"] <= shown["turns"][1]["at"] <= shown["updated"]
    gone = await get(edge.port, "/v1/sessions/s", method="DELETE")
    assert (gone.status, gone.body) == (204, b"")
    for method in ("GET", "DELETE"):
        assert_told(await get(edge.port, "/v1/sessions/s", method=method), 404, STREAM, "session_not_found")
    await said(edge, "anew", session_id="s")
    assert asked(fake) == [("user", "anew")]


async def test_each_principal_has_its_own(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth={"keys": ["first-key-of-two", "second-key-of-two"]})
    one, two = {"x-api-key": "first-key-of-two"}, {"x-api-key": "second-key-of-two"}
    done = await said(edge, "secret", one)
    for method in ("GET", "DELETE"):
        assert_told(await get(edge.port, "/v1/sessions/default", two, method), 404, STREAM)
        assert_told(await get(edge.port, "/v1/sessions/default", method=method), 401, STREAM)
    await said(edge, "mine", two)
    assert asked(fake) == [("user", "mine")]
    last = {"Last-Event-ID": f"{done.headers['x-stream-id']}:1"}
    assert (await get(edge.port, f"{STREAM}?prompt=x", {**one, **last})).status == 200
    assert_told(await get(edge.port, f"{STREAM}?prompt=x", {**two, **last}), 404, STREAM, "stream_not_found")
    assert [turn["content"] for turn in await kept(edge, headers=one)] == ["secret", "Hello there"]


async def test_what_is_kept_is_bounded(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(sessions={"max_turns": 4, "max_bytes": 1024, "max_sessions": 2})
    for number in range(3):
        await said(edge, f"m{number}")
    assert [turn["content"] for turn in await kept(edge)] == ["m1", "Hello there", "m2", "Hello there"]
    fake.script(*chat_answer(["x" * 700, "y" * 700, "z"]))
    assert len(text_of(await said(edge, "long", session_id="long"))) == 1401
    assert await kept(edge, "long") == [
        {"role": "user", "content": "long"},
        {"role": "assistant", "content": "x" * 700 + "y" * 320, "partial": True},
    ]
    await said(edge, session_id="third")
    assert await kept(edge) == []


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_an_upstream_that_breaks_off_is_told_and_what_came_is_kept(serve: Serve, fake: FakeModel) -> None:
    fake.script(*BEGUN, rst())
    edge = await serve()
    answer = await ask(edge.port, STREAM, {"message": "hi"})
    assert (answer.clean, answer.ending) == (False, "reset")
    *_, token, error = parsed(answer.body).events
    assert token.json["delta"] == "tok"
    assert error.type == "error"
    assert error.json.keys() == {"message", "partial"}
    assert error.json["partial"] is True
    await settled(edge)
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "tok", "partial": True}]
    assert await kept(edge) == turns
    await said(edge, "go on")
    assert asked(fake) == [("user", "hi"), ("assistant", "tok"), ("user", "go on")]


@pytest.mark.parametrize(
    "steps",
    [json_answer({"error": {"message": "the model broke"}}, 500), [head(), chunk(chat_role() + sse_error())]],
    ids=["status", "event"],
)
async def test_a_failure_before_any_token_leaves_no_turn(serve: Serve, fake: FakeModel, steps: list) -> None:
    edge = await serve()
    await said(edge, "before")
    fake.script(*steps, stall())
    answer = await ask(edge.port, STREAM, {"message": "lost"})
    assert answer.ending == "reset"
    assert parsed(answer.body).events[-1].json == {"message": "the model broke", "partial": False}
    await settled(edge)
    assert [turn["content"] for turn in await kept(edge)] == ["before", "Hello there"]


async def test_another_upstream_takes_over_behind_the_first_event(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as second:
        fake.script(*json_answer({"error": {"message": "busy"}}, 503))
        second.script(*chat_answer(["from the second"]))
        edge = await serve(fake.url, second.url)
        answer = await said(edge)
    ids = [event.id.partition(":")[2] for event in parsed(answer.body).events]
    assert (text_of(answer), ids) == ("from the second", ["1", "2", "3"])
    assert (await edge.record())["attempts"] == 2


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
@pytest.mark.parametrize("begun", [True, False], ids=["tokens", "nothing"])
async def test_a_reader_that_leaves_stops_the_model_and_what_came_is_kept(
    serve: Serve, fake: FakeModel, how: str, begun: bool
) -> None:
    """After a while, in which another reader may come."""
    fake.script(*(BEGUN if begun else [head()]), gate("held"), stall())
    edge = await serve(stream={"grace_s": 0.05})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi"})
        await client.until(b"tok" if begun else b"data:")
        await fake.reached("held")
        getattr(client, how)()
        await fake.requests[0].left()
        await settled(edge)
    partial = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "tok", "partial": True}]
    assert await kept(edge) == (partial if begun else [])
    await said(edge, "go on")
    assert len(asked(fake)) == (3 if begun else 1)


async def test_where_the_model_may_finish_the_whole_answer_is_kept(serve: Serve, fake: FakeModel) -> None:
    fake.script(*BEGUN, gate("more"), chunk(b"".join(chat_events(["en"])[1:])), end())
    edge = await serve(stream={"on_disconnect": "drain"})
    async with RawClient(edge.port) as client:
        await client.post(STREAM, {"message": "hi"})
        before = await client.until(b"tok")
    fake.open("more")
    await settled(edge)
    assert await kept(edge) == [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "token"}]
    last = parsed(before.partition(b"\r\n\r\n")[2].replace(b"\r\n", b"\n")).events[-1].id
    rest = parsed((await get(edge.port, f"{STREAM}?prompt=hi", {"Last-Event-ID": last})).body)
    assert (rest.events[0].json["delta"], rest.events[-1].json["done"]) == ("en", True)
