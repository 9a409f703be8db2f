"""The benchmark measures what it says: what arrives is checked, figures come out, and ``edge bench`` agrees."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from support.hanging import HANG_S, hang_limit
from support.running import Serve

sys.path.insert(0, str(Path(__file__).parent))

import chart
import report
import wire
from checks import Checked, Events, Exact, Tally, Whole
from figures import Measured
from load import Load
from model import Model
from processes import cores
from procfs import Tree
from proxies import Proxy
from rich.console import Console
from scenarios import SCENARIOS, Site

LIMIT_S = HANG_S
PACED = wire.Ask(10, rate=200)
FAST = wire.Ask(500, per=4)
Spoil = Callable[[bytes], bytes]


@pytest.fixture
def model(tmp_path: Path) -> Iterator[Model]:
    """The benchmark's model server, in a process of its own."""
    with Model(cores()[1], tmp_path) as running:
        yield running


async def load_on(url: str, kind: type[Checked], ask: wire.Ask, count: int = 4, *, stream: bool = True) -> Tally:
    async with Load(url) as load:
        await load.start(kind, ask, count, stream=stream)
        await load.until_over(LIMIT_S)
    return load.tally


@asynccontextmanager
async def relay(port: int, spoil: Spoil) -> AsyncIterator[str]:
    """A relay of bytes that changes each answer's, once all of them are there."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", port)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        upstream_writer.write(head + await reader.readexactly(length))
        answer = await upstream_reader.readuntil(b"0\r\n\r\n")
        writer.write(spoil(answer))
        for each in (writer, upstream_writer):
            each.close()
            await each.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**22)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize(
    ("kind", "ask", "stream"),
    [(Events, PACED, True), (Exact, FAST, True), (Events, FAST, True), (Whole, wire.Ask(8), False)],
)
@pytest.mark.parametrize("through_edge", [False, True])
async def test_what_was_sent_arrives(
    model: Model, serve: Serve, kind: type[Checked], ask: wire.Ask, *, stream: bool, through_edge: bool
) -> None:
    """Directly and through Edge, streams and whole answers pass every check."""
    url = (await serve(model.url)).url if through_edge else model.url
    tally = await load_on(url, kind, ask, stream=stream)
    assert tally.faults == {}
    assert tally.whole == 4
    assert (await model.stats())["aborted"] == 0


async def test_a_paced_stream_tells_what_the_way_added(model: Model) -> None:
    """Delays are those of the way alone: far below the pace itself."""
    async with Load(model.url) as load:
        load.tally.recording = True
        await load.start(Events, wire.Ask(10, rate=20), 4)
        await load.until_over(LIMIT_S)
    assert len(load.tally.ttft) == 4
    assert len(load.tally.delays) == 4 * 9
    assert 0 < sorted(load.tally.ttft)[1] < 0.05
    assert 0 < sorted(load.tally.delays)[18] < 0.05


TOKEN = wire.token(7)
LAST = wire.writes(4)[4]  # of the twenty that are asked for below


@pytest.mark.parametrize("kind", [Events, Exact])
@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda answer: answer.replace(b" 0007 ", b" 0008 ", 1), "lost or out of order"),
        (lambda answer: answer.replace(TOKEN, b": " + TOKEN[2:], 1), "lost or out of order"),
        (lambda answer: answer.replace(b" 0007 ", b" 0x07 ", 1), "not a token that was sent"),
        (lambda answer: answer.replace(TOKEN, TOKEN[:50] + b"#" + TOKEN[51:], 1), None),
        (lambda answer: answer.replace(b'"length"', b"null    ", 1), "without finish_reason"),
        (lambda answer: answer.replace(b"data: [DONE]", b": [nothing]!", 1), "without finish_reason or [DONE]"),
        (lambda answer: answer.replace(LAST, b""), "missing at the end"),
        (lambda answer: answer[:-300], "closed in the middle of the answer"),
        (lambda answer: answer[:3000] + answer[3001:], ""),
    ],
    ids=["number", "comment", "letters", "id", "finish", "done", "tail", "cut", "byte"],
)
async def test_what_was_not_sent_is_a_fault(model: Model, kind: type[Checked], spoil: Spoil, fault: str | None) -> None:
    """A lost byte, a lost token or a lost end is told; a change that leaves the text as it is, is none."""
    async with relay(model.port, spoil) as url:
        tally = await load_on(url, kind, wire.Ask(20, per=4), 1)
    if fault is None:
        assert tally.faults == {}
        assert tally.whole == 1
    else:
        assert tally.whole == 0
        assert fault in next(iter(tally.faults))


async def test_a_client_that_leaves_is_counted(model: Model) -> None:
    """The server knows how many streams are alive, and how many were given up."""
    async with Load(model.url) as load:
        await load.start(Events, wire.Ask(1000, rate=100), 3)
        await load.until_begun(3, LIMIT_S)
        assert (await model.stats())["alive"] == 3
        load.leave()
        async with hang_limit():
            while (stats := await model.stats())["alive"]:
                pass
    assert stats["aborted"] == 3
    assert stats["bytes"] > 3 * wire.TOKEN_BYTES


@pytest.mark.parametrize("name", ["S4", "S5", "S6"])
async def test_a_scenario_yields_its_figures(model: Model, serve: Serve, tmp_path: Path, name: str) -> None:
    """Every figure that the tables show is there, and finds its way into table, JSON and chart."""
    edge = await serve(model.url)
    site = Site(Proxy(edge.url, Tree(os.getpid()), 0.0), model, cores()[1], tmp_path, 0.1)
    figures, faults = await SCENARIOS[name].run(site)
    assert faults == {}
    assert {metric.key for metric in SCENARIOS[name].metrics} <= figures.keys()
    assert None not in figures.values()
    results = {name: {"edge": Measured({0: figures})}}
    console = Console(width=140, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123, ASYNC230
    report.show(console, results, {"other": "not here"})
    told = console.export_text()
    console.file.close()
    assert SCENARIOS[name].metrics[0].title in told
    assert "other is missing: not here" in told
    document = report.as_json(results, {}, {})
    assert json.loads(json.dumps(document))["scenarios"][name]["edge"]["median"].keys() == figures.keys()
    assert chart.draw(results).endswith("</svg>\n")


def test_a_ratio_is_of_the_same_round() -> None:
    """A slow minute of the machine that hits both does not change it."""
    edge = Measured({0: {"us": 10.0}, 1: {"us": 100.0}, 2: {"us": 12.0}})
    nginx = Measured({0: {"us": 5.0}, 1: {"us": 50.0}})
    assert edge.ratio(nginx, "us") == 2.0
    assert edge.ratio(None, "us") is None


async def edge_bench(*arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "edge", "bench", *arguments]
    process = await asyncio.create_subprocess_exec(*command, stdout=-1, stderr=-1)
    out, err = await asyncio.wait_for(process.communicate(), 30.0)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


PROMPT = "bench n=20 rate=100 per=1 align=0"


async def test_edge_bench_measures_any_endpoint(model: Model) -> None:
    """Percentiles, rate and counts as JSON; the first model of the list is asked."""
    arguments = ("--url", f"{model.url}/v1", "--streams", "3", "--rounds", "2", "--tokens", "20", "--prompt", PROMPT)
    status, out, err = await edge_bench(*arguments, "--json")
    assert (status, err) == (0, "")
    figures = json.loads(out)
    assert figures["model"] == "bench"
    assert (figures["completed"], figures["failed"]) == (6, 0)
    assert (figures["tokens"], figures["tokens_from"]) == (120, "usage")
    assert figures["tokens_per_s"] > 0
    assert figures["ttft_s"]["p50"] >= 0.009
    assert 0.008 < figures["itl_s"]["p50"] < 0.05
    assert 0.008 < figures["tpot_s"]["p50"] < 0.05


async def test_edge_bench_tells_a_person(model: Model) -> None:
    """Without --json the same as tables."""
    status, out, _ = await edge_bench("--url", model.url, "--streams", "2", "--rounds", "1", "--prompt", PROMPT)
    assert status == 0
    assert "time to first token (TTFT)" in out
    assert "2 streams whole, 0 not" in out


async def test_edge_bench_tells_failures(model: Model) -> None:
    """A refusal is counted with its message, and the exit status says so; nobody there is another one."""
    status, out, _ = await edge_bench("--url", model.url, "--model", "m", "--streams", "2", "--rounds", "1", "--json")
    assert status == 1
    assert json.loads(out)["faults"] == {"status 404: not here": 2}
    status, _, err = await edge_bench("--url", "http://127.0.0.1:9", "--model", "m")
    assert status == 2
    assert "127.0.0.1:9" in err
