"""Responses in front of servers that do not speak it, when something goes wrong: errors, silences, ends."""

import orjson
import pytest
from fakes import ollama
from fakes.model_server import (
    DONE,
    FakeModel,
    Step,
    chat_events,
    chat_role,
    chat_token,
    chunk,
    end,
    fin,
    gate,
    head,
    json_answer,
    messages_block_start,
    messages_error,
    messages_start,
    messages_token,
    responses_events,
    sse,
    sse_error,
    stall,
)
from support.raw import RESPONSES, RawClient, ask
from support.responses import (
    CHAT,
    MESSAGES,
    OLLAMA,
    asked,
    events_of,
    texts_of,
    well_formed,
)
from support.running import Serve
from support.sdk import BEATING, heartbeats

SERVERS = {"chat": CHAT, "ollama": OLLAMA, "messages": MESSAGES}
every_server = pytest.mark.parametrize("server", SERVERS)
streamed_or_not = pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])


@every_server
@streamed_or_not
async def test_an_error_before_the_answer_keeps_its_status(
    serve: Serve, fake: FakeModel, server: str, *, stream: bool
) -> None:
    error = "no such model" if server == "ollama" else {"message": "no such model", "type": "t", "code": "gone"}
    fake.script(*json_answer({"error": error}, 404))
    answer = await ask((await serve(upstream=SERVERS[server])).port, RESPONSES, asked(stream=stream))
    assert (answer.status, answer.json["error"]["message"]) == (404, "no such model")


# A word, and an error, as each server says them.
WORD = {
    "chat": chat_role() + chat_token("Hel"),
    "ollama": ollama.token("Hel"),
    "messages": messages_start() + messages_block_start() + messages_token("Hel"),
}
ERROR = {"chat": sse_error() + DONE, "ollama": ollama.error(), "messages": messages_error()}


def begun(server: str) -> list[Step]:
    return [head(200, ollama.HEADERS if server == "ollama" else None), chunk(WORD[server])]


def broken(server: str) -> list[Step]:
    """A word, then an error."""
    return [*begun(server), chunk(ERROR[server]), end()]


@every_server
async def test_an_error_in_the_middle_is_told_flat_with_the_next_number(
    serve: Serve, fake: FakeModel, server: str
) -> None:
    fake.script(*broken(server))
    edge = await serve(upstream=SERVERS[server])
    answer = await ask(edge.port, RESPONSES, asked(stream=True))
    assert answer.clean
    events = events_of(answer)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    failed = events.pop()
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["message"] == "the model broke"
    assert failed["response"]["id"] == events[0]["response"]["id"]
    assert set(events[-1]) == {"type", "code", "message", "param", "sequence_number"}
    assert (events[-1]["type"], events[-1]["message"]) == ("error", "the model broke")
    assert [event["type"] for event in events].count("response.output_text.delta") == 1
    assert (await edge.record())["outcome"] == "upstream_error"


@every_server
async def test_an_error_in_the_middle_is_a_status_for_who_wants_no_stream(
    serve: Serve, fake: FakeModel, server: str
) -> None:
    fake.script(*broken(server))
    answer = await ask((await serve(upstream=SERVERS[server])).port, RESPONSES, asked())
    assert answer.status >= 500
    assert answer.json["error"]["message"] == "the model broke"


@pytest.mark.parametrize("surface", ["chat", "responses"])
async def test_a_number_as_code_of_an_error_is_told_as_text(serve: Serve, fake: FakeModel, surface: str) -> None:
    """As vLLM has it; relayed or translated, typed clients could not read it."""
    edge = await serve(upstream={"surfaces": [surface]})
    begun = b"".join(chat_events()[:2] if surface == "chat" else responses_events(["Hel"])[:5])
    fault = sse({"error": {"message": "it broke", "type": "InternalServerError", "param": None, "code": 500}})
    fake.script(head(), chunk(begun + fault + DONE), end())
    answer = await ask(edge.port, RESPONSES, asked(stream=True))
    (told,) = [event for event in events_of(answer) if event["type"] == "error"]
    assert (told["message"], told["code"], told["param"]) == ("it broke", "500", None)


@every_server
async def test_a_server_that_dies_is_no_end(serve: Serve, fake: FakeModel, server: str) -> None:
    fake.script(*begun(server), fin())
    edge = await serve(upstream=SERVERS[server])
    answer = await ask(edge.port, RESPONSES, asked(stream=True))
    assert answer.clean
    assert [event["type"] for event in events_of(answer)[-2:]] == ["error", "response.failed"]
    assert events_of(answer)[-2]["code"] == "upstream_cut"
    assert b"response.completed" not in answer.body
    assert (await edge.record())["outcome"] == "upstream_cut"


async def test_silences_are_bridged_by_events(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=CHAT, stream=BEATING)
    beat = heartbeats(edge)
    role, word, *rest = map(chunk, chat_events())
    fake.script(head(), beat, role, beat, word, beat, *rest, end())
    answer = await ask(edge.port, RESPONSES, asked(stream=True))
    assert answer.body.startswith(b"event: response.created\n")
    assert b": ping" not in answer.body
    numbers = [
        orjson.loads(event.split(b"data: ")[1])["sequence_number"] for event in answer.events if b"data" in event
    ]
    assert numbers == sorted(numbers)
    assert answer.body.count(b"event: keepalive") >= 3
    assert texts_of(well_formed(events_of(answer))) == [("message", "Hello there")]


@every_server
@streamed_or_not
async def test_a_client_that_leaves_stops_the_model(
    serve: Serve, fake: FakeModel, server: str, *, stream: bool
) -> None:
    fake.script(*begun(server), gate("said"), stall())
    edge = await serve(upstream=SERVERS[server])
    async with RawClient(edge.port) as client:
        await client.post(RESPONSES, asked(stream=stream))
        await fake.reached("said")
        if stream:
            await client.until(b"output_text.delta")
        fake.open("said")
    assert await fake.requests[0].left() in ("fin", "reset")
    assert (await edge.record())["outcome"] == "client_gone"
