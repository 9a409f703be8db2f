"""Ollama's API in front of a server that speaks chat: its clients cannot tell it from an Ollama."""

import asyncio
from datetime import datetime
from typing import Any

import orjson
import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_answer,
    chat_delta,
    chat_events,
    chat_finish,
    chat_role,
    chat_token,
    chat_usage,
    chunk,
    completion_answer,
    end,
    fin,
    gate,
    head,
    json_answer,
    sse_error,
    stream_answer,
)
from support.ollama import (
    CHAT,
    EMBED,
    EMBEDDINGS,
    GENERATE,
    HI,
    generate_lines,
    lines_answer,
    lines_of,
    pass_for_ollama,
    text_of,
)
from support.raw import RawClient, ask
from support.running import Running, Serve
from support.sdk import BEATING, heartbeats

PNG = "iVBORw0KGgo="
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
ASKED: dict[str, dict[str, Any]] = {CHAT: {"messages": [HI]}, GENERATE: {"prompt": "hi"}}
both = pytest.mark.parametrize("path", [CHAT, GENERATE])


def asked(path: str, **extra: Any) -> dict[str, Any]:
    return {"model": "m", **ASKED[path], **extra}


@both
async def test_an_answer_streams_by_default_and_ends_with_its_figures(serve: Serve, path: str) -> None:
    edge = await serve()
    answer = await ask(edge.port, path, asked(path))
    assert (answer.status, answer.clean) == (200, True)
    assert answer.headers["content-type"] == "application/x-ndjson"
    *told, last = lines_of(answer)
    assert text_of([*told, last]) == "Hello there"
    assert not any(line["done"] for line in told)
    assert (last["done"], last["done_reason"]) == (True, "stop")
    assert (last["prompt_eval_count"], last["eval_count"], last["load_duration"]) == (7, 3, 0)
    assert last["total_duration"] == pytest.approx(last["prompt_eval_duration"] + last["eval_duration"], abs=2)
    assert last["total_duration"] > 0
    record = await edge.record()
    assert (record["outcome"], record["surface"]) == ("complete", path.replace("/api/", "ollama_"))
    assert (record["tokens_in"], record["tokens_out"]) == (7, 3)


@both
async def test_without_a_stream_it_is_one_object(serve: Serve, path: str) -> None:
    answer = await ask((await serve()).port, path, asked(path, stream=False))
    assert answer.headers["content-type"].startswith("application/json")
    assert text_of([answer.json]) == "Hello there"
    assert (answer.json["done"], answer.json["done_reason"], answer.json["eval_count"]) == (True, "stop", 3)


