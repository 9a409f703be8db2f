"""The status is held until it is known; when waiting longer would lose the client, only heartbeats go out."""

import re

import pytest
from fakes.model_server import (
    FakeModel,
    Step,
    chunk,
    end,
    gate,
    head,
    json_answer,
    responses_body,
    responses_event,
    send,
    stall,
    whole,
)
from support.faults import (
    ERROR_EVENT,
    SURFACES,
    assert_cut,
    assert_gone,
    assert_silent,
    beats,
    every_surface,
    is_heartbeat,
    payload,
    streamed_or_not,
    told_by_status,
    whole_stream,
    without_usage,
)
from support.raw import MESSAGES, RESPONSES, RawClient, ask, dechunk, split_events
from support.running import Running, Serve
from support.surfaces import SPOKEN, Spoken

SOON = {"commit_after_s": 0.05, "heartbeat_s": 0.05}
PING = b'event: ping\ndata: {"type":"ping"}\n\n'
COMMENT = b": ping\n\n"
KEEPALIVE = b'event: keepalive\ndata: {"type":"keepalive","sequence_number":0}\n\n'
BEATS = {MESSAGES: PING, RESPONSES: KEEPALIVE}
OPENAI_ERROR = {"error": {"message": "too long", "type": "bad", "param": "messages", "code": "context_length"}}
ANTHROPIC_ERROR = {"type": "error", "error": {"type": "overloaded_error", "message": "too long"}}


@every_surface
async def test_nothing_goes_out_before_the_first_generated_content(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    steps = [chunk(spoken.prelude)] if spoken.prelude else []
    fake.script(head(), *steps, gate("content"), chunk(spoken.token), gate("rest"), chunk(spoken.ending), end())
    edge = await serve(upstream=SURFACES)
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True))
        await fake.reached("content")
        await assert_silent(edge, client)
        fake.open("content")
        await client.until(b"tok")
        assert client.buffer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert dechunk(client.buffer.partition(b"\r\n\r\n")[2])[0] == spoken.prelude + spoken.token
        fake.open("rest")
        answer = await client.answer()
    assert answer.clean
    assert answer.body == whole_stream(spoken)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-cache", "no")
    assert answer.headers["x-edge-upstream"] == "up"
    assert re.fullmatch(r"st_[0-9a-f]{32}", answer.headers["x-stream-id"])
    assert "upstream;dur=" in answer.headers["server-timing"]
    assert fake.requests[0].connection == 0


