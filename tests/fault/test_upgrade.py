"""A new process, or a restart behind a held socket, under load: nobody is refused, no stream is cut."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
from fakes.model_server import DONE, FakeModel, chat_finish, chat_role, chat_token, chunk, end, gate, head
from support.dispositions import PYTHONS_OWN, ignored_by, ignoring
from support.edge_process import EdgeProcess
from support.hanging import hang_limit
from support.raw import CHAT, COMPLETIONS, RawClient, ask, chat_body
from support.running import Lines

ROUNDS = 3
STREAMS = 200
PROMPT = {"model": "m", "prompt": "hi", "stream": True}
# A parent that holds the socket, as systemd does: descriptor 3, and the id of the process that is started.
HELD = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ |= {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '1'}; "
    "os.execv(sys.executable, [sys.executable, '-m', 'edge', 'serve', '--config', sys.argv[2], '--listen', 'systemd'])"
)


@contextlib.asynccontextmanager
async def flow(port: int) -> AsyncIterator[list[int]]:
    """New requests all the time, each on a connection of its own; every one is answered whole."""
    served: list[int] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            answer = await ask(port, COMPLETIONS, PROMPT)
            assert (answer.status, answer.clean, answer.events[-1:]) == (200, True, [DONE]), answer
            served.append(answer.status)

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(client())
        yield served
        stop.set()


async def begin(fake: FakeModel, port: int, count: int, gates: list[str]) -> list[RawClient]:
    """Streams of which each gate lets the next token go; the last one is their end."""
    tokens = [step for name in gates[:-1] for step in (gate(name), chunk(chat_token(name)))]
    clients = [RawClient(port) for _ in range(count)]
    rest = [gate(gates[-1]), chunk(chat_finish() + DONE), end()]
    for client in clients:
        await client.__aenter__()
        fake.script(head(), chunk(chat_role() + chat_token("first")), *tokens, *rest, path=CHAT)
        await client.post(CHAT, chat_body())
    for client in clients:
        await client.until(b"first")
    return clients


async def finish(clients: list[RawClient]) -> None:
    for client in clients:
        answer = await client.answer()
        assert (answer.status, answer.clean, answer.events[-1]) == (200, True, DONE)
        client.close()


async def test_three_upgrades_refuse_nobody_and_cut_nothing(fake: FakeModel, tmp_path: Path) -> None:
    async with EdgeProcess(tmp_path, fake.url, server={"drain_s": 0.5}) as edge:
        await edge.ready()
        async with flow(edge.port) as served:
            clients: list[RawClient] = []
            for turn in range(ROUNDS):
                gates = [f"round-{later}" for later in range(turn, ROUNDS)] + ["rest"]
                clients += await begin(fake, edge.port, STREAMS // (ROUNDS + 1), gates)
                os.kill(edge.successors[-1] if turn else edge.process.pid, signal.SIGUSR2)
                await edge.lines.wait("replaced", turn + 1)
                fake.open(f"round-{turn}")
                for client in clients:
                    await client.until(f"round-{turn}".encode())
                before = len(served)
                while len(served) < before + 10:
                    await asyncio.sleep(0.01)
            clients += await begin(fake, edge.port, STREAMS // (ROUNDS + 1), ["rest"])
            assert len(clients) == STREAMS
            fake.open("rest")
            await finish(clients)
            assert await edge.wait() == 0
            await edge.lines.wait("stopped", ROUNDS)
    assert {line["outcome"] for line in edge.lines.of("exchange")} == {"complete"}
    assert edge.lines.of("refused") == []


async def test_three_restarts_behind_a_held_socket_refuse_nobody_and_cut_nothing(
    fake: FakeModel, tmp_path: Path
) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(f'discovery.enabled = false\n[[upstream]]\nname = "up"\nurl = "{fake.url}"\n')
    with socket.create_server(("127.0.0.1", 0), backlog=512) as held:
        port = held.getsockname()[1]
        async with contextlib.AsyncExitStack() as running:
            process, lines = await running.enter_async_context(started(held, config))
            async with flow(port) as served:
                for turn in range(ROUNDS):
                    clients = await begin(fake, port, -(-STREAMS // ROUNDS), [f"rest-{turn}"])
                    process.send_signal(signal.SIGTERM)
                    await lines.wait("draining")
                    fake.open(f"rest-{turn}")
                    await finish(clients)
                    async with hang_limit():
                        assert await process.wait() == 0
                    process, lines = await running.enter_async_context(started(held, config))
            assert len(served) > ROUNDS


@contextlib.asynccontextmanager
async def started(held: socket.socket, config: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, Lines]]:
    """An Edge that is given the socket, from when its upstream is known."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HELD, str(held.fileno()), str(config),
        pass_fds=[held.fileno()], env={"PATH": os.environ["PATH"]}, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    lines = Lines()

    async def read() -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            lines.write(line.decode())

    reading = asyncio.create_task(read())
    try:
        await lines.wait("upstream found")
        yield process, lines
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await reading
    assert all(line["outcome"] == "complete" for line in lines.of("exchange"))


