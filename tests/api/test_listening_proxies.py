"""Whose address the log lines show: the peer's, or the one that a trusted proxy tells, and nobody else's word."""

from pathlib import Path

import pytest
from support.raw import CHAT, RawClient, ask, chat_body
from support.running import Serve
from support.shapes import get
from support.unix import UnixClient

CLIENT = "198.51.100.7"
SPOOFED = "203.0.113.66"


async def test_without_proxies_it_is_the_peer_whatever_it_says(serve: Serve) -> None:
    edge = await serve()
    await ask(edge.port, CHAT, chat_body(), {"X-Forwarded-For": SPOOFED, "Forwarded": f"for={SPOOFED}"})
    record = await edge.record()
    (start,) = edge.lines.of("start")
    assert record["client"] == start["client"] == "127.0.0.1"


@pytest.mark.parametrize(
    "headers", [{"X-Forwarded-For": f"{SPOOFED}, {CLIENT}"}, {"Forwarded": f'for={SPOOFED}, for="{CLIENT}:4711"'}]
)
async def test_behind_a_trusted_proxy_it_is_the_one_that_the_proxy_saw(serve: Serve, headers: dict[str, str]) -> None:
    edge = await serve(server={"trusted_proxies": ["127.0.0.0/8"]})
    await ask(edge.port, CHAT, chat_body(), headers)
    await ask(edge.port, CHAT, b"{", headers)
    record = await edge.record()
    (start,) = edge.lines.of("start")
    (refused,) = await edge.lines.wait("refused")
    assert record["client"] == start["client"] == refused["client"] == CLIENT


async def test_a_header_may_come_in_several_lines(serve: Serve) -> None:
    edge = await serve(server={"trusted_proxies": ["127.0.0.1", "10.0.0.0/8"]})
    async with RawClient(edge.port) as client:
        lines = "".join(f"X-Forwarded-For: {hop}\r\n" for hop in (SPOOFED, CLIENT, "10.1.2.3"))
        await client.send(f"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n".encode())
        await client.answer()
    assert (await edge.lines.wait("refused"))[0]["client"] == CLIENT


async def test_a_stranger_is_not_believed(serve: Serve) -> None:
    edge = await serve(server={"trusted_proxies": ["10.0.0.0/8", "unix"]})
    await get(edge.port, "/nowhere", {"X-Forwarded-For": SPOOFED})
    assert (await edge.lines.wait("refused"))[0]["client"] == "127.0.0.1"


@pytest.mark.parametrize(("trusted", "client"), [([], "unix"), (["127.0.0.1"], "unix"), (["unix"], CLIENT)])
async def test_over_a_unix_socket(serve: Serve, tmp_path: Path, trusted: list[str], client: str) -> None:
    path = tmp_path / "edge.sock"
    edge = await serve(server={"listen": [f"unix:{path}"], "trusted_proxies": trusted})
    async with UnixClient(path) as peer:
        await peer.get("/nowhere", {"X-Forwarded-For": CLIENT})
        await peer.answer()
    assert (await edge.lines.wait("refused"))[0]["client"] == client


async def test_what_a_proxy_passes_on_cannot_forge_a_log_line(serve: Serve) -> None:
    edge = await serve(server={"trusted_proxies": ["127.0.0.1"]})
    for text in ('1.2.3.4" level=error', "<b>", "\u2028", "x" * 7000, "," * 7000):
        await get(edge.port, "/nowhere", {"X-Forwarded-For": text})
    assert {line["client"] for line in await edge.lines.wait("refused", 5)} == {"127.0.0.1"}
