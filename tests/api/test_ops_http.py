"""What operators ask: does it live, can it serve and if not why, and metrics that say what the records say."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fakes.model_server import (
    DONE,
    FakeModel,
    chat_answer,
    chat_events,
    chat_finish,
    chat_token,
    chunk,
    end,
    gate,
    head,
    messages_answer,
    rst,
    stream_answer,
)
from prometheus_client.parser import text_string_to_metric_families
from support.raw import CHAT, LIMIT_S, MESSAGES, RawClient, ask, chat_body
from support.running import Line, Running, Serve, make_settings, start
from support.shapes import BODIES, EVERY_SURFACE, get, valid_body

Labels = frozenset[tuple[str, str]]
Series = dict[tuple[str, Labels], float]


async def scrape(edge: Running) -> Series:
    """Every sample of /metrics, parsed as Prometheus would."""
    answer = await get(edge.port, "/metrics")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    return sum(value for (n, found), value in series.items() if n == name and labels.items() <= found)


async def test_health_says_only_that_the_process_lives(serve: Serve, fake: FakeModel) -> None:
    await fake.refuse()
    edge = await serve()
    answer = await get(edge.port, "/health")
    assert (answer.status, answer.json) == (200, {"status": "ok"})
    async with RawClient(edge.port) as client:
        await client.get("/health", method="HEAD")
        assert (await client.until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


async def test_ready_tells_of_each_upstream_what_it_has_or_why_it_is_not_up(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as broken:
        broken.get["/v1/models"] = (401, {}, b"")
        edge = await serve(fake.url, broken.url)
        answer = await get(edge.port, "/ready")
    assert answer.status == 200
    assert (answer.json["ready"], answer.json["reason"]) == (True, None)
    up, down = answer.json["upstreams"]["up"], answer.json["upstreams"]["up1"]
    assert (up["up"], up["models"], up["why"]) == (True, 1, None)
    assert str(fake.port) not in str(answer.json)  # nobody without a key is told where servers are
    assert down["up"] is False
    assert "API key" in down["why"]


async def test_not_ready_is_503_with_the_reasons(serve: Serve, fake: FakeModel) -> None:
    await fake.refuse()
    edge = await serve()
    answer = await get(edge.port, "/ready")
    assert (answer.status, answer.json["ready"]) == (503, False)
    assert answer.json["upstreams"]["up"]["up"] is False
    assert "up refuses connections" in answer.json["reason"]


async def test_ready_by_itself_whatever_the_upstreams_do(serve: Serve, fake: FakeModel) -> None:
    """For a gateway of several nodes: else all of them would leave their load balancer at once."""
    await fake.refuse()
    edge = await serve()
    answer = await get(edge.port, "/ready?self")
    assert (answer.status, answer.json["ready"], answer.json["reason"]) == (200, True, None)
    assert answer.json["upstreams"]["up"]["up"] is False


async def test_not_ready_by_itself_while_nobody_can_be_let_in(serve: Serve) -> None:
    edge = await serve(store={"url": "redis://127.0.0.1:1/0"})
    assert (await ask(edge.port, CHAT, chat_body())).status == 503
    assert (await get(edge.port, "/ready?self")).status == 503


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "sqlite:{directory}"])
async def test_not_ready_while_nobody_can_be_let_in(serve: Serve, tmp_path: Path, url: str) -> None:
    """A probe that said yes would get an Edge all the traffic that it answers with 503."""
    edge = await serve(store={"url": url.format(directory=tmp_path)}, server={"admin_listen": ["127.0.0.1:0"]})
    assert (await ask(edge.port, CHAT, chat_body())).status == 503
    for port in (edge.port, edge.admin_port):
        answer = await get(port, "/ready")
        assert (answer.status, answer.json["ready"]) == (503, False)
        assert "the key store cannot be read: " in answer.json["reason"]
        assert str(tmp_path) not in str(answer.json)
        assert "127.0.0.1" not in str(answer.json)
    (line,) = edge.lines.of("cannot read the key store")
    assert line["effect"] == "only static keys and tokens let anybody in"
    for line in edge.lines.of("store down"):
        assert line["effect"].startswith("nobody is let in")


@pytest.mark.parametrize("auth", [{"keys": ["the-static-key"]}, {"allow_anonymous": True}], ids=str)
async def test_ready_while_somebody_can_be_let_in_without_the_store(serve: Serve, auth: dict[str, Any]) -> None:
    edge = await serve(store={"url": "redis://127.0.0.1:1/0"}, auth=auth)
    assert (await ask(edge.port, CHAT, chat_body(), {"x-api-key": "the-static-key"})).status == 200
    assert (await get(edge.port, "/ready")).status == 200


async def test_not_ready_while_no_token_can_be_verified(serve: Serve) -> None:
    auth = {"jwt_jwks": "http://127.0.0.1:1/jwks", "jwt_issuer": "https://idp.example", "jwt_audience": ["edge"]}
    edge = await serve(auth=auth)
    await edge.lines.wait("token keys not to be had")
    answer = await get(edge.port, "/ready")
    assert (answer.status, answer.json["reason"]) == (503, "the token issuer's keys are not to be had")


async def test_a_ready_edge_forgets_an_upstream_that_could_not_be_reached(serve: Serve, fake: FakeModel) -> None:
    """At once, not only at the next look."""
    fake.close_after_answer = True  # so that no connection is left of Edge's look at it
    edge = await serve(discovery={"interval_s": 3600})
    await fake.refuse()
    assert (await get(edge.port, "/ready")).status == 200
    assert (await ask(edge.port, CHAT, chat_body())).status == 502
    assert (await get(edge.port, "/ready")).status == 503


async def test_a_draining_edge_lives_but_is_not_ready(serve: Serve, fake: FakeModel) -> None:
    """Its running streams go on; probes on connections that stand see it, also those of this Edge alone."""
    fake.script(head(), chunk(chat_token("a")), gate("rest"), chunk(chat_finish() + DONE), end())
    edge = await serve(server={"drain_s": LIMIT_S})
    async with RawClient(edge.port) as stream, RawClient(edge.port) as probe, RawClient(edge.port) as late:
        for client in (probe, late):
            await client.get("/health")
            await client.answer()
            client.buffer = b""
        await stream.post(CHAT, chat_body())
        await stream.until(b'"a"')
        stopping = asyncio.create_task(edge.edge.stop())
        await edge.lines.wait("draining")
        await probe.get("/ready")
        answer = await probe.answer()
        assert (answer.status, answer.json["ready"], answer.json["reason"]) == (503, False, "shutting down")
        probe.buffer = b""
        await probe.get("/ready?self")
        assert (await probe.answer()).status == 503
        probe.buffer = b""
        await probe.get("/health")
        assert (await probe.answer()).status == 200
        await late.post(CHAT, chat_body())
        refused = await late.answer()
        assert (refused.status, refused.json["error"]["code"]) == (503, "shutting_down")
        fake.open("rest")
        whole = await stream.answer()
        assert (whole.clean, whole.events[-1]) == (True, DONE)
        await stopping


async def mixed(edge: Running, fake: FakeModel) -> list[Line]:
    """Exchanges of several kinds and ends."""
    fake.script(*chat_answer(["a", "b", "c"]))
    fake.script(*messages_answer(["a", "b"]))
    fake.script(*chat_answer(["a", "b"]))
    fake.script(head(), chunk(chat_token("a")), rst())
    fake.script(*stream_answer(chat_events(["x"], usage=False)))
    await ask(edge.port, CHAT, chat_body())
    await ask(edge.port, MESSAGES, valid_body(MESSAGES, stream=True))
    await ask(edge.port, CHAT, chat_body(stream=False))
    await ask(edge.port, CHAT, chat_body())
    await ask(edge.port, CHAT, chat_body(), version="1.0")
    return await edge.lines.wait("exchange", 5)


async def test_the_metrics_say_what_the_records_say(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=EVERY_SURFACE)
    records = await mixed(edge, fake)
    series = await scrape(edge)
    assert [record["outcome"] for record in records] == ["complete"] * 3 + ["upstream_cut", "complete"]
    for outcome in ("complete", "upstream_cut"):
        for surface in ("chat", "messages"):
            count = sum((r["outcome"], r["surface"]) == (outcome, surface) for r in records)
            assert total(series, "edge_exchanges_total", outcome=outcome, surface=surface, upstream="up") == count
    for name, field in (("input", "tokens_in"), ("output", "tokens_out")):
        expected = sum(record.get(field, 0) for record in records)
        assert total(series, "gen_ai_client_token_usage_sum", gen_ai_token_type=name) == expected > 0
    assert total(series, "gen_ai_server_request_duration_seconds_count") == len(records)
    durations = sum(record["total_s"] for record in records)
    assert total(series, "gen_ai_server_request_duration_seconds_sum") == pytest.approx(durations, abs=1e-4)
    firsts = [record["ttft_s"] for record in records]
    assert total(series, "gen_ai_server_time_to_first_token_seconds_count") == len(firsts)
    assert total(series, "gen_ai_server_time_to_first_token_seconds_sum") == pytest.approx(sum(firsts), abs=1e-4)
    assert total(series, "edge_http10_total") == sum(record["http10"] for record in records) == 1
    assert total(series, "edge_buffer_peak_bytes_count") == len(records)


async def test_every_series_that_is_promised_is_there(serve: Serve, fake: FakeModel) -> None:
    edge = await serve(upstream=EVERY_SURFACE)
    await mixed(edge, fake)
    names = {name for name, _ in await scrape(edge)}
    assert names >= {
        "gen_ai_server_time_to_first_token_seconds_bucket",
        "gen_ai_server_time_per_output_token_seconds_bucket",
        "gen_ai_server_request_duration_seconds_bucket",
        "gen_ai_client_token_usage_bucket",
        "edge_exchanges_total",
        "edge_streams_active",
        "edge_client_blocked_seconds_total",
        "edge_buffer_peak_bytes_bucket",
        "edge_heartbeats_total",
        "edge_stalls_total",
        "edge_http10_total",
        "edge_build_info",
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "process_open_fds",
        "python_info",
    }


async def test_running_streams_are_counted_while_they_run(serve: Serve, fake: FakeModel) -> None:
    fake.script(head(), chunk(chat_token("a")), gate("rest"), chunk(chat_finish() + DONE), end())
    edge = await serve()
    async with RawClient(edge.port) as client:
        await client.post(CHAT, chat_body())
        await client.until(b'"a"')
        assert total(await scrape(edge), "edge_streams_active") == 1
        fake.open("rest")
        await client.answer()
    await edge.record()
    assert total(await scrape(edge), "edge_streams_active") == 0


async def test_what_clients_write_makes_no_new_series(serve: Serve, fake: FakeModel) -> None:
    """Model names that nobody serves, paths, methods, ids: all of them are somebody else's choice."""
    fake.script(*chat_answer())
    edge = await serve()
    await ask(edge.port, CHAT, chat_body(model="first-unknown"))
    await edge.record()
    before = await scrape(edge)
    odd: dict[str, Any]
    for n, odd in enumerate(
        ({"model": "second-unknown"}, {"model": 'x"} 1\nedge_fake_total 1\n#'}, {"model": "m" * 9999})
    ):
        fake.script(*chat_answer())
        await ask(edge.port, CHAT, chat_body(**odd), {"x-request-id": f"odd-{n}", "User-Agent": f"odd-{n}"})
        await get(edge.port, f"/odd/{n}")
    await edge.lines.wait("exchange", 4)
    after = await scrape(edge)
    assert set(after) == set(before)
    assert "unknown" not in str(set(after))
    assert total(after, "edge_exchanges_total") == 4


