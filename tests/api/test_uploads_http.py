"""Audio uploads: passed on as they are, to the upstream that their model names, and answered in every kind."""

from typing import Any

import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_finish,
    chat_token,
    chunk,
    end,
    fin,
    gate,
    head,
    json_answer,
    no_read,
    read_body,
    rst,
    send,
    sse,
    stall,
    stream_answer,
    whole,
)
from support.forms import BOUNDARY, FORM, LAST, TRANSCRIPTIONS, begin, field, file, first_part, form, noise
from support.raw import RawClient, ask
from support.running import Running, Serve

PATH = TRANSCRIPTIONS
ALLOWED = {"relay": [PATH, "/v1/audio/translations"]}
TEXT = {"text": "Hello there."}


@pytest.mark.parametrize("path", ALLOWED["relay"])
async def test_a_form_arrives_as_it_was_sent(serve: Serve, fake: FakeModel, path: str) -> None:
    fake.script(*json_answer(TEXT))
    edge = await serve(upstream=ALLOWED)
    body = form(noise(300_000), language="en")
    answer = await ask(edge.port, path, body, {**FORM, "Authorization": "Bearer the-clients-own"})
    assert (answer.status, answer.json, answer.headers["content-type"]) == (200, TEXT, "application/json")
    assert answer.headers["x-edge-upstream"] == "up"
    (request,) = fake.requests
    assert (request.path, request.body) == (path, body)
    assert request.headers["Content-Type"] == FORM["Content-Type"]
    assert request.headers["Content-Length"] == str(len(body))
    assert "Transfer-Encoding" not in request.headers
    assert "the-clients-own" not in str(request.headers)
    assert request.headers["x-request-id"] == answer.headers["x-request-id"]
    record = await edge.record()
    assert (record["surface"], record["model"], record["outcome"]) == (path, "m", "complete")
    assert (record["streaming"], record["status"]) == (False, 200)


async def test_a_body_of_unknown_length_arrives_in_chunks(serve: Serve, fake: FakeModel) -> None:
    fake.script(*json_answer(TEXT))
    edge = await serve(upstream=ALLOWED)
    body = form(noise(300_000))
    async with RawClient(edge.port) as client:
        await begin(client, None)
        for at in range(0, len(body), 50_000):
            piece = body[at : at + 50_000]
            await client.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        await client.send(b"0\r\n\r\n")
        assert (await client.answer()).json == TEXT
    (request,) = fake.requests
    assert request.body == body
    assert "Content-Length" not in request.headers


async def test_it_is_passed_on_before_it_is_whole(serve: Serve, fake: FakeModel) -> None:
    fake.script(no_read(), gate("head"), read_body(), *json_answer(TEXT))
    edge = await serve(upstream=ALLOWED)
    body = form()
    async with RawClient(edge.port) as client:
        await begin(client, len(body))
        await client.send(body[:-10])
        await fake.reached("head")
        fake.open("head")
        await client.send(body[-10:])
        assert (await client.answer()).status == 200


async def test_nothing_is_passed_on_unless_it_is_allowed(serve: Serve, fake: FakeModel) -> None:
    edge = await serve()
    answer = await ask(edge.port, PATH, form(), FORM)
    assert (answer.status, answer.json["error"]["code"]) == (501, "surface_not_supported")
    assert fake.requests == []


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/plain; charset=utf-8", "text/vtt", "application/x-subrip"])
async def test_a_text_is_an_answer(serve: Serve, fake: FakeModel, kind: str) -> None:
    fake.script(*whole("WEBVTT\n\nHellö".encode(), 200, {"Content-Type": kind}))
    edge = await serve(upstream=ALLOWED)
    answer = await ask(edge.port, PATH, form(response_format="vtt"), FORM)
    assert (answer.status, answer.body.decode(), answer.headers["content-type"]) == (200, "WEBVTT\n\nHellö", kind)
    assert (await edge.record())["outcome"] == "complete"


async def test_a_page_is_no_answer(serve: Serve, fake: FakeModel) -> None:
    fake.script(*whole(b"<script>", 200, {"Content-Type": "text/html"}))
    answer = await ask((await serve(upstream=ALLOWED)).port, PATH, form(), FORM)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")


