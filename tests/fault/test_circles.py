"""Edges that are each other's upstreams: no request goes round, and no model is there only by way of oneself."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from fakes.model_server import FakeModel, chat_role, chat_token, chunk, end, gate, head, json_answer
from support.forms import FORM, TRANSCRIPTIONS, form
from support.lookalikes import free_port
from support.ollama import pass_for_ollama
from support.raw import CHAT, EMBEDDINGS, MESSAGES, RESPONSES, Answer, RawClient, ask, chat_body
from support.running import Running, Serve
from support.surfaces import SPOKEN

from edge.policy.hops import HEADER

OTHER = "edge-0123456789abcdef"
SELDOM = {"enabled": False, "interval_s": 3600}  # they look when they are told to
ENDING = SPOKEN[0].ending
BODY = chat_body(stream=False)


@pytest.fixture
async def servers() -> AsyncIterator[list[FakeModel]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(FakeModel()) for _ in range(3)]


Circle = Callable[..., Awaitable[list[Running]]]


@pytest.fixture
def circle(serve: Serve, servers: list[FakeModel]) -> Circle:
    async def circle(count: int, *, own: bool = True, **sections: dict[str, object]) -> list[Running]:
        """Edges, each with a model server of its own, and the next Edge behind that."""
        ports = [free_port() for _ in range(count)]
        edges = []
        for number, port in enumerate(ports):
            following = f"http://127.0.0.1:{ports[(number + 1) % count]}"
            urls = (servers[number].url, following) if own else (following,)
            listen = {"listen": [f"127.0.0.1:{port}"]}
            edges.append(await serve(*urls, server=listen, discovery=SELDOM, **sections))
        await look(edges)
        return edges

    return circle


async def look(edges: list[Running], times: int | None = None) -> None:
    """As often as it takes for news to go round once."""
    for _ in range(times or len(edges)):
        await asyncio.gather(*(edge.edge.fleet.look() for edge in edges))


async def die(server: FakeModel) -> None:
    """Be gone, with the connections that wait for their next request."""
    await server.refuse()
    for connection in server.connections:
        connection.close(reset=True)
        await connection.lost.wait()


async def get(edge: Running, path: str, headers: dict[str, str] | None = None) -> Answer:
    async with RawClient(edge.port) as client:
        await client.get(path, headers)
        return await client.answer()


async def ready(edges: list[Running]) -> list[int]:
    return [(await get(edge, "/ready")).status for edge in edges]


async def models(edge: Running) -> list[str]:
    return [card["id"] for card in (await get(edge, "/v1/models")).json["data"]]


@pytest.mark.parametrize("count", [2, 3])
async def test_with_all_model_servers_gone_nobody_is_ready_and_one_request_is_one(
    circle: Circle, servers: list[FakeModel], count: int
) -> None:
    edges = await circle(count)
    assert await ready(edges) == [200] * count
    for server in servers:
        await die(server)
    await look(edges, count + 1)
    assert await ready(edges) == [503] * count
    assert [await models(edge) for edge in edges] == [[]] * count
    for edge in edges:
        assert (await ask(edge.port, CHAT, BODY)).status == 503
    assert len(edges[-1].lines.of("start")) == count  # all of this process log there
    await servers[0].listen()
    await look(edges)
    assert await ready(edges) == [200] * count
    assert [await models(edge) for edge in edges] == [["m"]] * count


@pytest.mark.parametrize("count", [2, 3])
async def test_one_model_server_serves_all_round_the_circle(
    circle: Circle, servers: list[FakeModel], count: int
) -> None:
    edges = await circle(count)
    for server in servers[1:]:
        await die(server)
    await look(edges)
    assert await ready(edges) == [200] * count
    for edge in edges:
        answer = await ask(edge.port, CHAT, BODY)
        assert (answer.status, "edge_via" in str(answer.body)) == (200, False)
    assert len(servers[0].requests) == count


async def test_a_request_waits_in_a_queue_rather_than_go_round(circle: Circle, servers: list[FakeModel]) -> None:
    edges = await circle(2, upstream={"max_concurrency": 1})
    await die(servers[0])
    await look(edges)
    servers[1].script(gate("first"), head(), chunk(chat_role() + chat_token("a")), chunk(ENDING), end())
    asking = [asyncio.create_task(ask(edges[1].port, CHAT, chat_body())) for _ in range(3)]
    await servers[1].reached("first")
    through = asyncio.create_task(ask(edges[0].port, CHAT, chat_body()))
    await edges[1].lines.wait("start", 5)  # both Edges log there
    servers[1].open("first")
    assert [answer.status for answer in await asyncio.gather(*asking, through)] == [200] * 4
    assert len(edges[1].lines.of("start")) == 5, "only one of them has passed both"


async def test_a_circle_of_edges_alone_has_no_models(circle: Circle) -> None:
    edges = await circle(3, own=False)
    await look(edges)
    assert await ready(edges) == [503] * 3
    assert (await ask(edges[0].port, CHAT, BODY)).status == 503


async def test_an_address_that_leads_back_is_no_upstream(serve: Serve) -> None:
    """By a name that is not known for Edge's own: another interface, or a proxy in front."""
    port = free_port()
    edge = await serve(
        f"http://127.0.0.2:{port}", server={"listen": [f"127.0.0.1:{port}", f"127.0.0.2:{port}"]}, discovery=SELDOM
    )
    await look([edge])
    answer = await get(edge, "/ready")
    assert answer.status == 503
    assert "leads back to this Edge" in answer.json["reason"]


