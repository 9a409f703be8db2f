"""What follows an error event in a chat stream: the setting, the client's User-Agent and its own choice."""

import pytest
from fakes import ollama
from fakes.model_server import FakeModel, chat_role, chat_token, chunk, end, head, rst, sse_error
from support.raw import CHAT, Answer, RawClient, chat_body
from support.running import Running, Serve

HEADER = "x-edge-after-error"
OPENCODE = "opencode/1.18.33 ai-sdk/provider-utils/4.0.23"
OPEN_WEBUI = "Python/3.11 aiohttp/3.14.5"  # it has no name of its own
OLLAMA_PYTHON = "ollama-python/0.6.3 (x86_64 linux) Python/3.11.7"
CLOSED, RESET = (True, "framed"), (False, "reset")


async def broken(edge: Running, fake: FakeModel, headers: dict[str, str], version: str = "1.1") -> Answer:
    fake.script(head(), chunk(chat_role() + chat_token("a") + sse_error("boom")), rst())
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream=True), headers, version)
        return await client.answer()


@pytest.mark.parametrize(
    ("setting", "headers", "ending"),
    [
        ("auto", {}, RESET),
        ("auto", {"User-Agent": OPENCODE}, CLOSED),
        ("auto", {"User-Agent": "not-opencode/1.0 (opencode)"}, RESET),
        ("auto", {HEADER: "close"}, CLOSED),
        ("auto", {"User-Agent": OPEN_WEBUI}, RESET),  # nor does every client with this library raise
        ("auto", {"User-Agent": OPEN_WEBUI, HEADER: "close"}, CLOSED),
        ("auto", {"User-Agent": OPENCODE, HEADER: "reset"}, RESET),
        ("close", {}, CLOSED),
        ("close", {HEADER: "auto"}, RESET),
        ("reset", {"User-Agent": OPENCODE}, RESET),
    ],
)
async def test_setting_client_and_header_decide(
    serve: Serve, fake: FakeModel, setting: str, headers: dict[str, str], ending: tuple[bool, str]
) -> None:
    edge = await serve(stream={"after_error": setting})
    answer = await broken(edge, fake, headers)
    assert (answer.clean, answer.ending) == ending
    assert b"boom" in answer.events[-1]
    assert b"[DONE]" not in answer.body
    record = await edge.record()
    assert (record["outcome"], record["reader"], record["status"]) == ("upstream_error", "finished", 200)


@pytest.mark.parametrize(
    ("setting", "headers", "ending"),
    [
        ("auto", {}, CLOSED),
        ("auto", {"User-Agent": OLLAMA_PYTHON}, CLOSED),
        ("auto", {"User-Agent": OPEN_WEBUI}, RESET),  # it takes a clean end after an error line for that of the answer
        ("auto", {"User-Agent": "not-aiohttp/1.0 (aiohttp)"}, CLOSED),
        ("auto", {"User-Agent": OPEN_WEBUI, HEADER: "close"}, CLOSED),
        ("auto", {"User-Agent": OLLAMA_PYTHON, HEADER: "reset"}, RESET),
        ("reset", {"User-Agent": OLLAMA_PYTHON}, RESET),
    ],
)
async def test_ollamas_surface_ends_cleanly_for_who_raises_on_the_error_line(
    serve: Serve, fake: FakeModel, setting: str, headers: dict[str, str], ending: tuple[bool, str]
) -> None:
    ollama.be_ollama(fake, "m")
    edge = await serve(upstream={"kind": "ollama"}, stream={"after_error": setting})
    fake.script(ollama.lines_head(), chunk(ollama.token("a") + ollama.error("boom")), end())
    async with RawClient(edge.port) as client:
        await client.post("/api/chat", chat_body(stream=True), headers)
        answer = await client.answer()
    assert (answer.clean, answer.ending) == ending
    assert b"boom" in answer.body
    assert b'"done":true' not in answer.body


async def test_http_10_readers_always_get_the_reset(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"after_error": "close"})
    assert (await broken(edge, fake, {HEADER: "close"}, "1.0")).ending == "reset"


async def test_a_connection_that_ended_cleanly_serves_the_next_request(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(stream={"after_error": "close"})
    async with RawClient(edge.port) as client:
        for _ in range(2):
            fake.script(head(), chunk(chat_role() + chat_token("a") + sse_error("boom")), end())
            client.buffer = b""
            await client.post(CHAT, chat_body(stream=True))
            assert (await client.answer()).clean


async def test_another_word_is_refused(serve: Serve) -> None:
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body(stream=True), {HEADER: "abort"})
        answer = await client.answer()
    assert (answer.status, answer.json["error"]["param"]) == (400, HEADER)
    assert "auto, reset or close" in answer.json["error"]["message"]
