"""Recorded answers of a real Ollama and a real vLLM, relayed: a client of their own surface gets their bytes."""

from typing import Any

import orjson
import pytest
from fakes.model_server import FakeModel
from support.captures import Capture, be, captures
from support.raw import RESPONSES, Answer, ask
from support.running import Running, Serve

# What a server takes and Edge does not, or says better: the server is not asked.
SAID_BY_EDGE = {
    "ollama-chat-bytes-after-the-json": 400,
    "ollama-chat-stream-as-text": 400,
    "vllm-chat-stream-as-text": 400,
    "vllm-chat-body-not-json": 400,
    "vllm-responses-background": 400,
    "vllm-responses-background-refused": 400,
    "vllm-responses-background-stream": 400,
}
# Status 200, and nothing but an error: the client gets the status that belongs to it.
FAILED_AT_ONCE = {"vllm-chat-bad-schema-stream": 400, "vllm-messages-stream-server-stopped": 502}
# They just end, or with an error that the client is told.
BROKEN = {
    "ollama-chat-stream-runner-killed": "unexpected EOF",
    "ollama-v1-chat-stream-runner-killed": "",
    "ollama-v1-messages-stream-runner-killed": "",
    "ollama-v1-responses-stream-runner-killed": "",
    "vllm-chat-stream-engine-killed": "EngineCore encountered an issue",
    "vllm-messages-stream-engine-killed": "2 validation errors",
    "vllm-responses-stream-engine-killed": "",
}
NOT_RELAYED = (b'data: {"error"', b"event: error", b'{"error"', b"data: [DONE]")  # Edge's own words say as much
FINALS = (b"[DONE]", b'"message_stop"', b'"response.completed"', b'"done":true')
EVERY = [one for one in captures() if one.method == "POST" and one.path not in ("/api/pull", "/api/push", "/api/show")]
AS_THEY_ARE = [
    one for one in EVERY if str(one) not in {**SAID_BY_EDGE, **FAILED_AT_ONCE, **BROKEN, "vllm-tokenize-chat": 0}
]


def upstream(capture: Capture) -> dict[str, Any]:
    """Settings by which what was asked goes to the server's own route."""
    if capture.path.startswith("/api/"):
        return {"kind": "ollama"}
    own = {"/v1/embeddings": "embeddings", "/v1/messages/count_tokens": "count_tokens"}
    if capture.path == "/tokenize":
        return {"relay": ["/tokenize"]}
    surface = own.get(capture.path) or capture.surface
    # The repair that vLLM gets by default writes a thought under a second name too.
    return {"surfaces": [surface], **({"repairs": []} if capture.name == "chat-thinking-stream" else {})}


async def replayed(serve: Serve, fake: FakeModel, capture: Capture) -> tuple[Running, Answer]:
    """What the client that asked gets through Edge."""
    be(fake, capture.server)
    edge = await serve(upstream=upstream(capture))
    fake.script(*capture.steps())
    body = capture.body.encode() if isinstance(capture.body, str) else capture.body
    return edge, await ask(edge.port, capture.path, body)


def message_of(body: bytes) -> str:
    if not body.startswith(b"{"):
        return body.decode()
    told = orjson.loads(body)
    error = told.get("error", told.get("detail"))
    return str(error if isinstance(error, str) else error["message"])


def named(names: Any) -> Any:
    return pytest.mark.parametrize("capture", [one for one in EVERY if str(one) in names], ids=str)


@pytest.mark.parametrize("capture", AS_THEY_ARE, ids=str)
async def test_a_client_gets_the_bytes(serve: Serve, fake: FakeModel, capture: Capture) -> None:
    edge, answer = await replayed(serve, fake, capture)
    assert (answer.status, answer.clean) == (capture.status, True)
    if capture.name == "v1-messages-count-tokens":  # there is no such route, and no message that tells of it
        assert "404" in message_of(answer.body)
    elif capture.status >= 400:
        assert message_of(answer.body) == message_of(capture.data)
    elif capture.name == "generate-repeat-guard-stream":  # Edge adds the last line that the server leaves out
        assert answer.body.startswith(capture.data)
        (last,) = answer.body.removeprefix(capture.data).splitlines()
        assert orjson.loads(last)["done_reason"] == "length"
    else:
        assert answer.body == (b"".join(capture.events()) if capture.streamed else capture.data)
        assert answer.headers["content-type"].split(";")[0] == capture.content_type.split(";")[0]
        assert capture.path in ("/api/embed", "/v1/embeddings") or (await edge.record())["outcome"] == "complete"


@pytest.mark.parametrize("capture", AS_THEY_ARE, ids=str)
async def test_a_server_gets_what_was_asked(serve: Serve, fake: FakeModel, capture: Capture) -> None:
    """Nothing of the request is lost or changed; what Edge adds is named here."""
    await replayed(serve, fake, capture)
    (asked,) = fake.requests
    assert asked.path == capture.path
    got = asked.json
    if "stream" not in capture.body or capture.body["stream"] is False:
        got.pop("stream", None)
        got.pop("stream_options", None)
    elif "stream_options" not in capture.body:
        assert got.pop("stream_options", {"include_usage": True}) == {"include_usage": True}
    if capture.body.get("tools") and capture.path == "/api/chat":
        assert got.pop("truncate") is False  # an agent with half its prompt does harm
    assert got == {name: value for name, value in capture.body.items() if name != "stream" or value}


@named(SAID_BY_EDGE)
async def test_what_edge_says_itself(serve: Serve, fake: FakeModel, capture: Capture) -> None:
    edge, answer = await replayed(serve, fake, capture)
    assert (answer.status, answer.clean) == (SAID_BY_EDGE[str(capture)], True)
    assert fake.requests == []
    assert edge.lines.of("bug") == []


@named(FAILED_AT_ONCE)
async def test_an_error_in_place_of_an_answer_is_a_status(serve: Serve, fake: FakeModel, capture: Capture) -> None:
    _, answer = await replayed(serve, fake, capture)
    assert answer.status == FAILED_AT_ONCE[str(capture)]
    (payload,) = capture.payloads()
    assert message_of(answer.body) == payload["error"]["message"]


@named(BROKEN)
async def test_what_broke_is_not_called_whole(serve: Serve, fake: FakeModel, capture: Capture) -> None:
    edge, answer = await replayed(serve, fake, capture)
    events = [event for event in capture.events() if not event.startswith(NOT_RELAYED)]
    if capture.name == "v1-chat-stream-runner-killed":
        events.pop()  # an empty delta without a model name
    assert answer.body.startswith(b"".join(events))
    assert not any(final in answer.body for final in FINALS)
    assert answer.clean is (capture.path in (RESPONSES, "/api/chat"))  # whose clients raise on the error
    told = answer.body.removeprefix(b"".join(events))
    assert b'"error"' in told
    assert BROKEN[str(capture)].encode() in told
    assert (await edge.record())["outcome"] in ("upstream_error", "upstream_cut")


async def test_a_route_that_was_opened_is_relayed(serve: Serve, fake: FakeModel) -> None:
    (capture,) = [one for one in EVERY if str(one) == "vllm-tokenize-chat"]
    _, answer = await replayed(serve, fake, capture)
    assert (answer.status, answer.body) == (200, capture.data)
