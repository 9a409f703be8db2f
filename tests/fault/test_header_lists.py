"""Only listed headers pass, either way; a client's credential goes nowhere; one request id goes everywhere."""

import re

import pytest
from fakes.model_server import FakeModel, chunk, end, head, json_answer
from support.faults import SURFACES, every_surface, streamed_or_not
from support.raw import CHAT, ask, chat_body
from support.running import Serve
from support.surfaces import Spoken

CANARY = "sk-canary-0123456789"
NEVER_UP = {
    "Authorization": f"Bearer {CANARY}",
    "x-api-key": CANARY,
    "api-key": CANARY,
    "Cookie": f"session={CANARY}",
    "Proxy-Authorization": f"Basic {CANARY}",
    "X-Conversation-Id": "c",
    "X-Forwarded-For": "10.0.0.1",
    "X-Forwarded-Host": "evil.example",
    "X-Real-IP": "10.0.0.1",
    "Forwarded": "for=10.0.0.1",
    "Connection": "keep-alive, X-Custom",
    "Keep-Alive": "timeout=9",
    "TE": "trailers",
    "Upgrade": "h2c",
    "X-Custom": "1",
    "OpenAI-Organization": "org",
    "x-stainless-retry-count": "1",
    "Accept-Encoding": "gzip",
    "User-Agent": "theirs",
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
}
FORWARDED = {"anthropic-version": "2023-06-01", "anthropic-beta": "a,b", "openai-beta": "c"}
NEVER_DOWN = {
    "Set-Cookie": "a=b",
    "Server": "uvicorn",
    "Connection": "keep-alive, X-Up",
    "Keep-Alive": "timeout=5",
    "X-Up": "1",
    "Via": "1.1 up",
    "Access-Control-Allow-Origin": "*",
    "Content-Encoding": "identity",
    "Alt-Svc": "h3",
    "x-request-id": "theirs",
    "request-id": "theirs",
    "Strict-Transport-Security": "max-age=1",
}
PASSED_DOWN = {"x-ratelimit-remaining-tokens": "5", "openai-processing-ms": "12", "anthropic-ratelimit-x": "1"}
OUR_OWN_UP = {
    "host", "accept", "accept-encoding", "user-agent", "content-type", "content-length", "x-request-id", "cdn-loop",
}  # fmt: skip
SSE = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}


@every_surface
@streamed_or_not
async def test_only_listed_headers_go_up(serve: Serve, fake: FakeModel, spoken: Spoken, *, stream: bool) -> None:
    """Also when the upstream refuses: nothing of a client's key is anywhere, the log included."""
    edge = await serve(upstream={**SURFACES, "api_key": "sk-upstream", "headers": {"X-Own": "ours"}})
    for _ in range(2):
        answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream), {**NEVER_UP, **FORWARDED})
        assert CANARY.encode() not in answer.body
        fake.script(*json_answer({"error": {"message": "no"}}, 401))
    for request in fake.requests:
        assert set(map(str.lower, request.headers)) == {*OUR_OWN_UP, *FORWARDED, "authorization", "x-own"}
        assert request.headers.getall("Authorization") == ["Bearer sk-upstream"]
        assert {name: request.headers[name] for name in FORWARDED} == FORWARDED
        assert (request.headers["X-Own"], request.headers["Accept-Encoding"]) == ("ours", "identity")
        assert "theirs" not in request.headers["User-Agent"]
        assert CANARY not in str(request.headers)
        assert CANARY.encode() not in request.body
    assert CANARY not in str(edge.lines.lines)
    assert "sk-upstream" not in str(edge.lines.lines)


async def test_without_an_api_key_no_authorization_goes_up(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(auth={"keys": [CANARY]})
    refused = await ask(edge.port, CHAT, chat_body(), {"Authorization": "Bearer wrong-key-777"})
    assert refused.status == 401
    answer = await ask(edge.port, CHAT, chat_body(), {"Authorization": f"Bearer {CANARY}"})
    assert answer.status == 200
    assert len(fake.requests) == 1
    assert "Authorization" not in fake.requests[0].headers
    told = str(edge.lines.lines)
    assert CANARY not in told
    assert "wrong-key-777" not in told


@every_surface
@streamed_or_not
async def test_only_listed_headers_go_down(serve: Serve, fake: FakeModel, spoken: Spoken, *, stream: bool) -> None:
    fake.script(
        head(200, {**SSE, **NEVER_DOWN, **PASSED_DOWN}), chunk(spoken.prelude + spoken.token + spoken.ending), end()
    )
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    assert answer.status == 200
    own = {"x-request-id", "request-id", "x-stream-id", "x-edge-upstream", "server-timing", "server", "date"}
    framing = {
        "content-type",
        *({"transfer-encoding", "cache-control", "x-accel-buffering"} if stream else {"content-length"}),
    }
    assert answer.headers.keys() == own | framing | PASSED_DOWN.keys()
    assert {name: answer.headers[name] for name in PASSED_DOWN} == PASSED_DOWN
    assert answer.headers["server"].startswith("edge/")
    assert answer.headers["x-request-id"] == answer.headers["request-id"] != "theirs"


@streamed_or_not
@pytest.mark.parametrize("given", ["abc", "A-b_c.9", "x" * 64, "3f0b2c1e-8d4e-4c2a-9b7e-1a2b3c4d5e6f"])
async def test_a_well_formed_request_id_goes_everywhere(
    serve: Serve, fake: FakeModel, given: str, *, stream: bool
) -> None:
    edge = await serve(log={"progress_s": 0.02})
    answer = await ask(edge.port, CHAT, chat_body(stream=stream), {"X-Request-ID": given})
    assert answer.headers["x-request-id"] == given
    assert fake.requests[0].headers["x-request-id"] == given
    assert {line["request_id"] for line in edge.lines.lines if "request_id" in line} == {given}
    assert len(edge.lines.of("start")) == len(edge.lines.of("exchange")) == 1


@pytest.mark.parametrize("given", [None, "", "x" * 65, "a b", "a/b", "ä", 'a"b', "{}", "a\tb"])
async def test_any_other_request_id_is_replaced(serve: Serve, fake: FakeModel, given: str | None) -> None:
    edge = await serve()
    headers = {} if given is None else {"x-request-id": given}
    answer = await ask(edge.port, CHAT, chat_body(), headers)
    made = answer.headers["x-request-id"]
    assert re.fullmatch(r"req_[0-9a-f]{32}", made)
    assert fake.requests[0].headers["x-request-id"] == made
    assert (await edge.record())["request_id"] == made


async def test_every_answer_has_a_request_id_of_its_own(serve: Serve) -> None:
    edge = await serve()
    answers = [await ask(edge.port, path, chat_body()) for path in (CHAT, CHAT, "/v1/nowhere")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 3