@every_surface
async def test_an_answer_without_content_is_its_prelude_and_its_end(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    fake.script(head(), chunk(spoken.prelude + spoken.ending), end())
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert (answer.status, answer.clean) == (200, True)
    assert answer.body == without_usage(spoken.prelude + spoken.ending)
    assert (await edge.record())["outcome"] == "complete"


LIMITS = {
    "Retry-After": "7",
    "X-RateLimit-Remaining-Requests": "0",
    "anthropic-ratelimit-tokens-reset": "soon",
    "x-should-retry": "false",
}
SECRET = {"Server": "uvicorn", "Set-Cookie": "a=b", "X-Internal": "1", "x-request-id": "theirs", "Via": "proxy"}

BODIES: dict[str, tuple[bytes, str, str]] = {
    "openai": (
        b'{"error":{"message":"too long","type":"bad","param":null,"code":"c"}}',
        "application/json",
        "too long",
    ),
    "anthropic": (
        b'{"type":"error","error":{"type":"some_error","message":"too long"}}',
        "application/json",
        "too long",
    ),
    "string": (b'{"error":"too long"}', "application/json", "too long"),
    "fastapi": (b'{"detail":"too long"}', "application/json", "too long"),
    "undeclared": (b'{"error":{"message":"too long"}}', "text/plain", "too long"),
    "html": (b"<html><body>Bad gateway", "text/html", "answered with status"),
    "empty": (b"", "text/plain", "answered with status"),
    "malformed": (b'{"error":', "application/json", "answered with status"),
    "list": (b'["too long"]', "application/json", "too long"),
}


@every_surface
@streamed_or_not
@pytest.mark.parametrize(
    ("status", "body"), [(status, "openai") for status in (400, 401, 404, 422, 429, 500, 503, 529)]
)
async def test_the_upstreams_error_status_reaches_the_client(
    serve: Serve, fake: FakeModel, spoken: Spoken, status: int, body: str, *, stream: bool
) -> None:
    data, kind, _ = BODIES[body]
    fake.script(*whole(data, status, {"Content-Type": kind, **LIMITS, **SECRET}))
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    assert answer.status == status
    assert told_by_status(spoken, answer)["message"] == "too long"
    for name, value in LIMITS.items():
        assert answer.headers[name.lower()] == value
    assert not {"set-cookie", "x-internal", "via"} & answer.headers.keys()
    assert "uvicorn" not in answer.headers["server"]
    assert answer.headers["x-request-id"] != "theirs"
    assert answer.headers["x-edge-upstream"] == "up"
    record = await edge.record()
    assert (record["outcome"], record["status"]) == ("upstream_error", status)


@every_surface
@streamed_or_not
@pytest.mark.parametrize("body", BODIES)
async def test_an_error_in_any_shape_is_told_in_the_surfaces_own(
    serve: Serve, fake: FakeModel, spoken: Spoken, body: str, *, stream: bool
) -> None:
    data, kind, message = BODIES[body]
    fake.script(*whole(data, 418, {"Content-Type": kind}))
    edge = await serve(upstream=SURFACES)
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=stream))
    assert answer.status == 418
    error = told_by_status(spoken, answer, own=message == "too long")
    assert message in error["message"]
    if body == "openai" and spoken.path != MESSAGES:
        assert (error["type"], error["code"]) == ("bad", "c")  # the upstream's own, whole
    if body == "anthropic" and spoken.path == MESSAGES:
        assert error["type"] == "some_error"


async def committed(edge: Running, client: RawClient, spoken: Spoken) -> bytes:
    """Ask for a stream and wait for the deadline's commit and two heartbeats; returns what a heartbeat is."""
    await client.post(spoken.path, spoken.asked(stream=True))
    heartbeat = BEATS.get(spoken.path, COMMENT)
    await client.until(heartbeat)
    await beats(edge, 2)
    return heartbeat


def created(spoken: Spoken, body: bytes) -> bytes:
    """What goes out with a status that is sent early: on one surface the event that begins its answers."""
    if spoken.path != RESPONSES:
        return b""
    (first, *_) = split_events(body)
    told = payload(first)
    assert (told["type"], told["sequence_number"]) == ("response.created", 0)
    assert (told["response"]["status"], told["response"]["output"]) == ("in_progress", [])
    return first


def agrees(spoken: Spoken, body: bytes, first: bytes) -> bytes:
    """The answer, as it would be had the upstream's own first event gone out."""
    if not first:
        return body
    assert body.startswith(first)
    ours = payload(first)["response"]
    told = [payload(event) for event in split_events(body)]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    responses = [event["response"] for event in told if "response" in event]
    assert {(each["id"], each["created_at"]) for each in responses} == {(ours["id"], ours["created_at"])}
    theirs = responses_body(None)
    for each in responses:
        each |= {"id": theirs["id"], "created_at": theirs["created_at"]}
    told[0]["response"] = theirs
    return b"".join(responses_event(event.pop("type"), event.pop("sequence_number"), **event) for event in told)


