"""Whatever ends Edge itself, a stream that is cut by it looks cut: to HTTP/1.0 readers, whose end is the close, too."""

import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from fakes.model_server import FakeModel, chat_finish, chat_role, chat_token, chunk, end, gate, head
from support.edge_process import START_S, EdgeProcess
from support.merged import path_of
from support.raw import CHAT, RawClient, chat_body
from support.resumed import RESUME, stream_id
from support.running import Running, Serve
from support.tls import TlsClient, make_certificate

WITHIN_S = 120.0
FIRST, REST = chat_role() + chat_token("tok"), chat_token(" end") + chat_finish() + b"data: [DONE]\n\n"
Read = Callable[[RawClient], Awaitable[None]]


async def get_10(client: RawClient, path: str) -> None:
    await client.send(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())


async def readers(edge: EdgeProcess, fake: FakeModel, stack: AsyncExitStack, version: str) -> dict[str, RawClient]:
    """One of each kind that reads a stream, in the middle of it."""
    clients: dict[str, RawClient] = {}

    async def begin(name: str, ask: Read, mark: bytes = b"tok") -> RawClient:
        client = clients[name] = await stack.enter_async_context(RawClient(edge.port))
        await ask(client)
        await client.until(mark, WITHIN_S)
        return client

    for name, path, body in (
        ("chat", CHAT, chat_body()),
        ("session", "/v1/chat/stream", {"message": "hi", "session_id": "s"}),
        ("ollama", "/api/chat", chat_body()),
    ):
        fake.script(head(), chunk(FIRST), gate("never"))
        asked = await begin(name, lambda client, p=path, b=body: client.post(p, b, RESUME, version))  # type: ignore[misc]
    stream = await stream_id(clients["chat"])
    await begin("resumed", lambda client: get_10(client, f"/v1/streams/{stream}"))
    await begin("merged", lambda client: get_10(client, path_of([stream])))
    assert asked is not None
    return clients


@pytest.mark.parametrize("signals", [(signal.SIGKILL,), (signal.SIGTERM,) * 2, (signal.SIGINT,) * 2], ids=str)
async def test_every_kind_of_reader_sees_a_reset(
    fake: FakeModel, tmp_path: Path, signals: tuple[signal.Signals, ...]
) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge, AsyncExitStack() as stack:
        await edge.ready()
        clients = await readers(edge, fake, stack, "1.0")
        for number, told in zip(signals, ("draining", None), strict=False):
            edge.send_signal(number)
            if told and len(signals) > 1:
                await edge.lines.wait(told, timeout_s=WITHIN_S)
        await edge.wait(WITHIN_S)
        assert {name: await client.ending() for name, client in clients.items()} == dict.fromkeys(clients, "reset")


async def test_over_tls_as_well(fake: FakeModel, tmp_path: Path) -> None:
    fake.script(head(), chunk(FIRST), gate("never"))
    async with EdgeProcess(tmp_path, fake.url, server=make_certificate(tmp_path)) as edge:
        await edge.ready()
        async with TlsClient(edge.port) as client:
            await client.post(CHAT, chat_body(), version="1.0")
            await client.until(b"tok", WITHIN_S)
            edge.send_signal(signal.SIGKILL)
            assert await client.ending() == "reset"


async def test_the_old_process_of_an_upgrade_as_well(fake: FakeModel, tmp_path: Path) -> None:
    """The new one has inherited the listening sockets, and none of the connections."""
    fake.script(head(), chunk(FIRST), gate("never"))
    async with EdgeProcess(tmp_path, fake.url) as edge, RawClient(edge.port) as client:
        await edge.ready()
        await client.post(CHAT, chat_body(), version="1.0")
        await client.until(b"tok", WITHIN_S)
        edge.send_signal(signal.SIGUSR2)
        await edge.lines.wait("replaced", timeout_s=START_S * 8)
        os.kill(edge.process.pid, signal.SIGKILL)
        assert await client.ending() == "reset"


async def test_a_large_whole_answer_as_well(fake: FakeModel, tmp_path: Path) -> None:
    """Its length tells that it is cut, to those who look at it."""
    fake.script(head(), chunk(chat_role() + chat_token("x" * 900_000) + REST), end())
    async with EdgeProcess(tmp_path, fake.url) as edge, RawClient(edge.port, receive_buffer=4096) as client:
        await edge.ready()
        await client.post(CHAT, chat_body(stream=False), version="1.0")
        await client.until(b"xxx", WITHIN_S)
        edge.send_signal(signal.SIGKILL)
        assert await client.ending() == "reset"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
async def test_a_clean_end_loses_no_byte(serve: Serve, fake: FakeModel, version: str, *, stream: bool) -> None:
    """The connection is closed while the kernel still holds the last bytes, since the reader has taken none."""
    text = "".join(f"{number:07} " for number in range(3_000))
    fake.script(head(), chunk(chat_role() + chat_token(text) + REST), end())
    edge = await serve()
    async with RawClient(edge.port, receive_buffer=4096) as client:
        await client.post(CHAT, chat_body(stream=stream), {"Connection": "close"}, version)
        record = await edge.record()
        await closed(edge)
        assert await client.ending() == "eof"
    assert (record["outcome"], record["reader"]) == ("complete", "finished")
    assert text.encode() in client.buffer
    assert (b"[DONE]" if stream else b'"finish_reason"') in client.buffer


async def closed(edge: Running) -> None:
    """Edge has closed all connections of clients."""
    server = edge.edge.listener._runner.server
    assert server is not None
    await edge.wait(lambda: not server.connections)