async def test_one_that_cannot_start_leaves_the_old_one_serving_and_says_why(fake: FakeModel, tmp_path: Path) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        edge.configure("[stream]\nheartbeat_s = -1\n")
        edge.send_signal(signal.SIGUSR2)
        (line,) = await edge.lines.wait("upgrade failed")
        assert "stream.heartbeat_s" in line["why"]
        answer = await ask(edge.port, CHAT, chat_body())
        assert (answer.status, answer.events[-1]) == (200, DONE)
        edge.send_signal(signal.SIGTERM)
        assert await edge.wait() == 0
    assert orjson.dumps(edge.lines.of("replaced")) == b"[]"


async def test_a_client_that_is_connected_is_served_once_more_and_sent_to_the_new_one(
    fake: FakeModel, tmp_path: Path
) -> None:
    async with EdgeProcess(tmp_path, fake.url) as edge:
        await edge.ready()
        async with RawClient(edge.port) as used, RawClient(edge.port) as fresh:
            await used.get("/health")
            assert (await used.answer()).status == 200
            used.buffer = b""
            edge.send_signal(signal.SIGUSR2)
            await edge.lines.wait("replaced")
            for client in (used, fresh):
                await client.post(CHAT, chat_body())
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"], answer.events[-1]) == (200, "close", DONE)
            assert await edge.wait() == 0
        assert (await ask(edge.port, CHAT, chat_body())).status == 200


async def test_one_that_was_replaced_drains_when_the_service_is_stopped_however_often_it_is_told(
    fake: FakeModel, tmp_path: Path
) -> None:
    """As systemd tells it: once with the others, and once more when the main process has ended."""
    fake.script(head(), chunk(chat_role() + chat_token("first")), gate("rest"), chunk(chat_finish() + DONE), end())
    async with EdgeProcess(tmp_path, fake.url) as edge, RawClient(edge.port) as client:
        await edge.ready()
        await client.post(CHAT, chat_body())
        await client.until(b"first")
        edge.send_signal(signal.SIGUSR2)
        await edge.lines.wait("replaced")
        edge.send_signal(signal.SIGTERM)
        await edge.lines.wait("draining")
        edge.send_signal(signal.SIGTERM)
        fake.open("rest")
        await finish([client])
        assert await edge.wait() == 0


async def test_the_new_process_has_its_signals_however_the_old_one_was_started(fake: FakeModel, tmp_path: Path) -> None:
    edge = EdgeProcess(tmp_path, fake.url)
    edge.prefix = ignoring([])
    async with edge:
        await edge.ready()
        edge.send_signal(signal.SIGUSR2)
        await edge.lines.wait("replaced")
        assert ignored_by(edge.successors[-1]) == PYTHONS_OWN
        assert await edge.wait() == 0
        os.kill(edge.successors[-1], signal.SIGINT)
        await edge.lines.wait("stopped", 2)


async def test_a_unix_socket_stays_at_its_path_until_the_last_one_has_ended(fake: FakeModel, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    async with EdgeProcess(tmp_path, fake.url, listen=f"unix:{path}") as edge:
        await edge.ready()
        edge.send_signal(signal.SIGUSR2)
        await edge.lines.wait("replaced")
        assert await edge.wait() == 0
        assert await answers(path)
        os.kill(edge.successors[-1], signal.SIGTERM)
        await edge.lines.wait("stopped", 2)
    assert not path.exists()


async def answers(path: Path) -> bool:
    """Whether an Edge does, at this Unix socket."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer.startswith(b"HTTP/1.1 200")


async def test_one_that_cannot_listen_takes_nothing_away_from_the_old_one(fake: FakeModel, tmp_path: Path) -> None:
    path = tmp_path / "edge.sock"
    rest = f'discovery.enabled = false\n[[upstream]]\nname = "up"\nurl = "{fake.url}"\n'
    async with EdgeProcess(tmp_path, fake.url, listen=None, server={"listen": [f"unix:{path}"]}) as edge:
        await edge.ready()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            edge.configure(f'server.listen = ["unix:{path}", "127.0.0.1:{port}"]\n{rest}')
            edge.send_signal(signal.SIGUSR2)
            (line,) = await edge.lines.wait("upgrade failed")
            assert f"cannot listen on 127.0.0.1:{port}" in line["why"]
        assert await answers(path)
        edge.configure(f'server.listen = ["unix:{path}", "127.0.0.1:0"]\n{rest}')
        edge.send_signal(signal.SIGUSR2)
        await edge.lines.wait("replaced")
        assert await answers(path)
        assert len(edge.lines.of("listening")[-1]["addresses"]) == 2


async def test_the_service_manager_follows_to_the_new_process(fake: FakeModel, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        edge = EdgeProcess(tmp_path, fake.url)
        edge.environ["NOTIFY_SOCKET"] = str(tmp_path / "notify")
        async with edge:
            await edge.ready()
            edge.send_signal(signal.SIGHUP)
            await told(manager, b"RELOADING=1")
            await told(manager, b"READY=1")
            edge.send_signal(signal.SIGUSR2)
            pid = (await told(manager, b"MAINPID=")).removeprefix(b"MAINPID=")
            assert int(pid) == (await edge.lines.wait("replaced"))[0]["pid"]
            # So whoever supervises the old one hears of this one's end too.
            assert parent(int(pid)) != edge.process.pid


def parent(pid: int) -> int:
    """The process id of a running process's parent."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def told(manager: socket.socket, word: bytes) -> bytes:
    """What comes next that begins with this word."""
    async with hang_limit():
        while True:
            data = await asyncio.get_running_loop().sock_recv(manager, 4096)
            if data.startswith(word):
                return data