@every_surface
@pytest.mark.parametrize("begun", [False, True], ids=["headers", "prelude"])
async def test_after_the_deadline_only_heartbeats_go_out(
    serve: Serve, fake: FakeModel, spoken: Spoken, *, begun: bool
) -> None:
    steps: list[Step] = [head(), chunk(spoken.prelude or b": x\n\n")]
    before, after = (steps, []) if begun else ([], steps)
    fake.script(*before, gate("content"), *after, chunk(spoken.token + spoken.ending), end())
    edge = await serve(upstream=SURFACES, stream=SOON)
    async with RawClient(edge.port) as client:
        heartbeat = await committed(edge, client, spoken)
        assert client.buffer.startswith(b"HTTP/1.1 200 OK\r\n")
        sofar = dechunk(client.buffer.partition(b"\r\n\r\n")[2])[0]
        first = created(spoken, sofar)
        assert sofar.removeprefix(first) == heartbeat * (len(sofar.removeprefix(first)) // len(heartbeat))
        assert not (begun and first) or spoken.prelude.startswith(first)  # the upstream's own
        fake.open("content")
        answer = await client.answer()
    assert answer.clean
    beaten = answer.events.count(heartbeat)
    assert answer.body.startswith(first + heartbeat * beaten)
    assert agrees(spoken, answer.body.replace(heartbeat, b""), first) == whole_stream(spoken)
    record = await edge.record()
    assert (record["outcome"], record["heartbeats"], record["attempts"]) == ("complete", beaten, 1)
    assert beaten >= 2


@every_surface
@pytest.mark.parametrize("http", ["1.1", "1.0"])
async def test_a_failure_after_the_deadline_is_told_in_band(
    serve: Serve, fake: FakeModel, spoken: Spoken, http: str
) -> None:
    fake.script(gate("fail"), *json_answer(OPENAI_ERROR, 429))
    edge = await serve(upstream=SURFACES, stream=SOON)
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True), version=http)
        await client.until(BEATS.get(spoken.path, COMMENT))
        fake.open("fail")
        answer = await client.answer()
    assert assert_cut(spoken, answer)["message"] == "too long"
    record = await edge.record()
    assert (record["outcome"], record["status"], record["error"]) == ("upstream_error", 200, "rate_limit_exceeded")


@every_surface
async def test_a_held_error_event_is_told_once_after_the_deadline(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    """It was held with the prelude: neither is lost, told twice, or followed by what the upstream calls an end."""
    fake.script(head(), gate("fail"), chunk(spoken.prelude + ERROR_EVENT[spoken.path] + spoken.ending), end())
    edge = await serve(upstream=SURFACES, stream=SOON)
    async with RawClient(edge.port) as client:
        await committed(edge, client, spoken)
        fake.open("fail")
        answer = await client.answer()
    assert assert_cut(spoken, answer)["message"] == "the model broke"


@every_surface
async def test_failover_is_still_possible_after_the_deadline(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    async with FakeModel() as second:
        fake.script(head(), chunk(spoken.prelude or b": x\n\n"), gate("fail"), chunk(ERROR_EVENT[spoken.path]), end())
        second.script(head(), chunk(spoken.prelude + spoken.token + spoken.ending), end())
        edge = await serve(fake.url, second.url, upstream=SURFACES, stream=SOON)
        async with RawClient(edge.port) as client:
            heartbeat = await committed(edge, client, spoken)
            fake.open("fail")
            answer = await client.answer()
        assert answer.clean
        body = answer.body.replace(heartbeat, b"")
        assert agrees(spoken, body, created(spoken, body)) == whole_stream(spoken)
        record = await edge.record()
        assert (record["outcome"], record["attempts"], record["upstream"]) == ("complete", 2, "up1")
        await assert_gone(fake)


@every_surface
async def test_a_whole_answer_is_never_committed_early(serve: Serve, fake: FakeModel, spoken: Spoken) -> None:
    fake.script(gate("fail"), *json_answer(OPENAI_ERROR, 503))
    edge = await serve(upstream=SURFACES, stream=SOON, log={"progress_s": 0.2})
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=False))
        await edge.lines.wait("progress")  # the deadline is long over
        await assert_silent(edge, client)
        fake.open("fail")
        answer = await client.answer()
    assert answer.status == 503
    told_by_status(spoken, answer)