OPENAI = [
    sse({"type": "transcript.text.delta", "delta": "Hel"}),
    sse({"type": "transcript.text.delta", "delta": "lo"}),
    sse({"type": "transcript.text.done", "text": "Hello", "usage": {"input_tokens": 14, "output_tokens": 2}}),
]
VLLM = [chat_token("Hel"), chat_token("lo"), chat_finish(), DONE]
STREAMS = {"openai": OPENAI, "vllm": VLLM}
each_stream = pytest.mark.parametrize("name", STREAMS)


@each_stream
async def test_a_stream_is_relayed_as_it_comes(serve: Serve, fake: FakeModel, name: str) -> None:
    first, *rest = STREAMS[name]
    fake.script(head(), chunk(first), gate("rest"), *(chunk(event) for event in rest), end())
    edge = await serve(upstream=ALLOWED)
    async with RawClient(edge.port) as client:
        await client.post(PATH, form(stream="true"), FORM)
        await client.until(first)
        fake.open("rest")
        answer = await client.answer()
    assert answer.clean
    assert (answer.headers["content-type"], answer.body) == (
        "text/event-stream; charset=utf-8",
        b"".join([first, *rest]),
    )
    record = await edge.record()
    assert (record["outcome"], record["streaming"]) == ("complete", True)
    if name == "openai":
        assert (record["tokens_in"], record["tokens_out"]) == (14, 2)


@each_stream
async def test_a_stream_that_is_cut_is_told_and_not_ended(serve: Serve, fake: FakeModel, name: str) -> None:
    events = STREAMS[name]
    fake.script(head(), *(chunk(event) for event in events[:2]), end())
    edge = await serve(upstream=ALLOWED)
    answer = await ask(edge.port, PATH, form(stream="true"), FORM)
    assert (answer.status, answer.clean, answer.ending) == (200, False, "reset")
    assert b"upstream_cut" in answer.events[-1]
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_the_status_waits_for_a_slow_answer(serve: Serve, fake: FakeModel) -> None:
    """Past ``commit_after_s``: nobody knows yet whether it will be a stream."""
    fake.script(gate("late"), *json_answer({"error": {"message": "no such language"}}, 400))
    edge = await serve(upstream=ALLOWED, stream={"commit_after_s": 0.05, "heartbeat_s": 0.05})
    async with RawClient(edge.port) as client:
        await client.post(PATH, form(), FORM)
        await fake.reached("late")
        with pytest.raises(TimeoutError):
            await client.receive(0.4)
        fake.open("late")
        answer = await client.answer()
    assert (answer.status, answer.json["error"]["message"]) == (400, "no such language")


async def test_a_cut_text_is_not_passed_on(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(headers={"Content-Type": "text/plain", "Content-Length": "100"}), send(b"Hel"), fin())
    edge = await serve(upstream=ALLOWED)
    answer = await ask(edge.port, PATH, form(), FORM)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_cut")


async def test_an_answer_is_bounded(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(headers={"Content-Type": "text/plain"}), send(b"x" * 5000), stall())
    edge = await serve(upstream=ALLOWED, stream={"max_answer_bytes": 4096})
    answer = await ask(edge.port, PATH, form(), FORM)
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_error")


# --- routing ----------------------------------------------------------------------------------------------------------


async def two(serve: Serve, fake: FakeModel, other: FakeModel) -> Running:
    fake.models, other.models = ["chat"], ["whisper"]
    fake.script(*json_answer(TEXT))
    other.script(*json_answer(TEXT))
    return await serve(fake.url, other.url, upstream=ALLOWED)


@pytest.mark.parametrize(
    ("body", "upstream", "model"),
    [
        (form(model="whisper"), "up1", "whisper"),
        (file(b"RIFF") + field("model", "whisper") + LAST, "up1", "whisper"),
        (file(noise(200_000)) + field("model", "whisper") + LAST, "up", None),  # nobody can have seen it yet
        (form(model=None), "up", None),
    ],
    ids=["first", "after a small file", "after a large file", "none"],
)
async def test_the_model_chooses_if_it_comes_early(
    serve: Serve, fake: FakeModel, body: bytes, upstream: str, model: str | None
) -> None:
    async with FakeModel() as other:
        edge = await two(serve, fake, other)
        answer = await ask(edge.port, PATH, body, FORM)
        assert (answer.status, answer.headers["x-edge-upstream"]) == (200, upstream)
        assert (fake.requests + other.requests)[0].body == body
        assert (await edge.record()).get("model") == model