@pytest.mark.parametrize("stream", [True, False])
async def test_tool_calls_that_come_in_pieces_are_told_whole(serve: Serve, fake: FakeModel, *, stream: bool) -> None:
    def call(index: int, arguments: str, **first: Any) -> bytes:
        function = {"arguments": arguments, **({"name": "weather"} if first else {})}
        return chat_delta({"tool_calls": [{"index": index, "function": function, **first}]})

    pieces = [call(0, "", id="call_a", type="function"), call(0, '{"city":'), call(0, '"Rome"}'), call(1, "{}", id="b")]
    fake.script(*stream_answer([chat_role(), *pieces, chat_finish("tool_calls"), chat_usage(), DONE]))
    answer = await ask((await serve()).port, CHAT, asked(CHAT, tools=[TOOL], stream=stream))
    told = lines_of(answer) if stream else [answer.json]
    (calls,) = [line["message"]["tool_calls"] for line in told if line["message"].get("tool_calls")]
    assert [(call["function"]["name"], call["function"]["arguments"]) for call in calls] == [
        ("weather", {"city": "Rome"}),
        ("weather", {}),
    ]
    assert told[-1]["done_reason"] == "stop"  # Ollama has no word for it
    assert fake.requests[0].json["tools"] == [TOOL]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [('{"x', "for f are no JSON object"), ('{"x":' * 300 + "1" + "}" * 300, "are nested too deep")],
)
async def test_arguments_that_cannot_be_told_are_an_error(
    serve: Serve, fake: FakeModel, arguments: str, why: str
) -> None:
    begun = {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": arguments}}
    events = [chat_role(), chat_token("hm"), chat_delta({"tool_calls": [begun]}), chat_finish("tool_calls"), DONE]
    fake.script(*stream_answer(events))
    answer = await ask((await serve()).port, CHAT, asked(CHAT))
    *told, last = lines_of(answer)
    assert text_of(told) == "hm"
    assert f"arguments {why}" in last["error"]
    assert answer.clean  # the line is the end: its clients raise on it


async def test_thinking_is_told_apart(serve: Serve, fake: FakeModel) -> None:
    events = [chat_role(), chat_delta({"reasoning_content": "hm"}), chat_token("yes"), chat_finish(), DONE]
    fake.script(*stream_answer(events))
    told = lines_of(await ask((await serve()).port, CHAT, asked(CHAT, think="low")))
    assert told[0]["message"] == {"role": "assistant", "content": "", "thinking": "hm"}
    assert text_of(told) == "yes"
    assert fake.requests[0].json["reasoning_effort"] == "low"


@both
async def test_images_and_a_schema_reach_the_model(serve: Serve, fake: FakeModel, path: str) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
    extra = {"images": [PNG]} if path == GENERATE else {"messages": [{**HI, "images": [PNG]}]}
    assert (await ask((await serve()).port, path, asked(path, format=schema, **extra))).status == 200
    sent = fake.requests[0].json
    assert sent["messages"][0]["content"] == [
        {"type": "text", "text": "hi"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]
    assert sent["response_format"]["json_schema"]["schema"] == schema


async def test_a_length_stop_is_one(serve: Serve, fake: FakeModel) -> None:
    fake.script(*stream_answer([chat_role(), chat_token("a"), chat_finish("length"), chat_usage(), DONE]))
    answer = await ask((await serve()).port, CHAT, asked(CHAT, options={"num_predict": 1, "num_ctx": 64}))
    assert lines_of(answer)[-1]["done_reason"] == "length"
    assert fake.requests[0].json["max_tokens"] == 1
    assert answer.headers["x-edge-dropped-params"] == "options.num_ctx"


@both
@pytest.mark.parametrize("stream", [True, False])
async def test_a_refusal_before_the_answer_has_its_status_and_a_string(
    serve: Serve, fake: FakeModel, path: str, *, stream: bool
) -> None:
    fake.script(*json_answer({"error": {"message": "too long", "type": "invalid_request_error"}}, 400))
    answer = await ask((await serve()).port, path, asked(path, stream=stream))
    assert (answer.status, answer.json) == (400, {"error": "too long"})


@both
async def test_an_error_in_the_middle_is_a_line_and_the_end(serve: Serve, fake: FakeModel, path: str) -> None:
    for _ in range(2):
        fake.script(head(), chunk(chat_role() + chat_token("a")), chunk(sse_error("the model broke")), end())
    edge = await serve()
    answer = await ask(edge.port, path, asked(path))
    *told, last = lines_of(answer)
    assert (text_of(told), last) == ("a", {"error": "the model broke"})
    assert answer.clean
    cut = await ask(edge.port, path, asked(path), version="1.0")
    assert cut.ending == "reset"
    assert (await edge.record())["outcome"] == "upstream_error"


@both
async def test_a_cut_stream_is_no_whole_answer(serve: Serve, fake: FakeModel, path: str) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a")), fin())
    edge = await serve()
    answer = await ask(edge.port, path, asked(path))
    told = lines_of(answer)
    assert "error" in told[-1]
    assert not any(line.get("done") for line in told)
    assert (await ask(edge.port, path, asked(path, stream=False))).status == 200  # the next one is not touched


async def test_an_error_without_a_stream_is_a_status(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a")), chunk(sse_error("the model broke")), end())
    answer = await ask((await serve()).port, CHAT, asked(CHAT, stream=False))
    assert (answer.status, answer.json) == (500, {"error": "the model broke"})


@both
async def test_a_client_that_leaves_stops_the_model(serve: Serve, fake: FakeModel, path: str) -> None:
    fake.script(head(), chunk(chat_role() + chat_token("a")), gate("never"))
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(path, asked(path))
        await client.until(b'"a"')
    request = await fake.request(0)
    assert await request.left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"


@both
async def test_a_model_that_is_silent_is_waited_for_with_empty_lines(serve: Serve, fake: FakeModel, path: str) -> None:
    edge = await serve(stream=BEATING)
    fake.script(heartbeats(edge), *chat_answer())
    told = lines_of(await ask(edge.port, path, asked(path)))
    assert len(told) > 4
    assert told[0]["done"] is False
    assert text_of(told) == "Hello there"
    assert sum(line["done"] for line in told) == 1


async def test_an_answer_is_the_same_however_the_network_cuts_it(serve: Serve, fake: FakeModel) -> None:
    events = b"".join(chat_events(["é🎈", "\n\r\u2028", '"error"']))
    edge = await serve()
    for every in (1, 2, 3, 7, 64, len(events)):
        fake.script(head(), chunk(events, every=every), end())
        told = lines_of(await ask(edge.port, CHAT, asked(CHAT)))
        assert text_of(told) == 'é🎈\n\r\u2028"error"'
        assert told[-1]["eval_count"] == 3


async def test_a_raw_prompt_is_continued_by_who_can(serve: Serve, fake: FakeModel) -> None:
    fake.script(*completion_answer(), path="/v1/completions")
    edge = await serve()
    answer = await ask(edge.port, GENERATE, asked(GENERATE, raw=True, options={"stop": ["\n"]}))
    assert text_of(lines_of(answer)) == "Hello there"
    sent = fake.requests[0].json
    assert (sent["prompt"], sent["stop"], sent["max_tokens"]) == ("hi", ["\n"], None)
    whole = await ask(edge.port, GENERATE, asked(GENERATE, suffix="end", stream=False))
    assert (whole.json["response"], fake.requests[1].json["suffix"]) == ("Hello there", "end")


@pytest.mark.parametrize("fields", [{"raw": True}, {"suffix": "end"}])
async def test_a_raw_prompt_is_refused_by_name_where_nobody_can_continue_it(
    serve: Serve, fake: FakeModel, fields: dict[str, Any]
) -> None:
    edge = await serve(upstream={"surfaces": ["chat"]})
    answer = await ask(edge.port, GENERATE, asked(GENERATE, **fields))
    assert answer.status == 400
    assert answer.json == {"error": f"{next(iter(fields))}: up cannot continue a prompt as it stands"}
    assert fake.requests == []


@pytest.mark.parametrize(("asked_for", "listed"), [("m:latest", "m"), ("m", "m:latest"), ("m:8b", "m:8b")])
async def test_latest_is_the_tag_of_a_name_without_one(
    serve: Serve, fake: FakeModel, asked_for: str, listed: str
) -> None:
    """Open WebUI adds it to names, other clients leave it out; two servers, so that the name decides."""
    async with FakeModel() as second:
        fake.models, second.models = ["other"], [listed]
        edge = await serve(fake.url, second.url)
        for path, body in ((CHAT, ASKED[CHAT]), (GENERATE, ASKED[GENERATE]), (EMBED, {"input": "hi"})):
            answer = await ask(edge.port, path, {"model": asked_for, **body})
            assert answer.status == 200
            assert second.requests[-1].json["model"] == listed
    assert fake.requests == []


@pytest.mark.parametrize(
    ("path", "body", "reason"),
    [
        (CHAT, {"messages": []}, "load"),
        (CHAT, {}, "load"),
        (CHAT, {"messages": [], "keep_alive": 0}, "unload"),
        (CHAT, {"messages": [], "keep_alive": "0s", "stream": True}, "unload"),
        (GENERATE, {}, "load"),
        (GENERATE, {"prompt": "", "keep_alive": -1}, "load"),
        (GENERATE, {"prompt": "", "keep_alive": "0"}, "unload"),
    ],
)
async def test_asking_nothing_is_answered_without_the_model(
    serve: Serve, fake: FakeModel, path: str, body: dict[str, Any], reason: str
) -> None:
    answer = await ask((await serve()).port, path, {"model": "m", **body})
    assert answer.status == 200
    assert (answer.json["done"], answer.json["done_reason"], text_of([answer.json])) == (True, reason, "")
    assert datetime.fromisoformat(answer.json["created_at"])
    assert fake.requests == []


async def test_loading_what_nobody_has_is_an_error(serve: Serve, fake: FakeModel) -> None:
    fake.models = ["a", "b"]
    async with FakeModel() as second:
        edge = await serve(fake.url, second.url)
        answer = await ask(edge.port, CHAT, {"model": "none", "messages": []})
        assert answer.status == 404
        assert isinstance(answer.json["error"], str)
        wrong = await ask(edge.port, GENERATE, {"model": "a", "prompt": 0})
        assert (wrong.status, wrong.json) == (400, {"error": "prompt: must be a string"})


async def test_embeddings_are_had_in_both_forms(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    new = await ask(edge.port, EMBED, {"model": "m", "input": ["hi"], "keep_alive": "5m"})
    assert (new.json["embeddings"], new.json["prompt_eval_count"]) == ([[0.25, -0.5]], 7)
    old = await ask(edge.port, EMBEDDINGS, {"model": "m", "prompt": "hi", "options": {"num_ctx": 9}})
    assert old.json == {"embedding": [0.25, -0.5]}
    assert fake.requests[1].json["input"] == "hi"
    assert old.headers["x-edge-dropped-params"] == "options"
    fake.script(*json_answer({"object": "list", "data": []}))
    assert (await ask(edge.port, EMBEDDINGS, {"model": "m", "prompt": "hi"})).status == 502
    wrong = await ask(edge.port, EMBEDDINGS, {"model": "m", "prompt": ["hi"]})
    assert (wrong.status, wrong.json) == (400, {"error": "prompt: must be a string"})


@pytest.mark.parametrize(
    ("path", "raw", "status"),
    [
        (CHAT, b"{", 400),
        (CHAT, b"[]", 400),
        (CHAT, b'{"model":"m","messages":"hi"}', 400),
        (GENERATE, b'{"model":"m","prompt":"hi","options":[]}', 400),
        (GENERATE, b'{"model":"m","prompt":"hi","context":[1]}', 400),
        ("/api/show", b"{}", 400),
        ("/api/show", b'{"model":7}', 400),
        ("/api/nothing", b"{}", 404),
        ("/api/tags", b"{}", 405),
    ],
)
async def test_every_failure_has_ollamas_shape(serve: Serve, path: str, raw: bytes, status: int) -> None:
    answer = await ask((await serve()).port, path, raw)
    assert answer.status == status
    assert list(answer.json) == ["error"]
    assert isinstance(answer.json["error"], str)


async def test_a_wrong_key_is_told_in_ollamas_shape(serve: Serve) -> None:
    edge: Running = await serve(auth={"keys": ["secret-key-of-some-length"]})
    answer = await ask(edge.port, CHAT, asked(CHAT))
    assert (answer.status, list(answer.json)) == (401, ["error"])


@pytest.mark.parametrize("fields", [{}, {"raw": True}, {"suffix": "end"}, {"context": [1]}, {"template": "t"}])
async def test_an_ollama_is_relayed_to_as_it_is(serve: Serve, fake: FakeModel, fields: dict[str, Any]) -> None:
    """Whatever the request holds, and whatever the tag."""
    pass_for_ollama(fake)
    told = generate_lines()
    fake.script(*lines_answer(told), path=GENERATE)
    answer = await ask((await serve()).port, GENERATE, {"model": "llama3:8b", "prompt": "hi", **fields})
    assert (answer.status, answer.body) == (200, b"".join(told))
    assert fake.requests[0].json == {"model": "llama3:8b", "prompt": "hi", "stream": True, **fields}
    assert "x-edge-dropped-params" not in answer.headers


@both
async def test_an_ollama_is_asked_to_load(serve: Serve, fake: FakeModel, path: str) -> None:
    """It answers that with JSON even to those who stream."""
    pass_for_ollama(fake)
    said = {"model": "llama3:8b", "done": True, "done_reason": "load"}
    fake.script(*json_answer(said), path=path)
    answer = await ask((await serve()).port, path, {"model": "llama3:8b", "messages": [], "keep_alive": "5m"})
    assert (answer.status, answer.json) == (200, said)
    assert fake.requests[0].json["keep_alive"] == "5m"


async def test_two_at_once_have_their_own_answers(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    answers = await asyncio.gather(*(ask(edge.port, path, asked(path)) for path in (CHAT, GENERATE) * 4))
    assert {text_of(lines_of(answer)) for answer in answers} == {"Hello there"}
    assert all(orjson.loads(answer.body.splitlines()[-1])["done"] for answer in answers)


@pytest.mark.parametrize("sent_by", ["curl", "Origin", "Sec-Fetch-Site"])
async def test_curl_alone_is_enough_but_a_page_may_not(serve: Serve, fake: FakeModel, sent_by: str) -> None:
    """``curl -d`` says that JSON is a form, as a page's form would; a browser says more."""
    edge = await serve()
    browser = (
        {} if sent_by == "curl" else {sent_by: "cross-site" if sent_by.startswith("Sec") else "http://evil.example"}
    )
    headers = {"Content-Type": "application/x-www-form-urlencoded", **browser}
    answer = await ask(edge.port, CHAT, {"model": "m", "messages": [HI]}, headers)
    assert answer.status == (200 if sent_by == "curl" else 415)
    assert len(fake.requests) == (sent_by == "curl")


RELAYED: dict[str, dict[str, Any]] = {
    CHAT: {"messages": [HI]},
    GENERATE: {"prompt": "hi"},
    EMBED: {"input": "hi"},
    EMBEDDINGS: {"prompt": "hi"},
}


@pytest.mark.parametrize("path", RELAYED)
async def test_an_upstreams_settings_hold_for_what_is_relayed(serve: Serve, fake: FakeModel, path: str) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream={"num_ctx": 512, "keep_alive": "-1"})
    await ask(edge.port, path, {"model": "llama3:8b", **RELAYED[path], "options": {"seed": 1}})
    sent = fake.requests[-1].json
    assert (sent["options"], sent["keep_alive"]) == ({"num_ctx": 512, "seed": 1}, -1)
    await ask(edge.port, path, {"model": "llama3:8b", **RELAYED[path], "options": {"num_ctx": 9}, "keep_alive": "1m"})
    sent = fake.requests[-1].json
    assert (sent["options"], sent["keep_alive"]) == ({"num_ctx": 9}, "1m")


async def test_they_hold_for_a_request_that_only_loads_the_model(serve: Serve, fake: FakeModel) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream={"num_ctx": 512, "keep_alive": "30m"})
    await ask(edge.port, CHAT, {"model": "llama3:8b"})
    sent = fake.requests[-1].json
    assert (sent["options"], sent["keep_alive"]) == ({"num_ctx": 512}, "30m")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/embeddings"])
async def test_they_hold_for_what_is_translated(serve: Serve, fake: FakeModel, path: str) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream={"num_ctx": 512, "keep_alive": "30m"})
    await ask(edge.port, path, {"model": "llama3:8b", "messages": [HI], "input": "hi"})
    sent = fake.requests[-1].json
    assert (sent["options"], sent["keep_alive"]) == ({"num_ctx": 512}, "30m")
