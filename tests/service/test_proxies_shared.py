"""Behind real proxies that share their connections to Edge, no client's trailer reaches another client's request."""

import hashlib
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from fakes.model_server import FakeModel
from support.proxies import Proxy, Unavailable, caddy, envoy, haproxy, in_front, nginx, nginx_bare
from support.raw import CHAT, Answer, RawClient, chat_body
from support.running import Serve

ALL: dict[str, Proxy] = {
    "nginx": nginx, "nginx-bare": nginx_bare, "caddy": caddy, "haproxy": haproxy, "envoy": envoy,
}  # fmt: skip
ATTACKER, VICTIM = "a-key-of-the-attacker", "a-key-of-the-victim"
VICTIM_NAME = f"key-{hashlib.sha256(VICTIM.encode()).hexdigest()[:8]}"
BODY = orjson.dumps(chat_body(stream=False))
ROUNDS = 50
VICTIMS = 5
TRAILERS = {
    "Authorization": f"Bearer {ATTACKER}",
    "x-api-key": ATTACKER,
    "Last-Event-ID": "st_" + "0" * 32 + ":1",
    "x-request-id": "of-the-attacker",
    "X-Forwarded-For": "192.0.2.66",
    "x-edge-lane": "evil",  # a 400 for whoever has it
    "Host": "evil.example",
    "Origin": "https://evil.example",
}


async def attack(port: int, name: str, value: str) -> None:
    """A request with this trailer; it may well be refused."""
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {ATTACKER}\r\nTE: trailers\r\nTrailer: {name}\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = b"%x\r\n%b\r\n0\r\n%b: %b\r\n\r\n" % (len(BODY), BODY, name.encode(), value.encode())
    async with RawClient(port) as client:
        await client.send(head.encode() + body)
        await client.answer()


async def ask_on(client: RawClient, request_id: str) -> Answer:
    """One more request of somebody else, on a connection that is kept."""
    client.buffer = b""
    await client.post(CHAT, BODY, {"Authorization": f"Bearer {VICTIM}", "x-request-id": request_id})
    return await client.answer()


@pytest.mark.parametrize("proxy", ALL)
@pytest.mark.parametrize("trailer", TRAILERS)
async def test_no_request_is_crossed(serve: Serve, fake: FakeModel, tmp_path: Path, proxy: str, trailer: str) -> None:
    edge = await serve(
        auth={"keys": [ATTACKER, VICTIM]}, server={"trusted_proxies": ["127.0.0.1"], "allowed_hosts": ["*"]}
    )
    answers = {}
    async with AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(in_front(ALL[proxy], edge.port, tmp_path))
        except Unavailable as error:
            pytest.skip(f"NOT TESTED BEHIND {proxy.upper()}: {error}")
        victims = [await stack.enter_async_context(RawClient(port)) for _ in range(VICTIMS)]
        for number in range(ROUNDS):
            await attack(port, trailer, TRAILERS[trailer])
            request_id = f"of-victim-{number}"
            answers[request_id] = await ask_on(victims[number % VICTIMS], request_id)
    refused = {request_id: answer for request_id, answer in answers.items() if answer.status != 200}
    assert refused == {}
    records = {record["request_id"]: record for record in edge.records}
    told = [(records[request_id]["principal"], records[request_id]["client"]) for request_id in answers]
    assert told == [(VICTIM_NAME, "127.0.0.1")] * ROUNDS