async def test_an_unknown_model_is_told_before_anything_is_sent(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as other:
        edge = await two(serve, fake, other)
        answer = await ask(edge.port, PATH, form(model="nobodys"), FORM)
        assert (answer.status, answer.json["error"]["code"]) == (404, "model_not_found")
        assert fake.requests + other.requests == []


async def test_another_upstream_is_tried_while_nothing_has_been_sent(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as other:
        edge = await serve(fake.url, other.url, upstream=ALLOWED)
        other.script(*json_answer(TEXT))
        await fake.refuse()
        for connection in fake.connections:
            connection.close()
        answer = await ask(edge.port, PATH, form(), FORM)
        assert (answer.status, answer.headers["x-edge-upstream"]) == (200, "up1")
        assert (await edge.record())["attempts"] == 2


@pytest.mark.parametrize("failing", [[rst()], json_answer({"error": {"message": "overloaded"}}, 503)])
async def test_it_is_not_repeated_once_a_byte_has_gone_out(serve: Serve, fake: FakeModel, failing: list[Any]) -> None:
    async with FakeModel() as other:
        edge = await serve(fake.url, other.url, upstream=ALLOWED)
        fake.script(*failing)
        answer = await ask(edge.port, PATH, form(), FORM)
        assert answer.status in (502, 503)
        assert other.requests == []
        assert (await edge.record())["attempts"] == 1


async def test_it_is_never_risked_on_a_used_connection(serve: Serve, fake: FakeModel) -> None:
    fake.reuse = "fin"
    edge = await serve(upstream=ALLOWED)
    for _ in range(2):
        fake.script(*json_answer(TEXT))
        assert (await ask(edge.port, PATH, form(), FORM)).status == 200
    assert len({request.connection for request in fake.requests}) == 2


# --- what is no upload ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Type": "multipart/form-data"}, 400),
        ({**FORM, "Content-Encoding": "gzip"}, 415),
        ({**FORM, "Origin": "https://elsewhere.example"}, 403),  # a browser would not have asked first
    ],
)
async def test_what_is_no_form_is_refused(serve: Serve, fake: FakeModel, headers: dict[str, str], status: int) -> None:
    edge = await serve(upstream=ALLOWED)
    answer = await ask(edge.port, PATH, form(), headers)
    assert answer.status == status
    assert fake.requests == []


async def test_a_page_that_may_call_may_upload(serve: Serve, fake: FakeModel) -> None:
    fake.script(*json_answer(TEXT))
    edge = await serve(upstream=ALLOWED, server={"cors_origins": ["https://app.example"]})
    answer = await ask(edge.port, PATH, form(), {**FORM, "Origin": "https://app.example"})
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://app.example")


async def test_nothing_of_the_content_type_but_the_boundary_is_passed_on(serve: Serve, fake: FakeModel) -> None:
    fake.script(*json_answer(TEXT))
    edge = await serve(upstream=ALLOWED)
    await ask(edge.port, PATH, form(), {"Content-Type": f'multipart/form-data; secret=s; boundary="{BOUNDARY}"'})
    assert fake.requests[0].headers["Content-Type"] == FORM["Content-Type"]


async def test_a_form_that_stops_short_of_its_chunks_is_refused(serve: Serve, fake: FakeModel) -> None:
    fake.script(no_read(), read_body())
    edge = await serve(upstream=ALLOWED)
    async with RawClient(edge.port) as client:
        await begin(client, None)
        body = first_part() + noise(100_000)
        await client.send(b"%x\r\n%b\r\n" % (len(body), body) + b"no size\r\n")
        answer = await client.answer()
    assert answer.status == 400


async def test_a_stream_that_was_not_asked_for_is_relayed_too(serve: Serve, fake: FakeModel) -> None:
    """A server that streams though the form has ``stream=false`` is believed."""
    fake.script(*stream_answer(VLLM))
    answer = await ask((await serve(upstream=ALLOWED)).port, PATH, form(stream="false"), FORM)
    assert answer.body == b"".join(VLLM)
