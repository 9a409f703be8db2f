"""What answers on a port is recognised by its answers; model servers are used, everything else is left alone."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from support.hanging import hang_limit
from support.lookalikes import (
    Log,
    Lookalike,
    edge,
    fleet_of,
    free_port,
    jupyter,
    listing,
    llama_cpp,
    lm_studio,
    ollama,
    raw_server,
    sglang,
    vllm,
)

from edge.protocol.surface import OLLAMA, Surface
from edge.settings import Upstream
from edge.upstream.discovery import servers
from edge.upstream.discovery.servers import TRAITS, Found, Kind, identify
from edge.upstream.pool import Pool


@asynccontextmanager
async def pool_of(url: str):
    pool = Pool(Upstream(name="x", url=url))
    try:
        yield pool
    finally:
        await pool.close()


async def look_at(url: str) -> Found:
    async with pool_of(url) as pool:
        return await identify(pool)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (llama_cpp, Kind.LLAMA_CPP),
        (vllm, Kind.VLLM),
        (sglang, Kind.SGLANG),
        (lm_studio, Kind.LM_STUDIO),
        (lambda: Lookalike(v1__models=listing("gpt", owned_by="openai")), Kind.GENERIC),
        (lambda: Lookalike(v1__models=listing("m", owned_by="organization_owner")), Kind.LM_STUDIO),
        (lambda: Lookalike(v1__models={"data": [{"id": "m"}]}), Kind.GENERIC),
    ],
)
async def test_a_model_server_is_recognised_and_is_up(make, kind):
    async with make() as server:
        found = await look_at(server.url)
    assert (kind, True, None) == (found.kind, found.up, found.why)
    assert len(found.cards or ()) == 1


async def test_a_merged_list_of_several_servers_is_nobodys_own():
    both = {"object": "list", "data": [{"id": "a", "owned_by": "vllm"}, {"id": "b", "owned_by": "llamacpp"}]}
    async with Lookalike(v1__models=both) as server:
        found = await look_at(server.url)
    assert found.kind is Kind.GENERIC


@pytest.mark.parametrize("models", [(), ("llama3:8b",)])
async def test_ollama_is_known_by_its_greeting_and_tells_more_of_its_models(models):
    async with ollama(*models) as server:
        found = await look_at(server.url)
    assert (found.kind, found.up) == (Kind.OLLAMA, True)
    assert [card["id"] for card in found.cards or ()] == list(models)
    assert all(card["details"]["parameter_size"] == "8.0B" for card in found.cards or ())


async def test_llama_cpp_that_is_loading_its_model_is_known_but_not_up_yet():
    loading = (503, {"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}})
    async with Lookalike(server="llama.cpp", v1__models=loading) as server:
        found = await look_at(server.url)
    assert (found.kind, found.up, found.why) == (Kind.LLAMA_CPP, False, "is loading its model")


async def test_an_edge_is_known_by_its_server_header_whatever_models_it_lists():
    async with edge() as server:
        assert (await look_at(server.url)).kind is Kind.EDGE


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, "<html>"), "answers 404"),
        ((200, "<html>hello</html>"), "not a list of models"),
        ((200, {"object": "list", "data": [{"name": "no id"}]}), "not a list of models"),
        ((200, {"object": "page", "data": []}), "not a list of models"),
        ((200, {"error": "Unexpected endpoint"}), "not a list of models"),
        ((200, [[[]]]), "not a list of models"),
        ((401, {"error": "Unauthorized"}), "wants an API key"),
        ((302, ""), "redirects are not followed"),
        ((500, ""), "answers 500"),
    ],
)
async def test_what_is_no_model_server_is_not_used_and_the_reason_is_told(answer, why):
    async with Lookalike(v1__models=answer) as server:
        found = await look_at(server.url)
        assert "/elsewhere" not in server.asked
    assert (found.kind, found.up) == (Kind.OTHER, False)
    assert why in (found.why or "")


async def test_a_list_that_could_never_be_passed_on_is_not_a_list():
    deep: dict = {}
    for _ in range(400):
        deep = {"d": deep}
    text = "[" * 400 + "]" * 400
    async with Lookalike(v1__models=f'{{"object":"list","data":[{{"id":"m","meta":{text}}}]}}') as server:
        assert (await look_at(server.url)).kind is Kind.OTHER


async def test_something_else_is_called_what_it_calls_itself():
    async with jupyter() as server:
        assert (await look_at(server.url)).seems == "Jupyter Server"


async def test_a_huge_body_is_not_read_to_its_end():
    left = asyncio.Event()

    async def flood(_reader, writer) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 999999999999\r\n\r\n")
        try:
            while True:
                writer.write(b" " * 65536)
                await writer.drain()
        except ConnectionError:
            left.set()
        finally:
            writer.close()

    async with raw_server(flood) as url, hang_limit():
        found = await look_at(url)
        await left.wait()
    assert (found.kind, found.up) == (Kind.OTHER, False)


async def test_a_server_that_hangs_costs_one_probe(monkeypatch):
    monkeypatch.setattr(servers, "PROBE_S", 0.05)
    async with Lookalike(v1__models="hang") as server:
        found = await look_at(server.url)
        assert server.asked == ["/v1/models"]
    assert (found.kind, found.up) == (Kind.SILENT, False)


async def test_a_server_that_hangs_on_a_further_route_is_still_recognised(monkeypatch):
    monkeypatch.setattr(servers, "PROBE_S", 0.05)
    async with Lookalike(v1__models=listing("m"), api__v0__models="hang") as server:
        assert (await look_at(server.url)).kind is Kind.GENERIC


async def test_what_does_not_speak_http_is_something_else():
    async def other(_reader, writer) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    async with raw_server(other) as url:
        found = await look_at(url)
    assert (found.kind, found.why) == (Kind.OTHER, "accepts connections, but does not answer in HTTP")


async def test_a_closed_port_is_nothing():
    found = await look_at(f"http://127.0.0.1:{free_port()}")
    assert (found.kind, found.why) == (Kind.NOTHING, "refuses connections: nothing listens there")


async def test_a_host_name_that_means_nothing_is_told_as_such(monkeypatch):
    async def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
    found = await look_at("http://nowhere.invalid:8000")
    assert (found.kind, found.why) == (Kind.NOTHING, "has a host name that cannot be resolved")


async def test_a_server_that_answers_like_last_time_is_asked_once_only():
    """The further routes end up in somebody else's error log."""
    async with lm_studio() as server, pool_of(server.url) as pool:
        found = await identify(pool)
        server.asked.clear()
        again = await identify(pool, found)
        assert server.asked == ["/v1/models"]
    assert again == found