@every_surface
async def test_every_silence_is_filled_with_heartbeats_between_whole_events(
    serve: Serve, fake: FakeModel, spoken: Spoken
) -> None:
    half = len(spoken.token) // 2
    fake.script(
        head(),
        chunk(spoken.prelude + spoken.token),
        gate("between"),
        chunk(spoken.token[:half]),
        gate("inside"),
        chunk(spoken.token[half:] + spoken.ending),
        end(),
    )
    edge = await serve(upstream=SURFACES, stream={"heartbeat_s": 0.05})
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True))
        await client.until(b"tok")
        await beats(edge, 2)
        fake.open("between")
        await fake.reached("inside")
        await beats(edge, 4)
        fake.open("inside")
        answer = await client.answer()
    assert answer.clean
    told = [event for event in answer.events if not is_heartbeat(event)]
    assert b"".join(told) == without_usage(spoken.prelude + spoken.token * 2 + spoken.ending)
    beaten = [event for event in answer.events if is_heartbeat(event)]
    assert len(beaten) == (await edge.record())["heartbeats"] >= 4
    if spoken.path == RESPONSES:  # Codex's idle timer ignores comments
        last = payload(split_events(spoken.token)[0])["sequence_number"]
        assert {event.split(b"\n")[0] for event in beaten} == {b"event: keepalive"}
        assert [payload(event) for event in beaten] == [{"type": "keepalive", "sequence_number": last}] * len(beaten)
    else:
        assert set(beaten) == {PING if spoken.path == MESSAGES else COMMENT}


async def test_no_heartbeat_goes_out_before_the_status(serve: Serve, fake: FakeModel) -> None:
    spoken = SPOKEN[0]
    fake.script(stall())
    edge = await serve(stream={"heartbeat_s": 0.02, "commit_after_s": 60}, log={"progress_s": 0.2})
    async with RawClient(edge.port) as client:
        await client.post(spoken.path, spoken.asked(stream=True))
        await edge.lines.wait("progress")
        await assert_silent(edge, client)


async def test_interim_responses_are_not_the_status(serve: Serve, fake: FakeModel) -> None:
    spoken = SPOKEN[0]
    fake.script(
        send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        head(),
        chunk(spoken.prelude + spoken.token + spoken.ending),
        end(),
    )
    edge = await serve()
    answer = await ask(edge.port, spoken.path, spoken.asked(stream=True))
    assert (answer.status, answer.body) == (200, whole_stream(spoken))


RESPONSES_SPOKEN = SPOKEN[3]
FAILED = responses_event(
    "response.failed", 9, response={**responses_body(None), "status": "failed", "error": {"message": "it failed"}}
)


async def test_a_failed_response_before_its_content_is_a_status(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=SURFACES)
    for stream in (True, False):
        fake.script(head(), chunk(RESPONSES_SPOKEN.prelude + FAILED), end())
        answer = await ask(edge.port, RESPONSES, RESPONSES_SPOKEN.asked(stream=stream))
        assert answer.status == 502
        assert "it failed" in told_by_status(RESPONSES_SPOKEN, answer, own=True)["message"]


async def test_a_failed_response_after_the_deadline_is_told_and_cut(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), gate("fail"), chunk(RESPONSES_SPOKEN.prelude + FAILED), end())
    edge = await serve(upstream=SURFACES, stream=SOON)
    async with RawClient(edge.port) as client:
        await committed(edge, client, RESPONSES_SPOKEN)
        fake.open("fail")
        assert "it failed" in assert_cut(RESPONSES_SPOKEN, await client.answer())["message"]


async def test_a_failed_response_after_its_content_ends_the_stream_in_its_own_words(
    serve: Serve, fake: FakeModel
) -> None:
    """It is one of the surface's three regular ends, for a client that streams and for one that does not."""
    edge = await serve(upstream=SURFACES)
    begun = RESPONSES_SPOKEN.prelude + RESPONSES_SPOKEN.token
    for stream in (True, False):
        fake.script(head(), chunk(begun + FAILED), end())
        answer = await ask(edge.port, RESPONSES, RESPONSES_SPOKEN.asked(stream=stream))
        assert (answer.status, answer.clean) == (200, True)
        if stream:
            assert answer.body == begun + FAILED
        else:
            assert (answer.json["status"], answer.json["error"]) == ("failed", {"message": "it failed"})
    assert {record["outcome"] for record in edge.records} == {"upstream_error"}