async def test_a_known_model_has_a_series_of_its_own(serve: Serve, fake: FakeModel) -> None:
    fake.models = ["m", "n"]
    edge = await serve()
    for model in ("m", "n", "n"):
        await ask(edge.port, CHAT, chat_body(model=model))
    await edge.lines.wait("exchange", 3)
    series = await scrape(edge)
    counted = "gen_ai_server_request_duration_seconds_count"
    assert [total(series, counted, gen_ai_request_model=model) for model in ("m", "n", "other")] == [1, 2, 0]


async def test_a_client_is_told_that_the_server_wants_a_key(serve: Serve, fake: FakeModel) -> None:
    """A 503 that says "start one" sends people looking for a server that is there."""
    fake.get["/v1/models"] = (401, {}, b"{}")
    edge = await serve(upstream={"api_key": "sk-wrong"})
    for path, body in BODIES.items():
        answer = await ask(edge.port, path, {"model": "m", **body})
        assert answer.status == 503, path
        message = answer.json["error"]["message"]
        assert "upstream up wants an API key" in message
        assert "set its api_key in [[upstream]]" in message
    loading = await ask(edge.port, "/api/chat", {"model": "m", "messages": []})
    assert (loading.status, "wants an API key" in loading.json["error"]) == (503, True)


async def test_a_server_that_was_found_and_wants_a_key_is_told_of_as_well(fake: FakeModel, serve: Serve) -> None:
    fake.get["/v1/models"] = (401, {}, b"{}")
    edge = await start(make_settings(discovery={"enabled": True, "ports": [fake.port]}))
    try:
        await edge.wait(lambda: bool(edge.edge.fleet.locked))
        answer = await ask(edge.port, CHAT, chat_body(stream=False))
        assert (answer.status, answer.json["error"]["code"]) == (503, "no_upstream")
        assert f"{fake.url} wants an API key" in answer.json["error"]["message"]
        assert "name it in [[upstream]], with its api_key" in answer.json["error"]["message"]
    finally:
        await edge.stop()


async def test_one_that_is_up_answers_whatever_another_wants(serve: Serve, fake: FakeModel) -> None:
    async with FakeModel() as locked:
        locked.get["/v1/models"] = (401, {}, b"{}")
        edge = await serve(locked.url, fake.url)
        assert (await ask(edge.port, CHAT, chat_body(stream=False))).status == 200