# --- the header -------------------------------------------------------------------------------------------------------


async def test_whoever_is_asked_is_told_which_edges_were_passed(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream={"relay": ["/v1/rerank", "/v1/audio/transcriptions"], "allow_management": True})
    wanted = f"{OTHER}, {edge.edge.fleet.hop.id}"
    told = {HEADER: f"cloudflare; loops=1, {OTHER}"}
    for path, body in (
        (CHAT, BODY),
        (MESSAGES, {**BODY, "max_tokens": 5}),
        (EMBEDDINGS, {"model": "m", "input": "x"}),
        (RESPONSES, {"model": "m", "input": "x"}),
        ("/v1/rerank", {"query": "x"}),
        ("/api/chat", BODY),
        ("/v1/chat/stream", {"message": "x"}),
    ):
        await ask(edge.port, path, body, told)
        assert fake.requests[-1].headers.getall(HEADER) == [wanted], path
    fake.script(*json_answer({"text": "x"}))
    assert (await ask(edge.port, TRANSCRIPTIONS, form(), {**FORM, **told})).status == 200
    assert fake.requests[-1].headers.getall(HEADER) == [wanted]
    await ask(edge.port, CHAT, BODY)
    for request in (fake.requests[-1], *fake.gets):
        assert request.headers.getall(HEADER) == [edge.edge.fleet.hop.id], "what begins here, looks among it"
    assert fake.gets


@pytest.mark.parametrize("path", ["/api/pull", "/api/show"])
async def test_an_ollama_is_told_too(serve: Serve, fake: FakeModel, path: str) -> None:
    pass_for_ollama(fake)
    edge = await serve(upstream={"allow_management": True})
    await ask(edge.port, path, {"model": "llama3:8b"}, {HEADER: OTHER})
    assert fake.requests[-1].headers.getall(HEADER) == [f"{OTHER}, {edge.edge.fleet.hop.id}"]


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
async def test_a_cloud_is_told_too(serve: Serve, fake: FakeModel, kind: str) -> None:
    edge = await serve(upstream={"kind": kind, "api_key": "sk-x"})
    path = CHAT if kind == "openai" else MESSAGES
    await ask(edge.port, path, {**BODY, "max_tokens": 5}, {HEADER: OTHER})
    assert fake.requests[-1].headers.getall(HEADER) == [f"{OTHER}, {edge.edge.fleet.hop.id}"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CHAT),
        ("POST", MESSAGES),
        ("POST", EMBEDDINGS),
        ("POST", TRANSCRIPTIONS),
        ("POST", "/api/chat"),
        ("POST", "/api/pull"),
        ("POST", "/api/show"),
        ("GET", "/api/ps"),
        ("GET", "/v1/models"),
        ("GET", "/v1/chat/stream?prompt=x"),
    ],
)
async def test_a_request_that_was_here_is_a_508(serve: Serve, fake: FakeModel, method: str, path: str) -> None:
    edge = await serve(upstream={"allow_management": True}, auth={"keys": ["a-key-that-it-lacks"]})
    told = {HEADER: f"{OTHER}, {edge.edge.fleet.hop.id}, {OTHER[:-1]}0"}
    answer = await (get(edge, path, told) if method == "GET" else ask(edge.port, path, BODY, told))
    assert answer.status == 508
    assert "error" in answer.json
    assert answer.headers["x-should-retry"] == "false"
    assert fake.requests == []


async def test_clients_see_nothing_of_it(circle: Circle) -> None:
    edges = await circle(2)
    listed = await get(edges[0], "/v1/models")
    assert b"edge_via" not in listed.body
    assert list(listed.json) == ["object", "data"]
    asked_by_edge = await get(edges[0], "/v1/models", {HEADER: OTHER})
    assert asked_by_edge.json["edge"] == {"id": edges[0].edge.fleet.hop.id, "via": []}