def test_llama_cpp_is_not_offered_for_responses_whose_stream_it_gets_wrong():
    assert Surface.RESPONSES not in TRAITS[Kind.LLAMA_CPP].surfaces
    assert {Surface.CHAT, Surface.MESSAGES} < TRAITS[Kind.LLAMA_CPP].surfaces


async def test_a_model_server_on_a_usual_port_is_found_and_told_about_once():
    log = Log()
    async with llama_cpp("tiny") as server, fleet_of(ports=[server.port], log=log) as fleet:
        await fleet.start()
        await fleet.look()
        (member,) = fleet.members
    assert (f"llama.cpp-{server.port}", True, {"tiny"}) == (member.name, member.up, member.models)
    assert member.any_model
    assert member.repairs == {"drop-null-events", "both-reasoning", "role-first", "message-start", "split-long"}
    (told,) = log.entries
    assert ("upstream found", "info", server.url, ["tiny"]) == (
        told["event"],
        told["log_level"],
        told["url"],
        told["models"],
    )


async def test_a_server_that_appears_later_is_used_and_one_that_leaves_is_let_go():
    port, log = free_port(), Log()
    async with fleet_of(ports=[port], log=log) as fleet:
        await fleet.start()
        assert fleet.members == ()
        async with vllm(port=port):
            await fleet.look()
            (member,) = fleet.members
            assert member.up
        await fleet.look()
        assert not member.up
        await fleet.look()
        assert fleet.members == ()
        async with vllm(port=port):
            await fleet.look()
            assert [m.up for m in fleet.members] == [True]
    assert log.events == ["upstream found", "upstream lost", "upstream found"]


async def test_a_server_that_leaves_while_a_stream_runs_keeps_its_connection_until_the_stream_ends():
    port = free_port()
    async with fleet_of(ports=[port]) as fleet:
        async with vllm(port=port):
            await fleet.look()
            (member,) = fleet.members
        member.active += 1
        await fleet.look()
        await fleet.look()
        assert fleet.members == ()
        assert (member.upstream.closed, member.upstream.pool.closed) == (0, False)
        member.active -= 1
        await fleet.look()
        assert (member.upstream.closed, member.upstream.pool.closed) == (1, True)


async def test_another_kind_of_server_on_the_same_port_is_another_upstream():
    port, log = free_port(), Log()
    async with fleet_of(ports=[port], log=log) as fleet:
        async with llama_cpp(port=port):
            await fleet.look()
        async with vllm(port=port):
            await fleet.look()
            assert [m.name for m in fleet.members] == [f"vllm-{port}"]
    assert log.events == ["upstream found", "upstream lost", "upstream found"]


async def test_something_else_on_a_usual_port_is_left_alone_and_told_about_once():
    log = Log()
    async with jupyter() as server, fleet_of(ports=[server.port], log=log) as fleet:
        await fleet.look()
        await fleet.look()
        assert fleet.members == ()
    (told,) = log.entries
    assert (told["event"], told["log_level"], told["seems"]) == ("port left alone", "info", "Jupyter Server")


async def test_a_server_that_wants_a_key_is_told_of_once_and_in_ready():
    log = Log()
    async with vllm() as server, fleet_of(ports=[server.port], log=log) as fleet:
        listed, server.routes["/v1/models"] = server.routes["/v1/models"], (401, {"error": "Unauthorized"})
        await fleet.look()
        await fleet.look()
        (told,) = log.entries
        assert (told["event"], told["log_level"], told["url"]) == ("server not used", "warning", server.url)
        assert "wants an API key" in told["why"]
        assert "api_key" in told["fix"]
        ready, facts = fleet.ready()
        assert (ready, "wants an API key" in facts["reason"], len(facts["locked"])) == (False, True, 1)
        server.routes["/v1/models"] = listed
        await fleet.look()
        assert "locked" not in fleet.ready()[1]


async def test_another_edge_is_left_alone():
    log = Log()
    async with edge() as server, fleet_of(ports=[server.port], log=log) as fleet:
        await fleet.look()
        assert fleet.members == ()
    assert log.events == ["port left alone"]


async def test_our_own_port_is_not_looked_at():
    async with llama_cpp() as server, fleet_of(ports=[server.port], own_ports={server.port}) as fleet:
        await fleet.look()
        assert server.asked == []


async def test_ollama_on_its_port_is_used_in_its_own_api():
    log = Log()
    async with ollama("llama3") as server, fleet_of(ports=[server.port], log=log) as fleet:
        await fleet.look()
        await fleet.look()
        ready, told = fleet.ready()
        (member,) = fleet.members
    assert ready
    assert told["upstreams"][f"ollama-{server.port}"]["up"]
    assert member.native == OLLAMA
    assert Surface.CHAT in member.surfaces
    (line,) = log.entries
    assert line["event"] == "upstream found"


async def test_with_discovery_off_and_nothing_configured_nothing_is_looked_at():
    async with llama_cpp() as server, fleet_of(ports=[server.port], enabled=False) as fleet:
        await fleet.start()
        assert server.asked == []
        ready, told = fleet.ready()
    assert (ready, told["reason"]) == (False, "no upstream is configured, and discovery is off")


async def test_with_upstreams_configured_the_usual_ports_are_not_looked_at():
    async with llama_cpp() as server, vllm() as chosen:
        async with fleet_of(Upstream(name="chosen", url=chosen.url), ports=[server.port]) as fleet:
            await fleet.look()
            assert [m.name for m in fleet.members] == ["chosen"]
        assert server.asked == []
